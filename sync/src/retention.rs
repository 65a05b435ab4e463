//! How long PostgreSQL keeps measurements. A store has a floor that only moves forward: what was
//! measured before it is deleted, and never written again, also when everything is sent once more.
//!
//! The floor moves before the first row goes, so whatever moment a crash goes back to, rows below it
//! are at most still there, and the next run deletes them. Rows go in chunks of some thousand lines, a
//! transaction each, which wait for nobody. Ranges of lines are taken by the primary key, so a chunk
//! never reads more than it may delete.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use postgres::types::Type;
use postgres::{Client, Transaction};
use serde::Serialize;
use tidelog::{StoreId, Timestamp};
use uuid::Uuid;

use crate::connect::Target;
use crate::database::{Database, DatabaseError, Limits, transaction};
use crate::error::SyncError;
use crate::field::Field;
use crate::place::Place;
use crate::rows::BatchRows;
use crate::schema;
use crate::sqlstate::Class;
use crate::table::Rows;

/// Tables with measurements, in the order in which they are emptied.
const TABLES: [&str; 4] =
    ["telemetry_records", "emergency_events", "basin_history", "telemetry_gaps"];

/// Lines of one chunk.
const CHUNK_LINES: i32 = 10_000;

/// Looking for old rows reads the blocks of the time before the floor.
const DEADLINE: Duration = Duration::from_secs(620);
const LIMITS: Limits = Limits {
    statement: Duration::from_secs(600),
    lock: Duration::from_secs(10),
    idle: Duration::from_secs(60),
};

