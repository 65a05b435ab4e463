//! One batch, one transaction: the cursor, everything its lines mean, and the batch's digest.
//!
//! Locks are taken in one order: the cursor's row, sessions' locks (shared, except to delete), the
//! store's row (checkpoints only), rows in the order of their keys, sessions' rows. So agents never
//! wait for each other in a circle.

use std::collections::BTreeSet;

use postgres::Transaction;
use postgres::types::Type;
use tidelog::{SegmentId, SessionId};
use uuid::Uuid;

use crate::database::DatabaseError;
use crate::field::Field;
use crate::insert::{Method, insert, unnest};
use crate::rows::{BatchRows, PartEnd, PartStart};
use crate::table::{self, Rows};

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Cursor and rows moved together.
    Applied,
    /// The cursor was not where the batch begins, so nothing was written: another agent was faster,
    /// or the database was restored to an earlier state.
    Stale,
}

/// Writes a batch.
///
/// # Errors
/// The server refused a statement; the caller rolls back.
pub(crate) fn apply(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
    method: Method,
) -> Result<Outcome, DatabaseError> {
    if !move_cursor(transaction, batch)? {
        return Ok(Outcome::Stale);
    }
    let deleted = deleted_sessions(transaction, batch)?;
    if deleted.is_empty() {
        write(transaction, batch, method)?;
    } else {
        write(transaction, &batch.clone().without(&deleted), method)?;
        purge(transaction, &batch.deletions.keys().collect::<Vec<_>>())?;
    }
    Ok(Outcome::Applied)
}

fn write(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
    method: Method,
) -> Result<(), DatabaseError> {
    for rows in batch.immutable() {
        insert(transaction, rows, method)?;
    }
    write_checkpoints(transaction, batch)?;
    write_digest(transaction, batch)?;
    write_tombstones(transaction, batch)?;
    write_parts(transaction, batch)
}

/// Compares and swaps: the cursor moves only if it is where the batch begins. The row stays locked
/// until the end, so a second agent waits here and then finds the cursor moved.
fn move_cursor(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
) -> Result<bool, DatabaseError> {
    let moved = transaction.execute_typed(
        "UPDATE sync_segments
         SET next_line = $4, next_byte = $5, chain_hash = $6, state = 'streaming', sealed = false,
             updated_at = now()
         WHERE segment_no = $1 AND next_line = $2 AND chain_hash = $3",
        &[
            (&batch.place.segment_no, Type::INT4),
            (&i64::from(batch.from.next_line), Type::INT8),
            (&batch.from.chain.as_bytes().as_slice(), Type::BYTEA),
            (&i64::from(batch.to.next_line), Type::INT8),
            (&i64::try_from(batch.to.next_byte).unwrap_or(i64::MAX), Type::INT8),
            (&batch.to.chain.as_bytes().as_slice(), Type::BYTEA),
        ],
    )?;
    Ok(moved == 1)
}

/// The sessions of this batch that are deleted, be it by the batch itself.
///
/// Each session's lock is held to the end of the transaction: shared to write, alone to delete. So
/// no row of a session can arrive beside its deletion.
fn deleted_sessions(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
) -> Result<BTreeSet<String>, DatabaseError> {
    if batch.sessions.is_empty() {
        return Ok(BTreeSet::new());
    }
    let sessions: Vec<&String> = batch.sessions.iter().collect();
    let alone: Vec<bool> =
        sessions.iter().map(|session| batch.deletions.contains_key(*session)).collect();
    transaction.execute_typed(
        "SELECT CASE WHEN alone THEN pg_advisory_xact_lock(key) ELSE pg_advisory_xact_lock_shared(key) END
         FROM (SELECT hashtextextended('tidelog session ' || session, 0) AS key, alone
               FROM unnest($1, $2) AS s (session, alone) ORDER BY 1) AS sessions",
        &[(&sessions, Type::TEXT_ARRAY), (&alone, Type::BOOL_ARRAY)],
    )?;
    let rows = transaction.query_typed(
        "SELECT DISTINCT key FROM tombstones WHERE kind = 'session' AND key = ANY ($1)",
        &[(&sessions, Type::TEXT_ARRAY)],
    )?;
    let mut deleted: BTreeSet<String> = batch.deletions.keys().cloned().collect();
    for row in &rows {
        deleted.insert(row.try_get(0)?);
    }
    Ok(deleted)
}

