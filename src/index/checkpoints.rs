//! Checkpoints: of two facts about one id the newer counts, whichever is read first.
//!
//! A checkpoint is the newest creation of its id. It is pruned if its history says so at or after
//! that time, and absent if that creation's session was deleted; the history itself is kept.

use rusqlite::params;

use super::apply::Rows;
use super::columns::{Json, Number};
use crate::entry::{Action, CheckpointAction, CheckpointCreated};
use crate::ids::{CheckpointId, SessionId};
use crate::timestamp::Timestamp;
use crate::value::Value;

/// The newest creation wins; the hash decides between two of one microsecond.
const UPSERT: &str = "
INSERT INTO checkpoints (checkpoint_id, segment_no, line_no, session_id, step, created_at, phi,
    kappa, regime, basin_coords, metadata, file, size_bytes, sha256, state_dict, state)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15,
    iif(EXISTS (SELECT 1 FROM checkpoint_history
                WHERE checkpoint_id = ?1 AND action = 'pruned' AND timestamp >= ?6),
        'pruned', 'present')
WHERE NOT EXISTS (SELECT 1 FROM tombstones
                  WHERE kind = 'checkpoint' AND key = ?1 AND deleted_at >= ?6)
ON CONFLICT (checkpoint_id) DO UPDATE SET segment_no = excluded.segment_no,
    line_no = excluded.line_no, session_id = excluded.session_id, step = excluded.step,
    created_at = excluded.created_at, phi = excluded.phi, kappa = excluded.kappa,
    regime = excluded.regime, basin_coords = excluded.basin_coords, metadata = excluded.metadata,
    file = excluded.file, size_bytes = excluded.size_bytes, sha256 = excluded.sha256,
    state_dict = excluded.state_dict, state = excluded.state
WHERE (excluded.created_at, excluded.sha256) > (created_at, sha256)";

/// Writes only rows whose rank changes.
const RANK: &str = "
UPDATE checkpoints SET rank = ranked.rank, is_best = ranked.rank IS 1
FROM (
    SELECT checkpoint_id, CASE state WHEN 'present' THEN row_number() OVER (
        PARTITION BY state ORDER BY NULLIF(phi, 'NaN') DESC, created_at DESC, checkpoint_id) END
        AS rank
    FROM checkpoints
) ranked
WHERE checkpoints.checkpoint_id = ranked.checkpoint_id AND checkpoints.rank IS NOT ranked.rank";

impl Rows<'_> {
    pub(super) fn created(
        &mut self,
        line_no: u32,
        at: Timestamp,
        created: &CheckpointCreated,
    ) -> rusqlite::Result<()> {
        let id = &created.checkpoint_id;
        self.history(line_no, at, id, "created", None)?;
        let session = self.header.session.as_ref().or(created.session_id.as_ref());
        if let Some(session) = session
            && self.is_deleted(session)?
        {
            return self.bury_checkpoint(id, line_no, at);
        }
        self.ranking = true;
        self.db
            .prepare_cached(UPSERT)?
            .execute(params![
                id.as_str(),
                self.segment_no,
                line_no,
                session.map(SessionId::as_str),
                created.step,
                at.to_string(),
                Number(created.phi),
                Number(created.kappa),
                created.regime,
                created.basin_coords.as_ref().map(Json),
                created.metadata.as_ref().map(Json),
                created.file,
                created.size_bytes.cast_signed(),
                created.sha256,
                Json(&created.state_dict),
            ])
            .map(|_| ())
    }

    pub(super) fn action(
        &mut self,
        line_no: u32,
        at: Timestamp,
        action: &CheckpointAction,
    ) -> rusqlite::Result<()> {
        let id = &action.checkpoint_id;
        self.history(line_no, at, id, action.action.as_str(), action.details.as_ref())?;
        if action.action == Action::Pruned {
            self.ranking = true;
            self.db
                .prepare_cached(
                    "UPDATE checkpoints SET state = 'pruned'
                     WHERE checkpoint_id = ?1 AND created_at <= ?2",
                )?
                .execute([id.as_str(), &at.to_string()])?;
        }
        Ok(())
    }

    fn history(
        &self,
        line_no: u32,
        at: Timestamp,
        id: &CheckpointId,
        action: &str,
        details: Option<&Value>,
    ) -> rusqlite::Result<()> {
        self.db
            .prepare_cached("INSERT INTO checkpoint_history VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![
                self.segment_no,
                line_no,
                id.as_str(),
                action,
                at.to_string(),
                details.map(Json),
            ])
            .map(|_| ())
    }

    /// A creation that is void also hides older creations of its id, as it would have replaced
    /// them.
    fn bury_checkpoint(
        &mut self,
        id: &CheckpointId,
        line_no: u32,
        created_at: Timestamp,
    ) -> rusqlite::Result<()> {
        self.ranking = true;
        self.bury("checkpoint", id.as_str(), line_no, created_at)?;
        self.db
            .prepare_cached(
                "DELETE FROM checkpoints WHERE checkpoint_id = ?1 AND created_at <= ?2",
            )?
            .execute([id.as_str(), &created_at.to_string()])
            .map(|_| ())
    }

    pub(super) fn delete_checkpoints_of(&mut self, session: &SessionId) -> rusqlite::Result<()> {
        self.ranking = true;
        self.db
            .prepare_cached(
                "INSERT INTO tombstones (kind, key, segment_no, line_no, deleted_at)
                 SELECT 'checkpoint', checkpoint_id, segment_no, line_no, created_at
                 FROM checkpoints WHERE session_id = ?1
                 ON CONFLICT (kind, key) DO UPDATE SET segment_no = excluded.segment_no,
                     line_no = excluded.line_no, deleted_at = excluded.deleted_at
                 WHERE excluded.deleted_at > deleted_at",
            )?
            .execute([session.as_str()])?;
        self.db
            .prepare_cached("DELETE FROM checkpoints WHERE session_id = ?1")?
            .execute([session.as_str()])
            .map(|_| ())
    }

    /// Ranks those that are present: Φ descending with NaN and none last, newest, id.
    pub(super) fn rank(&self) -> rusqlite::Result<()> {
        self.db.prepare_cached(RANK)?.execute([]).map(|_| ())
    }
}
