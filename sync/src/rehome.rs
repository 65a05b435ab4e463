//! The tail of a forked segment gets a segment of its own, so that it is sent beside the other one.
//!
//! Its row in `sync_segments` names its parent and the line at which it parted. Its lines keep their
//! numbers, and its cursor the hash of the whole file; only the lines before the fork are the
//! parent's. In the replica it is a part of the session like that of any other writer.

use std::sync::Arc;

use postgres::Transaction;
use postgres::types::Type;
use uuid::Uuid;

use crate::database::DatabaseError;
use crate::error::SyncError;
use crate::follow::{FileId, Follower};
use crate::fork::{self, Evidence, Fork, Tail};
use crate::insert;
use crate::replica::{self, Replica, SegmentRow};
use crate::rows::BatchRows;
use crate::ship::Visit;
use crate::state::{Notice, SegmentState};

/// How long comparing one batch may take.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

impl Visit<'_> {
    /// Deals with a file of `length` bytes that does not agree with its cursor. Whether it has lines
    /// to send now: those of a tail that parted.
    pub(crate) fn part(&mut self, length: u64) -> Result<bool, SyncError> {
        let at = Some((length, self.known.cursor.next_line));
        if self.known.parted_at == at {
            return Ok(false);
        }
        if self.resume_tail()? {
            return Ok(true);
        }
        let has_tail = self.look_for_tail(length)?;
        if !has_tail {
            self.known.parted_at = at;
        }
        Ok(has_tail)
    }

    fn look_for_tail(&mut self, length: u64) -> Result<bool, SyncError> {
        let path = self.path();
        match fork::locate(self.replica, &path, &self.known)? {
            Fork::Parted(tail) => return self.rehome(&tail),
            Fork::Behind => {
                let detail = format!("the file has {length} bytes, {}", self.sent());
                self.stop(SegmentState::LocalBehind, detail)?;
            }
            Fork::Changed => {
                let place = self.fork_place()?;
                self.stop(SegmentState::Forked, place)?;
                self.known.stopped = FileId::of(&path).ok();
            }
        }
        Ok(false)
    }

    /// Goes on with a tail that was sent before. One of which no line was sent looks like that of
    /// any other clone.
    fn resume_tail(&mut self) -> Result<bool, SyncError> {
        for row in self.follower.tails.clone() {
            let has_lines = row.parent.is_some_and(|(_, line)| row.cursor.next_line > line);
            if has_lines && self.follower.compare_all(&row.cursor)? == Some(true) {
                self.follow_tail(&row);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn rehome(&mut self, tail: &Tail) -> Result<bool, SyncError> {
        let row = self.replica.rehome(self.follower, tail)?;
        if self.follower.compare_all(&row.cursor)? != Some(true) {
            let detail = format!("not even its tail, {}, is what was sent", row.segment);
            self.stop(SegmentState::Forked, detail)?;
            self.known.stopped = FileId::of(&self.path()).ok();
            return Ok(false);
        }
        let (path, line, segment) = (self.path(), tail.from.next_line, row.segment);
        (self.notice)(&Notice::Rehomed { path, line, segment });
        self.follow_tail(&row);
        Ok(true)
    }

    fn follow_tail(&mut self, row: &SegmentRow) {
        self.known = self.follower.known_as(row);
        self.enter(SegmentState::Streaming, String::new());
    }
}

impl Replica {
    /// Makes the tail known and returns its row, which another agent may have moved on.
    fn rehome(&mut self, follower: &Follower, tail: &Tail) -> Result<SegmentRow, DatabaseError> {
        let header = &follower.segment.header;
        let (parent, id) = (header.segment.as_uuid(), tail.segment.as_uuid());
        let session = header.session.as_ref().map(ToString::to_string);
        let file_name = replica::file_name(&follower.segment);
        let attempt = replica::attempt(&follower.segment);
        let (from, store_no) = (tail.from, self.store_no());
        let next_byte = i64::try_from(from.next_byte).unwrap_or(i64::MAX);
        self.within(LIMIT, "registering a tail", move |transaction| {
            transaction.execute_typed(
                "INSERT INTO sync_segments
                     (segment_id, store_no, session_id, file_name, attempt, next_line, next_byte,
                      chain_hash, parent_segment_id, parent_line)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $6) ON CONFLICT DO NOTHING",
                &[
                    (&id, Type::UUID),
                    (&store_no, Type::INT4),
                    (&session, Type::TEXT),
                    (&file_name, Type::TEXT),
                    (&attempt, Type::INT4),
                    (&i64::from(from.next_line), Type::INT8),
                    (&next_byte, Type::INT8),
                    (&from.chain.as_bytes().as_slice(), Type::BYTEA),
                    (&parent, Type::UUID),
                ],
            )?;
            read_row(transaction, id)
        })
    }

    /// What the replica has of the lines of a batch that are in it already. Both sides are written
    /// by one session of the server, so that equal values are equal texts.
    pub(crate) fn evidence(&mut self, ours: Arc<BatchRows>) -> Result<Evidence, DatabaseError> {
        self.within(LIMIT, "comparing lines", move |transaction| {
            let mut evidence = Evidence::default();
            for rows in ours.data() {
                for row in insert::texts(transaction, rows)? {
                    let text: String = row.try_get(1)?;
                    evidence.ours.entry(row.try_get(0)?).or_default().push(text);
                }
                for row in insert::texts_between(transaction, rows.table, &ours)? {
                    let text: String = row.try_get(1)?;
                    evidence.theirs.entry(row.try_get(0)?).or_default().push(text);
                }
            }
            let kept = transaction.query_typed(
                "SELECT line_no, sha256 FROM sync_quarantine
                 WHERE segment_no = $1 AND line_no >= $2 AND line_no < $3
                 UNION ALL
                 SELECT line_no, sha256(raw) FROM sync_unknown
                 WHERE segment_no = $1 AND line_no >= $2 AND line_no < $3",
                &insert::line_range(&ours),
            )?;
            for row in kept {
                evidence.raw.insert(row.try_get(0)?, row.try_get(1)?);
            }
            Ok(evidence)
        })
    }
}

fn read_row(transaction: &mut Transaction<'_>, id: Uuid) -> Result<SegmentRow, DatabaseError> {
    let sql = format!("{} WHERE segment_id = $1", replica::SELECT_SEGMENTS);
    SegmentRow::read(&transaction.query_typed_one(&sql, &[(&id, Type::UUID)])?)
}
