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
        disk::remove(&self.path)
    }
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
    /// Files that are no markers.
    pub(crate) unreadable: Vec<PathBuf>,
    /// None before the first marker, or after too long a wait.
    _turn: Option<LockedFile>,
}

enum LookAt {
    Marker(Seen),
    Unreadable,
    Gone,
}

/// Looks at every marker. Those that vanish meanwhile are passed over.
pub(crate) fn look(root: &Path) -> Result<Look> {
    let folder = folder(root);
    let turn = LockedFile::lock_within(&folder.join(TURN), TURN_PATIENCE)?;
    let mut look = Look { seen: Vec::new(), unreadable: Vec::new(), _turn: turn };
    for path in marker_files(&folder)? {
        match look_at(&path)? {
            LookAt::Marker(seen) => look.seen.push(seen),
            LookAt::Unreadable => look.unreadable.push(path),
            LookAt::Gone => {}
        }
    }
    Ok(look)
}

/// Whether another marker than `segment`'s announces this file.
pub(crate) fn is_announced(root: &Path, file: &str, segment: SegmentId) -> Result<bool> {
    let mut markers = marker_files(&folder(root))?.into_iter().filter_map(|path| {
        let file = File::open(&path).ok()?;
        read(&file, &path).ok().flatten()
    });
    Ok(markers.any(|marker| marker.segment != segment && marker.file == file))
}

fn marker_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("list", folder))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("list", folder))?.path();
        if path.extension().is_some_and(|ending| ending == "json") {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn look_at(path: &Path) -> Result<LookAt> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LookAt::Gone),
        file => file.map_err(Error::io("open", path))?,
    };
    let Some(marker) = read(&file, path)? else { return Ok(LookAt::Unreadable) };
    match LockedFile::try_lock(file, path)? {
        None => Ok(LookAt::Marker(Seen::Live(marker))),
        Some(lock) if lock.is_still_at(path) => {
            let held = HeldMarker { _lock: lock, path: path.to_owned() };
            Ok(LookAt::Marker(Seen::Dead(Box::new((marker, held)))))
        }
        Some(_) => Ok(LookAt::Gone),
    }
}

/// `None` if the file is no marker.
fn read(file: &File, path: &Path) -> Result<Option<Marker>> {
    let mut bytes = Vec::new();
    file.take(MARKER_BYTES_MAX).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    Ok(serde_json::from_slice(&bytes).ok())
}
