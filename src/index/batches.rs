//! A segment in batches, each ending at the next place whose cursor is kept.

use std::path::Path;

use crate::error::Result;
use crate::journal::{Batch, BatchLimits, Cursor, SegmentReader};

/// A cursor is kept every so many lines, so that a check of any later one reads at most as many.
const MARK_LINES: u32 = 1024;
/// A batch ends at the next mark, or with the line that takes it over this.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Whether a cursor is one to keep.
pub(super) fn is_mark(cursor: &Cursor) -> bool {
    cursor.next_line.is_multiple_of(MARK_LINES)
}

/// Up to the next mark.
fn limits(cursor: &Cursor) -> BatchLimits {
    let lines = MARK_LINES - cursor.next_line % MARK_LINES;
    BatchLimits { lines_max: lines as usize, bytes_max: BATCH_BYTES_MAX }
}

/// What a segment's CRC-32 begins with: its header, by its hash.
pub(crate) fn first_crc(after_header: &Cursor) -> u32 {
    crc32fast::hash(after_header.chain.as_bytes())
}

/// The batches of a segment from a cursor on, up to the lines that were there when it had `size`
/// bytes.
pub(super) struct Batches<'a> {
    path: &'a Path,
    size: u64,
    from: Cursor,
    /// Opened by whoever reads the first batch.
    reader: Option<SegmentReader>,
}

impl<'a> Batches<'a> {
    pub(super) fn new(path: &'a Path, size: u64, from: Cursor) -> Self {
        Self { path, size, from, reader: None }
    }

    fn read(&mut self) -> Result<Option<Batch>> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => self.reader.insert(SegmentReader::open(self.path, self.from)?),
        };
        match *reader.cursor() {
            cursor if cursor.next_byte >= self.size => Ok(None),
            cursor => reader.next_batch(limits(&cursor)),
        }
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}
