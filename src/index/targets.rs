//! Which files may hold lines that the index has not read? Only those are opened.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rusqlite::Connection;
use uuid::Uuid;

use super::Index;
use super::columns::Parsed;
use super::follow::cursor;
use crate::error::{Error, Result};
use crate::ids::SegmentId;
use crate::journal::{Cursor, Segment, read_header, segment_files};

/// A segment as it was when the call began: later lines are for the next call.
pub(super) struct Target {
    pub(super) segment: Segment,
    pub(super) size: u64,
    pub(super) cursor: Cursor,
}

/// The files of the journal, by what is to be done with them.
#[derive(Default)]
pub(super) struct Targets {
    /// Oldest first.
    pub(super) unread: Vec<Target>,
    /// Size of each segment whose file has the length that the index has read.
    read: HashMap<SegmentId, u64>,
}

/// A segment as the index knows it.
struct Known {
    id: SegmentId,
    /// Where it was first read, relative to the store.
    path: String,
    cursor: Cursor,
}

impl Index {
    /// Segments, and how far each was read. Of copies of one segment the longest one counts.
    pub(super) fn targets(&self) -> Result<Targets> {
        let known = read_known(&self.db).map_err(self.failed())?;
        // of two segments the newer one has the path: the other one's file is gone
        let at: HashMap<&str, &Known> =
            known.iter().map(|known| (known.path.as_str(), known)).collect();
        let mut targets = Targets::default();
        let mut unread = Vec::new();
        for path in segment_files(&self.root)? {
            let Some(size) = size(&path)? else { continue };
            let name = path.strip_prefix(&self.root).unwrap_or(&path).to_string_lossy();
            match at.get(name.as_ref()) {
                Some(known) if known.cursor.next_byte == size => {
                    targets.read.insert(known.id, size);
                }
                _ => unread.push((path, size)),
            }
        }
        let cursors = known.iter().map(|known| (known.id, known.cursor)).collect();
        targets.add_unread(unread, &cursors);
        Ok(targets)
    }
}

impl Targets {
    /// Bytes of the journal that the index holds.
    pub(super) fn bytes_done(&self) -> u64 {
        let unread: u64 = self.unread.iter().map(|target| target.cursor.next_byte).sum();
        unread + self.read.values().sum::<u64>()
    }

    /// Bytes of the journal.
    pub(super) fn bytes_total(&self) -> u64 {
        let unread: u64 = self.unread.iter().map(|target| target.size).sum();
        unread + self.read.values().sum::<u64>()
    }

    fn add_unread(&mut self, files: Vec<(PathBuf, u64)>, cursors: &HashMap<SegmentId, Cursor>) {
        let mut targets: HashMap<SegmentId, Target> = HashMap::new();
        for (path, size) in files {
            let Ok(Some(header)) = read_header(&path) else { continue };
            let id = header.segment;
            let copy = targets.get(&id).map(|copy| copy.size);
            if self.read.get(&id).copied().max(copy).is_some_and(|longest| longest >= size) {
                continue;
            }
            self.read.remove(&id); // a shorter copy
            let cursor = cursors.get(&id).copied().unwrap_or(Cursor::START);
            let segment = Segment { path, header };
            targets.insert(id, Target { segment, size, cursor });
        }
        self.unread = targets.into_values().collect();
        self.unread.sort_by_key(|target| {
            (target.segment.header.created_at, target.segment.header.segment)
        });
    }
}

/// `None` if the file went away since it was listed.
fn size(path: &Path) -> Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("inspect", path)(error)),
    }
}

/// Every segment, oldest first.
fn read_known(db: &Connection) -> rusqlite::Result<Vec<Known>> {
    db.prepare_cached(
        "SELECT segment_id, path, next_line, next_byte, chain_hash
         FROM index_segments ORDER BY segment_no",
    )?
    .query_map([], |row| {
        let Parsed::<Uuid>(id) = row.get(0)?;
        Ok(Known { id: id.into(), path: row.get(1)?, cursor: cursor(row, 2)? })
    })?
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SessionId, Store, Telemetry};

    #[test]
    fn a_file_of_the_length_that_was_read_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let session = store.start_session(SessionId::new("run-7").unwrap()).unwrap();
        let other = store.start_session(SessionId::new("other").unwrap()).unwrap();
        let index = Index::caught_up(folder.path(), store.id(), &mut |_| {}).unwrap();
        let targets = index.targets().unwrap();
        assert!(targets.unread.is_empty());
        assert_eq!(targets.bytes_done(), targets.bytes_total());

        session.record_telemetry(1, &Telemetry::default()).unwrap();
        let targets = index.targets().unwrap();
        let [target] = &targets.unread[..] else { panic!("not one but {}", targets.unread.len()) };
        assert_eq!(target.segment.header.session.as_ref(), Some(session.id()));
        assert_eq!(
            targets.bytes_total() - targets.bytes_done(),
            target.size - target.cursor.next_byte
        );
        drop(other);
    }
}
