//! Is this a good place for a store, and what should its user know? Asks the environment, where
//! [`verify`](crate::Store::verify) reads the files.
//!
//! Each check gives a [`Finding`]: what is there, what it means, what to do. One that cannot be
//! made says so and hides no other. Nothing is changed: a probe file comes into the store and goes,
//! and where there is no store, or this user may not write it, there is none.

mod access;
mod clock;
mod contents;
mod limits;
mod mount;
mod place;
mod probe;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::Error;
use crate::index::rebuild::APPLY_VERSION;
use crate::journal::{FORMAT_VERSION, discover};
use crate::store::Store;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// It works, and may stop working or keep less than its user thinks.
    Warning,
    /// Recording or reading fails because of it.
    Problem,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, such as `disk`; several findings may share it.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What is there.
    pub found: String,
    /// What follows from it, where that is not plain.
    pub meaning: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// All findings about one store, in the order of [`examine`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The folder that was looked at.
    pub store: PathBuf,
    /// How many findings are problems.
    pub problem_count: usize,
    /// How many findings are warnings.
    pub warning_count: usize,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// Looks at a store's folder and what it depends on: the store itself, file system, permissions,
/// disk, locks, limits of this process, clock, versions, writers, leftovers and the index.
///
/// Without a store there it looks at the nearest folder above, where one would be made, and only
/// looks. Blocks for
/// as long as the disk takes to persist a few small files.
pub fn examine(root: &Path) -> Report {
    let mut report = Report::new(root);
    let opened = Store::open_read_only(root);
    report.add(store(root, &opened));
    let folder = place::nearest_folder(root);
    report.extend(place::findings(&folder));
    let access = access::findings(&folder, opened.is_ok());
    let may_write = access.iter().all(|finding| finding.level != Level::Problem);
    // the system would end this program, which is to explain why
    let may_be_long = limits::file_bytes_max().is_none_or(|bytes| bytes >= limits::FILE_BYTES_MIN);
    report.extend(access);
    if opened.is_ok() && may_write && may_be_long {
        report.extend(probe::findings(&folder));
    }
    report.extend(limits::findings());
    report.extend(clock::findings(root, opened.is_ok()));
    report.add(versions());
    if let (Ok(store), true) = (&opened, may_be_long) {
        report.extend(contents::findings(store));
    }
    report
}

impl Report {
    fn new(root: &Path) -> Self {
        let store = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        Self { store, problem_count: 0, warning_count: 0, findings: Vec::new() }
    }

    /// Adds what somebody else found, such as an agent.
    pub fn add(&mut self, finding: Finding) {
        match finding.level {
            Level::Problem => self.problem_count += 1,
            Level::Warning => self.warning_count += 1,
            Level::Note | Level::Ok => {}
        }
        self.findings.push(finding);
    }

    fn extend(&mut self, findings: Vec<Finding>) {
        findings.into_iter().for_each(|finding| self.add(finding));
    }
}

impl Finding {
    /// A finding that says no more than what is there.
    pub fn new(check: &'static str, level: Level, found: impl Into<String>) -> Self {
        Self { check, level, found: found.into(), meaning: None, remedy: None }
    }

    /// Adds what follows from it.
    #[must_use]
    pub fn meaning(mut self, meaning: impl Into<String>) -> Self {
        self.meaning = Some(meaning.into());
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Whether there is a store, and one that this program reads.
fn store(root: &Path, opened: &Result<Store, Error>) -> Finding {
    let finding = |level, found: String| Finding::new("store", level, found);
    match opened {
        Ok(store) => finding(Level::Ok, format!("id {}", store.id())),
        Err(Error::NotAStore { .. }) if has_segments(root) => {
            finding(Level::Problem, "store.json is gone, and there are segments".into())
                .meaning("nothing reads them without it")
                .remedy(
                    "copy store.json back from a backup; or record: if all segments name the same \
                     store, the next program that records here makes it again",
                )
        }
        Err(Error::NotAStore { .. }) if root.is_dir() => {
            finding(Level::Warning, "the folder has no store.json, so it is no store yet".into())
                .remedy("name another folder with --store, or record: the first session makes one")
        }
        Err(Error::NotAStore { .. }) if !root.exists() => {
            finding(Level::Warning, "the folder is not there, so there is no store yet".into())
                .remedy("name another folder with --store, or record: the first session makes one")
        }
        Err(Error::NotAStore { .. }) => {
            finding(Level::Problem, "it is a file, and a store is a folder".into())
                .remedy("name a folder with --store")
        }
        Err(error @ Error::Damaged { .. }) => finding(Level::Problem, error.to_string())
            .meaning(
                "without its store.json the store does not open; its other files are as they were",
            )
            .remedy(
                "copy store.json back from a backup; the store's id is in line 0 of each segment",
            ),
        Err(error) => finding(Level::Problem, error.to_string()),
    }
}

fn has_segments(root: &Path) -> bool {
    discover(root).is_ok_and(|listing| !listing.segments.is_empty())
}

fn versions() -> Finding {
    let found = format!(
        "tidelog {}, files of version {FORMAT_VERSION}, index of version {APPLY_VERSION}, SQLite {}",
        env!("CARGO_PKG_VERSION"),
        rusqlite::version(),
    );
    Finding::new("versions", Level::Ok, found)
}

/// A size as a person reads it.
fn size(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;
    match bytes {
        GIB.. => format!("{}.{} GiB", bytes / GIB, bytes % GIB * 10 / GIB),
        MIB.. => format!("{} MiB", bytes >> 20),
        _ => format!("{} KiB", bytes >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(root: &Path) -> (Level, String) {
        let report = examine(root);
        let first = report.findings.into_iter().next().unwrap();
        assert_eq!(first.check, "store");
        (first.level, first.found)
    }

    #[test]
    fn a_folder_that_is_no_store_is_explained_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("a/b");
        assert_eq!(found(&missing).0, Level::Warning);
        assert_eq!(found(folder.path()).0, Level::Warning);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(found(&file).0, Level::Problem);
    }

    #[test]
    fn a_damaged_store_file_is_a_problem_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("store.json"), "{").unwrap();
        let report = examine(folder.path());
        assert_eq!(report.problem_count, 1);
        assert!(report.findings[0].remedy.as_ref().unwrap().contains("backup"));
    }

    #[test]
    fn a_finding_is_counted_by_its_level() {
        let mut report = Report::new(Path::new("store"));
        for level in [Level::Ok, Level::Note, Level::Warning, Level::Problem, Level::Problem] {
            report.add(Finding::new("disk", level, "full"));
        }
        assert_eq!((report.problem_count, report.warning_count), (2, 1));
    }
}
