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

use crate::checkpoints;
use crate::database::DatabaseError;
use crate::deletion::{self, Gone};
use crate::field::Field;
use crate::insert::{Method, insert, is_copied};
use crate::part::{PartEnd, PartStart};
use crate::quarantine;
use crate::retention;
use crate::rows::BatchRows;

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
    if method == Method::Fast && are_there(transaction, batch)? {
        return Err(DatabaseError::RowsThere);
    }
    write_digest(transaction, batch)?;
    write_entries(transaction, batch, method)?;
    Ok(Outcome::Applied)
}

/// Writes what lines mean, wherever the cursor is.
///
/// # Errors
/// As [`apply`].
pub(crate) fn write_entries(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
    method: Method,
) -> Result<(), DatabaseError> {
    let Gone { sessions, floor } = deletion::gone(transaction, batch)?;
    let floor = floor.filter(|floor| batch.has_measurements_before(*floor));
    if sessions.is_empty() && floor.is_none() {
        return write(transaction, batch, method);
    }
    let mut left = batch.clone().without(&sessions);
    if let Some(floor) = floor {
        let passed_over = left.leave_out_before(floor);
        retention::count(transaction, &batch.place, passed_over)?;
    }
    write(transaction, &left, method)?;
    deletion::purge(transaction, batch)
}

fn write(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
    method: Method,
) -> Result<(), DatabaseError> {
    for rows in batch.immutable() {
        insert(transaction, rows, method)?;
    }
    quarantine::forget_dropped_again(transaction, batch)?;
    checkpoints::lock(transaction, batch)?;
    deletion::write_tombstones(transaction, batch)?;
    checkpoints::write(transaction, batch)?;
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

/// Whether a table that COPY would fill has rows of these lines already. COPY notices only after it
/// wrote its rows, and the server logs them although they are rolled back.
fn are_there(transaction: &mut Transaction<'_>, batch: &BatchRows) -> Result<bool, DatabaseError> {
    let copied = batch.immutable().into_iter().filter(|rows| is_copied(rows, Method::Fast));
    let probes: Vec<String> = copied
        .map(|rows| {
            format!(
                "EXISTS (SELECT FROM {} WHERE segment_no = $1 AND line_no >= $2 AND line_no < $3)",
                rows.table.name
            )
        })
        .collect();
    if probes.is_empty() {
        return Ok(false);
    }
    let row = transaction.query_typed_one(
        &format!("SELECT {}", probes.join(" OR ")),
        &[
            (&batch.place.segment_no, Type::INT4),
            (&i64::from(batch.from.next_line), Type::INT8),
            (&i64::from(batch.to.next_line), Type::INT8),
        ],
    )?;
    Ok(row.try_get(0)?)
}

fn write_digest(transaction: &mut Transaction<'_>, batch: &BatchRows) -> Result<(), DatabaseError> {
    transaction.execute_typed(
        "INSERT INTO sync_batches (segment_no, first_line, next_line, digest)
         VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        &[
            (&batch.place.segment_no, Type::INT4),
            (&i64::from(batch.from.next_line), Type::INT8),
            (&i64::from(batch.to.next_line), Type::INT8),
            (&batch.to.chain.as_bytes().as_slice(), Type::BYTEA),
        ],
    )?;
    Ok(())
}

fn write_parts(transaction: &mut Transaction<'_>, batch: &BatchRows) -> Result<(), DatabaseError> {
    let mut touched = part_owners(transaction, batch)?;
    let mut changed = 0;
    if let (Some(start), Some(session)) = (&batch.start, &batch.place.session) {
        changed += write_start(transaction, batch, start, session)?;
        touched.insert(session.to_string());
    }
    for (segment, end) in &batch.ends {
        changed += write_end(transaction, *segment, end)?;
        touched.insert(end.session.clone());
    }
    // Parts that are there already were folded in the transaction that wrote them; folding locks rows,
    // which is logged.
    if changed == 0 {
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

/// The part's own segment decides which session it belongs to, and the first start counts. A start that
/// is there already is passed over before its row is locked. Returns how many rows changed.
fn write_start(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
    start: &PartStart,
    session: &SessionId,
) -> Result<u64, DatabaseError> {
    Ok(transaction.execute_typed(
        "INSERT INTO session_parts AS old (segment_id, session_id, attempt, started_at, metadata)
         SELECT $1, $2, $3, $4, $5::jsonb
         WHERE NOT EXISTS (SELECT FROM session_parts p
                           WHERE p.segment_id = $1
                             AND (p.started_at IS NOT NULL
                                  OR (p.session_id, p.attempt, p.started_at, p.metadata)
                                     IS NOT DISTINCT FROM ($2, $3, $4, $5::jsonb)))
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
    )?)
}

/// Of two ends of one part the later one counts, and before all others that its writer went on
/// elsewhere. One that is there already is passed over before its row is locked. Returns how many rows
/// changed.
fn write_end(
    transaction: &mut Transaction<'_>,
    segment: SegmentId,
    end: &PartEnd,
) -> Result<u64, DatabaseError> {
    Ok(transaction.execute_typed(
        "INSERT INTO session_parts AS old (segment_id, session_id, ended_at, status, reason)
         SELECT $1, $2, $3, $4, $5
         WHERE NOT EXISTS (SELECT FROM session_parts p
                           WHERE p.segment_id = $1
                             AND (p.status = 'continued', p.ended_at, p.status COLLATE \"C\",
                                  COALESCE(p.reason, '') COLLATE \"C\")
                              >= ($4 = 'continued', $3, $4 COLLATE \"C\",
                                  COALESCE($5, '') COLLATE \"C\"))
         ON CONFLICT (segment_id) DO UPDATE
         SET ended_at = excluded.ended_at, status = excluded.status, reason = excluded.reason
         WHERE old.ended_at IS NULL
            OR (old.status = 'continued', old.ended_at, old.status COLLATE \"C\",
                COALESCE(old.reason, '') COLLATE \"C\")
             < (excluded.status = 'continued', excluded.ended_at, excluded.status COLLATE \"C\",
                COALESCE(excluded.reason, '') COLLATE \"C\")",
        &[
            (&segment.as_uuid(), Type::UUID),
            (&end.session, Type::TEXT),
            (&Field::Time(end.ended_at), Type::TIMESTAMPTZ),
            (&end.status, Type::TEXT),
            (&end.reason, Type::TEXT),
        ],
    )?)
}