/// How often a step is tried again that met a lock, and how long after.
const TRIES_MAX: u32 = 6;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What went of a store, or would go. The names of the fields are a contract of `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Retained {
    /// The store.
    pub store_id: Uuid,
    /// Measurements from here on are kept.
    pub floor: jiff::Timestamp,
    /// Rows of `telemetry_records`, `emergency_events`, `basin_history` and `telemetry_gaps` that
    /// went, or would go.
    pub rows: u64,
}

/// The floors of a database.
pub struct Retention {
    database: Database,
}

/// Old rows of one table and segment.
#[derive(Debug, Clone, Copy)]
struct Piece {
    table: &'static str,
    segment_no: i32,
    first_line: i32,
    last_line: i32,
    rows: i64,
}

impl Retention {
    /// Connects, and checks the schema.
    ///
    /// # Errors
    /// The database is not reached, or its schema is another one.
    pub fn connect(target: &Target) -> Result<Self, SyncError> {
        Ok(Self { database: schema::connect(target, DEADLINE)? })
    }

    /// What [`apply`](Self::apply) would delete now. Writes nothing.
    ///
    /// # Errors
    /// The database does not know the store, or does not answer.
    pub fn look(
        &mut self,
        store: Option<StoreId>,
        older_than: Duration,
    ) -> Result<Vec<Retained>, SyncError> {
        let mut found = Vec::new();
        for (store_no, store_id) in self.stores(store)? {
            let age = older_than.as_secs_f64();
            let floor = self.run("reading a floor", move |client| {
                let row = client.query_typed_one(
                    "SELECT GREATEST(now() - make_interval(secs => $2), max(floor))
                     FROM retention_floor WHERE store_no = $1",
                    &[(&store_no, Type::INT4), (&age, Type::FLOAT8)],
                )?;
                Ok(row.try_get(0)?)
            })?;
            let pieces = self.pieces(store_no, floor)?;
            let rows = pieces.iter().map(|piece| piece.rows.unsigned_abs()).sum();
            found.push(Retained { store_id, floor, rows });
        }
        Ok(found)
    }

    /// Moves the floor of a store, or of each, to `older_than` before the server's clock, unless it is
    /// later already, and deletes what is below it. Again goes on.
    ///
    /// Statistics of sessions are calculated from what is left; sessions, checkpoints and the audit
    /// trail stay, and so do lines in quarantine that never had a row.
    ///
    /// # Errors
    /// The database does not know the store, or does not answer.
    pub fn apply(
        &mut self,
        store: Option<StoreId>,
        older_than: Duration,
    ) -> Result<Vec<Retained>, SyncError> {
        let mut done = Vec::new();
        let mut sessions = BTreeSet::new();
        for (store_no, store_id) in self.stores(store)? {
            let age = older_than.as_secs_f64();
            let floor = self.in_transaction("moving a floor", move |transaction| {
                move_floor(transaction, store_no, age)
            })?;
            let mut rows = 0;
            for piece in self.pieces(store_no, floor)? {
                rows += self.delete(piece, floor, &mut sessions)?;
            }
            done.push(Retained { store_id, floor, rows });
        }
        self.refresh(sessions)?;
        Ok(done)
    }

    fn stores(&mut self, only: Option<StoreId>) -> Result<Vec<(i32, Uuid)>, SyncError> {
        let mut stores = self.run("reading the stores", move |client| {
            let sql = "SELECT store_no, store_id FROM sync_stores ORDER BY store_no";
            let rows = client.query_typed(sql, &[])?;
            let stores = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
            stores.collect::<Result<Vec<(i32, Uuid)>, DatabaseError>>()
        })?;
        let Some(only) = only else { return Ok(stores) };
        let known = stores.clone();
        stores.retain(|(_, id)| *id == only.as_uuid());
        match stores.is_empty() {
            true => Err(SyncError::store_unknown(only, known.iter().map(|(_, id)| id))),
            false => Ok(stores),
        }
    }

    /// Where old rows of a store are.
    fn pieces(
        &mut self,
        store_no: i32,
        floor: jiff::Timestamp,
    ) -> Result<Vec<Piece>, DatabaseError> {
        let mut pieces = Vec::new();
        for table in TABLES {
            let sql = format!(
                "SELECT segment_no, min(t.line_no), max(t.line_no), count(*)
                 FROM {table} t JOIN sync_segments g USING (segment_no)
                 WHERE g.store_no = $1 AND t.timestamp < $2
                 GROUP BY segment_no ORDER BY segment_no"
            );
            let of_table = self.run("looking for old rows", move |client| {
                let rows = client
                    .query_typed(&sql, &[(&store_no, Type::INT4), (&floor, Type::TIMESTAMPTZ)])?;
                let piece = |row: &postgres::Row| {
                    Ok(Piece {
                        table,
                        segment_no: row.try_get(0)?,
                        first_line: row.try_get(1)?,
                        last_line: row.try_get(2)?,
                        rows: row.try_get(3)?,
                    })
                };
                rows.iter().map(piece).collect::<Result<Vec<_>, DatabaseError>>()
            })?;
            pieces.extend(of_table);
        }
        Ok(pieces)
    }

    fn delete(
        &mut self,
        piece: Piece,
        floor: jiff::Timestamp,
        sessions: &mut BTreeSet<String>,
    ) -> Result<u64, DatabaseError> {
        let mut rows = 0;
        let mut first = piece.first_line;
        while first <= piece.last_line {
            let chunk = Piece { first_line: first, ..piece };
            let (deleted, touched) = self
                .in_transaction("deleting old rows", move |transaction| {
                    delete_chunk(transaction, chunk, floor)
                })?;
            rows += deleted.unsigned_abs();
            sessions.extend(touched);
            first = first.saturating_add(CHUNK_LINES);
            if first == i32::MAX {
                break;
            }
        }
        Ok(rows)
    }

    /// Brings statistics up to date. Sessions that this does not get to are found by the agent at its
    /// next start.
    fn refresh(&mut self, sessions: BTreeSet<String>) -> Result<(), DatabaseError> {
        for session in sessions {
            self.in_transaction("calculating the statistics of a session", move |transaction| {
                transaction
                    .execute_typed("SELECT update_session_stats($1)", &[(&session, Type::TEXT)])?;
                Ok(())
            })?;
        }
        Ok(())
    }

    fn run<T: Send + 'static>(
        &mut self,
        what: &str,
        work: impl FnOnce(&mut Client) -> Result<T, DatabaseError> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        self.database.run(DEADLINE, what, work)
    }

    /// Tries again what met a lock.
    fn in_transaction<T: Send + 'static>(
        &mut self,
        what: &str,
        work: impl Fn(&mut Transaction<'_>) -> Result<T, DatabaseError> + Clone + Send + 'static,
    ) -> Result<T, DatabaseError> {
        for _ in 1..TRIES_MAX {
            let work = work.clone();
            match self.run(what, move |client| transaction(client, &LIMITS, work)) {
                Err(error) if error.class() == Class::Retry => thread::sleep(TRY_AGAIN_AFTER),
                outcome => return outcome,
            }
        }
        self.run(what, move |client| transaction(client, &LIMITS, work))
    }
}

/// Moves a floor forward; where it is then.
///
/// Whoever writes a batch holds its segment's row, and looks at the floor afterwards. So once all rows
/// of the store were held here, batches that did not see the new floor are committed, and their rows
/// are found. The store's row keeps new segments out, and those that came before it was held are held
/// as well.
fn move_floor(
    transaction: &mut Transaction<'_>,
    store_no: i32,
    age: f64,
) -> Result<jiff::Timestamp, DatabaseError> {
    const SEGMENTS: &str =
        "SELECT FROM sync_segments WHERE store_no = $1 ORDER BY segment_no FOR SHARE";
    const STORE: &str = "SELECT FROM sync_stores WHERE store_no = $1 FOR UPDATE";
    for lock in [SEGMENTS, STORE, SEGMENTS] {
        transaction.execute_typed(lock, &[(&store_no, Type::INT4)])?;
    }
    transaction.execute_typed(
        "INSERT INTO retention_floor AS old (store_no, floor)
         VALUES ($1, now() - make_interval(secs => $2))
         ON CONFLICT (store_no) DO UPDATE SET floor = excluded.floor, moved_at = now()
         WHERE old.floor < excluded.floor",
        &[(&store_no, Type::INT4), (&age, Type::FLOAT8)],
    )?;
    let row = transaction.query_typed_one(
        "SELECT floor FROM retention_floor WHERE store_no = $1",
        &[(&store_no, Type::INT4)],
    )?;
    Ok(row.try_get(0)?)
}

/// Deletes the old rows of some lines, what is kept beside them, and the note that the statistics of
/// their sessions are up to date. Rows that another one deletes are passed over.
fn delete_chunk(
    transaction: &mut Transaction<'_>,
    chunk: Piece,
    floor: jiff::Timestamp,
) -> Result<(i64, Vec<String>), DatabaseError> {
    let table = chunk.table;
    let sql = format!(
        "WITH old AS (
             SELECT segment_no, line_no FROM {table}
             WHERE segment_no = $1 AND line_no >= $2 AND line_no < $3 AND timestamp < $4
             FOR UPDATE SKIP LOCKED
         ), gone AS (
             DELETE FROM {table} t USING old
             WHERE t.segment_no = old.segment_no AND t.line_no = old.line_no
             RETURNING t.segment_no, t.line_no, t.session_id
         ), beside AS (
             DELETE FROM sync_quarantine q USING gone
             WHERE q.segment_no = gone.segment_no AND q.line_no = gone.line_no
         ), whole AS (
             DELETE FROM sync_lines l USING gone
             WHERE l.segment_no = gone.segment_no AND l.line_no = gone.line_no
         ), stale AS (
             DELETE FROM sync_session_stats WHERE session_id IN (SELECT session_id FROM gone)
         )
         SELECT count(*), COALESCE(array_agg(DISTINCT session_id) FILTER (WHERE session_id IS NOT NULL),
                                   '{{}}')
         FROM gone"
    );
    let end = i64::from(chunk.first_line) + i64::from(CHUNK_LINES);
    let row = transaction.query_typed_one(
        &sql,
        &[
            (&chunk.segment_no, Type::INT4),
            (&i64::from(chunk.first_line), Type::INT8),
            (&end, Type::INT8),
            (&floor, Type::TIMESTAMPTZ),
        ],
    )?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

impl BatchRows {
    /// Tables of what was measured at a time.
    fn measurements(&mut self) -> [&mut Rows; 4] {
        [&mut self.records, &mut self.emergencies, &mut self.basins, &mut self.gaps]
    }

    pub(crate) fn has_measurements_before(&self, floor: Timestamp) -> bool {
        let tables = [&self.records, &self.emergencies, &self.basins, &self.gaps];
        tables.iter().any(|rows| rows.has_before(floor))
    }

    /// Leaves out what was measured before then, and the lines that are kept beside it; how many.
    pub(crate) fn leave_out_before(&mut self, floor: Timestamp) -> usize {
        let lines: Vec<Field> =
            self.measurements().into_iter().flat_map(|rows| rows.leave_out_before(floor)).collect();
        self.quarantine.leave_out_lines(&lines);
        self.kept.leave_out_lines(&lines);
        lines.len()
    }
}

/// Writes down how many lines of a batch were passed over, in its transaction.
pub(crate) fn count(
    transaction: &mut Transaction<'_>,
    place: &Place,
    lines: usize,
) -> Result<(), DatabaseError> {
    let lines = i64::try_from(lines).unwrap_or(i64::MAX);
    transaction.execute_typed(
        "UPDATE sync_segments SET below_floor = below_floor + $2 WHERE segment_no = $1",
        &[(&place.segment_no, Type::INT4), (&lines, Type::INT8)],
    )?;
    Ok(())
}
