//! Which of several followers of a store works, and which waits?
//!
//! Followers are exact without a lock, because each batch moves a cursor from where the batch
//! begins. The lock keeps a second one from reading and sending everything in vain. It is on the
//! store's folder, which nobody locks otherwise, takes no right to write, and ends with the process,
//! however that ends. A network file system may keep it to one host.

use std::path::Path;

use crate::disk::{self, LockedFile};
use crate::error::{Error, Result};
use crate::filesystem::FileSystem;
use crate::store::Store;

/// Holding this is being the one follower of a store on this host that works.
#[derive(Debug)]
pub struct FollowerLock {
    _folder: LockedFile,
}

/// What came of asking for the lock.
#[derive(Debug)]
#[non_exhaustive]
pub enum FollowerTurn {
    /// It is the caller's until dropped.
    Mine(FollowerLock),
    /// Another follower has it.
    Taken {
        /// Its process id, where the system tells.
        holder: Option<u32>,
    },
    /// Folders cannot be locked here; followers are not kept apart.
    Unlockable {
        /// As the system names the file system: `nfs`, `cifs`.
        file_system: &'static str,
        /// The operating system's reason.
        reason: String,
    },
}

impl Store {
    /// Asks for the lock of the one follower that works. Does not wait.
    ///
    /// # Errors
    /// The store's folder cannot be opened.
    pub fn try_follow(&self) -> Result<FollowerTurn> {
        let root = self.root();
        let folder = disk::open_folder(root).map_err(Error::io("open", root))?;
        Ok(match LockedFile::try_lock(folder, root) {
            Ok(Some(folder)) => FollowerTurn::Mine(FollowerLock { _folder: folder }),
            Ok(None) => FollowerTurn::Taken { holder: holder(root) },
            Err(error) => FollowerTurn::Unlockable {
                file_system: FileSystem::of(root).name,
                reason: match error {
                    Error::LocksUnsupported { source, .. } | Error::Io { source, .. } => {
                        source.to_string()
                    }
                    error => error.to_string(),
                },
            },
        })
    }
}

/// The process that holds a lock on this folder, as the system lists locks.
#[cfg(target_os = "linux")]
fn holder(folder: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let found = folder.metadata().ok()?;
    let (major, minor) = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", found.ino());
    holder_in(&std::fs::read_to_string("/proc/locks").ok()?, &file)
}

#[cfg(not(target_os = "linux"))]
fn holder(_folder: &Path) -> Option<u32> {
    None
}

/// Finds the owner of `file` among lines such as `1: FLOCK  ADVISORY  WRITE 812 fd:01:9 0 EOF`.
/// A process of another container has the number 0 or less.
#[cfg(target_os = "linux")]
fn holder_in(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (kind, pid) = (words.next()?, words.nth(2)?);
        let is_it = kind == "FLOCK" && words.next()? == file;
        is_it.then(|| pid.parse().ok().filter(|pid| *pid > 0)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    #[cfg(unix)]
    #[test]
    fn one_follower_at_a_time_has_the_lock() {
        let (folder, store) = store();
        let FollowerTurn::Mine(first) = store.try_follow().unwrap() else { panic!("not mine") };
        let second = Store::open_read_only(folder.path()).unwrap();
        assert!(matches!(second.try_follow().unwrap(), FollowerTurn::Taken { .. }));
        drop(first);
        assert!(matches!(second.try_follow().unwrap(), FollowerTurn::Mine(_)));
    }

    #[cfg(unix)]
    #[test]
    fn the_lock_is_in_nobodys_way() {
        let (folder, store) = store();
        let turn = store.try_follow().unwrap();
        let writer = Store::open(folder.path()).unwrap();
        writer.start_session(crate::SessionId::new("s").unwrap()).unwrap();
        assert_eq!(writer.sessions().unwrap().len(), 1);
        assert!(matches!(turn, FollowerTurn::Mine(_)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_holder_of_a_lock_is_named() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fd:01:9 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 fd:01:9 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 10 fd:01:9 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE -1 fd:01:11 0 EOF\n";
        assert_eq!(holder_in(locks, "fd:01:9"), Some(8));
        assert_eq!(holder_in(locks, "fd:01:11"), None);
        assert_eq!(holder_in(locks, "fd:01:99"), None);
    }
}
