//! The replica at one moment: everything is read in one transaction that cannot write.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postgres::types::{ToSql, Type};
use postgres::{Client, Row};
use tidelog::journal::Segment;
use tidelog::{StoreId, Timestamp};
use uuid::Uuid;

use super::canonical::{Canonical, Column, RowDigest, columns};
use crate::connect::Target;
use crate::database::{Database, DatabaseError};
use crate::error::SyncError;
use crate::field::{ColumnType, Field};
use crate::quarantine::Refusal;
use crate::replica::{self, Digest, SegmentRow};
use crate::schema;
use crate::table::Table;

/// How long a call may take. The server gives up a little earlier.
const CALL: Duration = Duration::from_secs(615);
/// Values look the same whatever the role's settings are.
const BEGIN: &str = "
    BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;
    SET LOCAL statement_timeout = '600s'; SET LOCAL lock_timeout = '10s';
    SET LOCAL idle_in_transaction_session_timeout = '600s';
    SET LOCAL timezone = 'UTC'; SET LOCAL extra_float_digits = 1; SET LOCAL datestyle = 'ISO';
    SET LOCAL bytea_output = 'hex'; SET LOCAL max_parallel_workers_per_gather = 0";

/// Tables whose rows are keyed by their line.
const TABLES_OF_LINES: [&str; 8] = [
    "telemetry_records",
    "emergency_events",
    "checkpoint_history",
    "basin_history",
    "telemetry_gaps",
    "sync_quarantine",
    "sync_unknown",
    "sync_lines",
];

/// A parameter of a statement.
type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

pub(super) struct Snapshot {
    database: Database,
    pub(super) canonical: Canonical,
    /// None: the database does not know the store.
    pub(super) store_no: Option<i32>,
    /// The sessions asked for last, and which of them are deleted.
    deleted: (BTreeSet<String>, BTreeSet<String>),
}

/// What `sync_segments` tells of a segment's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeaderRow {
    pub(super) session: Option<String>,
    pub(super) attempt: Option<i32>,
}

/// One value of a row in the replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    /// `record_send(ROW(…))` of it alone.
    pub(super) bytes: Vec<u8>,
    pub(super) text: Option<String>,
}

impl Snapshot {
    pub(super) fn connect(target: &Target, store: StoreId) -> Result<Self, SyncError> {
        let mut database = Database::connect(target)?;
        let store = store.as_uuid();
        let (vector_oid, store_no) =
            database.run(CALL, "looking for the store", move |client| {
                schema::check(client)?;
                let sql = "SELECT 'vector'::regtype::oid";
                let row = client.query_typed_one(sql, &[]).map_err(DatabaseError::from)?;
                let oid: u32 = row.try_get(0).map_err(DatabaseError::from)?;
                Ok::<_, SyncError>((oid, replica::find_store(client, store)?))
            })?;
        let canonical = Canonical { vector_oid };
        Ok(Self { database, canonical, store_no, deleted: Default::default() })
    }

    pub(super) fn begin(&mut self) -> Result<(), DatabaseError> {
        self.deleted = Default::default();
        self.run("beginning to read", |client| client.batch_execute(BEGIN))
    }

    pub(super) fn end(&mut self) -> Result<(), DatabaseError> {
        self.run("ending to read", |client| client.batch_execute("ROLLBACK"))
    }

