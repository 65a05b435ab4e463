//! How far is the replica behind the files? Computed from the files, so that a dead connection
//! shows a growing lag.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tidelog::journal::{BatchLimits, Content, Cursor, Segment, SegmentReader};
use tidelog::{Store, StoreId, Timestamp};

use crate::blobs::MissingFiles;
use crate::connect::Target;
use crate::error::SyncError;
pub(crate) use crate::follow::next_entry_byte;
use crate::gaps::Gap;
use crate::listing;
use crate::replica::{Replica, SegmentRow, file_name};

/// A store and its replica at a glance. The names of the fields are a contract of `--json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// The store's folder.
    pub folder: PathBuf,
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
    /// Records that the disk refused while a session recorded; null without a database.
    pub missed_records: Option<i64>,
    /// Why the newest line in quarantine is there; null if there is none, or no database.
    pub last_refusal: Option<String>,
    /// Checkpoint files that are not in the replica, or not whole; null without a database.
    pub checkpoint_files_missing: Option<i64>,
    /// Which of them cannot or may not be sent, and why; the newest 100.
    pub checkpoint_files_problems: Vec<String>,
    /// When an agent last wrote for this store; null if never, or without a database.
    pub last_commit_at: Option<Timestamp>,
    /// Sessions of this store that other stores write, too: ranks on several machines, or two
    /// runs that took the same id.
    pub shared_sessions: Vec<String>,
    /// Lines that the replica will never get, until somebody calls `acknowledge_gap()`.
    pub gaps: Vec<Gap>,
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
    /// Lines of it in quarantine; null without a database.
    pub quarantined_lines: Option<i64>,
}

/// What the replica knows of a store.
struct Known {
    segments: Vec<SegmentRow>,
    /// By segment number.
    quarantined_lines: BTreeMap<i32, i64>,
    missed_records: i64,
    last_refusal: Option<String>,
    last_commit_at: Option<jiff::Timestamp>,
    shared_sessions: Vec<String>,
    gaps: Vec<Gap>,
    files: MissingFiles,
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
    let rows = known.as_ref();
    let segments =
        listing.segments.iter().map(|s| segment(s, rows)).collect::<Result<Vec<_>, _>>()?;
    let total = |lag: fn(&SegmentStatus) -> Option<u64>| {
        rows.map(|_| segments.iter().filter_map(lag).sum::<u64>())
    };
    let oldest = segments.iter().filter_map(|s| s.lag_seconds).fold(0.0, f64::max);
    Ok(Status {
        folder: store.root().to_owned(),
        store_id: store.id(),
        database,
        database_reason,
        lag_lines: total(|segment| segment.lag_lines),
        lag_bytes: total(|segment| segment.lag_bytes),
        lag_seconds: rows.map(|_| oldest),
        quarantined_lines: known.as_ref().map(|known| known.quarantined_lines.values().sum()),
        missed_records: known.as_ref().map(|known| known.missed_records),
        last_refusal: known.as_ref().and_then(|known| known.last_refusal.clone()),
        checkpoint_files_missing: known.as_ref().map(|known| known.files.count),
        checkpoint_files_problems: known
            .as_ref()
            .map(|known| known.files.problems.clone())
            .unwrap_or_default(),
        last_commit_at: known
            .as_ref()
            .and_then(|known| Timestamp::from_jiff(known.last_commit_at?).ok()),
        shared_sessions: known.as_ref().map_or(vec![], |known| known.shared_sessions.clone()),
        gaps: known.map(|known| known.gaps).unwrap_or_default(),
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
            "SELECT (SELECT max(updated_at) FROM sync_segments WHERE segment_no = ANY ($1)),
                    (SELECT coalesce(sum(records), 0)::bigint FROM telemetry_gaps
                     WHERE segment_no = ANY ($1)),
                    (SELECT reason FROM sync_quarantine
                     WHERE segment_no = ANY ($1) AND dropped_at IS NULL
                     ORDER BY last_seen DESC, segment_no, line_no LIMIT 1)",
            &of_segments,
        )?;
        let quarantined = client.query_typed(
            "SELECT segment_no, count(*) FROM sync_quarantine
             WHERE segment_no = ANY ($1) AND dropped_at IS NULL GROUP BY segment_no",
            &of_segments,
        )?;
        let shared = client.query_typed(
            "SELECT session_id FROM sync_segments WHERE session_id IS NOT NULL
             GROUP BY session_id HAVING count(DISTINCT store_no) > 1 AND bool_or(segment_no = ANY ($1))
             ORDER BY session_id",
            &of_segments,
        )?;
        let pair = |row: &postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
        Ok(Known {
            segments,
            quarantined_lines: quarantined.iter().map(pair).collect::<Result<_, _>>()?,
            missed_records: counts.try_get(1)?,
            last_refusal: counts.try_get(2)?,
            last_commit_at: counts.try_get(0)?,
            shared_sessions: shared.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?,
            gaps: Vec::new(),
            files: MissingFiles::default(),
        })
    })?;
    let (gaps, files) = (replica.open_gaps()?, MissingFiles::read(&mut replica)?);
    Ok(Known { gaps, files, ..known })
}

fn segment(segment: &Segment, replica: Option<&Known>) -> Result<SegmentStatus, SyncError> {
    let bytes = segment.path.metadata().map_or(0, |found| found.len());
    let row = replica
        .and_then(|known| known.segments.iter().find(|row| row.segment == segment.header.segment));
    let quarantined = replica.map(|known| {
        row.and_then(|row| known.quarantined_lines.get(&row.segment_no)).copied().unwrap_or(0)
    });
    let cursor = row.map_or(Cursor::START, |row| row.cursor);
    let has_database = replica.is_some();
    let sent_bytes = next_entry_byte(&segment.path, &cursor)?;
    let is_behind = has_database && bytes > sent_bytes;
    let lines =
        if is_behind { lines_in(&segment.path, sent_bytes, bytes - sent_bytes)? } else { 0 };
    Ok(SegmentStatus {
        file: file_name(segment),
        session_id: segment.header.session.as_ref().map(ToString::to_string),
        bytes,
        state: has_database.then(|| row.map_or("discovered".into(), |row| row.state.clone())),
        lag_lines: has_database.then_some(lines),
        lag_bytes: has_database.then(|| bytes.saturating_sub(sent_bytes)),
        lag_seconds: if lines > 0 { first_time(&segment.path, cursor)?.map(age) } else { None },
        quarantined_lines: quarantined,
    })
}

/// Complete lines among so many bytes from this one on.
pub(crate) fn lines_in(path: &Path, byte: u64, bytes: u64) -> Result<u64, SyncError> {
    let count = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(byte))?;
        let mut file = file.take(bytes);
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

fn age(time: Timestamp) -> f64 {
    Timestamp::now().seconds_since(time).max(0.0)
}

/// Time of the first entry that is not sent; none if that line is damaged.
pub(crate) fn first_time(path: &Path, cursor: Cursor) -> Result<Option<Timestamp>, SyncError> {
    let one = BatchLimits { lines_max: 1, bytes_max: 1 };
    let batch = SegmentReader::open(path, cursor)?.next_batch(one)?;
    Ok(batch.as_ref().and_then(|batch| match &batch.lines().first()?.content {
        Content::Entry(entry) => Some(entry.timestamp),
        Content::Invalid(_) => None,
    }))
}
