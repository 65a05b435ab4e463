//! The index against the files: its cursors, and how many rows each segment gave.
//!
//! The index may be behind, as it catches up only when somebody asks it; it may never be ahead of
//! a file, nor hold other rows than the lines before its cursor give.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

use super::Verification;
use super::report::{Finding, FindingKind, VerifyReport};
use super::segments::Scan;
use crate::disk;
use crate::entry::{Body, SessionEnded};
use crate::ids::{SegmentId, StoreId};
use crate::index::{first_crc, open_to_look, read_cursor, rebuild};
use crate::journal::{ChainHash, Cursor, Header};

const REMEDY: &str = "tidelog rebuild";

/// How many rows a segment gives, by table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    records: u64,
    emergencies: u64,
    basins: u64,
    history: u64,
    gaps: u64,
    invalid: u64,
}

/// A segment as the index knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct IndexedSegment {
    pub(super) number: i64,
    pub(super) cursor: Cursor,
}

/// A place where the index knows a CRC-32 of all bytes before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) cursor: Cursor,
    pub(super) crc: u32,
}

impl Mark {
    /// The place after a segment's header.
    pub(super) fn first(cursor: Cursor) -> Self {
        Self { cursor, crc: first_crc(&cursor) }
    }
}

/// The index at one moment; empty if there is none.
#[derive(Debug, Default)]
pub(super) struct IndexView {
    path: PathBuf,
    /// Inside one reading transaction.
    connection: Option<Connection>,
    segments: HashMap<SegmentId, IndexedSegment>,
    deleted_sessions: HashSet<String>,
}

impl Counts {
    pub(super) fn count(&mut self, header: &Header, body: &Body) {
        let rows = match body {
            Body::Emergency(_) => &mut self.emergencies,
            Body::CheckpointCreated(_) | Body::Checkpoint(_) => &mut self.history,
            _ if header.session.is_none() && needs_session(body) => &mut self.invalid,
            Body::Record(_) => &mut self.records,
            Body::Basin(_) => &mut self.basins,
            Body::Gap(_) => &mut self.gaps,
            _ => return,
        };
        *rows += 1;
    }

    /// Counts records of a session's segment.
    pub(super) fn count_records(&mut self, records: u64) {
        self.records += records;
    }

    pub(super) fn count_invalid(&mut self) {
        self.invalid += 1;
    }

    fn by_table(&self) -> [(&'static str, u64); 6] {
        [
            ("telemetry_records", self.records),
            ("emergency_events", self.emergencies),
            ("basin_history", self.basins),
            ("checkpoint_history", self.history),
            ("telemetry_gaps", self.gaps),
            ("invalid_lines", self.invalid),
        ]
    }
}

/// Whether this has a meaning only in a segment of a session.
fn needs_session(body: &Body) -> bool {
    use Body::{Basin, Gap, Record, SessionStarted};
    let ends_its_own = matches!(body, Body::SessionEnded(SessionEnded { of: None, .. }));
    ends_its_own || matches!(body, Record(_) | Basin(_) | Gap(_) | SessionStarted(_))
}

/// Why the index is passed over.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it is of another version, of another store or not tidelog's")]
    OtherVersion,
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

impl IndexView {
    /// Opens the index for reading, if there is one. That it cannot be read is a finding.
    pub(super) fn open(root: &Path, store: &StoreId, report: &mut VerifyReport) -> Self {
        let path = root.join("index.sqlite");
        if !disk::is_file(&path) {
            return Self::default();
        }
        Self::read(path.clone(), store).unwrap_or_else(|error| {
            let kind = FindingKind::IndexUnreadable;
            report.add(Finding::new(kind, &path, error.to_string(), REMEDY).relative_to(root));
            Self::default()
        })
    }

    fn read(path: PathBuf, store: &StoreId) -> Result<Self, Unusable> {
        let connection = open_to_look(&path)?;
        if !rebuild::is_current(&connection, store)? {
            return Err(Unusable::OtherVersion);
        }
        let segments = read_segments(&connection)?;
        let deleted_sessions = connection
            .prepare("SELECT key FROM tombstones WHERE kind = 'session'")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self { path, connection: Some(connection), segments, deleted_sessions })
    }

    pub(super) fn segment(&self, id: &SegmentId) -> Option<IndexedSegment> {
        self.segments.get(id).copied()
    }

    /// A mark, and up to so many others of its segment after it.
    pub(super) fn marks(
        &self,
        segment_no: i64,
        from: Mark,
        count_max: usize,
    ) -> rusqlite::Result<Vec<Mark>> {
        let mut marks = vec![from];
        let Some(connection) = &self.connection else { return Ok(marks) };
        let mut query = connection.prepare_cached(
            "SELECT line_no, byte, chain_hash, crc FROM index_marks
             WHERE segment_no = ?1 AND line_no > ?2 ORDER BY line_no LIMIT ?3",
        )?;
        let mut rows =
            query.query((segment_no, from.cursor.next_line, count_max.cast_signed() as i64))?;
        while let Some(row) = rows.next()? {
            marks.push(Mark { cursor: read_cursor(row, 0)?, crc: row.get(3)? });
        }
        Ok(marks)
    }

