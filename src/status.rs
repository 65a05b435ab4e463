//! What does a store hold, and what is being written right now?

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::disk;
use crate::error::{Error, Result};
use crate::ids::{SegmentId, SessionId, StoreId};
use crate::journal::marker::{self, Seen};
use crate::journal::{Refused, discover};
use crate::leftovers::leftovers;
use crate::timestamp::Timestamp;

/// A store at a glance. Sizes are in bytes.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The store's id.
    pub store_id: StoreId,
    /// Number of segments.
    pub segments: usize,
    /// Size of all segments together.
    pub journal_bytes: u64,
    /// Number of checkpoint files.
    pub checkpoint_files: usize,
    /// Their size together.
    pub checkpoint_bytes: u64,
    /// Number of temporary files that killed processes left; `verify` names them.
    pub leftover_files: usize,
    /// Their size together.
    pub leftover_bytes: u64,
    /// Size of the index; it can be deleted and comes back.
    pub index_bytes: u64,
    /// Free space on the store's disk.
    pub free_bytes: u64,
    /// Segments with a live writer.
    pub writers: Vec<LiveWriter>,
    /// Segments whose writer died and which the next writing open will seal.
    pub abandoned: Vec<LiveWriter>,
    /// Files among the segments and markers that are none.
    pub refused_files: Vec<RefusedFile>,
}

/// A segment that has or had a writer.
#[derive(Debug, Clone, Serialize)]
pub struct LiveWriter {
    /// The segment.
    pub segment: SegmentId,
    /// Its session; none for the store's own journal.
    pub session_id: Option<SessionId>,
    /// Process id of the writer.
    pub pid: u32,
    /// Its host.
    pub host: String,
    /// Since when it writes.
    pub since: Timestamp,
}

/// A file that readers pass over.
#[derive(Debug, Clone, Serialize)]
pub struct RefusedFile {
    /// Where it lies.
    pub path: String,
    /// Why it is no segment.
    pub reason: String,
}

impl From<Refused> for RefusedFile {
    fn from(refused: Refused) -> Self {
        Self { path: refused.path.display().to_string(), reason: refused.reason }
    }
}

pub(crate) fn status(root: &Path, store_id: StoreId) -> Result<Status> {
    let listing = discover(root)?;
    let (mut writers, mut abandoned) = (Vec::new(), Vec::new());
    let mut refused = listing.refused;
    for seen in marker::look(root)?.seen {
        match seen {
            Seen::Live(marker) => writers.push(LiveWriter::from(marker)),
            Seen::Dead(dead) => abandoned.push(LiveWriter::from(dead.0)),
            Seen::Invalid(marker) => refused.push(marker),
        }
    }
    let mut journal_bytes = 0;
    for segment in &listing.segments {
        journal_bytes += size(&segment.path)?;
    }
    let leftovers = leftovers(root)?;
    let (checkpoint_files, checkpoint_bytes) = folder_size(&root.join("checkpoints"))?;
    Ok(Status {
        store_id,
        segments: listing.segments.len(),
        journal_bytes,
        checkpoint_files,
        checkpoint_bytes,
        leftover_files: leftovers.len(),
        leftover_bytes: leftovers.iter().map(|leftover| leftover.bytes).sum(),
        index_bytes: size(&root.join("index.sqlite"))?,
        free_bytes: disk::free_bytes(root)?,
        writers,
        abandoned,
        refused_files: refused.into_iter().map(RefusedFile::from).collect(),
    })
}

impl From<marker::Marker> for LiveWriter {
    fn from(marker: marker::Marker) -> Self {
        Self {
            segment: marker.segment,
            session_id: marker.session,
            pid: marker.writer.pid,
            host: marker.writer.host,
            since: marker.created_at,
        }
    }
}

/// A file's size, of a link its own; 0 if there is none.
fn size(path: &Path) -> Result<u64> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Error::io("inspect", path)(error)),
    }
}

fn folder_size(folder: &Path) -> Result<(usize, u64)> {
    let (mut files, mut bytes) = (0, 0);
    let Ok(entries) = fs::read_dir(folder) else { return Ok((0, 0)) };
    for entry in entries {
        let path = entry.map_err(Error::io("list", folder))?.path();
        if path.extension().is_some_and(|ending| ending == "npz") {
            files += 1;
            bytes += size(&path)?;
        }
    }
    Ok((files, bytes))
}