/// Deletes every row of these sessions, from whatever store. The audit trail stays.
fn purge(transaction: &mut Transaction<'_>, sessions: &[&String]) -> Result<(), DatabaseError> {
    const TABLES: [&str; 7] = [
        "telemetry_records",
        "emergency_events",
        "basin_history",
        "checkpoints",
        "session_parts",
        "telemetry_sessions",
        "sync_session_stats",
    ];
    if sessions.is_empty() {
        return Ok(());
    }
    for table in TABLES {
        let sql = format!("DELETE FROM {table} WHERE session_id = ANY ($1)");
        transaction.execute_typed(&sql, &[(&sessions, Type::TEXT_ARRAY)])?;
    }
    Ok(())
}

/// The newest creation wins; it is pruned if a pruning of the same store is not older, whichever
/// of the two arrived first.
fn write_checkpoints(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
) -> Result<(), DatabaseError> {
    if batch.checkpoints_touched.is_empty() {
        return Ok(());
    }
    // Creation and pruning may come from two segments, and from two agents, at once.
    transaction.execute_typed(
        "SELECT FROM sync_stores WHERE store_no = $1 FOR NO KEY UPDATE",
        &[(&batch.place.store_no, Type::INT4)],
    )?;
    let mut rows = Rows::new(&table::CHECKPOINTS);
    batch.checkpoints.values().for_each(|checkpoint| rows.push(checkpoint.fields.clone()));
    if rows.len() > 0 {
        unnest(transaction, &rows, ON_CHECKPOINT_CONFLICT)?;
    }
    let touched: Vec<&String> = batch.checkpoints_touched.iter().collect();
    transaction.execute_typed(
        "UPDATE checkpoints c SET state = 'pruned'
         WHERE c.store_no = $1 AND c.checkpoint_id = ANY ($2) AND c.state = 'present'
           AND EXISTS (SELECT FROM checkpoint_history h JOIN sync_segments g USING (segment_no)
                       WHERE h.checkpoint_id = c.checkpoint_id AND h.action = 'pruned'
                         AND h.timestamp >= c.created_at AND g.store_no = c.store_no)",
        &[(&batch.place.store_no, Type::INT4), (&touched, Type::TEXT_ARRAY)],
    )?;
    Ok(())
}

