//! Checkpoints: of two facts about one id the newer counts, whichever arrives first.
//!
//! A checkpoint is the newest creation of its id in its store. It is pruned if its history says so at
//! or after that time, and absent if that creation's session was deleted; the history itself is kept.

use postgres::Transaction;
use postgres::types::Type;

use crate::database::DatabaseError;
use crate::field::Field;
use crate::insert::unnest;
use crate::rows::BatchRows;
use crate::table::{self, Rows};

/// Locks the rows that the batch changes or deletes, in the order of their keys, and no others: a lock is
/// logged, and sending again what is there should log nothing.
///
/// The store's row comes first: creation and pruning may come from two segments, and from two
/// agents, at once.
pub(crate) fn lock(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
) -> Result<(), DatabaseError> {
    if batch.checkpoints_touched.is_empty() && batch.deletions.is_empty() {
        return Ok(());
    }
    transaction.execute_typed(
        "SELECT FROM sync_stores WHERE store_no = $1 FOR NO KEY UPDATE",
        &[(&batch.place.store_no, Type::INT4)],
    )?;
    let touched: Vec<&String> = batch.checkpoints_touched.iter().collect();
    let deleted: Vec<&String> = batch.deletions.keys().collect();
    let versions = batch.checkpoints.iter().map(|(id, row)| (id, &row.version));
    let void = batch.void_checkpoints.iter().map(|(id, burial)| (id, burial.time));
    let (ids, times, hashes) = versions
        .map(|(id, (time, sha256))| (id, Field::Time(*time), Some(sha256)))
        .chain(void.map(|(id, time)| (id, Field::Time(time), None)))
        .collect::<(Vec<_>, Vec<_>, Vec<_>)>();
    transaction.execute_typed(
        LOCK,
        &[
            (&batch.place.store_no, Type::INT4),
            (&touched, Type::TEXT_ARRAY),
            (&deleted, Type::TEXT_ARRAY),
            (&ids, Type::TEXT_ARRAY),
            (&times, Type::TIMESTAMPTZ_ARRAY),
            (&hashes, Type::TEXT_ARRAY),
        ],
    )?;
    Ok(())
}

/// Writes what the batch says of checkpoints, whose rows are locked and whose tombstones are there.
pub(crate) fn write(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
) -> Result<(), DatabaseError> {
    let mut rows = Rows::new(&table::CHECKPOINTS);
    batch.checkpoints.values().for_each(|checkpoint| rows.push(checkpoint.fields.clone()));
    if rows.len() > 0 {
        unnest(transaction, &rows, ON_CONFLICT)?;
    }
    if batch.checkpoints_touched.is_empty() {
        return Ok(());
    }
    let touched: Vec<&String> = batch.checkpoints_touched.iter().collect();
    for sql in [DELETE_VOID, PRUNE] {
        transaction.execute_typed(
            sql,
            &[(&batch.place.store_no, Type::INT4), (&touched, Type::TEXT_ARRAY)],
        )?;
    }
    Ok(())
}

/// Rows that a newer creation replaces, that a void one deletes (it has no hash), or that are pruned.
const LOCK: &str = "
    SELECT FROM checkpoints c
    WHERE c.session_id = ANY ($3)
       OR (c.store_no = $1 AND c.checkpoint_id = ANY ($2)
           AND (EXISTS (SELECT FROM unnest($4, $5, $6) AS new (id, created_at, sha256)
                        WHERE new.id = c.checkpoint_id
                          AND (new.created_at > c.created_at
                               OR new.created_at = c.created_at
                                  AND COALESCE(new.sha256 COLLATE \"C\" > c.sha256 COLLATE \"C\", true)))
                OR c.state = 'present'
                   AND EXISTS (SELECT FROM checkpoint_history h JOIN sync_segments g USING (segment_no)
                               WHERE h.checkpoint_id = c.checkpoint_id AND h.action = 'pruned'
                                 AND h.timestamp >= c.created_at AND g.store_no = c.store_no)))
    ORDER BY c.checkpoint_id, c.store_no FOR UPDATE OF c";

/// The newest creation wins; the hash decides between two of one microsecond. One that is no news, or
/// void, is passed over before its row is locked.
const ON_CONFLICT: &str = "
    WHERE NOT EXISTS (SELECT FROM checkpoints c
                      WHERE c.checkpoint_id = new.checkpoint_id AND c.store_no = new.store_no
                        AND (c.created_at, c.sha256 COLLATE \"C\")
                         >= (new.created_at, new.sha256 COLLATE \"C\"))
      AND NOT EXISTS (SELECT FROM tombstones t
                      WHERE t.kind = 'checkpoint' AND t.key = new.checkpoint_id
                        AND t.store_no = new.store_no AND t.deleted_at >= new.created_at)
    ON CONFLICT (checkpoint_id, store_no) DO UPDATE
    SET segment_no = excluded.segment_no, line_no = excluded.line_no,
        session_id = excluded.session_id, step = excluded.step, created_at = excluded.created_at,
        phi = excluded.phi, kappa = excluded.kappa, regime = excluded.regime,
        basin_coords = excluded.basin_coords, basin_coords_exact = excluded.basin_coords_exact,
        state_dict = excluded.state_dict, metadata = excluded.metadata, file = excluded.file,
        size_bytes = excluded.size_bytes, sha256 = excluded.sha256, state = 'present'
    WHERE (old.created_at, old.sha256 COLLATE \"C\")
        < (excluded.created_at, excluded.sha256 COLLATE \"C\")";

/// A creation that is void hides older ones of its id, too, as it would have replaced them.
const DELETE_VOID: &str = "
    DELETE FROM checkpoints c USING tombstones t
    WHERE c.store_no = $1 AND c.checkpoint_id = ANY ($2)
      AND t.kind = 'checkpoint' AND t.key = c.checkpoint_id AND t.store_no = c.store_no
      AND t.deleted_at >= c.created_at";

/// Pruned, if a pruning of the same store is not older.
const PRUNE: &str = "
    UPDATE checkpoints c SET state = 'pruned'
    WHERE c.store_no = $1 AND c.checkpoint_id = ANY ($2) AND c.state = 'present'
      AND EXISTS (SELECT FROM checkpoint_history h JOIN sync_segments g USING (segment_no)
                  WHERE h.checkpoint_id = c.checkpoint_id AND h.action = 'pruned'
                    AND h.timestamp >= c.created_at AND g.store_no = c.store_no)";
