//! Reads batches of a segment, also while its writer appends. Never writes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::batch::{Batch, BatchLimits, Content, Line};
use super::cursor::{ChainHash, Cursor, SEGMENT_LINES_MAX};
use crate::disk;
use crate::entry::line::{self, LINE_BYTES_MAX, LineError};
use crate::error::{Error, Result};

/// How much of a line that is too long is kept to be looked at.
const OVERLONG_KEPT: usize = 4096;
const READ_BYTES: usize = 256 << 10;

/// A place in an open segment.
#[derive(Debug)]
pub struct SegmentReader {
    input: BufReader<File>,
    path: PathBuf,
    cursor: Cursor,
    /// The header line without its newline, until a batch has it.
    header: Option<Vec<u8>>,
}

/// One line as it lies in the file.
enum RawLine {
    /// Nothing, or a torn tail.
    None,
    /// Its bytes, newline included, were appended to the buffer.
    Complete,
    /// Only its first bytes were appended.
    Overlong { bytes: u64, chain: ChainHash },
}

impl SegmentReader {
    /// Opens a segment to read on from `cursor`. A cursor at the start passes over the header.
    ///
    /// Nothing is checked against the cursor's hash: see [`chain_at`](Self::chain_at).
    ///
    /// # Errors
    /// The file cannot be opened, or has no complete header line.
    pub fn open(path: &Path, cursor: Cursor) -> Result<Self> {
        let file = disk::open(path).map_err(Error::io("open", path))?;
        let input = BufReader::with_capacity(READ_BYTES, file);
        let mut reader = Self { input, path: path.to_owned(), cursor, header: None };
        reader.seek_to_cursor()?;
        if cursor.next_line == 0 {
            reader.skip_header()?;
        }
        Ok(reader)
    }

