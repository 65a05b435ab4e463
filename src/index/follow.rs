//! What has the index not read yet?

use rusqlite::ffi::{Error as SqliteError, SQLITE_BUSY};
use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;

use super::apply::{self, Applied};
use super::targets::Target;
use super::{Index, rebuild};
use crate::error::Result;
use crate::ids::SegmentId;
use crate::journal::{Batch, BatchLimits, ChainHash, Cursor, Segment, SegmentReader};

/// A cursor is kept every so many lines, so that a check of any later one reads at most as many.
const MARK_LINES: u32 = 1024;
/// A batch ends at the next mark, or with the line that takes it over this.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How often one call begins again because the index was thrown away under it.
const RESTARTS_MAX: u32 = 8;
/// A catch-up of more than this, and of more than is there already, is a long one.
const LONG_BYTES: u64 = 32 << 20;

/// How far a catch-up is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Progress {
    /// Lines that this call has read.
    pub lines_done: u64,
    /// Bytes of the journal that the index holds.
    pub bytes_done: u64,
    /// Bytes of the journal when the call began.
    pub bytes_total: u64,
}

enum Pass {
    Complete,
    /// The bytes before a cursor changed.
    Changed,
}

impl Index {
    /// Reads every line that was complete before the call.
    pub(super) fn catch_up(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        for _ in 0..RESTARTS_MAX {
            let before = self.generation()?;
            match self.pass(progress)? {
                Pass::Changed => self.start_over()?,
                // another process may have started over, with segments that this one had behind it
                Pass::Complete if self.generation()? != before => {}
                Pass::Complete => return Ok(()),
            }
        }
        let reason = "the journal's files change, or other processes rebuild it, again and again";
        let source =
            rusqlite::Error::SqliteFailure(SqliteError::new(SQLITE_BUSY), Some(reason.into()));
        Err(self.failed()(source))
    }

    fn generation(&self) -> Result<Option<String>> {
        rebuild::generation(&self.db).map_err(self.failed())
    }

    fn pass(&mut self, report: &mut dyn FnMut(Progress)) -> Result<Pass> {
        let targets = self.targets()?;
        let mut progress = Progress {
            lines_done: 0,
            bytes_done: targets.bytes_done(),
            bytes_total: targets.bytes_total(),
        };
        let rest = progress.bytes_total.saturating_sub(progress.bytes_done);
        if rest > LONG_BYTES.max(progress.bytes_done) {
            self.drop_slow_index()?;
        }
        report(progress);
        for target in targets.unread {
            if let Pass::Changed = self.follow(&target, &mut progress, report)? {
                return Ok(Pass::Changed);
            }
        }
        self.create_slow_index()?;
        Ok(Pass::Complete)
    }

    fn follow(
        &mut self,
        target: &Target,
        progress: &mut Progress,
        report: &mut dyn FnMut(Progress),
    ) -> Result<Pass> {
        let path = &target.segment.path;
        if target.size == target.cursor.next_byte {
            return Ok(Pass::Complete); // its file has another name now
        }
        if !self.is_unchanged(target)? {
            return Ok(Pass::Changed);
        }
        let others = progress.bytes_done - target.cursor.next_byte;
        let mut reader = SegmentReader::open(path, target.cursor)?;
        while reader.cursor().next_byte < target.size {
            let Some(batch) = reader.next_batch(limits(reader.cursor()))? else { break };
            match self.apply(&target.segment, &batch)? {
                Applied::Yes => {}
                // another process has read further, or has started over
                Applied::Elsewhere(cursor) => reader = SegmentReader::open(path, cursor)?,
            }
            progress.lines_done += batch.lines().len() as u64;
            progress.bytes_done = others + batch.to().next_byte.min(target.size);
            report(*progress);
        }
        Ok(Pass::Complete)
    }

    fn apply(&mut self, segment: &Segment, batch: &Batch) -> Result<Applied> {
        let path = segment.path.strip_prefix(&self.root).unwrap_or(&segment.path);
        let failed = self.failed();
        apply::apply(&mut self.db, &segment.header, path, batch).map_err(failed)
    }

    /// Whether the lines from the last mark up to the cursor are there, and are those that were
    /// read.
    fn is_unchanged(&self, target: &Target) -> Result<bool> {
        let cursor = &target.cursor;
        if *cursor == Cursor::START {
            return Ok(true);
        }
        let mark = read_mark(&self.db, target.segment.header.segment, cursor.next_line)
            .map_err(self.failed())?
            .unwrap_or(Cursor::START);
        let found = SegmentReader::chain_from(&target.segment.path, mark, cursor.next_line)?;
        Ok(found == Some(*cursor))
    }

    /// In random order, this one costs more than the rows and all other indexes together.
    fn drop_slow_index(&self) -> Result<()> {
        self.db.execute_batch("DROP INDEX IF EXISTS telemetry_records_phi").map_err(self.failed())
    }

    fn create_slow_index(&self) -> Result<()> {
        const NAME: &str = "telemetry_records_phi";
        let found: rusqlite::Result<bool> = self.db.query_row(
            "SELECT count(*) FROM sqlite_schema WHERE name = ?1",
            [NAME],
            |row| row.get(0),
        );
        if found.map_err(self.failed())? {
            return Ok(());
        }
        let create = format!("CREATE INDEX IF NOT EXISTS {NAME} ON telemetry_records (phi)");
        self.db.execute_batch(&create).map_err(self.failed())
    }
}

/// Up to the next mark.
fn limits(cursor: &Cursor) -> BatchLimits {
    let lines = MARK_LINES - cursor.next_line % MARK_LINES;
    BatchLimits { lines_max: lines as usize, bytes_max: BATCH_BYTES_MAX }
}

/// Whether a cursor is one to keep.
pub(super) fn is_mark(cursor: &Cursor) -> bool {
    cursor.next_line.is_multiple_of(MARK_LINES)
}

/// The last mark at or before a line.
fn read_mark(db: &Connection, segment: SegmentId, line: u32) -> rusqlite::Result<Option<Cursor>> {
    db.prepare_cached(
        "SELECT m.line_no, m.byte, m.chain_hash
         FROM index_marks m JOIN index_segments s USING (segment_no)
         WHERE s.segment_id = ?1 AND m.line_no <= ?2
         ORDER BY m.line_no DESC LIMIT 1",
    )?
    .query_row((segment.to_string(), line), |row| cursor(row, 0))
    .optional()
}

/// A cursor from three columns: line, byte, hash.
pub(super) fn cursor(row: &Row<'_>, first: usize) -> rusqlite::Result<Cursor> {
    let hash: [u8; 32] = row.get(first + 2)?;
    Ok(Cursor {
        next_line: row.get(first)?,
        next_byte: row.get::<_, i64>(first + 1)?.cast_unsigned(),
        chain: ChainHash::from_slice(&hash).unwrap_or_default(),
    })
}
