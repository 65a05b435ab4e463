//! What did killed processes leave behind? Temporary files of whole files that never got their name.
//! Nothing reads them.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};
use crate::store::FOLDERS;

/// A file that changed since may be one that is being written.
const UNCHANGED_MIN: Duration = Duration::from_secs(3600);

/// A temporary file that its writer went away from.
#[derive(Debug)]
pub(crate) struct Leftover {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// The temporary files of a store that nobody has changed for an hour.
///
/// # Errors
/// A folder that cannot be listed.
pub(crate) fn leftovers(root: &Path) -> Result<Vec<Leftover>> {
    let mut found = Vec::new();
    for folder in std::iter::once("").chain(FOLDERS) {
        let folder = root.join(folder);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(Error::io("list", &folder))?,
        };
        for entry in entries {
            found.extend(leftover(&entry.map_err(Error::io("list", &folder))?));
        }
    }
    Ok(found)
}

/// `None` also for a file that went away since it was listed.
fn leftover(entry: &DirEntry) -> Option<Leftover> {
    if !entry.file_name().to_string_lossy().starts_with(".tidelog-") {
        return None;
    }
    let metadata = entry.metadata().ok()?;
    let unchanged = SystemTime::now().duration_since(metadata.modified().ok()?).ok()?;
    let leftover = Leftover { path: entry.path(), bytes: metadata.len() };
    (unchanged >= UNCHANGED_MIN).then_some(leftover)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;
    use crate::disk::NewFile;

    #[test]
    fn files_of_killed_writers_are_found_and_those_of_live_ones_are_not() {
        let root = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for folder in FOLDERS {
            fs::create_dir_all(root.path().join(folder)).unwrap();
            let mut file = NewFile::begin(&root.path().join(folder).join("whole")).unwrap();
            file.writer().write_all(b"part").unwrap();
            file.writer().flush().unwrap();
            files.push(file);
        }
        assert!(leftovers(root.path()).unwrap().is_empty());
        for file in &mut files {
            let file: &File = file.writer().get_ref();
            file.set_modified(SystemTime::now() - UNCHANGED_MIN).unwrap();
        }
        let found = leftovers(root.path()).unwrap();
        assert_eq!(found.len(), FOLDERS.len());
        assert!(found.iter().all(|leftover| leftover.bytes == 4));
    }
}
