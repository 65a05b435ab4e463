//! Is this an index that this program can go on with? If not, it begins anew, empty.
//!
//! A rebuild happens inside the file, in one transaction: other processes that read it keep what
//! they see until they are done, and a crash leaves the old index or an empty one.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::connection::{Sharing, configure, empty_broken, is_broken};
use crate::ids::StoreId;

pub(super) const SCHEMA: &str = include_str!("schema.sql");

/// One more when the same lines give other rows. A changed `schema.sql` is noticed by itself.
pub(crate) const APPLY_VERSION: u32 = 3;

/// What an index must say of itself to be gone on with.
fn version(store: &StoreId) -> String {
    format!("{APPLY_VERSION}-{:08x}-{store}", crc32fast::hash(SCHEMA.as_bytes()))
}

/// Makes a connection ready: the database behind it is an index of this store and version.
pub(super) fn prepare(
    mut db: Connection,
    store: &StoreId,
    sharing: Sharing,
) -> rusqlite::Result<Connection> {
    match configure(&db, sharing).and_then(|()| make_current(&mut db, store)) {
        // Our own statements are right: what is not understood of them is the file's fault.
        Err(error) if is_broken(&error) || is_not_understood(&error) => {
            empty_broken(&db)?;
            configure(&db, sharing)?;
            make_current(&mut db, store)?;
        }
        result => result?,
    }
    Ok(db)
}

fn make_current(db: &mut Connection, store: &StoreId) -> rusqlite::Result<()> {
    if is_current(db, store)? {
        return Ok(());
    }
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if !is_current(&transaction, store)? {
        make_empty(&transaction, store)?;
    }
    transaction.commit()
}

/// Whether an index is of this store and version.
pub(crate) fn is_current(db: &Connection, store: &StoreId) -> rusqlite::Result<bool> {
    Ok(meta(db, "version")?.is_some_and(|found| found == version(store)))
}

/// Throws every row away.
pub(super) fn start_over(db: &mut Connection, store: &StoreId) -> rusqlite::Result<()> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    make_empty(&transaction, store)?;
    transaction.commit()
}

fn make_empty(db: &Connection, store: &StoreId) -> rusqlite::Result<()> {
    drop_everything(db)?;
    db.execute_batch(SCHEMA)?;
    let generation = uuid::Uuid::new_v4().to_string();
    for (key, value) in [("version", version(store)), ("generation", generation)] {
        db.execute("INSERT INTO index_meta (key, value) VALUES (?1, ?2)", (key, value))?;
    }
    Ok(())
}

/// Views first: dropping a table asks what its views mean.
fn drop_everything(db: &Connection) -> rusqlite::Result<()> {
    let drops: Vec<String> = db
        .prepare(
            "SELECT format('DROP %s IF EXISTS \"%w\"', type, name) FROM sqlite_schema
             WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
             ORDER BY type DESC",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    drops.iter().try_for_each(|drop| db.execute_batch(drop))
}

/// Another generation means that the rows went away and came again.
pub(super) fn generation(db: &Connection) -> rusqlite::Result<Option<String>> {
    meta(db, "generation")
}

/// `None` also where the database is another program's and has no such table.
fn meta(db: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    let query = "SELECT CAST(value AS TEXT) FROM index_meta WHERE key = ?1";
    match db.query_row(query, [key], |row| row.get(0)).optional() {
        Err(error) if is_not_understood(&error) => Ok(None),
        found => found.map(Option::flatten),
    }
}

fn is_not_understood(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_ERROR)
}
