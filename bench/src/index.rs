//! The index of a whole journal, against SQLite's own bulk insert of the same rows.
//!
//! The reference does what SQLite's manual advises for many rows: prepared statements in one
//! transaction, in the order of the key, then the secondary indexes. Same table, same indexes, same
//! settings, same folder. Its rows are in memory; ours are read, checked and parsed from the journal.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use tidelog::Store;

use crate::Outcome;
use crate::records;
use crate::stats::spread;

/// Index a journal, against SQLite's bulk insert of the same rows.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Records in the journal.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Rounds of all three, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Rows that are held at a time; reading them is not measured.
const ROWS_HELD: i64 = 50_000;

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("store");
    records::store(&root, arguments.records)?;
    let store = Store::open_read_only(&root)?;
    let seconds = |time: Duration| time.as_secs_f64();
    let (mut caught_up, mut rebuilt, mut theirs) = (vec![], vec![], vec![]);
    for _ in 0..arguments.rounds {
        caught_up.push(seconds(catch_up(&store)?));
        theirs.push(seconds(bulk_insert(&root.join("index.sqlite"), arguments.records)?));
        rebuilt.push(seconds(rebuild(&store)?));
    }
    let ratios = |ours: &[f64]| spread(theirs.iter().zip(ours).map(|(t, o)| t / o).collect());
    println!("catch-up from nothing: ratio  {:.2}", ratios(&caught_up));
    println!("rebuild: ratio                {:.2}", ratios(&rebuilt));
    println!("catch-up from nothing, s:     {:.2}", spread(caught_up));
    println!("rebuild, s:                   {:.2}", spread(rebuilt));
    println!("SQLite's bulk insert, s:      {:.2}", spread(theirs));
    Ok(())
}

fn catch_up(store: &Store) -> Result<Duration, Box<dyn std::error::Error>> {
    for ending in ["", "-wal", "-shm"] {
        fs::remove_file(store.root().join(format!("index.sqlite{ending}"))).ok();
    }
    let start = Instant::now();
    store.refresh_index(&mut |_| {})?;
    Ok(start.elapsed())
}

fn rebuild(store: &Store) -> tidelog::Result<Duration> {
    let start = Instant::now();
    store.rebuild_index(&mut |_| {})?;
    Ok(start.elapsed())
}

/// Copies the records of an index into another file.
fn bulk_insert(index: &Path, records: u64) -> Result<Duration, Box<dyn std::error::Error>> {
    let from = Connection::open(index)?;
    let path = index.with_extension("reference");
    let (table, indexes) = schema(&from)?;
    let start = Instant::now();
    let db = Connection::open(&path)?;
    db.execute_batch(
        "PRAGMA journal_mode = wal; PRAGMA synchronous = normal; PRAGMA cache_size = -16384;
         PRAGMA wal_autocheckpoint = 16384; BEGIN IMMEDIATE",
    )?;
    db.execute_batch(&table)?;
    let mut taken = start.elapsed();
    let (mut after, mut inserted) = (0, 0);
    loop {
        let rows = read_rows(&from, after)?;
        if rows.is_empty() {
            break;
        }
        after += ROWS_HELD;
        inserted += rows.len() as u64;
        taken += insert(&db, &rows)?;
    }
    let start = Instant::now();
    db.execute_batch(&indexes.join(";"))?;
    db.execute_batch("COMMIT")?;
    db.close().map_err(|(_, error)| error)?;
    taken += start.elapsed();
    fs::remove_file(&path)?;
    match inserted == records {
        true => Ok(taken),
        false => Err(format!("{inserted} rows in the index, {records} expected").into()),
    }
}

/// The table of records, and its indexes.
fn schema(from: &Connection) -> rusqlite::Result<(String, Vec<String>)> {
    let sql = "SELECT sql FROM sqlite_schema WHERE tbl_name = 'telemetry_records' AND type = ?1
               AND sql IS NOT NULL";
    let table = from.query_row(sql, ["table"], |row| row.get(0))?;
    let mut indexes = from.prepare(sql)?;
    let indexes = indexes.query_map(["index"], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok((table, indexes))
}

fn read_rows(from: &Connection, after: i64) -> rusqlite::Result<Vec<Vec<Value>>> {
    let mut rows = from.prepare_cached(
        "SELECT * FROM telemetry_records WHERE rowid > ?1 AND rowid <= ?1 + ?2 ORDER BY rowid",
    )?;
    let columns = rows.column_count();
    rows.query_map([after, ROWS_HELD], |row| (0..columns).map(|column| row.get(column)).collect())?
        .collect()
}

fn insert(db: &Connection, rows: &[Vec<Value>]) -> rusqlite::Result<Duration> {
    let start = Instant::now();
    let marks = vec!["?"; rows.first().map_or(0, Vec::len)].join(", ");
    let sql = format!("INSERT INTO telemetry_records VALUES ({marks})");
    let mut statement = db.prepare_cached(&sql)?;
    for row in rows {
        statement.execute(params_from_iter(row))?;
    }
    Ok(start.elapsed())
}
