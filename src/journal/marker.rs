//! Which segments are being written? `active/<segment id>.json`, one a writer.
//!
//! The writer holds an exclusive lock on its marker for as long as it lives and removes the
//! marker when the segment is sealed. A marker whose lock is free belonged to a writer that died.
//! So opening a store looks at the live segments only, however many sealed ones there are.
//!
//! Looking at a marker takes its lock for a moment, so those who look take turns, under the lock
//! of `active/look`: to another one the marker of a dead writer would seem alive.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::discover::Refused;
use super::segment::{Header, Writer};
use crate::disk::{self, LockedFile};
use crate::error::{Error, Result};
use crate::ids::{SegmentId, SessionId};
use crate::timestamp::Timestamp;

/// Longest marker that is read; one is a few hundred bytes.
const MARKER_BYTES_MAX: u64 = 16 << 10;

/// What a marker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    pub(crate) segment: SegmentId,
    /// Relative to the store's folder.
    pub(crate) file: String,
    pub(crate) session: Option<SessionId>,
    pub(crate) attempt: Option<u32>,
    pub(crate) writer: Writer,
    pub(crate) created_at: Timestamp,
}

/// A marker under its lock.
#[derive(Debug)]
pub(crate) struct HeldMarker {
    _lock: LockedFile,
    path: PathBuf,
}

/// What is known of one marker from outside.
#[derive(Debug)]
pub(crate) enum Seen {
    /// Its writer lives.
    Live(Marker),
    /// Its writer is gone; the lock is ours now.
    Dead(Box<(Marker, HeldMarker)>),
    /// It cannot be read, and nobody can tell whose it is. `verify` reports it.
    Invalid(Refused),
}

fn folder(root: &Path) -> PathBuf {
    root.join("active")
}

impl HeldMarker {
    /// Announces a segment that is about to be written as `file`.
    pub(crate) fn create(root: &Path, header: &Header, file: String) -> Result<Self> {
        let path = folder(root).join(format!("{}.json", header.segment));
        let marker = Marker {
            segment: header.segment,
            file,
            session: header.session.clone(),
            attempt: header.attempt,
            writer: header.writer.clone(),
            created_at: header.created_at,
        };
        let content = serde_json::to_vec(&marker)
            .map_err(|error| Error::io("write", &path)(io::Error::other(error)))?;
        let folder = folder(root);
        disk::create_folder(&folder)?;
        if let Err(error) = disk::create_new(&folder.join(TURN))
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(Error::io("create", &folder.join(TURN))(error));
        }
        let lock = LockedFile::create(&path, &content)?;
        Ok(Self { _lock: lock, path })
    }

    /// The segment is sealed: takes the marker away, then lets the lock go.
    pub(crate) fn remove(self) -> Result<()> {
        disk::remove_unpersisted(&self.path.with_extension(RESERVE))?;
        disk::remove(&self.path)
    }
}

/// The ending of a marker's name.
const MARKER: &str = "json";
/// The ending of the file that holds a segment's [reserve](super::reserve).
const RESERVE: &str = "reserve";

/// Where a segment's reserve lies. It never outlives the marker.
pub(super) fn reserve_path(root: &Path, segment: SegmentId) -> PathBuf {
    folder(root).join(format!("{segment}.{RESERVE}"))
}

/// Removes each reserve whose marker is gone, as a power cut may leave it: of two names of one
/// folder, the disk may have kept the removal of either. A live writer's marker is there before its
/// reserve and after it.
pub(super) fn remove_ownerless_reserves(root: &Path) -> Result<()> {
    for path in files_ending(&folder(root), RESERVE)? {
        if !path.with_extension(MARKER).exists() {
            disk::remove_unpersisted(&path)?;
        }
    }
    Ok(())
}

/// The file whose lock is the turn.
const TURN: &str = "look";
/// How long a look waits for its turn; one takes milliseconds. Afterwards it goes on without: a
/// stopped process must not stop all others.
const TURN_PATIENCE: Duration = Duration::from_secs(5);

/// All markers, looked at once. Dead writers' markers stay locked, and other looks wait, until
/// this is dropped.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) seen: Vec<Seen>,
    /// None before the first marker, or after too long a wait.
    _turn: Option<LockedFile>,
}

/// Looks at every marker. Those that vanish meanwhile are passed over; one that is damaged keeps
/// nobody from writing.
pub(crate) fn look(root: &Path) -> Result<Look> {
    let folder = folder(root);
    let mut look = Look {
        _turn: LockedFile::lock_within(&folder.join(TURN), TURN_PATIENCE)?,
        seen: Vec::new(),
    };
    for path in marker_files(&folder)? {
        look.seen.extend(look_at(&path)?);
    }
    Ok(look)
}

/// Whether another marker than `segment`'s announces this file.
pub(crate) fn is_announced(root: &Path, file: &str, segment: SegmentId) -> Result<bool> {
    let others = marker_files(&folder(root))?.into_iter();
    let mut others = others.filter_map(|path| disk::open(&path).and_then(|file| read(&file)).ok());
    Ok(others.any(|marker| marker.segment != segment && marker.file == file))
}

fn marker_files(folder: &Path) -> Result<Vec<PathBuf>> {
    files_ending(folder, MARKER)
}

fn files_ending(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("list", folder))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("list", folder))?.path();
        if path.extension().is_some_and(|found| found == ending) {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn look_at(path: &Path) -> Result<Option<Seen>> {
    let read = disk::open_to_lock(path).and_then(|file| Ok((read(&file)?, file)));
    let (marker, file) = match read {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let reason = format!("is not a marker of a live segment: {error}");
            return Ok(Some(Seen::Invalid(Refused { path: path.to_owned(), reason })));
        }
    };
    match LockedFile::try_lock(file, path)? {
        None => Ok(Some(Seen::Live(marker))),
        Some(lock) if lock.is_still_at(path) => {
            let held = HeldMarker { _lock: lock, path: path.to_owned() };
            Ok(Some(Seen::Dead(Box::new((marker, held)))))
        }
        Some(_) => Ok(None),
    }
}

fn read(file: &File) -> io::Result<Marker> {
    let mut bytes = Vec::new();
    file.take(MARKER_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}
