//! Which segments does a store have?

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::batch::{BatchLimits, Content};
use super::cursor::Cursor;
use super::reader::SegmentReader;
use super::segment::{self, Header};
use crate::disk;
use crate::entry::Body;
use crate::entry::line::{LINE_BYTES_MAX, LineError};
use crate::error::{Error, Result};
use crate::ids::SessionId;

/// A file with a valid header line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Where it lies.
    pub path: PathBuf,
    /// Its line 0.
    pub header: Header,
}

/// A file that lies where segments lie and is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where it lies.
    pub path: PathBuf,
    /// Why it is no segment.
    pub reason: String,
}

/// What lies in the folders of the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Oldest first; equal times by id. An order for people: no result depends on it.
    pub segments: Vec<Segment>,
    /// Files that readers pass over and `verify` reports.
    pub refused: Vec<Refused>,
}

/// Lists a store's segments by reading their header lines.
///
/// # Errors
/// A folder that cannot be listed. A file that cannot be read is [`Refused`].
pub fn discover(root: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    for path in segment_files(root)? {
        match read_header(&path) {
            Ok(Some(header)) => listing.segments.push(Segment { path, header }),
            Ok(None) => {} // its writer is about to write the header, or died before
            Err(reason) => listing.refused.push(Refused { path, reason }),
        }
    }
    listing.segments.sort_by_key(|found| (found.header.created_at, found.header.segment));
    Ok(listing)
}

/// The highest attempt of a session so far; 0 if the store does not know it.
pub(crate) fn last_attempt(root: &Path, session: &SessionId) -> Result<u32> {
    let stem = segment::session_stem(session);
    let mut last = 0;
    for path in jsonl_files(&segment::telemetry_folder(root))? {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        if !name.strip_prefix(&stem).is_some_and(|rest| rest.starts_with('.')) {
            continue;
        }
        if let Ok(Some(header)) = read_header(&path)
            && header.session.as_ref() == Some(session)
        {
            last = last.max(header.attempt.unwrap_or(1));
        }
    }
    Ok(last)
}

/// Whether the store's own journal says that a session was deleted. It has a line for each thing that
/// happened outside of sessions, so reading it takes no time that a session would notice.
pub(crate) fn is_deleted(root: &Path, session: &SessionId) -> Result<bool> {
    const LIMITS: BatchLimits = BatchLimits { lines_max: 1000, bytes_max: 1 << 20 };
    for path in jsonl_files(&segment::store_folder(root))? {
        let Ok(Some(_)) = read_header(&path) else { continue };
        let mut reader = SegmentReader::open(&path, Cursor::START)?;
        while let Some(batch) = reader.next_batch(LIMITS)? {
            if batch.lines().iter().any(|line| deletes(&line.content, session)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn deletes(content: &Content, session: &SessionId) -> bool {
    let Content::Entry(entry) = content else { return false };
    matches!(&entry.body, Body::SessionDeleted { session_id } if session_id == session)
}

/// The files that lie where segments lie.
pub(crate) fn segment_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = jsonl_files(&segment::telemetry_folder(root))?;
    paths.extend(jsonl_files(&segment::store_folder(root))?);
    Ok(paths)
}

/// The `*.jsonl` files of a folder, by name; links and folders of that name are passed over.
fn jsonl_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("list", folder))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", folder))?;
        let is_file = entry.file_type().map_err(Error::io("inspect", &entry.path()))?.is_file();
        let path = entry.path();
        if is_file && path.extension().is_some_and(|ending| ending == "jsonl") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The header of a file; `None` while its first line has no newline and may still get one.
pub(crate) fn read_header(path: &Path) -> Result<Option<Header>, String> {
    let file = disk::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    let mut line = Vec::new();
    BufReader::new(file)
        .take(LINE_BYTES_MAX as u64)
        .read_until(b'\n', &mut line)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if line.pop() != Some(b'\n') {
        return match line.len() < LINE_BYTES_MAX - 1 {
            true => Ok(None),
            false => Err(LineError::TooLong { bytes: LINE_BYTES_MAX as u64 }.to_string()),
        };
    }
    Header::read(&line).map(Some).map_err(|error| {
        format!("has no segment header: line 0 {error}; `tidelog import` takes older files")
    })
}