    /// Which of these lines of a segment are no entries.
    pub(super) fn invalid_lines(
        &self,
        segment_no: i64,
        lines: Range<u32>,
    ) -> rusqlite::Result<HashSet<u32>> {
        let Some(connection) = &self.connection else { return Ok(HashSet::new()) };
        connection
            .prepare_cached(
                "SELECT line_no FROM invalid_lines
                 WHERE segment_no = ?1 AND line_no >= ?2 AND line_no < ?3",
            )?
            .query_map((segment_no, lines.start, lines.end), |row| row.get(0))?
            .collect()
    }

    fn rows(&self, table: &str, segment_no: i64) -> rusqlite::Result<u64> {
        let Some(connection) = &self.connection else { return Ok(0) };
        connection
            .prepare_cached(&format!("SELECT count(*) FROM {table} WHERE segment_no = ?1"))?
            .query_row([segment_no], |row| row.get::<_, i64>(0))
            .optional()
            .map(|count| count.unwrap_or_default().unsigned_abs())
    }
}

fn read_segments(connection: &Connection) -> rusqlite::Result<HashMap<SegmentId, IndexedSegment>> {
    let mut statement = connection.prepare(
        "SELECT segment_id, segment_no, next_line, next_byte, chain_hash FROM index_segments",
    )?;
    let mut rows = statement.query([])?;
    let mut segments = HashMap::new();
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        let chain: Vec<u8> = row.get(4)?;
        if let Ok(id) = Uuid::parse_str(&id) {
            let cursor = Cursor {
                next_line: row.get(2)?,
                next_byte: row.get::<_, i64>(3)?.unsigned_abs(),
                chain: ChainHash::from_slice(&chain).unwrap_or_default(),
            };
            segments.insert(id.into(), IndexedSegment { number: row.get(1)?, cursor });
        }
    }
    Ok(segments)
}

impl Verification<'_> {
    /// Compares the hash of everything before the index's cursor, once the scan stands there.
    pub(super) fn compare_cursor(&mut self, scan: &Scan<'_>, at: &Cursor) {
        let Some(indexed) = &scan.indexed else { return };
        if indexed.cursor.next_line == at.next_line && indexed.cursor != *at {
            let line = at.next_line;
            let reason = format!("lines before line {line} changed after the index read them");
            let kind = FindingKind::IndexDiffers;
            self.found(Finding::new(kind, &scan.segment.path, reason, REMEDY));
        }
    }

    /// Compares what the index holds of a segment with what was read of it.
    pub(super) fn compare_with_index(&mut self, scan: &Scan<'_>, end: &Cursor) {
        let Some(indexed) = &scan.indexed else { return };
        if indexed.cursor.next_line > end.next_line {
            let (read, there) = (indexed.cursor.next_line, end.next_line);
            let reason =
                format!("has {there} lines, the index has read {read}: the file lost some");
            let remedy = "copy the file back from a backup, then tidelog rebuild";
            let kind = FindingKind::IndexDiffers;
            self.found(Finding::new(kind, &scan.segment.path, reason, remedy));
            return;
        }
        if !self.is_deleted(scan) {
            self.compare_rows(scan, indexed);
        }
    }

    fn is_deleted(&self, scan: &Scan<'_>) -> bool {
        match &scan.segment.header.session {
            Some(session) => self.index.deleted_sessions.contains(session.as_str()),
            // the store's own segments may hold events of any session
            None => !self.index.deleted_sessions.is_empty(),
        }
    }

    fn compare_rows(&mut self, scan: &Scan<'_>, indexed: &IndexedSegment) {
        for (table, expected) in scan.counts.by_table() {
            let reason = match self.index.rows(table, indexed.number) {
                Ok(rows) if rows == expected => continue,
                Ok(rows) => format!(
                    "{table} has {rows} rows of {}, its lines give {expected}",
                    self.relative(&scan.segment.path).display()
                ),
                Err(error) => format!("{table}: {error}"),
            };
            let path = self.index.path.clone();
            self.found(Finding::new(FindingKind::IndexDiffers, &path, reason, REMEDY));
        }
    }

    /// Segments that the index has read and that are not among the files.
    pub(super) fn index_knows_more(&mut self, files: &HashMap<SegmentId, &Path>) {
        let gone: Vec<SegmentId> =
            self.index.segments.keys().filter(|id| !files.contains_key(id)).copied().collect();
        for id in gone {
            let reason = format!("holds segment {id}, whose file is gone");
            let remedy = "copy the file back from a backup, or tidelog rebuild to do without";
            let path = self.index.path.clone();
            self.found(Finding::new(FindingKind::IndexDiffers, &path, reason, remedy));
        }
    }
}
