//! Appends entries to one segment.
//!
//! On disk, in this order: the marker in `active/`; the segment with its header and first entries,
//! persisted; then lines, each whole; at the end the last line persisted and the marker gone. A
//! crash at any place leaves a marker without a segment (removed at the next open), or a segment
//! whose last line may be torn (cut at the next open).

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::cursor::SEGMENT_LINES_MAX;
use super::marker::HeldMarker;
use super::reserve::Reserve;
use super::segment::{self, Header};
use crate::disk;
use crate::entry::Entry;
use crate::entry::line;
use crate::error::{Error, Result};
use crate::ids::SegmentId;

/// The one writer of one segment.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    file: Arc<File>,
    path: PathBuf,
    header: Header,
    marker: HeldMarker,
    /// For what must be written on a full disk; the store's own segments have none.
    reserve: Option<Reserve>,
    /// Bytes in the file.
    bytes: u64,
    pending: Pending,
    /// Number of the next line.
    next_line: u32,
    state: Arc<State>,
}

/// Lines that are not in the file yet.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    bytes: Vec<u8>,
    lines: u32,
}

/// Where a writer stood, to go back to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    byte: u64,
    line: u32,
}

/// What the writer and those who persist tell each other.
#[derive(Debug, Default)]
struct State {
    /// Something was written since the last persist.
    unpersisted: AtomicBool,
    /// Why nobody knows what is on disk: nothing is written any more.
    poison: OnceLock<String>,
    /// Held while persisting: who comes second returns when the first is done, not before.
    persisting: Mutex<()>,
}

impl State {
    fn poison(&self, reason: &str) {
        self.poison.set(reason.to_owned()).ok(); // the first reason stays
    }

    fn check(&self, path: &Path) -> Result<()> {
        match self.poison.get() {
            None => Ok(()),
            Some(reason) => {
                Err(Error::SegmentPoisoned { path: path.to_owned(), reason: reason.clone() })
            }
        }
    }
}

/// Announces and creates the segment's file under the first of its names that is free.
fn create_file(root: &Path, folder: &Path, header: &Header) -> Result<(File, PathBuf, HeldMarker)> {
    let mut paths = header.file_names().into_iter().map(|name| folder.join(name)).peekable();
    while let Some(path) = paths.next() {
        if path.exists() && paths.peek().is_some() {
            continue;
        }
        let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        let marker = HeldMarker::create(root, header, relative)?;
        match disk::create_new(&path) {
            Ok(file) => return Ok((file, path, marker)),
            Err(error) => {
                marker.remove()?;
                // another writer took this very name a moment ago
                if error.kind() != io::ErrorKind::AlreadyExists || paths.peek().is_none() {
                    return Err(Error::io("create", &path)(error));
                }
            }
        }
    }
    Err(Error::io("create", folder)(io::ErrorKind::AlreadyExists.into()))
}

/// What is needed to persist a segment from another thread.
#[derive(Debug, Clone)]
pub(crate) struct PersistHandle {
    segment: SegmentId,
    file: Arc<File>,
    path: PathBuf,
    state: Arc<State>,
}

impl PersistHandle {
    /// The segment.
    pub(crate) fn segment(&self) -> SegmentId {
        self.segment
    }

    /// Persists what was written before the call; nothing to do costs nothing.
    ///
    /// A failure closes the segment: after a failed persist the system may have dropped the bytes,
    /// and a second try would say that all is well.
    pub(crate) fn persist(&self) -> Result<()> {
        let _turn = self.state.persisting.lock().unwrap_or_else(PoisonError::into_inner);
        self.state.check(&self.path)?;
        if !self.state.unpersisted.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        disk::persist(&self.file, &self.path)
            .and_then(|()| disk::check_still_named(&self.file, &self.path))
            .inspect_err(|error| self.state.poison(&error.to_string()))
    }
}

impl SegmentWriter {
    /// Begins a segment with its header and its first entries; all are persisted on return. A
    /// failure leaves nothing behind, if the disk lets it.
    pub(crate) fn create(root: &Path, header: Header, first: &[Entry]) -> Result<Self> {
        let folder = match header.session {
            Some(_) => segment::telemetry_folder(root),
            None => segment::store_folder(root),
        };
        disk::create_folder(&folder)?;
        let (file, path, marker) = create_file(root, &folder, &header)?;
        let reserve = header.session.is_some().then(|| Reserve::take(root, &header));
        let mut writer = Self {
            file: Arc::new(file),
            path,
            header,
            marker,
            reserve,
            bytes: 0,
            pending: Pending::default(),
            next_line: 0,
            state: Arc::default(),
        };
        match writer.begin(first) {
            Ok(()) => Ok(writer),
            Err(error) => {
                writer.remove();
                Err(error)
            }
        }
    }

