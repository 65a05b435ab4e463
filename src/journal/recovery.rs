//! What did a dead writer leave? Runs at open, under the dead writer's lock.
//!
//! Cuts the torn tail of its segment and nothing else. The segment gets no new line: that its
//! session was aborted is written elsewhere, by the caller, who then drops the marker.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use super::discover::read_header;
use super::marker::{self, HeldMarker, Marker, Seen};
use crate::disk;
use crate::entry::line::LINE_BYTES_MAX;
use crate::entry::{Body, line};
use crate::error::{Error, Result};
use crate::timestamp::Timestamp;

const BLOCK_BYTES: u64 = 64 << 10;

/// A segment whose writer is gone, its tail whole again.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) marker: Marker,
    pub(crate) held: HeldMarker,
    /// The last thing known of the writer.
    pub(crate) last_seen: Timestamp,
    /// The writer had ended its session before it went.
    pub(crate) ended: bool,
    /// Bytes of the torn tail that was cut.
    pub(crate) torn_bytes: u64,
}

/// Recovers every segment of a dead writer; segments of live writers are not touched.
pub(crate) fn recover(root: &Path) -> Result<Vec<Recovered>> {
    let mut recovered = Vec::new();
    for seen in marker::look(root)? {
        if let Seen::Dead(dead) = seen {
            let (marker, held) = *dead;
            match segment_path(root, &marker).filter(|path| is_segment(path, &marker)) {
                Some(path) => recovered.push(recover_segment(&path, marker, held)?),
                None => held.remove()?,
            }
        }
    }
    Ok(recovered)
}

/// The marker's file, unless it names something outside the store.
fn segment_path(root: &Path, marker: &Marker) -> Option<PathBuf> {
    let relative = Path::new(&marker.file);
    let inside = relative.components().all(|part| matches!(part, Component::Normal(_)));
    let path = root.join(relative);
    let is_link = path.symlink_metadata().is_ok_and(|found| found.is_symlink());
    (inside && !is_link).then_some(path)
}

/// Whether the file is the marker's segment. The writer may have died before it made the file, and
/// another one may have taken the name since.
fn is_segment(path: &Path, marker: &Marker) -> bool {
    matches!(read_header(path), Ok(Some(header)) if header.segment == marker.segment)
}

fn recover_segment(path: &Path, marker: Marker, held: HeldMarker) -> Result<Recovered> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let length = file.metadata().map_err(Error::io("inspect", path))?.len();
    let end = newline_before(&mut file, length).map_err(Error::io("read", path))?.unwrap_or(length);
    if end < length {
        disk::truncate(path, end)?;
    }
    let last = last_line(&mut file, end).map_err(Error::io("read", path))?;
    let entry = line::read(&last).ok();
    Ok(Recovered {
        last_seen: entry.as_ref().map_or(marker.created_at, |entry| entry.timestamp),
        ended: entry.is_some_and(|entry| matches!(entry.body, Body::SessionEnded(_))),
        torn_bytes: length - end,
        marker,
        held,
    })
}

/// Offset behind the last newline that lies before `end`.
fn newline_before(file: &mut File, end: u64) -> std::io::Result<Option<u64>> {
    let mut block_end = end;
    while block_end > 0 {
        let block_start = block_end.saturating_sub(BLOCK_BYTES);
        let mut block = Vec::new();
        file.seek(SeekFrom::Start(block_start))?;
        file.take(block_end - block_start).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(Some(block_start + at as u64 + 1));
        }
        block_end = block_start;
    }
    Ok(None)
}

/// The line that ends at `end`, without its newline; empty if it is longer than a line may be.
fn last_line(file: &mut File, end: u64) -> std::io::Result<Vec<u8>> {
    let Some(newline) = end.checked_sub(1) else { return Ok(Vec::new()) };
    let start = newline_before(file, newline)?.unwrap_or(0);
    if newline - start > LINE_BYTES_MAX as u64 {
        return Ok(Vec::new());
    }
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(newline - start).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::ids::{SessionId, StoreId};
    use crate::journal::Header;
    use crate::journal::writer::SegmentWriter;

    fn header() -> Header {
        Header::new(StoreId::random(), Some((SessionId::new("run-7").unwrap(), 1)))
    }

    /// What a writer leaves that died with its marker naming `file`.
    fn dead_marker(root: &Path, file: &str) {
        let header = header();
        drop(HeldMarker::create(root, &header, file.into()).unwrap());
    }

    #[test]
    fn a_marker_without_its_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        dead_marker(folder.path(), "logs/telemetry/session_run-7.jsonl");
        assert!(recover(folder.path()).unwrap().is_empty());
        assert_eq!(fs::read_dir(folder.path().join("active")).unwrap().count(), 0);
    }

    #[test]
    fn a_live_segment_that_took_the_name_of_a_dead_writer_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let writer = SegmentWriter::create(folder.path(), header(), None).unwrap();
        let path = folder.path().join("logs/telemetry/session_run-7.jsonl");
        let torn = [fs::read(&path).unwrap(), b"{\"half".to_vec()].concat();
        fs::write(&path, &torn).unwrap();
        dead_marker(folder.path(), "logs/telemetry/session_run-7.jsonl");
        assert!(recover(folder.path()).unwrap().is_empty());
        assert_eq!(fs::read(&path).unwrap(), torn);
        drop(writer);
    }

    #[test]
    fn a_marker_that_points_out_of_the_store_touches_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside.jsonl");
        fs::write(&outside, "torn").unwrap();
        let root = folder.path().join("store");
        for file in ["../outside.jsonl", outside.to_str().unwrap()] {
            dead_marker(&root, file);
        }
        assert!(recover(&root).unwrap().is_empty());
        assert_eq!(fs::read(&outside).unwrap(), b"torn");
    }
}
