//! The error of the library: one variant per situation that a caller can tell apart.

use std::io;
use std::path::{Path, PathBuf};

use crate::checkpoint::npz::NpzError;
use crate::ids::{CheckpointId, InvalidId, SessionId};

/// What a call of this library returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. The text names the file and, where there is one, the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an action on a file or folder.
    #[error("cannot {action} {}: {source}{}", path.display(), remedy(source))]
    Io {
        /// What was tried, as a verb: "open", "write".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The file system has no working file locks, so nobody could tell a live writer from a dead
    /// one. Nobody else holds this lock.
    #[error(
        "cannot lock {}: its file system ({file_system}) has no file locks ({source}); put the store on a local disk, or mount with locks",
        path.display()
    )]
    LocksUnsupported {
        /// The file.
        path: PathBuf,
        /// As the system names it: `nfs`, `lustre`.
        file_system: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// An id that could not name a file of the store safely.
    #[error(transparent)]
    InvalidId(#[from] InvalidId),
    /// A value that a call does not take.
    #[error("{what} {reason}")]
    InvalidValue {
        /// The argument's name.
        what: &'static str,
        /// What is wrong with it, and the limit.
        reason: String,
    },
    /// The folder holds no store.
    #[error("{}; name another folder with --store or TIDELOG_STORE", what_is_there(path))]
    NotAStore {
        /// The folder.
        path: PathBuf,
    },
    /// The folder was written by a newer tidelog.
    #[error(
        "{} has format version {found}, this tidelog reads up to {supported}; install a newer one",
        path.display()
    )]
    FormatVersion {
        /// `store.json`, or the segment.
        path: PathBuf,
        /// The version in the file.
        found: u64,
        /// The newest version that this library knows.
        supported: u64,
    },
    /// A file of the store does not hold what it should. Nothing is changed by finding it.
    #[error("{} line {line} (byte {byte}): {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Line number, the first is 0.
        line: u64,
        /// Offset of the line's first byte.
        byte: u64,
        /// What is wrong.
        reason: String,
    },
    /// One entry is longer than a line may be; nothing was written.
    #[error(
        "the entry has {bytes} bytes, a line holds at most {limit}; store large data in a checkpoint"
    )]
    LineTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A file has more lines than a segment, and its replica, can number.
    #[error("{} would have more than {limit} lines; split it", path.display())]
    SegmentFull {
        /// The segment.
        path: PathBuf,
        /// The limit.
        limit: u32,
    },
    /// An earlier write could not be undone, or a persist failed: nobody knows what of the segment's
    /// last lines a power cut would leave. The session goes on in another segment.
    #[error(
        "{} is closed: {reason}; its last lines may not survive a power cut, what is recorded from \
         now on goes to another segment",
        path.display()
    )]
    SegmentPoisoned {
        /// The segment.
        path: PathBuf,
        /// What failed.
        reason: String,
    },
    /// The folder that was opened as a store is gone, or is another store now.
    #[error("the store {} was removed or replaced while it was open; open it again", path.display())]
    StoreGone {
        /// The store's folder.
        path: PathBuf,
    },
    /// The session is not in the store.
    #[error("no session {id} in {}; `tidelog sessions` lists them", store.display())]
    SessionUnknown {
        /// The id asked for.
        id: SessionId,
        /// The store's folder.
        store: PathBuf,
    },
    /// The session is being written, so it cannot be deleted.
    #[error("session {id} is being written by process {pid} on {host}; end it, then delete it")]
    SessionLive {
        /// The id.
        id: SessionId,
        /// The writer's process.
        pid: u32,
        /// The writer's host, empty if its system did not tell.
        host: String,
    },
    /// The session was deleted, and every later line of its id would be, too.
    #[error("session {id} was deleted, and its id with it; start one of another id")]
    SessionDeleted {
        /// The id.
        id: SessionId,
    },
    /// The session was ended; this writer adds nothing to it any more.
    #[error("session {id} has ended; start it again to add to it")]
    SessionEnded {
        /// The id.
        id: SessionId,
    },
    /// The checkpoint is not in the store.
    #[error("no checkpoint {id} in {}; `tidelog checkpoints` lists them", store.display())]
    CheckpointUnknown {
        /// The id asked for.
        id: CheckpointId,
        /// The store's folder.
        store: PathBuf,
    },
    /// The checkpoint's file was removed on purpose.
    #[error("checkpoint {id} was pruned, its file is gone; `tidelog checkpoints` lists the others")]
    CheckpointPruned {
        /// The id asked for.
        id: CheckpointId,
    },
    /// A checkpoint of this id is there already; nothing was written.
    #[error("checkpoint {id} exists; give another id, or none to have one made")]
    CheckpointExists {
        /// The id.
        id: CheckpointId,
    },
    /// The store holds no checkpoint that could be the best one.
    #[error("no checkpoint in {}", store.display())]
    NoCheckpoint {
        /// The store's folder.
        store: PathBuf,
    },
    /// A checkpoint file is not what its journal entry says.
    #[error("checkpoint file {}: {reason}; `tidelog verify` checks the others", path.display())]
    CheckpointDamaged {
        /// The NPZ file.
        path: PathBuf,
        /// Size or hash expected and found.
        reason: String,
    },
    /// A checkpoint could not be written or read as NPZ.
    #[error("checkpoint file {}: {source}", path.display())]
    Npz {
        /// The NPZ file.
        path: PathBuf,
        /// What is wrong inside it.
        source: NpzError,
    },
    /// SQLite failed. The index is derived: deleting it loses nothing.
    #[error("index {}: {source}; {}", path.display(), index_remedy(source))]
    Index {
        /// `index.sqlite`.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// A query that is not a single reading statement, or that SQLite does not understand.
    #[error("{0}")]
    Query(String),
    /// A file is in the way of one that is to be restored. It stays as it is.
    #[error(
        "{} is there already and {reason}; nothing is overwritten: move it away, or restore into \
         another folder",
        path.display()
    )]
    InTheWay {
        /// The file.
        path: PathBuf,
        /// How it differs.
        reason: String,
    },
    /// The store was opened for reading only.
    #[error("{} is open for reading only", path.display())]
    ReadOnly {
        /// The store's folder.
        path: PathBuf,
    },
}

