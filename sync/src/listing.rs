//! Which files does a store have to send?

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tidelog::SegmentId;
use tidelog::journal::{self, Listing, Refused, Segment};

use crate::error::SyncError;

/// Lists a store's segments with one file each. Of a segment and its copies the longest file
/// counts, because it holds what the others hold; of equally long ones the one that is read already.
///
/// # Errors
/// A folder that cannot be listed.
pub(crate) fn list(root: &Path, is_read: impl Fn(&Segment) -> bool) -> Result<Listing, SyncError> {
    let Listing { segments, mut refused } = journal::discover(root)?;
    let rank = |segment: &Segment| (length(&segment.path), is_read(segment));
    let mut longest: HashMap<SegmentId, &Segment> = HashMap::new();
    for segment in &segments {
        let found = longest.entry(segment.header.segment).or_insert(segment);
        if found.path != segment.path && rank(found) < rank(segment) {
            *found = segment;
        }
    }
    let paths: HashMap<SegmentId, PathBuf> =
        longest.into_iter().map(|(id, segment)| (id, segment.path.clone())).collect();
    let (segments, copies): (Vec<Segment>, Vec<Segment>) = segments
        .into_iter()
        .partition(|segment| paths.get(&segment.header.segment) == Some(&segment.path));
    refused.extend(copies.into_iter().map(|copy| {
        let id = copy.header.segment;
        let longest = paths.get(&id).map(|path| path.display().to_string()).unwrap_or_default();
        let reason = format!("second file of segment {id}, which is read from {longest}");
        Refused { path: copy.path, reason }
    }));
    Ok(Listing { segments, refused })
}

/// Whether a file is there that the system does not let us read.
pub(crate) fn is_unreadable(path: &Path) -> bool {
    let read = File::open(path).and_then(|mut file| file.read(&mut [0]));
    read.is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[cfg(test)]
mod tests {
    use tidelog::{Outcome, SessionId, Store};

    use super::*;

    #[test]
    fn a_file_that_is_gone_or_empty_is_not_unreadable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        assert!(!is_unreadable(&path));
        fs::write(&path, "").unwrap();
        assert!(!is_unreadable(&path));
        // A folder opens, and fails when it is read.
        assert!(is_unreadable(folder.path()));
    }

    #[test]
    fn of_equally_long_copies_the_one_that_is_read_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let session = store.start_session(SessionId::new("s").unwrap()).unwrap();
        session.end(Outcome::Completed).unwrap();
        let path = list(folder.path(), |_| false).unwrap().segments.remove(0).path;
        let copy = path.with_file_name("a.jsonl");
        fs::copy(&path, &copy).unwrap();
        for read in [&path, &copy] {
            let listing = list(folder.path(), |segment| segment.path == *read).unwrap();
            assert_eq!((listing.segments.len(), &listing.segments[0].path), (1, read));
            assert_eq!(listing.refused.len(), 1);
        }
    }
}