const ON_CHECKPOINT_CONFLICT: &str = "
    ON CONFLICT (checkpoint_id, store_no) DO UPDATE
    SET segment_no = excluded.segment_no, line_no = excluded.line_no,
        session_id = excluded.session_id, step = excluded.step, created_at = excluded.created_at,
        phi = excluded.phi, kappa = excluded.kappa, regime = excluded.regime,
        basin_coords = excluded.basin_coords, basin_coords_exact = excluded.basin_coords_exact,
        state_dict = excluded.state_dict, metadata = excluded.metadata, file = excluded.file,
        size_bytes = excluded.size_bytes, sha256 = excluded.sha256, state = 'present'
    WHERE (old.created_at, old.sha256 COLLATE \"C\")
        < (excluded.created_at, excluded.sha256 COLLATE \"C\")";

fn write_digest(transaction: &mut Transaction<'_>, batch: &BatchRows) -> Result<(), DatabaseError> {
    let entries = batch.lines.saturating_sub(batch.quarantine.len());
    transaction.execute_typed(
        "INSERT INTO sync_batches (segment_no, first_line, next_line, entry_count, digest)
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        &[
            (&batch.place.segment_no, Type::INT4),
            (&i64::from(batch.from.next_line), Type::INT8),
            (&i64::from(batch.to.next_line), Type::INT8),
            (&i64::try_from(entries).unwrap_or(i64::MAX), Type::INT8),
            (&batch.to.chain.as_bytes().as_slice(), Type::BYTEA),
        ],
    )?;
    Ok(())
}

fn write_tombstones(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
) -> Result<(), DatabaseError> {
    for (session, deletion) in &batch.deletions {
        transaction.execute_typed(
            "INSERT INTO tombstones (kind, key, store_no, segment_no, line_no, deleted_at)
             VALUES ('session', $1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            &[
                (session, Type::TEXT),
                (&batch.place.store_no, Type::INT4),
                (&batch.place.segment_no, Type::INT4),
                (&deletion.line_no, Type::INT4),
                (&Field::Time(deletion.deleted_at), Type::TIMESTAMPTZ),
            ],
        )?;
    }
    Ok(())
}

fn write_parts(transaction: &mut Transaction<'_>, batch: &BatchRows) -> Result<(), DatabaseError> {
    let mut touched = part_owners(transaction, batch)?;
    if let (Some(start), Some(session)) = (&batch.start, &batch.place.session) {
        write_start(transaction, batch, start, session)?;
        touched.insert(session.to_string());
    }
    for (segment, end) in &batch.ends {
        write_end(transaction, *segment, end)?;
        touched.insert(end.session.clone());
    }
    if touched.is_empty() {
        return Ok(());
    }
    let sessions: Vec<String> = touched.into_iter().collect();
    transaction.execute_typed("SELECT fold_sessions($1)", &[(&sessions, Type::TEXT_ARRAY)])?;
    Ok(())
}

/// The sessions of these parts so far: an end that was read before may have named another one than
/// the part's own segment does.
fn part_owners(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
) -> Result<BTreeSet<String>, DatabaseError> {
    let own = batch.start.as_ref().map(|_| &batch.place.segment);
    let segments: Vec<Uuid> = batch.ends.keys().chain(own).map(SegmentId::as_uuid).collect();
    if segments.is_empty() {
        return Ok(BTreeSet::new());
    }
    let rows = transaction.query_typed(
        "SELECT session_id FROM session_parts WHERE segment_id = ANY ($1)",
        &[(&segments, Type::UUID_ARRAY)],
    )?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// The part's own segment decides which session it belongs to, and the first start counts.
fn write_start(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
    start: &PartStart,
    session: &SessionId,
) -> Result<(), DatabaseError> {
    transaction.execute_typed(
        "INSERT INTO session_parts AS old (segment_id, session_id, attempt, started_at, metadata)
         VALUES ($1, $2, $3, $4, $5::jsonb)
         ON CONFLICT (segment_id) DO UPDATE
         SET session_id = excluded.session_id, attempt = excluded.attempt,
             started_at = excluded.started_at, metadata = excluded.metadata
         WHERE old.started_at IS NULL",
        &[
            (&batch.place.segment.as_uuid(), Type::UUID),
            (&session.as_str(), Type::TEXT),
            (&batch.place.attempt.unwrap_or(1), Type::INT4),
            (&Field::from(start.started_at), Type::TIMESTAMPTZ),
            (&start.metadata, Type::TEXT),
        ],
    )?;
    Ok(())
}

/// Of two ends of one part the later one counts.
fn write_end(
    transaction: &mut Transaction<'_>,
    segment: SegmentId,
    end: &PartEnd,
) -> Result<(), DatabaseError> {
    transaction.execute_typed(
        "INSERT INTO session_parts AS old (segment_id, session_id, ended_at, status, reason)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (segment_id) DO UPDATE
         SET ended_at = excluded.ended_at, status = excluded.status, reason = excluded.reason
         WHERE old.ended_at IS NULL
            OR (old.ended_at, old.status COLLATE \"C\", COALESCE(old.reason, '') COLLATE \"C\")
             < (excluded.ended_at, excluded.status COLLATE \"C\",
                COALESCE(excluded.reason, '') COLLATE \"C\")",
        &[
            (&segment.as_uuid(), Type::UUID),
            (&end.session, Type::TEXT),
            (&Field::Time(end.ended_at), Type::TIMESTAMPTZ),
            (&end.status, Type::TEXT),
            (&end.reason, Type::TEXT),
        ],
    )?;
    Ok(())
}
