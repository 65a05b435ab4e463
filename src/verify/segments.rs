//! Every line of every segment.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use super::Verification;
use super::index::{Counts, IndexedSegment};
use super::report::{Finding, FindingKind};
use super::writers::{WriterState, Writers};
use crate::emergency;
use crate::entry::{Body, Entry};
use crate::error::{Error, Result};
use crate::ids::SegmentId;
use crate::journal::{
    BatchLimits, Content, Cursor, Listing, Segment, SegmentReader, read_header, segment_files,
};

const BATCH_LINES: usize = 4_096;
const BATCH_BYTES: usize = 1 << 20;

/// One segment while it is read.
pub(super) struct Scan<'a> {
    pub(super) segment: &'a Segment,
    pub(super) indexed: Option<IndexedSegment>,
    /// Entries up to the index's cursor.
    pub(super) counts: Counts,
}

impl Verification<'_> {
    pub(super) fn segments(&mut self, listing: Listing) -> Result<()> {
        self.files_without_header(&listing)?;
        for refused in listing.refused {
            let remedy = "move it out of the folder; readers pass over it";
            self.found(Finding::new(
                FindingKind::FileRefused,
                &refused.path,
                refused.reason,
                remedy,
            ));
        }
        let mut seen: HashMap<SegmentId, &Path> = HashMap::new();
        for segment in &listing.segments {
            match seen.insert(segment.header.segment, &segment.path) {
                Some(first) => self.segment_twice(segment, first),
                None => self.segment(segment)?,
            }
        }
        self.index_knows_more(&seen);
        Ok(())
    }

    fn segment(&mut self, segment: &Segment) -> Result<()> {
        if segment.header.store != self.store {
            self.found(Finding::new(
                FindingKind::SegmentForeign,
                &segment.path,
                format!(
                    "was written to the store {}, this one is {}",
                    segment.header.store, self.store
                ),
                "move it back to its store; if all segments say so, copy store.json back from a \
                 backup, or move it away: the next program that records here makes it again",
            ));
        }
        let indexed = self.index.segment(&segment.header.segment);
        let mut scan = Scan { segment, indexed, counts: Counts::default() };
        match self.scan(&mut scan) {
            Ok(end) => {
                self.report.segments += 1;
                self.report.journal_bytes += end.next_byte;
                self.compare_with_index(&scan, &end);
                Ok(())
            }
            Err(Error::Io { path, action, source }) if path == segment.path => {
                self.failed(&segment.path, &Error::Io { path, action, source });
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    /// Reads to the end of the complete lines.
    fn scan(&mut self, scan: &mut Scan<'_>) -> Result<Cursor> {
        let path = &scan.segment.path;
        let start = *SegmentReader::open(path, Cursor::START)?.cursor();
        let known = self.known(scan, start)?;
        let mut reader = SegmentReader::open(path, known)?;
        self.compare_cursor(scan, reader.cursor());
        self.drain(scan, &mut reader)?;
        while tail_bytes(path, reader.cursor())? > 0 {
            let state = Writers::look(self.root)?.of(&scan.segment.header.segment);
            // it may have finished its line, and even sealed, before we asked for it
            let grew = self.drain(scan, &mut reader)?;
            if state == WriterState::Live {
                break;
            }
            let bytes = tail_bytes(path, reader.cursor())?;
            if !grew && bytes > 0 {
                self.found(tail(path, reader.cursor(), bytes, state));
                break;
            }
        }
        Ok(*reader.cursor())
    }

    /// Reads all complete lines; whether there were any.
    fn drain(&mut self, scan: &mut Scan<'_>, reader: &mut SegmentReader) -> Result<bool> {
        let before = reader.cursor().next_line;
        while let Some(batch) = reader.next_batch(scan.limits(reader.cursor()))? {
            for line in batch.lines() {
                self.line(scan, line.number, line.offset, &line.content);
            }
            self.advance(batch.to().next_byte - batch.from().next_byte);
            self.compare_cursor(scan, batch.to());
        }
        Ok(reader.cursor().next_line > before)
    }

    pub(super) fn line(
        &mut self,
        scan: &mut Scan<'_>,
        number: u32,
        offset: u64,
        content: &Content,
    ) {
        let path = &scan.segment.path;
        let counts = match &scan.indexed {
            Some(indexed) if number < indexed.cursor.next_line => &mut scan.counts,
            _ => &mut Counts::default(),
        };
        match content {
            Content::Invalid(error) => {
                counts.count_invalid();
                let remedy = "copy the file back from a backup; readers skip the line and keep \
                              its neighbours";
                let kind = FindingKind::LineInvalid;
                let finding = Finding::new(kind, path, error.to_string(), remedy);
                self.found(finding.at(number, offset));
            }
            Content::Entry(entry) => {
                counts.count(&scan.segment.header, &entry.body);
                self.report.entries += 1;
                self.report.records += u64::from(matches!(entry.body, Body::Record(_)));
                self.entry(scan.segment, number, entry);
            }
        }
    }

    fn entry(&mut self, segment: &Segment, line: u32, entry: &Entry) {
        match &entry.body {
            Body::CheckpointCreated(created) => {
                self.checkpoints.created(&segment.path, line, entry.timestamp, created);
            }
            Body::Checkpoint(action) => self.checkpoints.action(entry.timestamp, action),
            // an import takes events from files of its own, and keeps those
            Body::Emergency(event) if segment.header.source.is_none() => {
                let copy = emergency::copy_path(self.root, &event.event_id);
                if fs::symlink_metadata(&copy).is_err() {
                    self.found(Finding::new(
                        FindingKind::EmergencyCopyMissing,
                        &copy,
                        format!("is the copy of event {} and is gone", event.event_id),
                        "nothing to do: the journal has the event",
                    ));
                }
            }
            _ => {}
        }
    }

    /// Files whose first line never got its newline, which readers pass over. A header is persisted
    /// before anybody is told of its segment, so without a marker they are damage.
    fn files_without_header(&mut self, listing: &Listing) -> Result<()> {
        let known: HashSet<&Path> = (listing.segments.iter().map(|found| found.path.as_path()))
            .chain(listing.refused.iter().map(|found| found.path.as_path()))
            .collect();
        let mut unknown = segment_files(self.root)?;
        unknown.retain(|path| !known.contains(path.as_path()));
        if unknown.is_empty() {
            return Ok(());
        }
        let writers = Writers::look(self.root)?;
        for path in unknown {
            let state = writers.of_file(&self.relative(&path).to_string_lossy());
            // one that was sealed since the listing has its header by now
            if state == WriterState::Sealed && matches!(read_header(&path), Ok(None)) {
                self.found(header_missing(&path));
            }
        }
        Ok(())
    }

    fn segment_twice(&mut self, segment: &Segment, first: &Path) {
        self.found(Finding::new(
            FindingKind::SegmentTwice,
            &segment.path,
            format!("is the same segment as {}", self.relative(first).display()),
            "move one of the two files out of the folder",
        ));
    }
}

impl Scan<'_> {
    /// Batches end at the index's cursor, so that the hash there can be compared.
    fn limits(&self, at: &Cursor) -> BatchLimits {
        let until = self.indexed.as_ref().map_or(0, |indexed| indexed.cursor.next_line);
        let lines_max = match until.checked_sub(at.next_line) {
            Some(lines) if lines > 0 => BATCH_LINES.min(usize::try_from(lines).unwrap_or(1)),
            _ => BATCH_LINES,
        };
        BatchLimits { lines_max, bytes_max: BATCH_BYTES }
    }
}

/// Bytes behind the last newline.
fn tail_bytes(path: &Path, end: &Cursor) -> Result<u64> {
    let length = fs::metadata(path).map_err(Error::io("inspect", path))?.len();
    Ok(length.saturating_sub(end.next_byte))
}

fn tail(path: &Path, end: &Cursor, bytes: u64, state: WriterState) -> Finding {
    let reason = format!("the last line has {bytes} bytes and no newline: it is no entry");
    let finding = match state {
        WriterState::Dead => Finding::new(
            FindingKind::TailUnrecovered,
            path,
            format!("{reason}; its writer died"),
            "nothing to do: the next program that opens the store for writing cuts it",
        ),
        _ => Finding::new(
            FindingKind::TailTorn,
            path,
            format!("{reason}, and no dead writer explains it"),
            "copy the file back from a backup; every line before it is kept",
        ),
    };
    finding.at(end.next_line, end.next_byte)
}

fn header_missing(path: &Path) -> Finding {
    let reason = "has no complete first line: nothing can be read from it";
    let remedy = "copy the file back from a backup, or remove it if its program died at once";
    Finding::new(FindingKind::FileRefused, path, reason.into(), remedy).at(0, 0)
}
