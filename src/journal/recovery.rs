//! What did a dead writer leave? Runs at open, under the dead writer's lock.
//!
//! Cuts the torn tail of its segment and nothing else; a file that is nothing but a torn header is
//! removed. The segment gets no new line: that its
//! session was aborted is written elsewhere, by the caller, who then drops the marker.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::discover::read_header;
use super::marker::{self, HeldMarker, Marker, Seen};
use super::segment;
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

/// Recovers every segment of a dead writer and hands it to `seal`; segments of live writers are not
/// touched.
///
/// A segment that cannot be recovered keeps its marker, does not keep the others from it, and does
/// not keep anybody from recording: `status` lists it as abandoned, and the next open tries again.
pub(crate) fn recover(root: &Path, mut seal: impl FnMut(Recovered) -> Result<()>) -> Result<()> {
    for seen in marker::look(root)?.seen {
        if let Seen::Dead(dead) = seen {
            recover_one(root, *dead, &mut seal).ok();
        }
    }
    marker::remove_ownerless_reserves(root).ok(); // 256 KiB less, and nobody is kept from recording
    Ok(())
}

fn recover_one(
    root: &Path,
    (marker, held): (Marker, HeldMarker),
    seal: &mut impl FnMut(Recovered) -> Result<()>,
) -> Result<()> {
    let Some(path) = segment_path(root, &marker) else { return held.remove() };
    match read_header(&path) {
        _ if !path.exists() => held.remove(),
        Ok(Some(header)) if header.segment == marker.segment => {
            seal(recover_segment(&path, marker, held)?)
        }
        // another writer took the name after this one died
        Ok(Some(_)) => held.remove(),
        Ok(None) => remove_without_header(root, &path, &marker, held),
        // written by a newer tidelog, or unreadable today: not ours to judge
        Err(_) => Ok(()),
    }
}

/// The writer died before its first line was whole, so nothing was ever acknowledged. Unless the
/// file is another writer's, who announced it before making it.
fn remove_without_header(
    root: &Path,
    path: &Path,
    marker: &Marker,
    held: HeldMarker,
) -> Result<()> {
    let is_others = marker::is_announced(root, &marker.file, marker.segment)?;
    if !is_others && matches!(read_header(path), Ok(None)) {
        disk::remove(path)?;
    }
    held.remove()
}

/// The marker's file, unless it names something that lies where no segment does.
fn segment_path(root: &Path, marker: &Marker) -> Option<PathBuf> {
    let path = root.join(&marker.file);
    let folder = path.parent()?;
    let is_folder_of_segments =
        folder == segment::telemetry_folder(root) || folder == segment::store_folder(root);
    let is_named_so = path.extension().is_some_and(|ending| ending == "jsonl");
    (is_folder_of_segments && is_named_so && path.file_name().is_some()).then_some(path)
}

fn recover_segment(path: &Path, marker: Marker, held: HeldMarker) -> Result<Recovered> {
    let mut file = disk::open(path).map_err(Error::io("open", path))?;
    let length = file.metadata().map_err(Error::io("inspect", path))?.len();
    let end = newline_before(&mut file, length).map_err(Error::io("read", path))?.unwrap_or(length);
    // also where nothing is cut: what is judged here the dead writer may not have persisted, and
    // without its marker nobody would look again
    disk::truncate(path, end)?;
    disk::persist_folder_of(path)?;
    let last = last_line(&mut file, end).map_err(Error::io("read", path))?;
    let entry = line::read(&last).ok();
    Ok(Recovered {
        last_seen: entry.as_ref().map_or(marker.created_at, |entry| entry.timestamp),
        ended: entry.is_some_and(|entry| is_own_end(&entry.body)),
        torn_bytes: length - end,
        marker,
        held,
    })
}

