//! Looking at lines in quarantine, and letting go of them.
//!
//! Everything is in the database, so it works on any machine, for every store, beside agents.

use std::time::Duration;

use jiff::Timestamp;
use postgres::types::{ToSql, Type};
use postgres::{Client, Row, Transaction};
use serde::Serialize;
use tidelog::{SegmentId, StoreId};
use uuid::Uuid;

use crate::connect::Target;
use crate::database::{Database, DatabaseError, Limits, transaction};
use crate::error::SyncError;
use crate::field::Field;
use crate::rows::BatchRows;
use crate::schema;

/// How long a call may take. A line may have 16 MiB.
pub(super) const DEADLINE: Duration = Duration::from_secs(75);
pub(super) const LIMITS: Limits = Limits {
    statement: Duration::from_secs(60),
    lock: Duration::from_secs(10),
    idle: Duration::from_secs(60),
};

/// Lines that are worked on in one step.
const PAGE: i64 = 1000;

/// Place of a line: segment_no, line_no.
pub(super) type Key = (i32, i32);

/// Which lines. Without a condition: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Of this store.
    pub store: Option<StoreId>,
    /// Of this segment.
    pub segment: Option<SegmentId>,
    /// With this number.
    pub line: Option<u32>,
    /// Whose reason holds this text, or whose SQLSTATE is this.
    pub reason: Option<String>,
}

/// A line in quarantine. The names of the fields are a contract of `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuarantinedLine {
    /// Store that it came from.
    pub store_id: Uuid,
    /// Segment that it stands in.
    pub segment_id: Uuid,
    /// Name of the segment's file.
    pub file: String,
    /// Its number in the file; the header is 0.
    pub line: i32,
    /// Session that it belongs to; null if nobody can tell, or if it is the store's own.
    pub session_id: Option<String>,
    /// What the server called it; null if the line was refused before it reached the server.
    pub sqlstate: Option<String>,
    /// Why it is here.
    pub reason: String,
    /// Its length, without the newline.
    pub bytes: i64,
    /// How many of its first bytes are kept: all, unless it is longer than a line may be.
    pub bytes_kept: i32,
    /// SHA-256 of the bytes that are kept, in hexadecimal digits.
    pub sha256: String,
    /// How often it was tried.
    pub attempts: i32,
    /// When it came here.
    pub first_seen: Timestamp,
    /// When it was tried last.
    pub last_seen: Timestamp,
    /// Version of the agent that tried it last.
    pub agent_version: Option<String>,
}

/// The quarantine of a database.
pub struct Quarantine {
    database: Database,
}

impl Quarantine {
    /// Connects, and checks the schema.
    ///
    /// # Errors
    /// The database is not reached, or its schema is another one.
    pub fn connect(target: &Target) -> Result<Self, SyncError> {
        Ok(Self { database: schema::connect(target, DEADLINE)? })
    }

    /// The first `limit` lines, by segment and line.
    ///
    /// # Errors
    /// The database does not answer.
    pub fn list(
        &mut self,
        selection: &Selection,
        limit: i64,
    ) -> Result<Vec<QuarantinedLine>, SyncError> {
        let sql = format!(
            "SELECT s.store_id, g.segment_id, g.file_name, q.line_no, q.session_id, q.sqlstate,
                    q.reason, q.raw_bytes_total, length(q.raw), encode(q.sha256, 'hex'), q.attempts,
                    q.first_seen, q.last_seen, q.agent_version
             {FROM_SELECTED} ORDER BY q.segment_no, q.line_no LIMIT $5"
        );
        let rows = self.query("listing the quarantine", sql, selection, (limit, Type::INT8))?;
        Ok(rows.iter().map(QuarantinedLine::read).collect::<Result<_, _>>()?)
    }

    /// How many lines.
    ///
    /// # Errors
    /// The database does not answer.
    pub fn count(&mut self, selection: &Selection) -> Result<i64, SyncError> {
        let sql = format!("SELECT count(*) FROM (SELECT {FROM_SELECTED} LIMIT $5) AS found");
        let rows = self.query("counting lines", sql, selection, (i64::MAX, Type::INT8))?;
        Ok(rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(DatabaseError::from)?)
    }

    /// The exact bytes of a line, without its newline; the first ones, if it is longer than a line
    /// may be. `None` if it is not in quarantine.
    ///
    /// # Errors
    /// The database does not answer.
    pub fn raw(&mut self, segment: SegmentId, line: u32) -> Result<Option<Vec<u8>>, SyncError> {
        let selection =
            Selection { segment: Some(segment), line: Some(line), ..Selection::default() };
        let sql = format!("SELECT q.raw {FROM_SELECTED} LIMIT $5");
        let rows = self.query("reading a line", sql, &selection, (1_i64, Type::INT8))?;
        let raw = rows.first().map(|row| row.try_get(0)).transpose();
        Ok(raw.map_err(DatabaseError::from)?)
    }

    /// Lets go of lines: their bytes are gone from the database, and they do not come back when
    /// everything is sent again. Their files are not touched. How many lines it were.
    ///
    /// # Errors
    /// The database does not answer. What was dropped until then is; again goes on.
    pub fn drop_lines(&mut self, selection: &Selection) -> Result<u64, SyncError> {
        let mut dropped = 0;
        self.each_page(selection, |quarantine, page| {
            dropped += quarantine.drop_page(page)?;
            Ok(())
        })?;
        Ok(dropped)
    }

