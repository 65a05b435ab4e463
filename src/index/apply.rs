//! Batches of lines become rows, and the cursor moves with them.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::batches::{first_crc, is_mark};
use super::columns::{Json, Number};
use super::follow::cursor;
use super::records::RecordInsert;
use super::sessions::PartSums;
use crate::entry::{BasinPoint, Body, Emergency, Entry, Gap, Record, SessionEnded};
use crate::ids::SessionId;
use crate::journal::{Batch, Content, Cursor, Header, Line};
use crate::timestamp::Timestamp;

/// The longest reason that is kept of an invalid line; it may quote the line.
const REASON_CHARS_MAX: usize = 300;

/// Whether batches were applied.
pub(super) enum Applied {
    Yes,
    /// The index has read this segment up to another place, and nothing was changed.
    Elsewhere(Cursor),
}

/// Applies batches that follow each other in one transaction, if they begin where the index stands.
pub(super) fn apply(
    db: &mut Connection,
    header: &Header,
    path: &Path,
    batches: &[Batch],
) -> rusqlite::Result<Applied> {
    let Some(from) = batches.first().map(Batch::from) else { return Ok(Applied::Yes) };
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let Place { segment_no, cursor, mut crc } = match place(&transaction, header)? {
        Some(place) => place,
        None if from.next_line == 1 => register(&transaction, header, path, from)?,
        None => return Ok(Applied::Elsewhere(Cursor::START)),
    };
    if cursor != *from {
        return Ok(Applied::Elsewhere(cursor));
    }
    let mut rows = Rows::new(&transaction, header, segment_no);
    if from.next_line == 1 {
        rows.begin_part()?;
    }
    for batch in batches {
        for line in batch.lines() {
            rows.line(line)?;
        }
        crc = batch.crc(crc);
        move_cursor(&transaction, segment_no, batch.to(), crc)?;
    }
    rows.finish()?;
    transaction.commit()?;
    Ok(Applied::Yes)
}

/// How far a segment was read.
struct Place {
    segment_no: i64,
    cursor: Cursor,
    /// CRC-32 of everything before the cursor, by which `verify` knows it again.
    crc: u32,
}

fn place(db: &Transaction<'_>, header: &Header) -> rusqlite::Result<Option<Place>> {
    db.prepare_cached(
        "SELECT segment_no, next_line, next_byte, chain_hash, crc
         FROM index_segments WHERE segment_id = ?1",
    )?
    .query_row([header.segment.to_string()], |row| {
        Ok(Place { segment_no: row.get(0)?, cursor: cursor(row, 1)?, crc: row.get(4)? })
    })
    .optional()
}

