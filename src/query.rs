//! Questions to a store. Each sees everything that was written before the call, by any process; all
//! those to a [snapshot](Store::snapshot) see what was written before it.
//!
//! The index answers, after it has read what is new in the journal; on a store that cannot be
//! written, each call builds a private temporary index from all files.

mod rows;
mod sql;

pub use rows::{CheckpointRow, EmergencyRow, GapRow, SessionRow, SessionStats, TrajectoryPoint};
pub use sql::SqlValue;

use rusqlite::{OptionalExtension, Params, Row};

use crate::checkpoint::{self, Checkpoint};
use crate::entry::Action;
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, SessionId};
use crate::index::{Index, Progress};
use crate::store::{Pinned, Store};

use rows::SavedCheckpoint;

const ONE_CHECKPOINT: &str = "SELECT * FROM checkpoints WHERE checkpoint_id = ?1";

/// From the last record back. The order of the two tables' own keys, so that nothing is sorted.
const TRAJECTORY: &str = "
    SELECT * FROM index_segments CROSS JOIN telemetry_records USING (segment_no, session_id)
    WHERE session_id = ?1
    ORDER BY attempt DESC, created_at DESC, segment_no DESC, line_no DESC LIMIT ?2";

impl Store {
    /// All sessions, newest first.
    ///
    /// # Errors
    /// The journal or the index cannot be read.
    pub fn sessions(&self) -> Result<Vec<SessionRow>> {
        self.all(
            "SELECT * FROM telemetry_sessions ORDER BY started_at DESC, session_id DESC",
            [],
            SessionRow::read,
        )
    }

    /// A session's duration, means and extremes, and what it saved.
    ///
    /// # Errors
    /// [`Error::SessionUnknown`], or the journal or the index cannot be read.
    pub fn get_session_stats(&self, id: &SessionId) -> Result<SessionStats> {
        let query = "SELECT * FROM session_stats WHERE session_id = ?1";
        let row = self.one(query, [id.as_str()], SessionStats::read)?;
        row.ok_or_else(|| self.unknown_session(id))
    }

    /// The last `limit` records of a session, oldest first: in the journal's order, whatever the
    /// clock did. Of ranks that write at once, each one's records stand together.
    ///
    /// # Errors
    /// [`Error::SessionUnknown`], or the journal or the index cannot be read.
    pub fn get_telemetry_trajectory(
        &self,
        id: &SessionId,
        limit: usize,
    ) -> Result<Vec<TrajectoryPoint>> {
        self.with_index(|index| {
            let known = "SELECT 1 FROM telemetry_sessions WHERE session_id = ?1";
            let known = index.db().prepare(known).and_then(|mut known| known.exists([id.as_str()]));
            if !known.map_err(index.failed())? {
                return Err(self.unknown_session(id));
            }
            let params = (id.as_str(), sql_limit(limit));
            let mut points = all(index, TRAJECTORY, params, TrajectoryPoint::read)?;
            points.reverse();
            Ok(points)
        })
    }

    /// Up to `limit` checkpoints, best first: Φ descending with NaN and none last, then newest.
    /// Pruned ones, which have no rank, come after all others.
    ///
    /// # Errors
    /// The journal or the index cannot be read.
    pub fn list_checkpoints(&self, limit: usize) -> Result<Vec<CheckpointRow>> {
        self.all(
            "SELECT * FROM checkpoints
             ORDER BY rank NULLS LAST, NULLIF(phi, 'NaN') DESC, created_at DESC, checkpoint_id
             LIMIT ?1",
            [sql_limit(limit)],
            CheckpointRow::read,
        )
    }

    /// What is known of one checkpoint, pruned or not; its file is not looked at.
    ///
    /// # Errors
    /// [`Error::CheckpointUnknown`], or the journal or the index cannot be read.
    pub fn get_checkpoint(&self, id: &CheckpointId) -> Result<CheckpointRow> {
        let row = self.one(ONE_CHECKPOINT, [id.as_str()], CheckpointRow::read)?;
        row.ok_or_else(|| self.unknown_checkpoint(id))
    }

    /// Loads the checkpoint of rank 1, as [`load_checkpoint`](Self::load_checkpoint) does.
    ///
    /// # Errors
    /// [`Error::NoCheckpoint`], or as [`load_checkpoint`](Self::load_checkpoint).
    pub fn get_best_checkpoint(&self) -> Result<Checkpoint> {
        let query = "SELECT * FROM checkpoints WHERE rank = 1";
        match self.one(query, [], SavedCheckpoint::read)? {
            Some(best) => self.load(best),
            None => Err(Error::NoCheckpoint { store: self.root().to_owned() }),
        }
    }

    /// Loads a checkpoint, after its file's size and SHA-256 were found to be those that were
    /// journaled when it was saved. The whole state is held in memory.
    ///
    /// A store open for writing journals the load, persisted on return. Where that fails, as on a
    /// full disk, so does the call: open the store for reading only to load without a trace.
    ///
    /// # Errors
    /// [`Error::CheckpointUnknown`], [`Error::CheckpointPruned`]; the file is gone, is not what
    /// was saved, or cannot be read; the load cannot be journaled.
    pub fn load_checkpoint(&self, id: &CheckpointId) -> Result<Checkpoint> {
        let saved = self.one(ONE_CHECKPOINT, [id.as_str()], SavedCheckpoint::read)?;
        self.load(saved.ok_or_else(|| self.unknown_checkpoint(id))?)
    }

