//! Sessions, folded from their parts.
//!
//! A session has one **part** in each of its segments. Start and end of a part may come from
//! different segments and in any order, so each fills only its own columns; sums over the part's
//! records are added up line by line, so that they are the same bits however the lines were cut
//! into batches. The session's row is worked out from its parts alone.

use rusqlite::{Connection, OptionalExtension, params};

use super::apply::Rows;
use super::columns::{Json, Number, Parsed};
use crate::entry::{SessionEnded, SessionStarted};
use crate::ids::{SegmentId, SessionId};
use crate::telemetry::Telemetry;
use crate::timestamp::Timestamp;

/// Numbers beyond this are left out of means: their sum would overflow.
const MEAN_MAX: f64 = 1e290;

/// Sums over the records of one part.
#[derive(Debug, Default)]
pub(super) struct PartSums {
    records: u32,
    phi: Sums,
    kappa: Sums,
}

/// Sums over one field: NaN and what was not measured do not count.
#[derive(Debug, Default)]
struct Sums {
    count: u32,
    sum: f64,
    max: Option<f64>,
    min: Option<f64>,
}

impl Sums {
    fn add(&mut self, number: Option<f64>) {
        let Some(number) = number.filter(|number| !number.is_nan()) else { return };
        if self.max.is_none_or(|max| number > max) {
            self.max = Some(number);
        }
        if self.min.is_none_or(|min| number < min) {
            self.min = Some(number);
        }
        if number.abs() <= MEAN_MAX {
            self.count += 1;
            self.sum += number;
        }
    }
}

impl PartSums {
    pub(super) fn read(db: &Connection, segment: SegmentId) -> rusqlite::Result<Self> {
        let found = db
            .prepare_cached(
                "SELECT records, phi_count, phi_sum, phi_max, phi_min, kappa_count, kappa_sum
                 FROM session_parts WHERE segment_id = ?1",
            )?
            .query_row([segment.to_string()], |row| {
                let number = |column| row.get(column).map(|Number(number)| number);
                Ok(Self {
                    records: row.get(0)?,
                    phi: Sums {
                        count: row.get(1)?,
                        sum: row.get(2)?,
                        max: number(3)?,
                        min: number(4)?,
                    },
                    kappa: Sums { count: row.get(5)?, sum: row.get(6)?, ..Sums::default() },
                })
            })
            .optional()?;
        Ok(found.unwrap_or_default())
    }

    pub(super) fn add(&mut self, telemetry: &Telemetry) {
        self.records += 1;
        self.phi.add(telemetry.phi);
        self.kappa.add(telemetry.kappa_eff);
    }
}

/// The fold. No part, no row. A part that is continued is over, and its successor tells how the
/// session ended; a successor that was lost was aborted.
const FOLD: &str = "
INSERT INTO telemetry_sessions
SELECT ?1,
       min(started_at),
       CASE WHEN count(*) = count(ended_at) THEN max(ended_at) END,
       CASE WHEN count(*) = count(ended_at) THEN
           coalesce((SELECT status FROM session_parts
                     WHERE session_id = ?1 AND status <> 'continued'
                     ORDER BY ended_at DESC, attempt DESC, segment_id DESC LIMIT 1), 'aborted')
       ELSE 'active' END,
       coalesce(max(attempt), 1),
       sum(records),
       sum(phi_sum ORDER BY segment_id) / nullif(sum(phi_count), 0),
       max(phi_max),
       min(phi_min),
       sum(kappa_sum ORDER BY segment_id) / nullif(sum(kappa_count), 0),
       (SELECT count(*) FROM emergency_events WHERE session_id = ?1),
       (SELECT metadata FROM session_parts WHERE session_id = ?1 AND metadata IS NOT NULL
        ORDER BY attempt NULLS LAST, started_at NULLS LAST, segment_id LIMIT 1)
FROM session_parts
WHERE session_id = ?1
HAVING count(*) > 0
ON CONFLICT (session_id) DO UPDATE SET
    started_at = excluded.started_at, ended_at = excluded.ended_at, status = excluded.status,
    attempts = excluded.attempts, total_steps = excluded.total_steps,
    avg_phi = excluded.avg_phi, max_phi = excluded.max_phi, min_phi = excluded.min_phi,
    avg_kappa = excluded.avg_kappa, emergency_count = excluded.emergency_count,
    metadata = excluded.metadata";