    fn begin(&mut self, first: &[Entry]) -> Result<()> {
        line::write_checked(&self.header, &mut self.pending.bytes)?;
        self.pending.lines = 1;
        self.next_line = 1;
        for entry in first {
            self.add(|buffer| line::write_checked(entry, buffer))?;
        }
        self.flush()?;
        self.persist_handle().persist()?;
        disk::persist_folder_of(&self.path)
    }

    /// Takes back a segment that nobody knows of yet. What the disk keeps is removed by the next
    /// open: its marker is a dead writer's.
    fn remove(self) {
        if disk::remove(&self.path).is_ok() {
            self.marker.remove().ok();
        }
    }

    /// The segment's line 0.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Whether a segment of at most this size is full. It takes a few lines more if need be.
    pub(crate) fn is_full(&self, bytes_max: u64) -> bool {
        self.has_all_lines() || self.bytes >= bytes_max
    }

    /// Whether it holds as many lines as its replica can number.
    pub(crate) fn has_all_lines(&self) -> bool {
        self.next_line >= SEGMENT_LINES_MAX - SPARE_LINES
    }

    /// Whether another line would have a number.
    pub(crate) fn check_numbers(&self) -> Result<()> {
        match self.has_all_lines() {
            true => Err(Error::SegmentFull { path: self.path.clone(), limit: SEGMENT_LINES_MAX }),
            false => Ok(()),
        }
    }

    /// Why nothing is written any more.
    pub(crate) fn check(&self) -> Result<()> {
        self.state.check(&self.path)
    }

    /// Adds one line to those that are to be written; its number. An error is about the line, and
    /// leaves nothing of it.
    pub(crate) fn add(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<u32> {
        let place = self.place();
        if let Err(error) = write(&mut self.pending.bytes) {
            self.go_back(place);
            self.pending.bytes.shrink_to(KEPT_BYTES); // a line that is too long must not stay
            return Err(error);
        }
        let number = self.next_line;
        self.pending.lines += 1;
        self.next_line += 1;
        Ok(number)
    }

    /// Where the next line is added.
    pub(crate) fn place(&self) -> Place {
        Place { byte: self.bytes + self.pending.bytes.len() as u64, line: self.next_line }
    }

    /// Forgets the lines added since that are not in the file.
    pub(crate) fn go_back(&mut self, place: Place) {
        let kept_bytes = usize::try_from(place.byte.saturating_sub(self.bytes));
        self.pending.bytes.truncate(kept_bytes.unwrap_or(usize::MAX));
        let in_file = self.lines_in_file();
        self.pending.lines = place.line.saturating_sub(in_file);
        self.next_line = in_file + self.pending.lines;
    }

    /// How many lines are in the file, the header included: the number of the first that is not.
    pub(crate) fn lines_in_file(&self) -> u32 {
        self.next_line - self.pending.lines
    }

    /// Bytes that are not in the file yet.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending.bytes.len()
    }

