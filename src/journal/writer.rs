//! Appends entries to one segment.
//!
//! On disk, in this order: the marker in `active/`; the segment with its header and first entry,
//! persisted; then one `write` per entry; at the end the last entry persisted and the marker
//! gone. A crash at any place leaves a marker without a segment (removed at the next open), or a
//! segment whose last line may be torn (cut at the next open).

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::cursor::SEGMENT_LINES_MAX;
use super::marker::HeldMarker;
use super::segment::{self, Header};
use crate::disk;
use crate::entry::Entry;
use crate::entry::line;
use crate::error::{Error, Result};

/// The one writer of one segment.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    file: Arc<File>,
    path: PathBuf,
    header: Header,
    marker: HeldMarker,
    next_line: u32,
    bytes: u64,
    buffer: Vec<u8>,
    state: Arc<State>,
}

/// What the writer and the thread that persists tell each other.
#[derive(Debug, Default)]
struct State {
    /// Something was appended since the last persist.
    unpersisted: AtomicBool,
    /// A write or a persist failed and nobody knows what is on disk: nothing is appended any more.
    poisoned: AtomicBool,
    /// Held while persisting: who comes second returns when the first is done, not before.
    persisting: Mutex<()>,
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
    file: Arc<File>,
    path: PathBuf,
    state: Arc<State>,
}

impl PersistHandle {
    /// Persists what was appended before the call; nothing to do costs nothing.
    ///
    /// A failure closes the segment: after a failed persist the system may have dropped the bytes,
    /// and a second try would say that all is well.
    pub(crate) fn persist(&self) -> Result<()> {
        let _turn = self.state.persisting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state.poisoned.load(Ordering::Acquire) {
            return Err(Error::SegmentPoisoned { path: self.path.clone() });
        }
        if !self.state.unpersisted.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        disk::persist(&self.file, &self.path)
            .inspect_err(|_| self.state.poisoned.store(true, Ordering::Release))
    }
}

impl SegmentWriter {
    /// Begins a segment with its header and its first entry; both are persisted on return.
    pub(crate) fn create(root: &Path, header: Header, first: Option<&Entry>) -> Result<Self> {
        let folder = match header.session {
            Some(_) => segment::telemetry_folder(root),
            None => segment::store_folder(root),
        };
        disk::create_folder(&folder)?;
        let (file, path, marker) = create_file(root, &folder, &header)?;
        let mut writer = Self {
            file: Arc::new(file),
            path,
            header,
            marker,
            next_line: 0,
            bytes: 0,
            buffer: Vec::with_capacity(4096),
            state: Arc::default(),
        };
        writer.append_lines(|header, buffer| {
            line::write_checked(header, buffer)?;
            first.map_or(Ok(()), |entry| line::write_checked(entry, buffer))
        })?;
        writer.next_line = 1 + u32::from(first.is_some());
        writer.persist()?;
        disk::persist_folder_of(&writer.path)?;
        Ok(writer)
    }

    /// The segment's line 0.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Hands one entry to the operating system, whole or not at all; its line number.
    ///
    /// On return the entry survives the death of this process, not yet a power cut.
    pub(crate) fn append(&mut self, entry: &impl Serialize) -> Result<u32> {
        if self.next_line >= SEGMENT_LINES_MAX {
            return Err(Error::SegmentFull { path: self.path.clone(), limit: SEGMENT_LINES_MAX });
        }
        self.append_lines(|_, buffer| line::write_checked(entry, buffer))?;
        let number = self.next_line;
        self.next_line += 1;
        Ok(number)
    }

    fn append_lines(
        &mut self,
        write: impl FnOnce(&Header, &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        if self.state.poisoned.load(Ordering::Acquire) {
            return Err(Error::SegmentPoisoned { path: self.path.clone() });
        }
        self.buffer.clear();
        write(&self.header, &mut self.buffer).inspect_err(|_| self.buffer = Vec::new())?; // a line that is too long must not stay
        if let Err(error) = (&*self.file).write_all(&self.buffer) {
            self.take_back_partial_line();
            return Err(Error::io("write", &self.path)(error));
        }
        self.bytes += self.buffer.len() as u64;
        self.state.unpersisted.store(true, Ordering::Release);
        Ok(())
    }

    /// A failed write may have left the beginning of a line; the next one must not follow it.
    fn take_back_partial_line(&self) {
        if self.file.set_len(self.bytes).is_err() {
            self.state.poisoned.store(true, Ordering::Release);
        }
    }

    /// Persists everything appended so far.
    pub(crate) fn persist(&self) -> Result<()> {
        self.persist_handle().persist()
    }

    /// For the thread that persists in the background.
    pub(crate) fn persist_handle(&self) -> PersistHandle {
        PersistHandle {
            file: Arc::clone(&self.file),
            path: self.path.clone(),
            state: Arc::clone(&self.state),
        }
    }

    /// Persists and lets the segment go; nothing is ever appended to it again.
    pub(crate) fn seal(self) -> Result<()> {
        self.persist()?;
        self.marker.remove()
    }
}

#[cfg(test)]
impl PersistHandle {
    pub(crate) fn is_unpersisted(&self) -> bool {
        self.state.unpersisted.load(Ordering::Acquire)
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
        let handle = PersistHandle { file, path, state: Arc::default() };
        handle.state.unpersisted.store(true, Ordering::Release);
        assert!(matches!(handle.persist(), Err(Error::Io { .. })));
        assert!(matches!(handle.persist(), Err(Error::SegmentPoisoned { .. })));
    }
}
