//! Links among the files of the store, which no reader follows.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Verification;
use super::report::{Finding, FindingKind};
use crate::disk;
use crate::error::{Error, Result};
use crate::store::FOLDERS;

impl Verification<'_> {
    pub(super) fn links(&mut self) -> Result<()> {
        let mut paths = vec![self.root.join("index.sqlite")];
        for folder in FOLDERS {
            paths.extend(entries(&self.root.join(folder))?);
        }
        for path in paths.iter().filter(|path| disk::is_link(path)) {
            let reason = "is a symbolic link: readers pass over it, as a store lies in one folder";
            let remedy = "put the file there that it leads to, or remove the link";
            self.found(Finding::new(FindingKind::LinkRefused, path, reason.into(), remedy));
        }
        Ok(())
    }
}

/// What lies in a folder that may not be there, by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("list", folder))?,
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(Error::io("list", folder))?;
    paths.sort();
    Ok(paths)
}