    fn run<T: Send + 'static>(
        &mut self,
        what: &str,
        work: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        self.database.run(CALL, what, move |client| Ok(work(client)?))
    }

    /// The rows of these segments and of all others of the store.
    pub(super) fn segments(
        &mut self,
        listed: &[Segment],
    ) -> Result<Vec<SegmentRow>, DatabaseError> {
        let ids: Vec<Uuid> =
            listed.iter().map(|segment| segment.header.segment.as_uuid()).collect();
        let store_no = self.store_no.unwrap_or_default();
        self.database.run(CALL, "reading cursors", move |client| {
            replica::read_segments(client, store_no, &ids)
        })
    }

    pub(super) fn header(&mut self, segment_no: i32) -> Result<HeaderRow, DatabaseError> {
        self.run("reading a segment's header", move |client| {
            let sql = "SELECT session_id, attempt FROM sync_segments WHERE segment_no = $1";
            let row = client.query_typed_one(sql, &[(&segment_no, Type::INT4)])?;
            Ok(HeaderRow { session: row.try_get(0)?, attempt: row.try_get(1)? })
        })
    }

    /// The ends of a segment's batches, in order.
    pub(super) fn batches(&mut self, segment_no: i32) -> Result<Vec<Digest>, DatabaseError> {
        self.database.run(CALL, "reading digests", move |client| {
            let rows = client.query_typed(
                "SELECT first_line, next_line, digest FROM sync_batches
                 WHERE segment_no = $1 ORDER BY next_line",
                &[(&segment_no, Type::INT4)],
            )?;
            rows.iter().map(Digest::read).collect()
        })
    }

    /// From when on the database keeps the measurements of a store, if not all.
    pub(super) fn floor(&mut self, store_no: i32) -> Result<Option<Timestamp>, SyncError> {
        let floor = self.run("reading the retention floor", move |client| {
            let sql = "SELECT floor FROM retention_floor WHERE store_no = $1";
            let rows = client.query_typed(sql, &[(&store_no, Type::INT4)])?;
            rows.first().map(|row| row.try_get::<_, jiff::Timestamp>(0)).transpose()
        })?;
        Ok(floor.and_then(|floor| Timestamp::from_jiff(floor).ok()))
    }

    /// Lines of the quarantine that somebody dropped.
    pub(super) fn dropped(
        &mut self,
        segment_no: i32,
        lines: (i32, i32),
    ) -> Result<Vec<Field>, DatabaseError> {
        self.run("reading what was dropped", move |client| {
            let rows = client.query_typed(
                "SELECT line_no FROM sync_quarantine WHERE segment_no = $1
                 AND line_no >= $2 AND line_no < $3 AND dropped_at IS NOT NULL",
                &range(&segment_no, &lines),
            )?;
            rows.iter().map(|row| Ok(Field::Int4(row.try_get(0)?))).collect()
        })
    }

    /// Which of these sessions are deleted.
    pub(super) fn deleted(
        &mut self,
        sessions: &BTreeSet<String>,
    ) -> Result<BTreeSet<String>, DatabaseError> {
        if self.deleted.0 != *sessions {
            let asked: Vec<String> = sessions.iter().cloned().collect();
            let found = self.run("reading tombstones", move |client| {
                let sql = "SELECT key FROM tombstones WHERE kind = 'session' AND key = ANY ($1)";
                let rows = client.query_typed(sql, &[(&asked, Type::TEXT_ARRAY)])?;
                rows.iter().map(|row| row.try_get(0)).collect()
            })?;
            self.deleted = (sessions.clone(), found);
        }
        Ok(self.deleted.1.clone())
    }

    /// Lines that the server refused, which no file can tell, and what it said.
    pub(super) fn refused(
        &mut self,
        segment_no: i32,
        lines: (i32, i32),
    ) -> Result<BTreeMap<i32, Refusal>, DatabaseError> {
        self.run("reading the quarantine", move |client| {
            let rows = client.query_typed(
                "SELECT line_no, reason, sqlstate FROM sync_quarantine
                 WHERE segment_no = $1 AND line_no >= $2 AND line_no < $3 AND sqlstate IS NOT NULL",
                &range(&segment_no, &lines),
            )?;
            let refusal = |row: &Row| {
                Ok((row.try_get(0)?, Refusal::by_server(row.try_get(1)?, row.try_get(2)?)))
            };
            rows.iter().map(refusal).collect()
        })
    }

    /// The digest of each table's rows of these lines.
    pub(super) fn digests(
        &mut self,
        tables: &[&'static Table],
        segment_no: i32,
        lines: (i32, i32),
    ) -> Result<Vec<RowDigest>, DatabaseError> {
        let of_table = |table: &&'static Table| {
            format!(
                "SELECT sha256(COALESCE(string_agg(sha256({record}), ''::bytea ORDER BY line_no),
                                        ''::bytea))
                 FROM {name} t WHERE segment_no = $1 AND line_no >= $2 AND line_no < $3{kept}",
                record = record_send(table),
                name = table.name,
                kept = kept(table.name),
            )
        };
        let sql: Vec<String> = tables.iter().map(of_table).collect();
        let sql = sql.join(" UNION ALL ");
        self.run("comparing lines", move |client| {
            let rows = client.query_typed(&sql, &range(&segment_no, &lines))?;
            rows.iter().map(|row| Ok(row_digest(row.try_get(0)?))).collect()
        })
    }

    /// The digest of each row of these lines; of many the first.
    pub(super) fn row_digests(
        &mut self,
        table: &'static Table,
        segment_no: i32,
        lines: (i32, i32),
        rows_max: usize,
    ) -> Result<Vec<(i32, RowDigest)>, DatabaseError> {
        let sql = format!(
            "SELECT line_no, sha256({record}) FROM {name} t
             WHERE segment_no = $1 AND line_no >= $2 AND line_no < $3{kept}
             ORDER BY line_no LIMIT {rows_max}",
            record = record_send(table),
            name = table.name,
            kept = kept(table.name),
        );
        self.run("looking for the line that differs", move |client| {
            let rows = client.query_typed(&sql, &range(&segment_no, &lines))?;
            rows.iter().map(|row| Ok((row.try_get(0)?, row_digest(row.try_get(1)?)))).collect()
        })
    }

    /// The first rows of a segment from this line on, in each table.
    pub(super) fn rows_from(
        &mut self,
        segment_no: i32,
        line: i32,
    ) -> Result<Vec<(String, i32)>, DatabaseError> {
        let of_table = |table: &&str| {
            format!(
                "(SELECT '{table}', line_no FROM {table}
                  WHERE segment_no = $1 AND line_no >= $2 ORDER BY line_no LIMIT 10)"
            )
        };
        let sql: Vec<String> = TABLES_OF_LINES.iter().map(of_table).collect();
        let sql = sql.join(" UNION ALL ");
        self.run("looking beyond the cursor", move |client| {
            let key = [(&segment_no as _, Type::INT4), (&line as _, Type::INT4)];
            let rows = client.query_typed(&sql, &key)?;
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
        })
    }

    /// The cells of a row: those of `columns`, in order. None if there is no such row.
    pub(super) fn cells<P: ToSql + Sync + Send + 'static>(
        &mut self,
        table: &str,
        columns: &[Column],
        condition: &str,
        key: Vec<(P, Type)>,
    ) -> Result<Option<Vec<Cell>>, DatabaseError> {
        let count = columns.len();
        let cells: Vec<String> = columns
            .iter()
            .map(|(name, ty)| format!("record_send(ROW(t.{name})), {}", shown(name, *ty)))
            .collect();
        let sql = format!("SELECT {} FROM {table} t WHERE {condition}", cells.join(", "));
        self.run("reading a row", move |client| {
            let key: Vec<Parameter<'_>> =
                key.iter().map(|(value, ty)| (value as _, ty.clone())).collect();
            let rows = client.query_typed(&sql, &key)?;
            let cell = |row: &Row, index: usize| {
                Ok(Cell { bytes: row.try_get(2 * index)?, text: row.try_get(2 * index + 1)? })
            };
            rows.first().map(|row| (0..count).map(|index| cell(row, index)).collect()).transpose()
        })
    }

    /// Any other query.
    pub(super) fn query<T: Send + 'static>(
        &mut self,
        what: &str,
        work: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        self.run(what, work)
    }
}

fn range<'a>(segment_no: &'a i32, lines: &'a (i32, i32)) -> [Parameter<'a>; 3] {
    [(segment_no, Type::INT4), (&lines.0, Type::INT4), (&lines.1, Type::INT4)]
}

/// Leaves out the rows that only tell that a line was dropped.
fn kept(table: &str) -> &'static str {
    if table == "sync_quarantine" { " AND dropped_at IS NULL" } else { "" }
}

/// Anything but 32 bytes is no digest that a file has.
fn row_digest(bytes: &[u8]) -> RowDigest {
    bytes.try_into().unwrap_or_default()
}

/// The byte form of a row, in SQL.
pub(super) fn record_send(table: &Table) -> String {
    let names: Vec<String> = columns(table).map(|(_, (name, _))| format!("t.{name}")).collect();
    format!("record_send(ROW({}))", names.join(", "))
}

/// A value for people, in SQL; of bytes the first.
fn shown(name: &str, ty: ColumnType) -> String {
    match ty {
        ColumnType::Time => {
            format!(r#"to_char(t.{name}, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#)
        }
        ColumnType::Bytes => format!("encode(substr(t.{name}, 1, 64), 'hex')"),
        _ => format!("t.{name}::text"),
    }
}