    /// Where the next batch begins.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The chain hash before line `line`, from the first byte on; `None` if the segment has
    /// fewer complete lines.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn chain_at(path: &Path, line: u32) -> Result<Option<Cursor>> {
        Self::chain_from(path, Cursor::START, line)
    }

    /// As [`chain_at`](Self::chain_at), but from a cursor that is known to be right.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn chain_from(path: &Path, from: Cursor, line: u32) -> Result<Option<Cursor>> {
        let file = disk::open(path).map_err(Error::io("open", path))?;
        let input = BufReader::with_capacity(READ_BYTES, file);
        let mut reader = Self { input, path: path.to_owned(), cursor: from, header: None };
        reader.seek_to_cursor()?;
        let mut buffer = Vec::new();
        while reader.cursor.next_line < line {
            buffer.clear();
            match reader.read_line(&mut buffer)? {
                RawLine::None => return Ok(None),
                RawLine::Complete => reader.cursor = reader.cursor.after(&buffer),
                RawLine::Overlong { bytes, chain } => {
                    reader.cursor = reader.cursor.moved(bytes, chain);
                }
            }
        }
        Ok(Some(reader.cursor))
    }

    /// The next lines; `None` at the end of the complete lines. Call again when the file grew.
    ///
    /// Memory: the batch's limits and at most one line more.
    ///
    /// # Errors
    /// The file cannot be read. A damaged line is no error but [`Content::Invalid`].
    pub fn next_batch(&mut self, limits: BatchLimits) -> Result<Option<Batch>> {
        let (from, to) = (self.cursor, self.cursor);
        let mut batch = Batch { from, to, lines: Vec::new(), bytes: Vec::new(), header: None };
        while batch.lines.len() < limits.lines_max.max(1)
            && (batch.bytes.len() < limits.bytes_max || batch.lines.is_empty())
        {
            let Some(line) = self.next_line(&mut batch.bytes)? else { break };
            batch.lines.push(line);
        }
        batch.to = self.cursor;
        if batch.lines.is_empty() {
            return Ok(None);
        }
        batch.header = self.header.take();
        Ok(Some(batch))
    }

    fn next_line(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Line>> {
        let start = buffer.len();
        let (number, offset) = (self.cursor.next_line, self.cursor.next_byte);
        let content = match self.read_line(buffer)? {
            RawLine::None => return Ok(None),
            RawLine::Complete => {
                let bytes = buffer.get(start..).unwrap_or_default();
                self.cursor = self.cursor.after(bytes);
                match line::read(bytes.strip_suffix(b"\n").unwrap_or(bytes)) {
                    Ok(entry) => Content::Entry(entry),
                    Err(error) => Content::Invalid(error),
                }
            }
            RawLine::Overlong { bytes, chain } => {
                self.cursor = self.cursor.moved(bytes, chain);
                buffer.push(b'\n');
                Content::Invalid(LineError::TooLong { bytes })
            }
        };
        Ok(Some(Line { number, offset, content, range: start..buffer.len() - 1 }))
    }

    /// Appends the next line to `buffer`; the cursor stays.
    fn read_line(&mut self, buffer: &mut Vec<u8>) -> Result<RawLine> {
        if self.cursor.next_line >= SEGMENT_LINES_MAX {
            return Ok(RawLine::None);
        }
        let start = buffer.len();
        let limit = LINE_BYTES_MAX as u64;
        let read =
            (&mut self.input).take(limit).read_until(b'\n', buffer).map_err(self.failed())?;
        if buffer.ends_with(b"\n") && read > 0 {
            return Ok(RawLine::Complete);
        }
        if (read as u64) < limit {
            buffer.truncate(start);
            self.seek_to_cursor()?;
            return Ok(RawLine::None);
        }
        let head = buffer.get(start..).unwrap_or_default();
        let mut chain = self.cursor.chain.link();
        chain.update(head);
        buffer.truncate(start + OVERLONG_KEPT);
        match self.skip_line(chain).map_err(self.failed())? {
            Some((bytes, chain)) => Ok(RawLine::Overlong { bytes: limit + bytes, chain }),
            None => {
                buffer.truncate(start);
                self.seek_to_cursor()?;
                Ok(RawLine::None)
            }
        }
    }

    /// Hashes the rest of a line without keeping it; `None` if it has no newline yet.
    fn skip_line(&mut self, mut chain: blake3::Hasher) -> io::Result<Option<(u64, ChainHash)>> {
        let mut bytes = 0;
        let mut piece = Vec::new();
        loop {
            piece.clear();
            let read = (&mut self.input).take(READ_BYTES as u64).read_until(b'\n', &mut piece)?;
            chain.update(&piece);
            bytes += read as u64;
            if piece.ends_with(b"\n") {
                return Ok(Some((bytes, chain.finalize().into())));
            }
            if read == 0 {
                return Ok(None);
            }
        }
    }

    fn skip_header(&mut self) -> Result<()> {
        let mut header = Vec::new();
        match self.read_line(&mut header)? {
            RawLine::Complete => {
                self.cursor = self.cursor.after(&header);
                header.pop();
                self.header = Some(header);
                Ok(())
            }
            _ => Err(Error::Damaged {
                path: self.path.clone(),
                line: 0,
                byte: 0,
                reason: "the header line is not complete".into(),
            }),
        }
    }

    fn seek_to_cursor(&mut self) -> Result<()> {
        let place = SeekFrom::Start(self.cursor.next_byte);
        self.input.seek(place).map(|_| ()).map_err(self.failed())
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io("read", &self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::*;
    use crate::ids::StoreId;
    use crate::journal::Header;

    const LIMITS: BatchLimits = BatchLimits { lines_max: 100, bytes_max: 1 << 20 };
    const RECORD: &str = "{\"timestamp\":\"2026-01-05T09:30:00Z\",\"step\":1,\"telemetry\":{}}\n";

    fn segment(lines: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.jsonl");
        let mut bytes = Vec::new();
        line::write(&Header::new(StoreId::random(), None), &mut bytes).unwrap();
        bytes.extend_from_slice(lines);
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    fn append(path: &Path, bytes: &[u8]) {
        OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
    }

    #[test]
    fn a_torn_tail_waits_for_its_newline() {
        let (_folder, path) = segment(RECORD.as_bytes());
        append(&path, &RECORD.as_bytes()[..20]);
        let mut reader = SegmentReader::open(&path, Cursor::START).unwrap();
        assert_eq!(reader.next_batch(LIMITS).unwrap().unwrap().lines().len(), 1);
        assert!(reader.next_batch(LIMITS).unwrap().is_none());
        append(&path, &RECORD.as_bytes()[20..]);
        let batch = reader.next_batch(LIMITS).unwrap().unwrap();
        assert!(matches!(batch.lines()[0].content, Content::Entry(_)));
    }

    #[test]
    fn damage_does_not_hide_its_neighbours() {
        let (_folder, path) = segment(format!("{RECORD}\0\0 no json\n{RECORD}").as_bytes());
        let mut reader = SegmentReader::open(&path, Cursor::START).unwrap();
        let batch = reader.next_batch(LIMITS).unwrap().unwrap();
        let valid: Vec<bool> =
            batch.lines().iter().map(|l| matches!(l.content, Content::Entry(_))).collect();
        assert_eq!(valid, [true, false, true]);
        assert_eq!(batch.raw(&batch.lines()[1]), b"\0\0 no json");
    }

    #[test]
    fn batches_of_any_size_end_at_the_same_cursor() {
        let (_folder, path) = segment(RECORD.repeat(7).as_bytes());
        let walk = |limits| {
            let mut reader = SegmentReader::open(&path, Cursor::START).unwrap();
            while reader.next_batch(limits).unwrap().is_some() {}
            *reader.cursor()
        };
        let end = walk(LIMITS);
        assert_eq!(end.next_line, 8);
        assert_eq!(walk(BatchLimits { lines_max: 3, bytes_max: 1 }), end);
        assert_eq!(SegmentReader::chain_at(&path, 8).unwrap(), Some(end));
        assert_eq!(SegmentReader::chain_at(&path, 9).unwrap(), None);
    }

    #[test]
    fn a_line_longer_than_the_limit_is_reported_and_passed() {
        let long = "x".repeat(LINE_BYTES_MAX + 5);
        let (_folder, path) = segment(format!("{long}\n{RECORD}").as_bytes());
        let mut reader = SegmentReader::open(&path, Cursor::START).unwrap();
        let batch = reader.next_batch(LIMITS).unwrap().unwrap();
        let bytes = LINE_BYTES_MAX as u64 + 6;
        assert!(
            matches!(&batch.lines()[0].content, Content::Invalid(e) if *e == LineError::TooLong { bytes })
        );
        assert!(matches!(batch.lines()[1].content, Content::Entry(_)));
        assert_eq!(SegmentReader::chain_at(&path, 3).unwrap(), Some(*reader.cursor()));
    }
}
