//! A folder and all that is below it, in memory.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::Result;

/// Paths below a folder, parents first; files with their bytes, folders without.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Tree(BTreeMap<PathBuf, Option<Vec<u8>>>);

impl Tree {
    /// Adds a file, or a folder if there are no bytes.
    pub(super) fn insert(&mut self, path: PathBuf, content: Option<Vec<u8>>) {
        self.0.insert(path, content);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Path, Option<&Vec<u8>>)> {
        self.0.iter().map(|(path, content)| (path.as_path(), content.as_ref()))
    }

    /// Puts it into an empty folder.
    pub(super) fn write_to(&self, folder: &Path) -> Result<()> {
        for (path, content) in self.iter() {
            let path = folder.join(path);
            match content {
                None => std::fs::create_dir(&path)?,
                Some(bytes) => std::fs::write(&path, bytes)?,
            }
        }
        Ok(())
    }

    /// Tells trees apart, within one run of the program.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}