    /// Hands all added lines to the operating system. If that fails, those that are whole in the
    /// file stay there, as a reader may have seen them, and the others stay added.
    ///
    /// On return they survive the death of this process, not yet a power cut.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.check()?;
        self.write_pending()
    }

    /// [`flush`](Self::flush) for who has checked the segment. A persist that failed since might as
    /// well have failed after this write.
    pub(crate) fn write_pending(&mut self) -> Result<()> {
        if self.pending.lines == 0 {
            return Ok(());
        }
        let (written, result) = write_as_much_as_possible(&self.file, &self.pending.bytes);
        if written > 0 {
            self.state.unpersisted.store(true, Ordering::Release);
        }
        if result.is_err() {
            return self.keep_whole_lines(written, result);
        }
        self.bytes += written as u64;
        self.pending.bytes.clear();
        self.pending.bytes.shrink_to(KEPT_BYTES);
        self.pending.lines = 0;
        Ok(())
    }

    /// A failed write may have left the beginning of a line; the next one must not follow it.
    fn keep_whole_lines(&mut self, written: usize, result: io::Result<()>) -> Result<()> {
        let in_file = self.pending.bytes.get(..written).unwrap_or_default();
        let whole = memchr::memrchr(b'\n', in_file).map_or(0, |newline| newline + 1);
        let lines = memchr::memchr_iter(b'\n', in_file).count();
        self.bytes += whole as u64;
        self.pending.bytes.drain(..whole);
        self.pending.lines -= u32::try_from(lines).unwrap_or(self.pending.lines);
        if written > whole
            && let Err(error) = self.file.set_len(self.bytes)
        {
            self.state.poison(&format!("the beginning of a line could not be cut: {error}"));
        }
        result.map_err(Error::io("write", &self.path))
    }

    /// Gives space back to a full disk; whether there was any.
    pub(crate) fn release_reserve(&mut self) -> bool {
        self.reserve.as_mut().is_some_and(Reserve::release)
    }

    /// Takes back the space that was given, or what is left of it.
    pub(crate) fn refill_reserve(&mut self) {
        if let Some(reserve) = &mut self.reserve {
            reserve.refill();
        }
    }

    /// Takes back all the space that was given, if there is so much again; one quick try.
    pub(crate) fn top_up_reserve(&mut self) {
        if let Some(reserve) = &mut self.reserve {
            reserve.top_up();
        }
    }

    /// For those who persist without stopping the writer.
    pub(crate) fn persist_handle(&self) -> PersistHandle {
        PersistHandle {
            segment: self.header.segment,
            file: Arc::clone(&self.file),
            path: self.path.clone(),
            state: Arc::clone(&self.state),
        }
    }

    /// Persists and lets the segment go; nothing is ever appended to it again.
    pub(crate) fn seal(self) -> Result<()> {
        self.persist_handle().persist()?;
        self.marker.remove()
    }

    /// Lets go of a segment that is full or whose disk failed; the lines that are not in it. A
    /// torn tail is cut now, or with its marker at the next open.
    pub(crate) fn leave(self) -> Pending {
        let is_whole = self.file.set_len(self.bytes).is_ok();
        if is_whole {
            self.marker.remove().ok(); // removed at the next open then
        }
        self.pending
    }

    /// Adds the lines that another segment could not take.
    pub(crate) fn take_over(&mut self, lines: &Pending) {
        self.pending.bytes.extend_from_slice(&lines.bytes);
        self.pending.lines += lines.lines;
        self.next_line += lines.lines;
    }
}

/// How many bytes the file took, and why not all.
fn write_as_much_as_possible(mut file: &File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// For a gap and an end after the last record, and for what is buffered.
const SPARE_LINES: u32 = 64 << 10;

/// What an empty buffer keeps, so that the next line needs no memory.
const KEPT_BYTES: usize = 128 << 10;

#[cfg(test)]
impl SegmentWriter {
    pub(crate) fn is_persisted(&self) -> bool {
        !self.state.unpersisted.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_persist_that_failed_is_not_forgotten() {
        let path = PathBuf::from("/dev/full"); // it cannot be persisted
        let file = Arc::new(File::options().write(true).open(&path).unwrap());
        let segment = SegmentId::random();
        let handle = PersistHandle { segment, file, path, state: Arc::default() };
        handle.state.unpersisted.store(true, Ordering::Release);
        assert!(matches!(handle.persist(), Err(Error::Io { .. })));
        assert!(matches!(handle.persist(), Err(Error::SegmentPoisoned { .. })));
    }

    fn writer(folder: &Path) -> SegmentWriter {
        SegmentWriter::create(folder, Header::new(crate::ids::StoreId::random(), None), &[])
            .unwrap()
    }

    fn add(writer: &mut SegmentWriter, line: &str) {
        writer
            .add(|buffer| {
                buffer.extend_from_slice(line.as_bytes());
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn whole_lines_of_a_failed_write_stay_and_are_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path());
        let before = writer.bytes;
        let place = writer.place();
        add(&mut writer, "first\n");
        add(&mut writer, "second\n");
        // what a full disk took of both
        (&*writer.file).write_all(b"first\nsec").unwrap();
        let full = Err(io::ErrorKind::StorageFull.into());
        assert!(writer.keep_whole_lines(9, full).is_err());
        assert_eq!((writer.lines_in_file(), writer.pending.lines), (2, 1));
        writer.go_back(place);
        assert_eq!((writer.next_line, writer.pending_bytes()), (2, 0));
        add(&mut writer, "third\n");
        writer.flush().unwrap();
        let text = std::fs::read_to_string(&writer.path).unwrap();
        assert_eq!(text.get(usize::try_from(before).unwrap()..).unwrap(), "first\nthird\n");
        assert_eq!(writer.next_line, 3);
    }
}