impl Rows<'_> {
    /// A part begins with its segment, whose header tells its session and attempt, even if an end
    /// that was read before named another session.
    pub(super) fn begin_part(&mut self) -> rusqlite::Result<()> {
        let header = self.header;
        let Some(session) = &header.session else { return Ok(()) };
        if self.is_deleted(session)? {
            return Ok(());
        }
        self.touch(header.segment, session)?;
        self.db
            .prepare_cached(
                "INSERT INTO session_parts (segment_id, session_id, attempt) VALUES (?1, ?2, ?3)
                 ON CONFLICT (segment_id) DO UPDATE SET session_id = excluded.session_id,
                     attempt = excluded.attempt",
            )?
            .execute(params![
                header.segment.to_string(),
                session.as_str(),
                header.attempt.unwrap_or(1),
            ])
            .map(|_| ())
    }

    /// A part's session is folded again, and so is the one that the part belonged to so far.
    fn touch(&mut self, segment: SegmentId, session: &SessionId) -> rusqlite::Result<()> {
        let owner: Option<Parsed<SessionId>> = self
            .db
            .prepare_cached("SELECT session_id FROM session_parts WHERE segment_id = ?1")?
            .query_row([segment.to_string()], |row| row.get(0))
            .optional()?;
        self.sessions.extend(owner.map(|Parsed(owner)| owner));
        self.sessions.insert(session.clone());
        Ok(())
    }

    /// The first start counts.
    pub(super) fn started(
        &mut self,
        session: &SessionId,
        at: Timestamp,
        started: &SessionStarted,
    ) -> rusqlite::Result<()> {
        self.sessions.insert(session.clone());
        self.db
            .prepare_cached(
                "UPDATE session_parts SET started_at = ?2, metadata = ?3
                 WHERE segment_id = ?1 AND started_at IS NULL",
            )?
            .execute(params![
                self.header.segment.to_string(),
                at.to_string(),
                started.metadata.as_ref().map(Json),
            ])
            .map(|_| ())
    }

    /// Of two ends of one part the later one counts. That its writer went on elsewhere only this one
    /// knows, so it counts before all others: its marker may look like that of a dead writer's.
    pub(super) fn ended(
        &mut self,
        segment: SegmentId,
        session: &SessionId,
        at: Timestamp,
        ended: &SessionEnded,
    ) -> rusqlite::Result<()> {
        if self.is_deleted(session)? {
            return Ok(());
        }
        self.touch(segment, session)?;
        self.db
            .prepare_cached(
                "INSERT INTO session_parts (segment_id, session_id, ended_at, status, reason)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (segment_id) DO UPDATE SET ended_at = excluded.ended_at,
                     status = excluded.status, reason = excluded.reason
                 WHERE ended_at IS NULL
                    OR (excluded.status = 'continued', excluded.ended_at, excluded.status,
                        coalesce(excluded.reason, ''))
                        > (status = 'continued', ended_at, status, coalesce(reason, ''))",
            )?
            .execute(params![
                segment.to_string(),
                session.as_str(),
                at.to_string(),
                ended.outcome.as_str(),
                ended.reason,
            ])
            .map(|_| ())
    }

    pub(super) fn write_sums(&mut self) -> rusqlite::Result<()> {
        let (Some(sums), Some(session)) = (self.sums.take(), &self.header.session) else {
            return Ok(());
        };
        self.sessions.insert(session.clone());
        self.db
            .prepare_cached(
                "UPDATE session_parts SET records = ?2, phi_count = ?3, phi_sum = ?4, phi_max = ?5,
                     phi_min = ?6, kappa_count = ?7, kappa_sum = ?8
                 WHERE segment_id = ?1",
            )?
            .execute(params![
                self.header.segment.to_string(),
                sums.records,
                sums.phi.count,
                sums.phi.sum,
                Number(sums.phi.max),
                Number(sums.phi.min),
                sums.kappa.count,
                sums.kappa.sum,
            ])
            .map(|_| ())
    }

    pub(super) fn fold_sessions(&self) -> rusqlite::Result<()> {
        let mut fold = self.db.prepare_cached(FOLD)?;
        for session in &self.sessions {
            if fold.execute([session.as_str()])? == 0 {
                self.db
                    .prepare_cached("DELETE FROM telemetry_sessions WHERE session_id = ?1")?
                    .execute([session.as_str()])?;
            }
        }
        Ok(())
    }

    /// Whether a session was deleted, in this batch or before.
    pub(super) fn is_deleted(&mut self, session: &SessionId) -> rusqlite::Result<bool> {
        if let Some(known) = self.deleted.get(session) {
            return Ok(*known);
        }
        let deleted = self
            .db
            .prepare_cached("SELECT 1 FROM tombstones WHERE kind = 'session' AND key = ?1")?
            .exists([session.as_str()])?;
        self.deleted.insert(session.clone(), deleted);
        Ok(deleted)
    }

    /// Removes a session's rows, and remembers it so that none come back. The history of its
    /// checkpoints stays.
    pub(super) fn delete_session(
        &mut self,
        session: &SessionId,
        line_no: u32,
        at: Timestamp,
    ) -> rusqlite::Result<()> {
        self.deleted.insert(session.clone(), true);
        self.sessions.remove(session);
        self.bury("session", session.as_str(), line_no, at)?;
        self.delete_checkpoints_of(session)?;
        for table in ["telemetry_sessions", "emergency_events", "session_parts"] {
            self.delete(session, &format!("DELETE FROM {table} WHERE session_id = ?1"))?;
        }
        // these have no other session than their segment's, and perhaps no index of it at the moment
        for table in ["telemetry_records", "basin_history", "telemetry_gaps"] {
            let segments = "SELECT segment_no FROM index_segments WHERE session_id = ?1";
            self.delete(session, &format!("DELETE FROM {table} WHERE segment_no IN ({segments})"))?;
        }
        Ok(())
    }

    fn delete(&self, session: &SessionId, sql: &str) -> rusqlite::Result<()> {
        self.db.prepare_cached(sql)?.execute([session.as_str()]).map(|_| ())
    }

    /// Of two tombstones of one thing the later one counts.
    pub(super) fn bury(
        &self,
        kind: &str,
        key: &str,
        line_no: u32,
        at: Timestamp,
    ) -> rusqlite::Result<()> {
        self.db
            .prepare_cached(
                "INSERT INTO tombstones (kind, key, segment_no, line_no, deleted_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (kind, key) DO UPDATE SET segment_no = excluded.segment_no,
                     line_no = excluded.line_no, deleted_at = excluded.deleted_at
                 WHERE excluded.deleted_at > deleted_at",
            )?
            .execute(params![kind, key, self.segment_no, line_no, at.to_string()])
            .map(|_| ())
    }
}
