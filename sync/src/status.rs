//! How far is the replica behind the files? Computed from the files, so that a dead connection
//! shows a growing lag.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::Serialize;
use tidelog::journal::{BatchLimits, Content, Cursor, Segment, SegmentReader};
use tidelog::{Store, StoreId, Timestamp};

use crate::connect::Target;
use crate::error::SyncError;
use crate::follow;
use crate::listing;
use crate::replica::{Replica, SegmentRow, file_name};

/// A store and its replica at a glance. The names of the fields are a contract of `--json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// The store's id.
    pub store_id: StoreId,
    /// "ready", "unreachable", "blocked" or "not named".
    pub database: &'static str,
    /// Why the database is not ready, and what to do; null if it is.
    pub database_reason: Option<String>,
    /// Entries that are not in the replica, incomplete last lines left out; null without a database.
    pub lag_lines: Option<u64>,
    /// Bytes of entries that are not in the replica; null without a database.
    pub lag_bytes: Option<u64>,
    /// Age of the oldest entry that is not in the replica, in seconds; 0 if there is none, null
    /// without a database.
    pub lag_seconds: Option<f64>,
    /// Lines in quarantine; null without a database.
    pub quarantined_lines: Option<i64>,
    /// When an agent last wrote for this store; null if never, or without a database.
    pub last_commit_at: Option<Timestamp>,
    /// Sessions of this store that other stores write, too: ranks on several machines, or two
    /// runs that took the same id.
    pub shared_sessions: Vec<String>,
    /// Every segment in the store's folder.
    pub segments: Vec<SegmentStatus>,
}

/// One segment and what the replica has of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SegmentStatus {
    /// File name, without folders.
    pub file: String,
    /// Session; null for the store's own journal.
    pub session_id: Option<String>,
    /// Size of the file.
    pub bytes: u64,
    /// What an agent wrote down last, such as "streaming", "sealed" or "forked"; "discovered" if no
    /// agent has seen it yet; null without a database.
    pub state: Option<String>,
    /// Lines that are not in the replica; null without a database.
    pub lag_lines: Option<u64>,
    /// Bytes that are not in the replica; null without a database.
    pub lag_bytes: Option<u64>,
    /// Age of the oldest entry that is not in the replica; null if there is none.
    pub lag_seconds: Option<f64>,
}

/// What the replica knows of a store.
struct Known {
    segments: Vec<SegmentRow>,
    quarantined_lines: i64,
    last_commit_at: Option<jiff::Timestamp>,
    shared_sessions: Vec<String>,
}

/// Looks at a store and, if there is one, its replica. Writes nothing.
///
/// # Errors
/// A file of the store cannot be read. A database that is away is no error but a part of the answer.
pub fn status(root: &Path, target: Option<&Target>) -> Result<Status, SyncError> {
    let store = Store::open_read_only(root)?;
    let listing = listing::list(store.root(), |_| false)?;
    let asked = target.map(|target| ask(target, store.id(), &listing.segments));
    let (database, database_reason, known) = match asked {
        None => ("not named", None, None),
        Some(Ok(known)) => ("ready", None, Some(known)),
        Some(Err(error)) => (word(&error), Some(error.to_string()), None),
    };
    let rows = known.as_ref().map(|known| known.segments.as_slice());
    let segments =
        listing.segments.iter().map(|s| segment(s, rows)).collect::<Result<Vec<_>, _>>()?;
    let total = |lag: fn(&SegmentStatus) -> Option<u64>| {
        rows.map(|_| segments.iter().filter_map(lag).sum::<u64>())
    };
    let oldest = segments.iter().filter_map(|s| s.lag_seconds).fold(0.0, f64::max);
    Ok(Status {
        store_id: store.id(),
        database,
        database_reason,
        lag_lines: total(|segment| segment.lag_lines),
        lag_bytes: total(|segment| segment.lag_bytes),
        lag_seconds: rows.map(|_| oldest),
        quarantined_lines: known.as_ref().map(|known| known.quarantined_lines),
        last_commit_at: known
            .as_ref()
            .and_then(|known| Timestamp::from_jiff(known.last_commit_at?).ok()),
        shared_sessions: known.map(|known| known.shared_sessions).unwrap_or_default(),
        segments,
    })
}

