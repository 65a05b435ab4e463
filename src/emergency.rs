//! The standalone copy of an emergency event: one JSON file that a person finds and opens.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::disk;
use crate::entry::{Emergency, Entry};
use crate::error::{Error, Result};
use crate::ids::EventId;
use crate::timestamp::Timestamp;

impl Emergency {
    /// An event with nothing but its reason and severity; the other fields are public.
    pub fn new(event_id: EventId, reason: &str, severity: &str) -> Self {
        Self {
            event_id,
            session_id: None,
            step: None,
            reason: reason.to_owned(),
            severity: severity.to_owned(),
            metric: None,
            value: None,
            threshold: None,
            telemetry: None,
            metadata: None,
        }
    }
}

impl EventId {
    /// A new id: the time in microseconds and a random part.
    pub fn generate() -> Self {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let random = random.get(..8).unwrap_or_default();
        Self::unchecked(format!("emergency_{}_{random}", Timestamp::now().as_micros()))
    }
}

/// Writes `logs/emergency/emergency_<event id>.json` and persists it. A file of an earlier event
/// of the same id stays, and this one gets `place` in its name.
pub(crate) fn write_copy(root: &Path, id: &EventId, entry: &Entry, place: &str) -> Result<()> {
    let path = copy_path(root, id);
    let bytes = copy_bytes(&path, entry)?;
    disk::create_folder(&folder(root))?;
    if !disk::write_new(&path, &bytes)? {
        disk::write_new(&path.with_extension(format!("{place}.json")), &bytes)?;
    }
    Ok(())
}

/// As [`write_copy`], unless that very copy is there.
pub(crate) fn write_copy_once(root: &Path, id: &EventId, entry: &Entry, place: &str) -> Result<()> {
    let path = copy_path(root, id);
    let bytes = copy_bytes(&path, entry)?;
    let found = match disk::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        file => {
            let mut found = Vec::new();
            let file = file.map_err(Error::io("open", &path))?.take(bytes.len() as u64 + 1);
            { file }.read_to_end(&mut found).map_err(Error::io("read", &path))?;
            Some(found)
        }
    };
    if found.is_some_and(|found| found == bytes) {
        return Ok(());
    }
    write_copy(root, id, entry, place)
}

fn copy_bytes(path: &Path, entry: &Entry) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(entry)
        .map_err(|error| Error::io("write", path)(io::Error::other(error)))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Where the copy of an event lies, unless an earlier event had its id.
pub(crate) fn copy_path(root: &Path, id: &EventId) -> PathBuf {
    let name = id.in_file_name();
    let stem = if name.starts_with("emergency_") { name } else { format!("emergency_{name}") };
    folder(root).join(format!("{stem}.json"))
}

fn folder(root: &Path) -> PathBuf {
    root.join("logs").join("emergency")
}
