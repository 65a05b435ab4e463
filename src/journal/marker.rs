//! Which segments are being written? `active/<segment id>.json`, one a writer.
//!
//! The writer holds an exclusive lock on its marker for as long as it lives and removes the
//! marker when the segment is sealed. A marker whose lock is free belonged to a writer that died.
//! So opening a store looks at the live segments only, however many sealed ones there are.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

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
        disk::create_folder(&folder(root))?;
        let lock = LockedFile::create(&path, &content)?;
        Ok(Self { _lock: lock, path })
    }

    /// The segment is sealed: takes the marker away, then lets the lock go.
    pub(crate) fn remove(self) -> Result<()> {
        disk::remove(&self.path)
    }
}

/// Looks at every marker. Markers that vanish meanwhile are passed over.
pub(crate) fn look(root: &Path) -> Result<Vec<Seen>> {
    let folder = folder(root);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("list", &folder))?,
    };
    let mut seen = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("list", &folder))?.path();
        if path.extension().is_some_and(|ending| ending == "json") {
            seen.extend(look_at(&path)?);
        }
    }
    Ok(seen)
}

fn look_at(path: &Path) -> Result<Option<Seen>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(Error::io("open", path))?,
    };
    let marker = read(&file, path)?;
    match LockedFile::try_lock(file, path)? {
        None => Ok(Some(Seen::Live(marker))),
        Some(lock) if lock.is_still_at(path) => {
            let held = HeldMarker { _lock: lock, path: path.to_owned() };
            Ok(Some(Seen::Dead(Box::new((marker, held)))))
        }
        Some(_) => Ok(None),
    }
}

fn read(file: &File, path: &Path) -> Result<Marker> {
    let mut bytes = Vec::new();
    file.take(MARKER_BYTES_MAX).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Damaged {
        path: path.to_owned(),
        line: 0,
        byte: 0,
        reason: format!("is not a marker of a live segment: {error}; if no program writes to this store, remove it"),
    })
}
