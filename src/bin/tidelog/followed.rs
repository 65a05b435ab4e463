//! Reading the segments of one session, first from their ends and then on as they grow.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use tidelog::journal::{BatchLimits, Content, Cursor, Segment, SegmentReader, discover};
use tidelog::{Entry, SegmentId, SessionId, Store};

use crate::error::CliError;
use crate::output::remark;

const BLOCK_BYTES: u64 = 64 << 10;
const LIMITS: BatchLimits = BatchLimits { lines_max: 1_024, bytes_max: 1 << 20 };

/// A session's segments, each read up to some place.
pub(crate) struct Followed<'a> {
    store: &'a Store,
    session: &'a SessionId,
    known: HashSet<SegmentId>,
    parts: Vec<Part>,
}

/// One segment and how far it was read.
struct Part {
    path: PathBuf,
    reader: SegmentReader,
}

impl<'a> Followed<'a> {
    pub(crate) fn new(store: &'a Store, session: &'a SessionId) -> Self {
        Self { store, session, known: HashSet::new(), parts: Vec::new() }
    }

    /// The last `limit` entries of the segments that are there now, oldest first.
    pub(crate) fn past(&mut self, limit: usize) -> Result<Vec<Entry>, CliError> {
        let mut last: Vec<Entry> = Vec::new();
        for segment in self.unknown_segments()? {
            let place = place_before(&segment.path, limit)?;
            let mut part = Part::open(segment.path, place)?;
            part.read_on(&mut |entry| {
                last.push(entry.clone());
                Ok(())
            })?;
            self.parts.push(part);
            // a stable sort: entries of one segment stay in their order
            last.sort_by_key(|entry| entry.timestamp);
            last.drain(..last.len().saturating_sub(limit));
        }
        if self.known.is_empty() {
            let (id, store) = (self.session.clone(), self.store.root().to_owned());
            return Err(tidelog::Error::SessionUnknown { id, store }.into());
        }
        Ok(last)
    }

    /// Takes segments that came since the last look; they are read from their beginning.
    pub(crate) fn find_new_segments(&mut self) -> Result<(), CliError> {
        for segment in self.unknown_segments()? {
            self.parts.push(Part::open(segment.path, Cursor::START)?);
        }
        Ok(())
    }

    /// Gives every entry that was written since the last call.
    pub(crate) fn new_entries(
        &mut self,
        mut on_entry: impl FnMut(&Entry) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        self.parts.iter_mut().try_for_each(|part| part.read_on(&mut on_entry))
    }

    /// Whether a living process writes the session.
    pub(crate) fn is_written(&self) -> Result<bool, CliError> {
        let writers = self.store.status()?.writers;
        Ok(writers.iter().any(|writer| writer.session_id.as_ref() == Some(self.session)))
    }

    fn unknown_segments(&mut self) -> Result<Vec<Segment>, CliError> {
        let mut segments = discover(self.store.root())?.segments;
        segments.retain(|segment| {
            segment.header.session.as_ref() == Some(self.session)
                && self.known.insert(segment.header.segment)
        });
        Ok(segments)
    }
}

impl Part {
    fn open(path: PathBuf, place: Cursor) -> Result<Self, CliError> {
        let reader = SegmentReader::open(&path, place)?;
        Ok(Self { path, reader })
    }

    /// Reads what is complete by now. A damaged line is a remark on standard error.
    fn read_on(
        &mut self,
        on_entry: &mut impl FnMut(&Entry) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        while let Some(batch) = self.reader.next_batch(LIMITS)? {
            for line in batch.lines() {
                match &line.content {
                    Content::Entry(entry) => on_entry(entry)?,
                    Content::Invalid(error) => {
                        let (path, byte) = (self.path.display(), line.offset);
                        remark(&format!("warning: {path} byte {byte}: {error}"));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The place before the last `lines` complete lines. Only its byte is known: nobody compares the
/// line number and the hash.
fn place_before(path: &Path, lines: usize) -> Result<Cursor, CliError> {
    let byte = File::open(path).and_then(|mut file| byte_before(&mut file, lines));
    match byte {
        Ok(0) => Ok(Cursor::START),
        Ok(next_byte) => Ok(Cursor { next_line: 1, next_byte, ..Cursor::START }),
        Err(source) => {
            Err(tidelog::Error::Io { action: "read", path: path.to_owned(), source }.into())
        }
    }
}

/// Searches backwards, block by block.
fn byte_before(file: &mut File, lines: usize) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut newlines = 0;
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES);
        let mut block = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        file.take(end - start).read_to_end(&mut block)?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            newlines += 1;
            if newlines > lines {
                return Ok(start + at as u64 + 1);
            }
        }
        end = start;
    }
    Ok(0)
}
