//! Lines that the index has read and that are still the same bytes.
//!
//! With the cursor after every 1,024th line the index keeps a CRC-32 of all bytes before it. Where it
//! is still right, these are the bytes that the index parsed, by this version's rules, and it knows
//! which of them are no entries. So records among them are not parsed again, which takes ten times
//! as long as reading them; every other line is. From the first place on where the CRC-32 is another
//! one, and where there is no index, [`segments`](super::segments) parses every line.

use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::thread;

use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter};

use super::Verification;
use super::index::Mark;
use super::segments::Scan;
use crate::disk;
use crate::entry::line;
use crate::error::{Error, Result};
use crate::journal::{Content, Cursor};

/// Regions that are looked at together, by all threads; one has about half a megabyte.
const REGIONS_MAX: usize = 64;
/// A disk does not get faster by more.
const THREADS_MAX: usize = 8;
/// Bytes of one region's parsed lines; a region of more is left to the reader of batches.
const PARSED_BYTES_MAX: usize = 2 << 20;
/// Bytes of one region, held by each thread; a larger one, too, is left to the reader of batches.
const REGION_BYTES_MAX: u64 = 16 << 20;

/// What lies between two marks, unchanged.
struct Region {
    end: Mark,
    bytes: u64,
    /// Valid records that were not parsed.
    records: u64,
    others: Vec<ParsedLine>,
}

/// A line that was parsed.
struct ParsedLine {
    number: u32,
    offset: u64,
    content: Content,
}

impl Verification<'_> {
    /// Takes what the index knows from the beginning of a segment on; where that ends.
    pub(super) fn known(&mut self, scan: &mut Scan<'_>, start: Cursor) -> Result<Cursor> {
        let trusted = scan.indexed.filter(|_| self.trusts_index);
        let Some(number) = trusted.map(|indexed| indexed.number) else { return Ok(start) };
        let mut known = Mark::first(start);
        loop {
            // an index that cannot be read is no reason not to read the file
            let marks = self.index.marks(number, known, REGIONS_MAX).unwrap_or_default();
            let Some(end) = marks.last().filter(|_| marks.len() > 1) else {
                return Ok(known.cursor);
            };
            let lines = known.cursor.next_line..end.cursor.next_line;
            let Ok(invalid) = self.index.invalid_lines(number, lines) else {
                return Ok(known.cursor);
            };
            for region in regions(&scan.segment.path, &marks, &invalid) {
                let region = region.map_err(Error::io("read", &scan.segment.path))?;
                let Some(region) = region else { return Ok(known.cursor) };
                known = region.end;
                self.region(scan, region);
            }
        }
    }

    fn region(&mut self, scan: &mut Scan<'_>, region: Region) {
        scan.counts.count_records(region.records);
        self.report.entries += region.records;
        self.report.records += region.records;
        for line in &region.others {
            self.line(scan, line.number, line.offset, &line.content);
        }
        self.advance(region.bytes);
    }
}

/// Looks at the regions between these marks, in as many threads as there are processors.
fn regions(path: &Path, marks: &[Mark], invalid: &HashSet<u32>) -> Vec<io::Result<Option<Region>>> {
    let ends: Vec<&[Mark]> = marks.windows(2).collect();
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let look = |ends: &[&[Mark]]| -> Vec<_> {
        let mut buffer = Vec::new();
        ends.iter().map(|ends| region(path, ends, invalid, &mut buffer)).collect()
    };
    thread::scope(|scope| {
        let shares = ends.chunks(ends.len().div_ceil(threads).max(1));
        let started: Vec<_> = shares
            .map(|share| (share, thread::Builder::new().spawn_scoped(scope, || look(share))))
            .collect();
        let results = started.into_iter().map(|(share, thread)| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(_) => look(share), // no thread is to be had
        });
        results.flatten().collect()
    })
}

/// `None` if these are other bytes than those that the index read, or more than are held at a time.
fn region(
    path: &Path,
    ends: &[Mark],
    invalid: &HashSet<u32>,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Region>> {
    let [from, to] = ends else { return Ok(None) };
    if !read_unchanged(path, from, to, buffer)? {
        return Ok(None);
    }
    let event = Finder::new(b"\"event\"");
    let may_be_event = |bytes: &[u8]| memchr(b'\\', bytes).is_some() || event.find(bytes).is_some();
    let any_event = may_be_event(buffer);
    let mut region = Region { end: *to, bytes: 0, records: 0, others: Vec::new() };
    let mut parsed_bytes = 0;
    for (number, line) in (from.cursor.next_line..).zip(lines(buffer)) {
        let offset = from.cursor.next_byte + region.bytes;
        region.bytes += line.len() as u64;
        let is_event = any_event && may_be_event(line);
        if !is_event && is_like_record(line) && !invalid.contains(&number) {
            region.records += 1;
            continue;
        }
        parsed_bytes += line.len();
        let Some(content) = parse(line).filter(|_| parsed_bytes <= PARSED_BYTES_MAX) else {
            return Ok(None);
        };
        region.others.push(ParsedLine { number, offset, content });
    }
    Ok(Some(region))
}

/// Reads what lies between two marks; whether it has the CRC-32 that it had when it was parsed.
fn read_unchanged(path: &Path, from: &Mark, to: &Mark, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let bytes = to.cursor.next_byte.checked_sub(from.cursor.next_byte);
    let Some(bytes) = bytes.filter(|bytes| *bytes <= REGION_BYTES_MAX) else { return Ok(false) };
    let mut file = disk::open(path)?;
    file.seek(SeekFrom::Start(from.cursor.next_byte))?;
    buffer.clear();
    file.take(bytes).read_to_end(buffer)?;
    let mut crc = crc32fast::Hasher::new_with_initial(from.crc);
    crc.update(buffer);
    Ok(buffer.len() as u64 == bytes && crc.finalize() == to.crc)
}

/// Lines with their newlines; a mark stands behind one.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    memchr_iter(b'\n', bytes).map(move |newline| {
        let line = bytes.get(start..=newline).unwrap_or_default();
        start = newline + 1;
        line
    })
}

/// `None` if the line is not complete.
fn parse(line: &[u8]) -> Option<Content> {
    let line = line.strip_suffix(b"\n")?;
    Some(line::read(line).map_or_else(Content::Invalid, Content::Entry))
}

/// Whether a line that is an entry begins as tidelog writes a record. It is one for certain if there
/// is nothing in it that could be the key of an event.
fn is_like_record(line: &[u8]) -> bool {
    const TIMESTAMP_BYTES: usize = "2026-01-05T09:30:00.123456Z".len();
    let step = line
        .strip_prefix(b"{\"timestamp\":\"")
        .and_then(|rest| rest.get(TIMESTAMP_BYTES..)?.strip_prefix(b"\",\"step\":"));
    let Some(step) = step else { return false };
    let digits = step.iter().take_while(|byte| matches!(byte, b'-' | b'0'..=b'9')).count();
    step.get(digits..).is_some_and(|rest| rest.starts_with(b",\"telemetry\":{"))
}
