//! Opening `index.sqlite`, whatever lies there.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{Index, rebuild};
use crate::disk;
use crate::error::{Error, Result};
use crate::filesystem::FileSystem;
use crate::ids::StoreId;

/// How long a process waits for another one's transaction; one takes milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// The same where readers keep writers waiting, for as long as they read. Who has waited this long
/// does without the file.
const LOCKS_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries to switch a file that others have open.
const BUSY_PAUSE: Duration = Duration::from_millis(5);
/// More than there are different statements in one catch-up.
const STATEMENTS_KEPT: usize = 64;

/// How the processes that use an index come to terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Through memory (WAL mode): nobody waits for a reader. Within one host only.
    Memory,
    /// Through locks of the file (a rollback journal): on network file systems, too.
    Locks,
    /// Not at all: each has a temporary one for itself, on disk as far as it is large.
    Private,
    /// The same where no disk takes it.
    InMemory,
}

/// What an index in memory may take; a larger one fails as on a full disk.
const MEMORY_BYTES_MAX: i64 = 1 << 30;

impl Sharing {
    /// What the file system of the store's folder allows.
    pub(super) fn on(root: &Path) -> Self {
        match FileSystem::of(root).may_be_shared() {
            false => Self::Memory,
            // SQLite would take this for a lock that somebody else holds, and wait for it
            true if disk::check_locks(&root.join("store.json")).is_err() => Self::Private,
            true => Self::Locks,
        }
    }

    /// The index is nobody else's, and gone when it is closed.
    pub(super) fn is_private(self) -> bool {
        matches!(self, Self::Private | Self::InMemory)
    }

    /// How to come to an index where this way failed.
    pub(super) fn instead(self, error: &Error) -> Option<Self> {
        let is_full = error.is_index_without_room() || disk::is_full(error);
        match (self, error) {
            // somebody reads and does not come to an end, perhaps on another host
            (Self::Locks, Error::Index { source, .. }) if is_busy(source) => Some(Self::Private),
            (Self::Memory | Self::Locks, _) if is_full => Some(Self::Private),
            (Self::Private, _) if is_full => Some(Self::InMemory),
            _ => None,
        }
    }
}

impl Index {
    /// Opens the store's index, made empty if it is missing, broken, another program's or another
    /// version's. Where the store's folder cannot be written, or something that is no file has the
    /// index's name, the index is a private temporary one that goes when it is dropped.
    pub(super) fn open(root: &Path, store: StoreId, sharing: Sharing) -> Result<Self> {
        let path = root.join("index.sqlite");
        let failed = |source| Error::Index { path: path.clone(), source };
        let file = match sharing {
            Sharing::Private | Sharing::InMemory => None,
            _ => open_file(&path)?,
        };
        let (opened, sharing) = match file.map(|db| rebuild::prepare(db, &store, sharing)) {
            None if sharing == Sharing::InMemory => (open_in_memory(&store), sharing),
            None => (open_private(&store), Sharing::Private),
            Some(Err(error)) if is_unwritable(&error) => (open_private(&store), Sharing::Private),
            Some(opened) => (opened, sharing),
        };
        let db = opened.map_err(failed)?;
        Ok(Self { db, path, root: root.into(), store, sharing })
    }
}

/// A connection to the file, which only its user can read; `None` if it cannot be written, or is
/// no file but a link or a folder.
fn open_file(path: &Path) -> Result<Option<Connection>> {
    match disk::create_new(path) {
        Err(error) if disk::is_forbidden(&error) => return Ok(None),
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::io("create", path)(error));
        }
        Err(_) if !disk::is_file(path) => return Ok(None),
        _ => {}
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match Connection::open_with_flags(path, flags) {
        Ok(db) if db.is_readonly("main").unwrap_or(false) => Ok(None),
        Ok(db) => Ok(Some(db)),
        Err(error) if is_unwritable(&error) => Ok(None),
        Err(source) => Err(Error::Index { path: path.to_owned(), source }),
    }
}

/// A temporary database on disk, gone when it is closed.
fn open_private(store: &StoreId) -> rusqlite::Result<Connection> {
    rebuild::prepare(Connection::open("")?, store, Sharing::Private)
}

