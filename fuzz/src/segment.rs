//! Lines reach the parser as in real life: in a segment, through its reader.

use std::fs;
use std::path::{Path, PathBuf};

use tidelog::journal::{BatchLimits, Content, Cursor, Line, SegmentReader};
use tidelog::{Entry, LineError};

/// The line of a segment's header, with its newline.
pub const HEADER: &[u8] = b"{\"tidelog\":1,\"segment\":\"00000003-0000-0000-0000-000000000000\",\
    \"store\":\"00000001-0000-0000-0000-000000000000\",\"session\":\"run-7\",\"attempt\":1,\
    \"writer\":{\"pid\":1,\"host\":\"h\",\"program\":\"p\"},\
    \"created_at\":\"2026-01-05T09:30:00.000000Z\"}\n";

/// A segment in a file of its own, rewritten for each input.
pub struct Segment {
    folder: tempfile::TempDir,
}

/// A line as the reader gives it.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its number, its place in the file and what it holds; NaN is NaN.
    pub shown: String,
    /// What it holds.
    pub read: Result<Entry, LineError>,
    /// Where its batch ends.
    pub end: Cursor,
}

impl Default for Segment {
    fn default() -> Self {
        let folder = crate::folder();
        fs::create_dir_all(folder.path().join("logs/telemetry")).expect("a folder");
        Self { folder }
    }
}

impl Segment {
    /// The folder that a store with this segment would have.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// The segment's file.
    pub fn path(&self) -> PathBuf {
        self.root().join("logs/telemetry/session_run-7.jsonl")
    }

    /// Makes these bytes the file's.
    pub fn write(&self, parts: &[&[u8]]) {
        fs::write(self.path(), parts.concat()).expect("a file in memory");
    }

    /// Every complete line from a cursor on, at most so many in one batch.
    pub fn rows(&self, from: Cursor, lines_max: usize) -> Vec<Row> {
        let mut reader = SegmentReader::open(&self.path(), from).expect("a segment");
        let limits = BatchLimits { lines_max, bytes_max: 1 << 20 };
        let mut rows = Vec::new();
        while let Some(batch) = reader.next_batch(limits).expect("a readable file") {
            rows.extend(batch.lines().iter().map(|line| Row::new(line, *batch.to())));
        }
        rows
    }

    /// Reads one line, given without a newline and holding none.
    pub fn read_one(&self, line: &[u8]) -> Result<Entry, LineError> {
        self.write(&[HEADER, line, b"\n"]);
        let rows: [Row; 1] = self.rows(Cursor::START, 9).try_into().expect("one line");
        let [row] = rows;
        row.read
    }
}

impl Row {
    fn new(line: &Line, end: Cursor) -> Self {
        let shown = format!("{} {} {:?}", line.number, line.offset, line.content);
        let read = match &line.content {
            Content::Entry(entry) => Ok(entry.clone()),
            Content::Invalid(error) => Err(error.clone()),
        };
        Self { shown, read, end }
    }
}
