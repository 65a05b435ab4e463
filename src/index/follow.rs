//! What has the index not read yet?

use rusqlite::ffi::{Error as SqliteError, SQLITE_BUSY};
use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;

use super::apply::{self, Applied};
use super::batches::Batches;
use super::targets::Target;
use super::{Index, bulk, rebuild};
use crate::error::Result;
use crate::ids::SegmentId;
use crate::journal::{Batch, ChainHash, Cursor, Segment, SegmentReader, read_ahead};

/// How often one call begins again because the index was thrown away under it.
const RESTARTS_MAX: u32 = 8;
/// A catch-up of more than this, and of more than is there already, is a long one.
const LONG_BYTES: u64 = 32 << 20;
/// Batches of one transaction. Each transaction writes the last page of every tree again.
const GROUP_BATCHES: usize = 4;
/// From so many unread bytes of a segment on, another thread reads them.
const AHEAD_BYTES_MIN: u64 = 256 << 10;

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

/// Tells the caller how far one pass is.
struct Reporter<'a> {
    progress: Progress,
    /// Bytes that the index holds of other segments than the one that is read.
    others: u64,
    report: &'a mut dyn FnMut(Progress),
}

impl Reporter<'_> {
    fn begin(&mut self, segment: &Cursor) {
        self.others = self.progress.bytes_done - segment.next_byte;
    }

    /// What was written after the call began is not its business.
    fn stands_at(&mut self, cursor: &Cursor, size: u64) {
        self.progress.bytes_done = self.others + cursor.next_byte.min(size);
        (self.report)(self.progress);
    }
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
        let mut reporter = Reporter {
            progress: Progress {
                lines_done: 0,
                bytes_done: targets.bytes_done(),
                bytes_total: targets.bytes_total(),
            },
            others: 0,
            report,
        };
        let Progress { bytes_done, bytes_total, .. } = reporter.progress;
        if bytes_total.saturating_sub(bytes_done) > LONG_BYTES.max(bytes_done) {
            bulk::begin(&self.db).map_err(self.failed())?;
        }
        (reporter.report)(reporter.progress);
        for target in targets.unread {
            if let Pass::Changed = self.follow(&target, &mut reporter)? {
                return Ok(Pass::Changed);
            }
        }
        bulk::end(&self.db).map_err(self.failed())?;
        Ok(Pass::Complete)
    }

    fn follow(&mut self, target: &Target, reporter: &mut Reporter<'_>) -> Result<Pass> {
        if target.size == target.cursor.next_byte {
            return Ok(Pass::Complete); // its file has another name now
        }
        if !self.is_unchanged(target)? {
            return Ok(Pass::Changed);
        }
        reporter.begin(&target.cursor);
        let mut from = target.cursor;
        while let Some(elsewhere) = self.follow_from(from, target, reporter)? {
            from = elsewhere;
        }
        Ok(Pass::Complete)
    }

    /// Where to go on, if another process has read further or has started over.
    fn follow_from(
        &mut self,
        from: Cursor,
        target: &Target,
        reporter: &mut Reporter<'_>,
    ) -> Result<Option<Cursor>> {
        let Target { segment, size, .. } = target;
        let read = || Batches::new(&segment.path, *size, from);
        let mut apply = |batches: &mut dyn Iterator<Item = Result<Batch>>| {
            loop {
                let group = batches.take(GROUP_BATCHES).collect::<Result<Vec<_>>>()?;
                let Some(last) = group.last() else { return Ok(None) };
                if let Applied::Elsewhere(cursor) = self.apply(segment, &group)? {
                    reporter.stands_at(&cursor, *size);
                    return Ok(Some(cursor));
                }
                reporter.progress.lines_done +=
                    group.iter().map(|batch| batch.lines().len() as u64).sum::<u64>();
                reporter.stands_at(last.to(), *size);
            }
        };
        match size.saturating_sub(from.next_byte) {
            ..AHEAD_BYTES_MIN => apply(&mut read()),
            _ => read_ahead(read, apply),
        }
    }

    fn apply(&mut self, segment: &Segment, batches: &[Batch]) -> Result<Applied> {
        let path = segment.path.strip_prefix(&self.root).unwrap_or(&segment.path);
        let failed = self.failed();
        apply::apply(&mut self.db, &segment.header, path, batches).map_err(failed)
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
pub(crate) fn cursor(row: &Row<'_>, first: usize) -> rusqlite::Result<Cursor> {
    let hash: [u8; 32] = row.get(first + 2)?;
    Ok(Cursor {
        next_line: row.get(first)?,
        next_byte: row.get::<_, i64>(first + 1)?.cast_unsigned(),
        chain: ChainHash::from_slice(&hash).unwrap_or_default(),
    })
}