/// A database that needs no disk, nor does what is sorted in it.
fn open_in_memory(store: &StoreId) -> rusqlite::Result<Connection> {
    let db = Connection::open_in_memory()?;
    db.pragma_update(None, "temp_store", "memory")?;
    let page_bytes: i64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let pages = MEMORY_BYTES_MAX / page_bytes.max(1);
    db.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    rebuild::prepare(db, store, Sharing::InMemory)
}

/// What every connection is told before anything else.
pub(super) fn configure(db: &Connection, sharing: Sharing) -> rusqlite::Result<()> {
    db.busy_timeout(timeout(sharing))?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    db.pragma_update(None, "trusted_schema", false)?;
    // a power cut may take the last batches, never the whole: they are read again
    let (journal_mode, synchronous) = match sharing {
        Sharing::Memory => ("wal", "normal"),
        // with less, a rollback journal may lose its own order and break the file
        Sharing::Locks => ("delete", "full"),
        Sharing::Private | Sharing::InMemory => return Ok(()),
    };
    use_journal(db, journal_mode, timeout(sharing))?;
    db.pragma_update(None, "synchronous", synchronous)
}

fn timeout(sharing: Sharing) -> Duration {
    match sharing {
        Sharing::Locks => LOCKS_TIMEOUT,
        _ => BUSY_TIMEOUT,
    }
}

/// SQLite does not wait for others that switch a new file at the same moment, so this does.
fn use_journal(db: &Connection, mode: &str, patience: Duration) -> rusqlite::Result<()> {
    let start = Instant::now();
    loop {
        match db.pragma_update_and_check(None, "journal_mode", mode, |_| Ok(())) {
            Err(error) if is_busy(&error) && start.elapsed() < patience => {
                thread::sleep(BUSY_PAUSE);
            }
            result => return result,
        }
    }
}

/// Others hold a lock for longer than this connection waits.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

/// Empties a file that SQLite cannot read, while other processes may have it open.
pub(super) fn empty_broken(db: &Connection) -> rusqlite::Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_RESET_DATABASE, true)?;
    db.execute_batch("VACUUM")?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_RESET_DATABASE, false).map(|_| ())
}

/// The bytes of the file are not those of a database.
pub(super) fn is_broken(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// There is no room, on the disk or below the limit for a file's size.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{
        SQLITE_FULL, SQLITE_IOERR_SHMMAP, SQLITE_IOERR_SHMOPEN, SQLITE_IOERR_SHMSIZE,
        SQLITE_IOERR_TRUNCATE, SQLITE_IOERR_WRITE,
    };
    let codes = [
        SQLITE_FULL,
        SQLITE_IOERR_SHMMAP,
        SQLITE_IOERR_SHMOPEN,
        SQLITE_IOERR_SHMSIZE,
        SQLITE_IOERR_TRUNCATE,
        SQLITE_IOERR_WRITE,
    ];
    error.sqlite_error().is_some_and(|error| codes.contains(&error.extended_code))
}

fn is_unwritable(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    use ErrorCode::{CannotOpen, PermissionDenied, ReadOnly};
    matches!(code, Some(ReadOnly | CannotOpen | PermissionDenied))
}

/// A second connection to an index that this process has open.
pub(super) fn open_read_only(path: &Path, sharing: Sharing) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(timeout(sharing))?;
    db.pragma_update(None, "trusted_schema", false)?;
    Ok(db)
}

/// A connection to look at an index without bringing it up to date: all reads are of one moment.
///
/// A connection that may write takes away the files that SQLite puts beside a database while it is
/// read; one that may not leaves them.
pub(crate) fn open_to_look(path: &Path) -> rusqlite::Result<Connection> {
    let flags = match path.with_extension("sqlite-wal").exists() {
        true => OpenFlags::SQLITE_OPEN_READ_ONLY,
        false => OpenFlags::SQLITE_OPEN_READ_WRITE,
    };
    let db = Connection::open_with_flags(path, flags)?;
    db.execute_batch("PRAGMA query_only = on; BEGIN")?;
    Ok(db)
}