    fn load(&self, saved: SavedCheckpoint) -> Result<Checkpoint> {
        let SavedCheckpoint { created, created_at, is_pruned } = saved;
        if is_pruned {
            return Err(Error::CheckpointPruned { id: created.checkpoint_id });
        }
        let state_dict = checkpoint::load(self.root(), &created)?;
        if self.persister().is_ok() {
            self.note_checkpoint(&created.checkpoint_id, Action::Loaded, None)?;
        }
        Ok(Checkpoint { created, created_at, state_dict })
    }

    /// Emergency events, newest first: a session's, or all.
    ///
    /// # Errors
    /// The journal or the index cannot be read.
    pub fn emergencies(&self, session: Option<&SessionId>) -> Result<Vec<EmergencyRow>> {
        self.all(
            "SELECT * FROM emergency_events WHERE ?1 IS NULL OR session_id = ?1
             ORDER BY timestamp DESC, event_id DESC",
            [session.map(SessionId::as_str)],
            EmergencyRow::read,
        )
    }

    /// Where records are missing because the disk refused them, newest first: in a session, or in
    /// all. What a writer has not yet been able to write down is not among them.
    ///
    /// # Errors
    /// The journal or the index cannot be read.
    pub fn gaps(&self, session: Option<&SessionId>) -> Result<Vec<GapRow>> {
        self.all(
            "SELECT * FROM telemetry_gaps WHERE ?1 IS NULL OR session_id = ?1
             ORDER BY timestamp DESC, segment_no DESC, line_no DESC",
            [session.map(SessionId::as_str)],
            GapRow::read,
        )
    }

    /// How many lines of the journal are no entries and are missing in every answer.
    /// [`verify`](Store::verify) names them.
    ///
    /// # Errors
    /// The journal or the index cannot be read.
    pub fn damaged_lines(&self) -> Result<u64> {
        let count =
            self.one("SELECT count(*) FROM invalid_lines", [], |row| row.get::<_, i64>(0))?;
        Ok(count.unwrap_or(0).unsigned_abs())
    }

    /// The store as it is now: all queries of the returned value answer from this one moment, also
    /// while writers go on, and none of them reads the journal again. `progress` is called once at
    /// the start and after each batch of lines that the index had not read.
    ///
    /// Not for long: while it is kept, SQLite cannot reuse the space of what others replace.
    ///
    /// # Errors
    /// The journal or the index cannot be read.
    pub fn snapshot(&self, progress: &mut dyn FnMut(Progress)) -> Result<Store> {
        let index = self.caught_up(progress)?.pinned()?;
        let mut snapshot = self.clone();
        snapshot.pinned = Some(Pinned::new(index));
        Ok(snapshot)
    }

    /// Lets the index read what is new in the journal. Queries do it by themselves, without a word
    /// on their progress: `progress` is called once at the start and after each batch of lines.
    ///
    /// # Errors
    /// The journal or the index cannot be read or written.
    pub fn refresh_index(&self, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        self.caught_up(progress).map(|_| ())
    }

    /// Throws the index away and reads the whole journal again. Nothing is lost if this is
    /// interrupted: the next query goes on. `progress` is called after each batch of lines.
    ///
    /// # Errors
    /// The journal or the index cannot be read or written.
    pub fn rebuild_index(&self, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        Index::rebuild(self.root(), self.id(), progress)
    }

    /// Asks the snapshot's index, or one that has read everything.
    fn with_index<T>(&self, ask: impl FnOnce(&Index) -> Result<T>) -> Result<T> {
        match &self.pinned {
            Some(pinned) => ask(&*pinned.lock()?),
            None => ask(&self.caught_up(&mut |_| {})?),
        }
    }

    /// The index, with everything that was recorded before the call.
    fn caught_up(&self, progress: &mut dyn FnMut(Progress)) -> Result<Index> {
        self.flush();
        Index::caught_up(self.root(), self.id(), progress)
    }

    fn all<T>(
        &self,
        query: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        self.with_index(|index| all(index, query, params, read))
    }

    fn one<T>(
        &self,
        query: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        self.with_index(|index| {
            index.db().query_row(query, params, read).optional().map_err(index.failed())
        })
    }

    fn unknown_session(&self, id: &SessionId) -> Error {
        Error::SessionUnknown { id: id.clone(), store: self.root().to_owned() }
    }

    fn unknown_checkpoint(&self, id: &CheckpointId) -> Error {
        Error::CheckpointUnknown { id: id.clone(), store: self.root().to_owned() }
    }
}

fn all<T>(
    index: &Index,
    query: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    index
        .db()
        .prepare(query)
        .and_then(|mut query| query.query_map(params, read)?.collect())
        .map_err(index.failed())
}

fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_records_of_a_session_are_found_without_sorting_all() {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        db.execute_batch(include_str!("index/schema.sql")).unwrap();
        let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {TRAJECTORY}")).unwrap();
        let steps = plan.query_map(("run-7", 10), |row| row.get("detail")).unwrap();
        let steps = steps.collect::<rusqlite::Result<Vec<String>>>().unwrap();
        assert!(steps.iter().all(|step| step.starts_with("SEARCH")), "{steps:?}");
    }
}
