//! A run of lines of one segment, bounded, with the cursors before and after it.

use std::ops::Range;

use super::cursor::Cursor;
use crate::entry::Entry;
use crate::entry::line::{self, LineError};

/// How much one batch may hold; at least one line always fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Lines.
    pub lines_max: usize,
    /// Bytes of all lines together.
    pub bytes_max: usize,
}

/// Lines of one segment, in order and without a gap. Never empty.
#[derive(Debug)]
pub struct Batch {
    pub(super) from: Cursor,
    pub(super) to: Cursor,
    pub(super) lines: Vec<Line>,
    pub(super) bytes: Vec<u8>,
    pub(super) header: Option<Vec<u8>>,
}

/// One line of a batch.
#[derive(Debug)]
pub struct Line {
    /// Line number in the segment; the header is line 0 and is never in a batch.
    pub number: u32,
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// What it holds.
    pub content: Content,
    pub(super) range: Range<usize>,
}

/// What a line holds.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every line is an entry")]
pub enum Content {
    /// A valid entry.
    Entry(Entry),
    /// Damage. Its neighbours are not affected.
    Invalid(LineError),
}

impl Batch {
    /// A batch of one line that is kept elsewhere, given without its newline: it is read as it would
    /// be in its file. Only the batch's line counts; its cursors tell nothing of the bytes before.
    pub fn of_line(number: u32, raw: &[u8]) -> Self {
        let from = Cursor { next_line: number, ..Cursor::START };
        let content = line::read(raw).map_or_else(Content::Invalid, Content::Entry);
        let line = Line { number, offset: 0, content, range: 0..raw.len() };
        let to = Cursor { next_line: number.saturating_add(1), ..from };
        Self { from, to, header: None, lines: vec![line], bytes: raw.to_vec() }
    }

    /// Where the batch begins.
    pub fn from(&self) -> &Cursor {
        &self.from
    }

    /// Where it ends: the cursor to keep once the batch was applied.
    pub fn to(&self) -> &Cursor {
        &self.to
    }

    /// Its lines.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Goes on with the CRC-32 of everything before the batch.
    pub(crate) fn crc(&self, before: u32) -> u32 {
        let mut crc = crc32fast::Hasher::new_with_initial(before);
        crc.update(&self.bytes);
        crc.finalize()
    }

    /// The header line's bytes without its newline, if the batch is a reader's first and that reader
    /// began at the start.
    pub fn header(&self) -> Option<&[u8]> {
        self.header.as_deref()
    }

    /// A line's bytes without its newline. Of a line that is too long, the first ones.
    pub fn raw(&self, line: &Line) -> &[u8] {
        self.bytes.get(line.range.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_kept_elsewhere_reads_as_in_its_file() {
        let raw = b"{\"timestamp\":\"2026-01-05T09:30:00Z\",\"step\":7,\"telemetry\":{}}";
        let batch = Batch::of_line(5, raw);
        let [line] = batch.lines() else { panic!("not one line") };
        assert!(matches!(&line.content, Content::Entry(_)));
        assert_eq!((line.number, batch.raw(line)), (5, raw.as_slice()));
        let damaged = Batch::of_line(5, b"no json");
        assert!(matches!(damaged.lines()[0].content, Content::Invalid(_)));
    }
}
