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
use crate::ids::StoreId;

/// How long a process waits for another one's transaction; one takes milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two tries to switch a file that others have open.
const BUSY_PAUSE: Duration = Duration::from_millis(5);
/// More than there are different statements in one catch-up.
const STATEMENTS_KEPT: usize = 64;

impl Index {
    /// Opens the store's index, made empty if it is missing, broken, another program's or another
    /// version's. Where the store's folder cannot be written, or something that is no file has the
    /// index's name, the index is a private temporary one that goes when it is dropped.
    pub(super) fn open(root: &Path, store: StoreId) -> Result<Self> {
        let path = root.join("index.sqlite");
        let index =
            |db, private| Self { db, path: path.clone(), root: root.into(), store, private };
        let opened = match open_file(&path)? {
            Some(db) => rebuild::prepare(db, &store).map(|db| index(db, false)),
            None => open_private(&store).map(|db| index(db, true)),
        };
        match opened {
            Err(error) if is_unwritable(&error) => open_private(&store).map(|db| index(db, true)),
            opened => opened,
        }
        .map_err(|source| Error::Index { path: path.clone(), source })
    }
}

/// A connection to the file, which only its user can read; `None` if it cannot be written, or is
/// no file but a link or a folder.
fn open_file(path: &Path) -> Result<Option<Connection>> {
    match disk::create_new(path) {
        Err(error) if is_forbidden(&error) => return Ok(None),
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
    rebuild::prepare(Connection::open("")?, store)
}

/// What every connection is told before anything else.
pub(super) fn configure(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    db.pragma_update(None, "trusted_schema", false)?;
    use_wal(db)?;
    // a power cut may take the last batches, never the whole: they are read again
    db.pragma_update(None, "synchronous", "normal")
}

/// SQLite does not wait for others that switch a new file at the same moment, so this does.
fn use_wal(db: &Connection) -> rusqlite::Result<()> {
    let start = Instant::now();
    loop {
        match db.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())) {
            Err(error) if is_busy(&error) && start.elapsed() < BUSY_TIMEOUT => {
                thread::sleep(BUSY_PAUSE);
            }
            result => return result,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
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

fn is_unwritable(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    use ErrorCode::{CannotOpen, PermissionDenied, ReadOnly};
    matches!(code, Some(ReadOnly | CannotOpen | PermissionDenied))
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// A second connection to an index that this process has open.
pub(super) fn open_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.pragma_update(None, "trusted_schema", false)?;
    Ok(db)
}