fn word(error: &SyncError) -> &'static str {
    match error.class() {
        Some(crate::sqlstate::Class::Blocked) => "blocked",
        _ => "unreachable",
    }
}

/// What the replica has of the store, and of segments that came into its folder from another one.
fn ask(target: &Target, store: StoreId, listed: &[Segment]) -> Result<Known, SyncError> {
    let mut replica = Replica::look(target, store)?;
    let segments = replica.segments(listed)?;
    let numbers: Vec<i32> = segments.iter().map(|row| row.segment_no).collect();
    let known = replica.query("reading the status", move |client| {
        let of_segments = [(&numbers as _, postgres::types::Type::INT4_ARRAY)];
        let counts = client.query_typed_one(
            "SELECT (SELECT count(*) FROM sync_quarantine WHERE segment_no = ANY ($1)),
                    (SELECT max(updated_at) FROM sync_segments WHERE segment_no = ANY ($1))",
            &of_segments,
        )?;
        let shared = client.query_typed(
            "SELECT session_id FROM sync_segments WHERE session_id IS NOT NULL
             GROUP BY session_id HAVING count(DISTINCT store_no) > 1 AND bool_or(segment_no = ANY ($1))
             ORDER BY session_id",
            &of_segments,
        )?;
        let shared_sessions = shared.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        Ok((counts.try_get(0)?, counts.try_get(1)?, shared_sessions))
    })?;
    let (quarantined_lines, last_commit_at, shared_sessions) = known;
    Ok(Known { segments, quarantined_lines, last_commit_at, shared_sessions })
}

fn segment(segment: &Segment, rows: Option<&[SegmentRow]>) -> Result<SegmentStatus, SyncError> {
    let bytes = segment.path.metadata().map_or(0, |found| found.len());
    let row = rows.and_then(|rows| rows.iter().find(|row| row.segment == segment.header.segment));
    let cursor = row.map_or(Cursor::START, |row| row.cursor);
    let has_database = rows.is_some();
    let sent_bytes = follow::next_entry_byte(&segment.path, &cursor)?;
    let is_behind = has_database && bytes > sent_bytes;
    let lines = if is_behind { lines_from(&segment.path, sent_bytes)? } else { 0 };
    Ok(SegmentStatus {
        file: file_name(segment),
        session_id: segment.header.session.as_ref().map(ToString::to_string),
        bytes,
        state: has_database.then(|| row.map_or("discovered".into(), |row| row.state.clone())),
        lag_lines: has_database.then_some(lines),
        lag_bytes: has_database.then(|| bytes.saturating_sub(sent_bytes)),
        lag_seconds: if lines > 0 { age(&segment.path, cursor)? } else { None },
    })
}

/// Complete lines from this byte on.
pub(crate) fn lines_from(path: &Path, byte: u64) -> Result<u64, SyncError> {
    let count = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(byte))?;
        let mut block = vec![0; 1 << 20];
        let mut lines = 0;
        loop {
            let read = file.read(&mut block)?;
            if read == 0 {
                return Ok(lines);
            }
            let block = block.get(..read).unwrap_or_default();
            lines += block.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
    };
    let failed =
        |source| tidelog::Error::Io { action: "read", path: path.to_owned(), source }.into();
    count().map_err(failed)
}

/// Age of the first entry that is not sent; none if that line is damaged.
fn age(path: &Path, cursor: Cursor) -> Result<Option<f64>, SyncError> {
    let one = BatchLimits { lines_max: 1, bytes_max: 1 };
    let batch = SegmentReader::open(path, cursor)?.next_batch(one)?;
    let entry = batch.as_ref().and_then(|batch| match &batch.lines().first()?.content {
        Content::Entry(entry) => Some(entry.timestamp),
        Content::Invalid(_) => None,
    });
    Ok(entry.map(|time| Timestamp::now().seconds_since(time).max(0.0)))
}