/// A segment that goes on for another one begins with that one's end.
fn is_own_end(body: &Body) -> bool {
    matches!(body, Body::SessionEnded(ended) if ended.of.is_none())
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
    use crate::entry::{EndedPart, Entry, Outcome, SessionEnded};
    use crate::ids::{SegmentId, SessionId, StoreId};
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

    fn recovered(root: &Path) -> usize {
        let mut count = 0;
        recover(root, |recovered| {
            count += 1;
            recovered.held.remove()
        })
        .unwrap();
        count
    }

    fn markers(root: &Path) -> usize {
        marker::look(root).unwrap().seen.len()
    }

    #[test]
    fn a_marker_without_its_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        dead_marker(folder.path(), "logs/telemetry/session_run-7.jsonl");
        assert_eq!(recovered(folder.path()), 0);
        assert_eq!(markers(folder.path()), 0);
    }

    #[test]
    fn a_reserve_without_its_marker_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let _live = SegmentWriter::create(folder.path(), header(), &[]).unwrap();
        let ownerless = marker::reserve_path(folder.path(), SegmentId::random());
        fs::write(&ownerless, "").unwrap();
        recovered(folder.path());
        let left = fs::read_dir(ownerless.parent().unwrap()).unwrap().count();
        assert_eq!(
            (ownerless.exists(), left),
            (false, 3),
            "marker, reserve and turn of the live one"
        );
    }

    #[test]
    fn a_live_segment_that_took_the_name_of_a_dead_writer_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let writer = SegmentWriter::create(folder.path(), header(), &[]).unwrap();
        let path = folder.path().join("logs/telemetry/session_run-7.jsonl");
        let torn = [fs::read(&path).unwrap(), b"{\"half".to_vec()].concat();
        fs::write(&path, &torn).unwrap();
        dead_marker(folder.path(), "logs/telemetry/session_run-7.jsonl");
        assert_eq!(recovered(folder.path()), 0);
        assert_eq!(fs::read(&path).unwrap(), torn);
        drop(writer);
    }

    #[test]
    fn a_file_that_is_nothing_but_a_torn_header_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = "logs/telemetry/session_run-7.jsonl";
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        for torn in ["", "{\"tidelog\":1,"] {
            fs::write(&path, torn).unwrap();
            dead_marker(folder.path(), file);
            assert_eq!(recovered(folder.path()), 0);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_file_that_another_writer_has_just_begun_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = "logs/telemetry/session_run-7.jsonl";
        let path = folder.path().join(file);
        let live = HeldMarker::create(folder.path(), &header(), file.into()).unwrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        dead_marker(folder.path(), file);
        assert_eq!(recovered(folder.path()), 0);
        assert!(path.exists());
        drop(live);
    }

    #[test]
    fn a_marker_of_another_file_of_the_store_touches_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("checkpoints")).unwrap();
        for file in ["store.json", "checkpoints/c.npz", "logs/telemetry/../../store.json"] {
            let path = folder.path().join(file.rsplit("../").next().unwrap());
            fs::write(&path, "no newline").unwrap();
            dead_marker(folder.path(), file);
            assert_eq!(recovered(folder.path()), 0);
            assert_eq!(fs::read(&path).unwrap(), b"no newline");
        }
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
        assert_eq!(recovered(&root), 0);
        assert_eq!(fs::read(&outside).unwrap(), b"torn");
    }

    #[test]
    fn a_segment_of_a_newer_format_keeps_its_marker() {
        let folder = tempfile::tempdir().unwrap();
        let mut header = header();
        header.format_version += 1;
        let file = "logs/telemetry/s.jsonl";
        drop(HeldMarker::create(folder.path(), &header, file.into()).unwrap());
        let mut bytes = Vec::new();
        line::write(&header, &mut bytes).unwrap();
        fs::create_dir_all(folder.path().join("logs/telemetry")).unwrap();
        fs::write(folder.path().join(file), bytes).unwrap();
        assert_eq!(recovered(folder.path()), 0);
        assert_eq!(markers(folder.path()), 1);
    }

    #[test]
    fn the_end_of_another_segment_is_not_the_writers_own() {
        let (id, segment) = (SessionId::new("run-7").unwrap(), SegmentId::random());
        for (of, expected) in [(None, true), (Some(EndedPart { segment, session_id: id }), false)] {
            let folder = tempfile::tempdir().unwrap();
            let outcome = Outcome::Continued;
            let body = Body::SessionEnded(SessionEnded { outcome, reason: None, of });
            let entry = Entry { timestamp: Timestamp::now(), body };
            drop(SegmentWriter::create(folder.path(), header(), &[entry]).unwrap());
            let mut ended = Vec::new();
            recover(folder.path(), |recovered| {
                ended.push(recovered.ended);
                Ok(())
            })
            .unwrap();
            assert_eq!(ended, [expected]);
        }
    }

    #[test]
    fn a_file_that_is_no_marker_keeps_nobody_from_recording() {
        let folder = tempfile::tempdir().unwrap();
        dead_marker(folder.path(), "s.jsonl");
        fs::write(folder.path().join("active/x.json"), "").unwrap();
        assert_eq!(recovered(folder.path()), 0);
        assert_eq!(markers(folder.path()), 1);
    }
}
