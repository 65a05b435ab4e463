//! Deleted sessions: whatever arrives of them, before or after, stays away.

use std::collections::BTreeSet;

use postgres::Transaction;
use postgres::types::Type;
use tidelog::Timestamp;

use crate::database::DatabaseError;
use crate::field::Field;
use crate::rows::{BatchRows, Burial};

/// What of a batch is not written.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    /// Sessions that are deleted, be it by the batch itself.
    pub(crate) sessions: BTreeSet<String>,
    /// Measurements before then are not kept.
    pub(crate) floor: Option<Timestamp>,
}

/// Asks what of this batch is deleted, or older than what is kept.
///
/// Each session's lock is held to the end of the transaction: shared to write, alone to delete. So
/// no row of a session can arrive beside its deletion. A floor cannot move meanwhile, because the
/// segment's row is locked.
pub(crate) fn gone(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
) -> Result<Gone, DatabaseError> {
    let sessions: Vec<&String> = batch.sessions.iter().collect();
    lock_sessions(transaction, batch, &sessions)?;
    let rows = transaction.query_typed(
        "SELECT DISTINCT key, NULL::timestamptz FROM tombstones
         WHERE kind = 'session' AND key = ANY ($1)
         UNION ALL
         SELECT NULL, floor FROM retention_floor WHERE store_no = $2",
        &[(&sessions, Type::TEXT_ARRAY), (&batch.place.store_no, Type::INT4)],
    )?;
    let mut gone = Gone { sessions: batch.deletions.keys().cloned().collect(), floor: None };
    for row in &rows {
        gone.sessions.extend(row.try_get::<_, Option<String>>(0)?);
        let floor: Option<jiff::Timestamp> = row.try_get(1)?;
        // A floor that no timestamp has was set by somebody else, and is before all of them.
        gone.floor = gone.floor.or(floor.and_then(|floor| Timestamp::from_jiff(floor).ok()));
    }
    Ok(gone)
}

fn lock_sessions(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
    sessions: &[&String],
) -> Result<(), DatabaseError> {
    if sessions.is_empty() {
        return Ok(());
    }
    let alone: Vec<bool> =
        sessions.iter().map(|session| batch.deletions.contains_key(*session)).collect();
    transaction.execute_typed(
        "SELECT CASE WHEN alone THEN pg_advisory_xact_lock(key) ELSE pg_advisory_xact_lock_shared(key) END
         FROM (SELECT hashtextextended('tidelog session ' || session, 0) AS key, alone
               FROM unnest($1, $2) AS s (session, alone) ORDER BY 1) AS sessions",
        &[(&sessions, Type::TEXT_ARRAY), (&alone, Type::BOOL_ARRAY)],
    )?;
    Ok(())
}

/// Writes down which sessions the batch deletes, and which of its checkpoints are void.
pub(crate) fn write_tombstones(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
) -> Result<(), DatabaseError> {
    for (session, burial) in &batch.deletions {
        bury(transaction, batch, "session", session, *burial)?;
    }
    for (checkpoint, burial) in &batch.void_checkpoints {
        bury(transaction, batch, "checkpoint", checkpoint, *burial)?;
    }
    Ok(())
}

fn bury(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
    kind: &str,
    key: &str,
    burial: Burial,
) -> Result<(), DatabaseError> {
    transaction.execute_typed(
        &format!(
            "INSERT INTO tombstones AS old (kind, key, store_no, segment_no, line_no, deleted_at)
             SELECT $1, $2, $3, $4, $5, $6
             WHERE NOT EXISTS (SELECT FROM tombstones t
                               WHERE t.kind = $1 AND t.key = $2 AND t.store_no = $3
                                 AND t.deleted_at >= $6)
             {ON_TOMBSTONE_CONFLICT}"
        ),
        &[
            (&kind, Type::TEXT),
            (&key, Type::TEXT),
            (&batch.place.store_no, Type::INT4),
            (&batch.place.segment_no, Type::INT4),
            (&burial.line_no, Type::INT4),
            (&Field::Time(burial.time), Type::TIMESTAMPTZ),
        ],
    )?;
    Ok(())
}

/// Of two tombstones of one thing the later one counts.
const ON_TOMBSTONE_CONFLICT: &str = "
    ON CONFLICT (kind, key, store_no) DO UPDATE
    SET segment_no = excluded.segment_no, line_no = excluded.line_no,
        deleted_at = excluded.deleted_at
    WHERE old.deleted_at < excluded.deleted_at";

/// Deletes every row of the sessions that the batch deletes, from whatever store, and lines that were
/// kept raw. The audit trail stays.
pub(crate) fn purge(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
) -> Result<(), DatabaseError> {
    const TABLES: [&str; 11] = [
        "telemetry_records",
        "emergency_events",
        "basin_history",
        "telemetry_gaps",
        "checkpoints",
        "session_parts",
        "telemetry_sessions",
        "sync_session_stats",
        "sync_quarantine",
        "sync_unknown",
        "sync_lines",
    ];
    if batch.deletions.is_empty() {
        return Ok(());
    }
    let sessions: Vec<&String> = batch.deletions.keys().collect();
    bury_checkpoints(transaction, &sessions)?;
    for table in TABLES {
        let sql = format!("DELETE FROM {table} WHERE session_id = ANY ($1)");
        transaction.execute_typed(&sql, &[(&sessions, Type::TEXT_ARRAY)])?;
    }
    Ok(())
}

/// A checkpoint that goes with its session is void: older ones of its id do not come back.
fn bury_checkpoints(
    transaction: &mut Transaction<'_>,
    sessions: &[&String],
) -> Result<(), DatabaseError> {
    transaction.execute_typed(
        &format!(
            "INSERT INTO tombstones AS old (kind, key, store_no, segment_no, line_no, deleted_at)
             SELECT 'checkpoint', checkpoint_id, store_no, segment_no, line_no, created_at
             FROM checkpoints WHERE session_id = ANY ($1) ORDER BY checkpoint_id, store_no
             {ON_TOMBSTONE_CONFLICT}"
        ),
        &[(&sessions, Type::TEXT_ARRAY)],
    )?;
    Ok(())
}