fn register(
    db: &Transaction<'_>,
    header: &Header,
    path: &Path,
    begin: &Cursor,
) -> rusqlite::Result<Place> {
    let segment_no = db
        .prepare_cached(
            "INSERT INTO index_segments
                 (segment_id, store_id, session_id, attempt, path, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING segment_no",
        )?
        .query_row(
            params![
                header.segment.to_string(),
                header.store.to_string(),
                header.session.as_ref().map(SessionId::as_str),
                header.attempt,
                path.to_string_lossy(),
                header.created_at.to_string(),
            ],
            |row| row.get(0),
        )?;
    Ok(Place { segment_no, cursor: *begin, crc: first_crc(begin) })
}

fn move_cursor(
    db: &Transaction<'_>,
    segment_no: i64,
    to: &Cursor,
    crc: u32,
) -> rusqlite::Result<()> {
    let (byte, hash) = (to.next_byte.cast_signed(), to.chain.as_bytes());
    let place = params![segment_no, to.next_line, byte, hash, crc];
    db.prepare_cached(
        "UPDATE index_segments SET next_line = ?2, next_byte = ?3, chain_hash = ?4, crc = ?5
         WHERE segment_no = ?1",
    )?
    .execute(place)?;
    if is_mark(to) {
        db.prepare_cached(
            "INSERT INTO index_marks (segment_no, line_no, byte, chain_hash, crc)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(place)?;
    }
    Ok(())
}

/// Rows of one transaction, and what must be worked out again at its end.
pub(super) struct Rows<'a> {
    pub(super) db: &'a Transaction<'a>,
    pub(super) header: &'a Header,
    pub(super) segment_no: i64,
    /// Prepared at the first record.
    records: Option<RecordInsert<'a>>,
    /// Sums over the segment's records so far, once there is a record.
    pub(super) sums: Option<PartSums>,
    /// Sessions to be folded again.
    pub(super) sessions: BTreeSet<SessionId>,
    /// Whether sessions were deleted, as far as somebody had to ask.
    pub(super) deleted: HashMap<SessionId, bool>,
    /// Checkpoints came or went: they are ranked again.
    pub(super) ranking: bool,
}

impl<'a> Rows<'a> {
    fn new(db: &'a Transaction<'a>, header: &'a Header, segment_no: i64) -> Self {
        Self {
            db,
            header,
            segment_no,
            records: None,
            sums: None,
            sessions: BTreeSet::new(),
            deleted: HashMap::new(),
            ranking: false,
        }
    }

    fn line(&mut self, line: &Line) -> rusqlite::Result<()> {
        match &line.content {
            Content::Invalid(error) => self.invalid(line, &error.to_string()),
            Content::Entry(entry) => self.entry(line, entry),
        }
    }

    fn entry(&mut self, line: &Line, entry: &Entry) -> rusqlite::Result<()> {
        let session = self.header.session.as_ref();
        let (no, at) = (line.number, entry.timestamp);
        match (&entry.body, session) {
            (Body::Record(record), Some(session)) => self.record(session, no, at, record),
            (Body::Basin(point), Some(session)) => self.basin(session, no, at, point),
            (Body::SessionStarted(started), Some(session)) => self.started(session, at, started),
            (Body::SessionEnded(ended @ SessionEnded { of: Some(part), .. }), _) => {
                self.ended(part.segment, &part.session_id, at, ended)
            }
            (Body::SessionEnded(ended), Some(session)) => {
                self.ended(self.header.segment, session, at, ended)
            }
            (Body::Emergency(emergency), _) => self.emergency(no, at, emergency),
            (Body::CheckpointCreated(created), _) => self.created(no, at, created),
            (Body::Checkpoint(action), _) => self.action(no, at, action),
            (Body::SessionDeleted { session_id }, _) => self.delete_session(session_id, no, at),
            (Body::Gap(gap), Some(session)) => self.gap(session, no, at, gap),
            (Body::Unknown { .. }, _) => Ok(()),
            (_, None) => self.invalid(line, "belongs to a session, its segment does not"),
        }
    }

    fn invalid(&self, line: &Line, reason: &str) -> rusqlite::Result<()> {
        let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
        self.db
            .prepare_cached(
                "INSERT INTO invalid_lines (segment_no, line_no, byte, reason)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![self.segment_no, line.number, line.offset.cast_signed(), reason])
            .map(|_| ())
    }

    fn record(
        &mut self,
        session: &SessionId,
        line_no: u32,
        at: Timestamp,
        record: &Record,
    ) -> rusqlite::Result<()> {
        if self.is_deleted(session)? {
            return Ok(());
        }
        self.part_sums()?.add(&record.telemetry);
        let statement = match &mut self.records {
            Some(statement) => statement,
            None => {
                let new = RecordInsert::prepare(self.db, self.segment_no, session)?;
                self.records.insert(new)
            }
        };
        statement.insert(line_no, at, record)
    }

    fn basin(
        &mut self,
        session: &SessionId,
        line_no: u32,
        at: Timestamp,
        point: &BasinPoint,
    ) -> rusqlite::Result<()> {
        if self.is_deleted(session)? {
            return Ok(());
        }
        self.db
            .prepare_cached("INSERT INTO basin_history VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
            .execute(params![
                self.segment_no,
                line_no,
                session.as_str(),
                at.to_string(),
                point.step,
                Json(&point.basin_coords),
                Number(point.phi),
                Number(point.kappa),
            ])
            .map(|_| ())
    }

    /// A count that no column holds is its greatest number.
    fn gap(
        &mut self,
        session: &SessionId,
        line_no: u32,
        at: Timestamp,
        gap: &Gap,
    ) -> rusqlite::Result<()> {
        if self.is_deleted(session)? {
            return Ok(());
        }
        self.db
            .prepare_cached(
                "INSERT INTO telemetry_gaps VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                self.segment_no,
                line_no,
                session.as_str(),
                at.to_string(),
                i64::try_from(gap.records).unwrap_or(i64::MAX),
                gap.first_step,
                gap.last_step,
                gap.since.to_string(),
                gap.reason,
            ])
            .map(|_| ())
    }

    fn emergency(
        &mut self,
        line_no: u32,
        at: Timestamp,
        emergency: &Emergency,
    ) -> rusqlite::Result<()> {
        let session = self.header.session.as_ref().or(emergency.session_id.as_ref());
        if let Some(session) = session {
            if self.is_deleted(session)? {
                return Ok(());
            }
            self.sessions.insert(session.clone());
        }
        self.db
            .prepare_cached(
                "INSERT INTO emergency_events
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?
            .execute(params![
                self.segment_no,
                line_no,
                emergency.event_id.as_str(),
                session.map(SessionId::as_str),
                at.to_string(),
                emergency.step,
                emergency.reason,
                emergency.severity,
                emergency.metric,
                Number(emergency.value),
                Number(emergency.threshold),
                emergency.telemetry.as_ref().map(Json),
                emergency.metadata.as_ref().map(Json),
            ])
            .map(|_| ())
    }

    /// The sums of this segment's part, first as they were before the batch.
    fn part_sums(&mut self) -> rusqlite::Result<&mut PartSums> {
        let sums = match self.sums.take() {
            Some(sums) => sums,
            None => PartSums::read(self.db, self.header.segment)?,
        };
        Ok(self.sums.insert(sums))
    }

    /// Works out what depends on several lines.
    fn finish(mut self) -> rusqlite::Result<()> {
        self.write_sums()?;
        self.fold_sessions()?;
        if self.ranking { self.rank() } else { Ok(()) }
    }
}