impl Error {
    /// An I/O error with the action and path that the operating system leaves out.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }

    /// Whether there was no room for the index, on no disk and not in memory.
    pub fn is_index_without_room(&self) -> bool {
        matches!(self, Error::Index { source, .. } if crate::index::is_full(source))
    }
}

/// Where there is no room, making the index anew would not find any.
fn index_remedy(source: &rusqlite::Error) -> &'static str {
    match crate::index::is_full(source) {
        true => "free some space, or raise the limit `ulimit -f`",
        false => "`tidelog rebuild` makes it anew from the files",
    }
}

/// Why a folder is no store.
fn what_is_there(path: &Path) -> String {
    let what = match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => "is not a tidelog store: it has no store.json",
        Ok(_) => "is a file, not the folder of a store",
        Err(_) => "does not exist: there is no store",
    };
    format!("{} {what}", path.display())
}

/// What to do about what the operating system says, where that is known.
fn remedy(source: &io::Error) -> &'static str {
    #[cfg(unix)]
    if let Some(libc::EMFILE | libc::ENFILE) = source.raw_os_error() {
        return "; let the program open more files, with `ulimit -n`";
    }
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space",
        io::ErrorKind::ReadOnlyFilesystem => {
            "; mount the file system for writing, or use a store elsewhere"
        }
        io::ErrorKind::PermissionDenied => "; check its owner, its mode and its attributes",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi::{Error as SqliteError, SQLITE_CORRUPT, SQLITE_FULL, SQLITE_IOERR_SHMSIZE};

    use super::*;

    #[test]
    fn an_index_without_room_is_not_to_be_made_anew() {
        let text = |code| {
            let source = rusqlite::Error::SqliteFailure(SqliteError::new(code), None);
            Error::Index { path: "index.sqlite".into(), source }.to_string()
        };
        for code in [SQLITE_FULL, SQLITE_IOERR_SHMSIZE] {
            let text = text(code);
            assert!(text.contains("free some space") && !text.contains("rebuild"), "{text}");
        }
        assert!(text(SQLITE_CORRUPT).contains("tidelog rebuild"));
    }
}
