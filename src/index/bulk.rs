//! Many rows at once: what is cheaper done at the end is done at the end.

use rusqlite::Connection;

use super::rebuild::SCHEMA;

/// Indexes that no batch needs while it is applied. To sort a million keys at the end costs less than
/// to put each in its place; of those in random order, such as phi's, far less.
const LATE: [&str; 4] = [
    "telemetry_records_session",
    "telemetry_records_phi",
    "emergency_events_timestamp",
    "basin_history_session",
];
/// Memory for pages, and as much again for sorting.
const CACHE_KIB: i64 = 16 << 10;
/// Pages of the write-ahead log that are gathered before they are copied into the database, which
/// waits for the disk each time.
const LOG_PAGES: i64 = 16 << 10;

/// Prepares for many rows. A crash before [`end`] leaves an index without [`LATE`] indexes, and with
/// all its rows; the next catch-up, however short, ends with making them.
pub(super) fn begin(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    db.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    LATE.iter().try_for_each(|name| db.execute_batch(&format!("DROP INDEX IF EXISTS {name}")))
}

/// Makes the indexes that are missing.
pub(super) fn end(db: &Connection) -> rusqlite::Result<()> {
    let names = LATE.map(|name| format!("'{name}'")).join(", ");
    let count = format!("SELECT count(*) FROM sqlite_schema WHERE name IN ({names})");
    let found: u32 = db.prepare_cached(&count)?.query_row([], |row| row.get(0))?;
    if found as usize == LATE.len() { Ok(()) } else { db.execute_batch(SCHEMA) }
}