    /// Rows that another one works on are passed over: it decides about them.
    fn drop_page(&mut self, page: &[Key]) -> Result<u64, SyncError> {
        let (segments, lines): (Vec<i32>, Vec<i32>) = page.iter().copied().unzip();
        Ok(self.write("dropping lines", move |client| {
            transaction(client, &LIMITS, |transaction| {
                let page = [(&segments as _, Type::INT4_ARRAY), (&lines as _, Type::INT4_ARRAY)];
                let dropped = transaction.execute_typed(
                    "UPDATE sync_quarantine q SET dropped_at = now(), raw = ''
                     FROM (SELECT segment_no, line_no FROM sync_quarantine
                           JOIN unnest($1, $2) AS page (segment_no, line_no)
                                USING (segment_no, line_no)
                           WHERE dropped_at IS NULL FOR UPDATE OF sync_quarantine SKIP LOCKED) old
                     WHERE q.segment_no = old.segment_no AND q.line_no = old.line_no",
                    &page,
                )?;
                forget_dropped(transaction, &segments, &lines)?;
                Ok::<_, DatabaseError>(dropped)
            })
        })?)
    }

    /// Goes through the lines in their order, some at a time.
    pub(super) fn each_page(
        &mut self,
        selection: &Selection,
        mut work: impl FnMut(&mut Self, &[Key]) -> Result<(), SyncError>,
    ) -> Result<(), SyncError> {
        let sql = format!(
            "SELECT q.segment_no, q.line_no {FROM_SELECTED}
             AND (q.segment_no, q.line_no) > (split_part($5, ' ', 1)::integer,
                                              split_part($5, ' ', 2)::integer)
             ORDER BY q.segment_no, q.line_no LIMIT {PAGE}"
        );
        let mut after: Key = (i32::MIN, i32::MIN);
        loop {
            let place = (format!("{} {}", after.0, after.1), Type::TEXT);
            let rows = self.query("reading the quarantine", sql.clone(), selection, place)?;
            let page = rows
                .iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
                .collect::<Result<Vec<Key>, postgres::Error>>()
                .map_err(DatabaseError::from)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = *last;
            work(self, &page)?;
        }
    }

    /// A question about the selection, whose parameters are the first four.
    fn query<T: ToSql + Sync + Send + 'static>(
        &mut self,
        what: &str,
        sql: String,
        selection: &Selection,
        (fifth, fifth_type): (T, Type),
    ) -> Result<Vec<Row>, DatabaseError> {
        let store = selection.store.as_ref().map(StoreId::as_uuid);
        let segment = selection.segment.as_ref().map(SegmentId::as_uuid);
        let line = selection.line.map(i64::from);
        let reason = selection.reason.clone();
        self.write(what, move |client| {
            Ok(client.query_typed(
                &sql,
                &[
                    (&store, Type::UUID),
                    (&segment, Type::UUID),
                    (&line, Type::INT8),
                    (&reason, Type::TEXT),
                    (&fifth, fifth_type),
                ],
            )?)
        })
    }

    pub(super) fn write<T: Send + 'static>(
        &mut self,
        what: &str,
        work: impl FnOnce(&mut Client) -> Result<T, DatabaseError> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        self.database.run(DEADLINE, what, work)
    }
}

/// The lines of a selection that were not dropped.
const FROM_SELECTED: &str = "
    FROM sync_quarantine q
    JOIN sync_segments g ON g.segment_no = q.segment_no
    JOIN sync_stores s ON s.store_no = g.store_no
    WHERE q.dropped_at IS NULL
      AND ($1 IS NULL OR s.store_id = $1) AND ($2 IS NULL OR g.segment_id = $2)
      AND ($3 IS NULL OR q.line_no = $3)
      AND ($4 IS NULL OR q.sqlstate = $4 OR strpos(q.reason, $4) > 0)";

impl QuarantinedLine {
    fn read(row: &Row) -> Result<Self, DatabaseError> {
        Ok(Self {
            store_id: row.try_get(0)?,
            segment_id: row.try_get(1)?,
            file: row.try_get(2)?,
            line: row.try_get(3)?,
            session_id: row.try_get(4)?,
            sqlstate: row.try_get(5)?,
            reason: row.try_get(6)?,
            bytes: row.try_get(7)?,
            bytes_kept: row.try_get(8)?,
            sha256: row.try_get(9)?,
            attempts: row.try_get(10)?,
            first_seen: row.try_get(11)?,
            last_seen: row.try_get(12)?,
            agent_version: row.try_get(13)?,
        })
    }
}

/// Lines that were dropped and are sent once more stay dropped.
pub(crate) fn forget_dropped_again(
    transaction: &mut Transaction<'_>,
    batch: &BatchRows,
) -> Result<(), DatabaseError> {
    let number = |row: &[Field]| match row.get(1) {
        Some(Field::Int4(line)) => Some(*line),
        _ => None,
    };
    let lines: Vec<i32> = batch.quarantine.iter().filter_map(number).collect();
    match lines.is_empty() {
        true => Ok(()),
        false => forget_dropped(transaction, &vec![batch.place.segment_no; lines.len()], &lines),
    }
}

/// Deletes the bytes of dropped lines that were kept for a restore.
fn forget_dropped(
    transaction: &mut Transaction<'_>,
    segments: &[i32],
    lines: &[i32],
) -> Result<(), DatabaseError> {
    transaction.execute_typed(
        "DELETE FROM sync_lines l
         USING unnest($1, $2) AS page (segment_no, line_no)
         JOIN sync_quarantine q USING (segment_no, line_no)
         WHERE l.segment_no = q.segment_no AND l.line_no = q.line_no
           AND q.dropped_at IS NOT NULL",
        &[(&segments, Type::INT4_ARRAY), (&lines, Type::INT4_ARRAY)],
    )?;
    Ok(())
}
