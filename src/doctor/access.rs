//! May this user write here, and may others?

use std::path::Path;

use super::{Finding, Level};

#[cfg(unix)]
pub(super) use unix::findings;

/// Elsewhere the system's own tools tell.
#[cfg(not(unix))]
pub(super) fn findings(_folder: &Path, _is_store: bool) -> Vec<Finding> {
    Vec::new()
}

#[cfg(unix)]
mod unix {
    use std::fs::{self, Metadata};
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;

    use rustix::fs::{Access, access};

    use super::*;
    use crate::store::FOLDERS;

    /// So many files are looked at; a store of more is not looked at whole.
    const FILES_MAX: usize = 10_000;
    const STICKY: u32 = 0o1000;
    const GROUP_WRITES: u32 = 0o020;
    const OTHERS_WRITE: u32 = 0o002;

    pub(crate) fn findings(folder: &Path, is_store: bool) -> Vec<Finding> {
        let found = match fs::metadata(folder) {
            Err(error) => {
                let text = format!("{}: {error}", folder.display());
                return vec![Finding::new("access", Level::Problem, text)];
            }
            Ok(found) => found,
        };
        let me = rustix::process::geteuid().as_raw();
        let mut findings = vec![writable(folder, &found, me)];
        if is_store {
            findings.extend(open_to_others(found.mode()));
            findings.extend(foreign_files(folder, found.uid()));
        }
        findings
    }

    fn writable(root: &Path, found: &Metadata, me: u32) -> Finding {
        let (owner, mode) = (found.uid(), found.mode() & 0o7777);
        if let Some((folder, error)) = closed_folder(root) {
            let path = folder.display();
            let text =
                format!("user {me} may not write {path} (user {owner}, mode {mode:o}): {error}");
            return Finding::new("access", Level::Problem, text)
                .meaning("nothing can be recorded here; what may be read can still be queried")
                .remedy("run as the folder's user, or give it to this user with chown -R");
        }
        if owner != me {
            let text = format!("may write, but the folder is user {owner}'s and not user {me}'s");
            return Finding::new("access", Level::Note, text)
                .meaning(format!("what is recorded now may be closed to user {owner}"))
                .remedy("record as the folder's user");
        }
        Finding::new("access", Level::Ok, format!("may write, mode {mode:o}"))
    }

    /// The first folder of a store that this user may not use.
    fn closed_folder(root: &Path) -> Option<(PathBuf, rustix::io::Errno)> {
        let needed = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
        let folders = std::iter::once(root.to_owned())
            .chain(FOLDERS.iter().map(|folder| root.join(folder)).filter(|folder| folder.exists()));
        let mut closed =
            folders.filter_map(|folder| access(&folder, needed).err().map(|error| (folder, error)));
        closed.next()
    }

    /// Who may write a folder may remove what others wrote there, unless it is sticky.
    fn open_to_others(mode: u32) -> Option<Finding> {
        let (level, who, change) = match mode {
            _ if mode & STICKY != 0 => return None,
            _ if mode & OTHERS_WRITE != 0 => (Level::Warning, "every user", "chmod go-w"),
            _ if mode & GROUP_WRITES != 0 => (Level::Note, "the group", "chmod g-w"),
            _ => return None,
        };
        let finding = Finding::new("access", level, format!("{who} may write the folder"))
            .meaning("they may also remove what others recorded");
        Some(finding.remedy(format!("{change} on the folder, or chmod +t if they should record")))
    }

    /// Files of another user than the folder's, as one run with sudo leaves them.
    fn foreign_files(root: &Path, owner: u32) -> Option<Finding> {
        let foreign: Vec<PathBuf> = std::iter::once(root.to_owned())
            .chain(FOLDERS.iter().map(|folder| root.join(folder)))
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flatten()
            .filter_map(Result::ok)
            .take(FILES_MAX)
            .filter(|entry| entry.metadata().is_ok_and(|found| found.uid() != owner))
            .map(|entry| entry.path())
            .collect();
        let first = foreign.first()?.strip_prefix(root).ok()?.display();
        let text = format!("files of another user than the folder: {} ({first})", foreign.len());
        Some(
            Finding::new("access", Level::Warning, text)
                .meaning(format!("user {owner} may not be able to write or remove them"))
                .remedy(format!("chown -R {owner} on the folder")),
        )
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_folder_that_others_may_write_is_told_unless_it_is_sticky() {
            let level = |mode| open_to_others(mode).map(|finding| finding.level);
            assert_eq!([0o700, 0o755, 0o1777].map(level), [None, None, None]);
            assert_eq!([0o775, 0o777].map(level), [Some(Level::Note), Some(Level::Warning)]);
        }

        #[test]
        fn files_of_another_user_are_counted_and_one_is_named() {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("index.sqlite"), "").unwrap();
            let owner = fs::metadata(folder.path()).unwrap().uid();
            assert_eq!(foreign_files(folder.path(), owner), None);
            let found = foreign_files(folder.path(), owner + 1).unwrap().found;
            assert!(found.contains("folder: 1 (index.sqlite)"), "{found}");
        }
    }
}
