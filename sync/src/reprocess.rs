//! Entries of kinds that an older agent did not know, and this one does, become rows.
//!
//! They lie in `sync_unknown` with their place and their bytes. The rows of a line depend on nothing
//! else, and what lines say about one thing is folded in any order, so it does not matter that their
//! neighbours came long before. A line leaves `sync_unknown` in the transaction that writes its rows.

use postgres::types::Type;
use postgres::{Row, Transaction};
use tidelog::{Body, Entry};

use crate::apply;
use crate::database::DatabaseError;
use crate::error::SyncError;
use crate::insert::Method;
use crate::place::Place;
use crate::replica::Replica;
use crate::rows::{self, BatchRows};
use crate::sqlstate::Class;
use crate::state::Notice;

/// Most lines of one transaction, and most bytes; one line always fits.
const LINES_MAX: usize = 500;
const BYTES_MAX: i64 = 4 << 20;
/// Most kinds that are looked at.
const KINDS_MAX: i64 = 1000;

/// How long one statement may take; one of the lines may delete a session.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(600);

/// A line in `sync_unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    segment_no: i32,
    line_no: i32,
}

/// Goes through the lines of the store that were kept for a newer agent, if this is one.
pub(crate) fn known_kinds(
    replica: &mut Replica,
    tell: &mut dyn FnMut(&Notice),
) -> Result<(), SyncError> {
    let kinds = replica.kinds_known_now()?;
    if kinds.is_empty() {
        return Ok(());
    }
    let (mut after, mut lines_max) = (Key { segment_no: 0, line_no: -1 }, LINES_MAX);
    let mut lines = 0;
    loop {
        let page = replica.kept_lines(&kinds, after, lines_max)?;
        let Some(last) = page.last() else { break };
        match replica.reprocess(page.clone()) {
            Ok(count) => lines += count,
            // It stays where it is, whole.
            Err(error) if is_about_rows(error.class()) && page.len() == 1 => {}
            Err(error) if is_about_rows(error.class()) => {
                lines_max = 1;
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        after = *last;
        lines_max = lines_max.saturating_mul(2).min(LINES_MAX);
    }
    tell(&Notice::Reprocessed { kinds, lines });
    Ok(())
}

fn is_about_rows(class: Class) -> bool {
    matches!(class, Class::Poison | Class::Duplicate | Class::ForeignKey)
}

impl Replica {
    /// Kinds of entries of the store that were kept and that this agent knows. All lines of a kind
    /// are alike in that, so one of each is looked at.
    fn kinds_known_now(&mut self) -> Result<Vec<String>, DatabaseError> {
        let store_no = self.store_no();
        self.within(LIMIT, "looking for kinds of entries", move |transaction| {
            let rows = transaction.query_typed(
                "SELECT DISTINCT ON (u.event) u.event, u.raw
                 FROM sync_unknown u JOIN sync_segments USING (segment_no)
                 WHERE store_no = $1 ORDER BY u.event, u.segment_no, u.line_no LIMIT $2",
                &[(&store_no, Type::INT4), (&KINDS_MAX, Type::INT8)],
            )?;
            let mut kinds = Vec::new();
            for row in &rows {
                let is_unknown = matches!(
                    Entry::read(row.try_get(1)?),
                    Ok(Entry { body: Body::Unknown { .. }, .. })
                );
                if !is_unknown {
                    kinds.push(row.try_get(0)?);
                }
            }
            Ok(kinds)
        })
    }

    /// The next lines of these kinds, all of one segment.
    fn kept_lines(
        &mut self,
        kinds: &[String],
        after: Key,
        lines_max: usize,
    ) -> Result<Vec<Key>, DatabaseError> {
        let (store_no, kinds) = (self.store_no(), kinds.to_vec());
        let limit = i64::try_from(lines_max).unwrap_or(i64::MAX);
        self.within(LIMIT, "reading lines that were kept", move |transaction| {
            let rows = transaction.query_typed(
                "SELECT u.segment_no, u.line_no, octet_length(u.raw)
                 FROM sync_unknown u JOIN sync_segments USING (segment_no)
                 WHERE store_no = $1 AND u.event = ANY ($2)
                   AND (u.segment_no, u.line_no) > ($3, $4)
                 ORDER BY u.segment_no, u.line_no LIMIT $5",
                &[
                    (&store_no, Type::INT4),
                    (&kinds, Type::TEXT_ARRAY),
                    (&after.segment_no, Type::INT4),
                    (&after.line_no, Type::INT4),
                    (&limit, Type::INT8),
                ],
            )?;
            let mut page: Vec<Key> = Vec::new();
            let mut bytes = 0;
            for row in &rows {
                let key = Key { segment_no: row.try_get(0)?, line_no: row.try_get(1)? };
                bytes += i64::from(row.try_get::<_, i32>(2)?);
                let fits = page
                    .first()
                    .is_none_or(|first| first.segment_no == key.segment_no && bytes <= BYTES_MAX);
                if !fits {
                    break;
                }
                page.push(key);
            }
            Ok(page)
        })
    }

    /// Moves lines of one segment from `sync_unknown` to their rows; how many there still were.
    fn reprocess(&mut self, page: Vec<Key>) -> Result<u64, DatabaseError> {
        self.within(LIMIT, "writing lines that were kept", move |transaction| {
            let Some(first) = page.first() else { return Ok(0) };
            let place = lock_segment(transaction, first.segment_no)?;
            let numbers: Vec<i32> = page.iter().map(|key| key.line_no).collect();
            let lines = take_lines(transaction, first.segment_no, &numbers)?;
            if lines.is_empty() {
                return Ok(0);
            }
            let batch = rows::from_kept(&place, &lines);
            apply::write_entries(transaction, &batch, Method::PassOver)?;
            forget_statistics(transaction, &batch)?;
            Ok(lines.len() as u64)
        })
    }
}

/// Locks a segment as a batch does, so that another agent waits and then finds nothing left.
fn lock_segment(
    transaction: &mut Transaction<'_>,
    segment_no: i32,
) -> Result<Place, DatabaseError> {
    let columns = Place::COLUMNS;
    let row = transaction.query_typed_one(
        &format!("SELECT {columns} FROM sync_segments g WHERE g.segment_no = $1 FOR UPDATE"),
        &[(&segment_no, Type::INT4)],
    )?;
    Place::read(&row)
}

fn take_lines(
    transaction: &mut Transaction<'_>,
    segment_no: i32,
    numbers: &[i32],
) -> Result<Vec<(i32, Vec<u8>)>, DatabaseError> {
    let rows = transaction.query_typed(
        "DELETE FROM sync_unknown WHERE segment_no = $1 AND line_no = ANY ($2)
         RETURNING line_no, raw",
        &[(&segment_no, Type::INT4), (&numbers, Type::INT4_ARRAY)],
    )?;
    let line = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
    let mut lines = rows.iter().map(line).collect::<Result<Vec<_>, DatabaseError>>()?;
    lines.sort();
    Ok(lines)
}

/// No cursor moved, so the statistics do not see by themselves that they are out of date.
fn forget_statistics(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
) -> Result<(), DatabaseError> {
    let sessions: Vec<&String> = batch.sessions.iter().collect();
    let sql = "DELETE FROM sync_session_stats WHERE session_id = ANY ($1)";
    transaction.execute_typed(sql, &[(&sessions, Type::TEXT_ARRAY)])?;
    Ok(())
}
