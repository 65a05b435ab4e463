//! Sends the lines of one segment, after a look at whether it still is the segment that was sent.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use tidelog::SegmentId;
use tidelog::journal::Cursor;

use crate::agent::Report;
use crate::apply::Outcome;
use crate::breaker::Breaker;
use crate::database::DatabaseError;
use crate::error::SyncError;
use crate::follow::{self, FileId, Follower, Known, Look, Reading};
use crate::gaps::Gap;
use crate::insert::Method;
use crate::quarantine::Refusal;
use crate::replica::{self, Replica};
use crate::rows::BatchRows;
use crate::sqlstate::Class;
use crate::state::{Notice, SegmentState};

/// Batches of one segment before the next segment has its turn.
const BATCHES_PER_VISIT: usize = 64;

/// When a file that could not be read is tried again.
const UNREADABLE_WAIT: Duration = Duration::from_secs(10);

/// How far a visit came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shipped {
    /// To the end of the file as it was at the beginning of the visit, or as far as it may go.
    Everything,
    /// There is more to send right now.
    Part,
}

/// Sends lines and counts them.
#[derive(Debug)]
pub(crate) struct Shipper {
    pub(crate) method: Method,
    pub(crate) report: Report,
    pub(crate) breaker: Breaker,
    /// When to give up.
    pub(crate) until: Option<Instant>,
    /// Sessions that were written to; whoever refreshes their statistics clears it.
    pub(crate) touched: BTreeSet<String>,
    /// Segments whose end was reached, to be written down together.
    pub(crate) sealed: Vec<Sealed>,
}

/// A segment whose end was reached.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    pub(crate) segment: SegmentId,
    pub(crate) segment_no: i32,
    pub(crate) cursor: Cursor,
    pub(crate) file_name: String,
    /// Only its last lines are this segment's.
    pub(crate) is_tail: bool,
}

/// What a comparison of every line found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// The file is what was sent.
    Same,
    /// It is what was sent, and from some line on another writer's.
    HasTail,
    /// It is neither.
    Other,
}

/// What a visit works with.
pub(crate) struct Visit<'a> {
    pub(crate) root: &'a Path,
    pub(crate) follower: &'a mut Follower,
    pub(crate) known: Known,
    pub(crate) replica: &'a mut Replica,
    pub(crate) notice: &'a mut dyn FnMut(&Notice),
}

impl Visit<'_> {
    pub(crate) fn path(&self) -> PathBuf {
        self.follower.segment.path.clone()
    }

    /// Whether the state is a new one.
    pub(crate) fn enter(&mut self, to: SegmentState, detail: String) -> bool {
        let from = std::mem::replace(&mut self.follower.state, to);
        if from != to {
            let path = self.path();
            (self.notice)(&Notice::Segment { path, from, to, detail });
        }
        from != to
    }

    /// Stops at a state that somebody should know of.
    pub(crate) fn stop(&mut self, to: SegmentState, detail: String) -> Result<(), SyncError> {
        if self.enter(to, detail) {
            self.replica.note_state(self.known.place.segment_no, to.as_str())?;
        }
        Ok(())
    }

    /// Whether the file before the cursor is what was sent. If not, this file is not looked at
    /// again on this connection, because a look reads all of it.
    fn verify(&mut self, length: u64) -> Result<bool, SyncError> {
        // A file that fails half-way is no news each time.
        if self.follower.is_unread() && self.follower.state != SegmentState::Unreadable {
            self.enter(SegmentState::Verifying, String::new());
        }
        if self.follower.compare(&self.known.cursor)? != Some(true) {
            return self.part(length);
        }
        self.enter(SegmentState::Streaming, String::new());
        Ok(true)
    }

    /// Whether every line is what was sent. Read once more before nobody looks any more.
    fn verify_all(&mut self, length: u64) -> Result<Check, SyncError> {
        if self.follower.compare_all(&self.known.cursor)? == Some(true) {
            return Ok(Check::Same);
        }
        Ok(if self.part(length)? { Check::HasTail } else { Check::Other })
    }

    /// Whether this file is not read now.
    fn is_stopped(&self) -> bool {
        let stopped = self.known.stopped;
        self.follower.retry_at.is_some_and(|time| Instant::now() < time)
            || (stopped.is_some() && stopped == FileId::of(&self.follower.segment.path).ok())
    }

    /// Makes a failure of the file a state of the segment; other failures stay failures.
    fn unreadable(&mut self, error: SyncError) -> Result<Shipped, SyncError> {
        if !error.is_of_file() {
            return Err(error);
        }
        if error.is_not_found() {
            self.gone()?;
        } else {
            self.follower.retry_at = Some(Instant::now() + UNREADABLE_WAIT);
            self.stop(SegmentState::Unreadable, error.to_string())?;
        }
        Ok(Shipped::Everything)
    }

    /// The file is not there: lines are gone with it, or may come back with it.
    fn gone(&mut self) -> Result<(), SyncError> {
        let cursor = self.known.cursor;
        match Gap::of(self.follower, cursor.next_line, cursor.next_byte) {
            Some(gap) => {
                self.replica.note_gap(&gap)?;
                self.enter(SegmentState::Gap, gap.words());
                Ok(())
            }
            None => self.stop(SegmentState::Missing, self.sent()),
        }
    }

    pub(crate) fn sent(&self) -> String {
        format!("{} lines were sent", self.known.cursor.next_line)
    }

    pub(crate) fn fork_place(&mut self) -> Result<String, SyncError> {
        let digests = self.replica.digests(self.known.place.segment_no)?;
        let changed = follow::first_changed(&self.follower.segment.path, &digests)?;
        let (first, next) = match changed {
            Some(digest) => (digest.first_line, digest.next_line),
            None => (0, self.known.cursor.next_line),
        };
        let last = next.saturating_sub(1);
        Ok(format!("bytes between lines {first} and {last} are not those that were sent"))
    }

    /// Follows a cursor that another agent moved.
    fn resume(&mut self) -> Result<(), SyncError> {
        if !std::mem::replace(&mut self.known.is_shared, true) {
            let path = self.path();
            (self.notice)(&Notice::Overtaken { path, line: self.known.cursor.next_line });
        }
        self.known.cursor = self.replica.cursor(self.known.place.segment_no)?;
        Ok(())
    }

    fn sealed(&self) -> Sealed {
        Sealed {
            segment: self.known.place.segment,
            segment_no: self.known.place.segment_no,
            cursor: self.known.cursor,
            file_name: replica::file_name(&self.follower.segment),
            is_tail: self.known.place.first_line > 0,
        }
    }
}

impl Shipper {
    /// Sends what a segment has to send, some batches at a time.
    pub(crate) fn visit(&mut self, visit: &mut Visit<'_>) -> Result<Shipped, SyncError> {
        self.read_and_ship(visit).or_else(|error| visit.unreadable(error))
    }

    fn read_and_ship(&mut self, visit: &mut Visit<'_>) -> Result<Shipped, SyncError> {
        let mut shipped = Shipped::Everything;
        if self.is_late() {
            return Ok(Shipped::Part);
        }
        // Whoever is asked to stop says what is left.
        let is_held = self.until.is_none() && self.breaker.holds(visit.known.place.segment_no);
        if visit.is_stopped() || is_held {
            return Ok(shipped);
        }
        let look = visit.follower.look(visit.root, &visit.known)?;
        if let Look::Behind { length } = look {
            visit.follower.bytes_seen = visit.follower.bytes_seen.max(length);
        }
        match look {
            Look::Behind { length } if visit.verify(length)? => {
                shipped = self.ship(visit, length)?;
            }
            Look::Short { length } if visit.part(length)? => shipped = Shipped::Part,
            // A change that left the length as it was shows only when it is looked for.
            Look::CaughtUp { is_active: true } if visit.follower.is_unread() => {
                let segment_no = visit.known.place.segment_no;
                visit.verify(visit.known.cursor.next_byte)?;
                if visit.known.place.segment_no != segment_no {
                    shipped = Shipped::Part;
                }
            }
            _ => {}
        }
        if shipped == Shipped::Everything && !visit.is_stopped() {
            shipped = self.settle(visit)?;
        }
        Ok(shipped)
    }

    /// Brings the state up to what the file and the cursor say.
    fn settle(&mut self, visit: &mut Visit<'_>) -> Result<Shipped, SyncError> {
        match visit.follower.look(visit.root, &visit.known)? {
            Look::CaughtUp { is_active: true } => {
                visit.enter(SegmentState::Streaming, String::new());
            }
            Look::CaughtUp { is_active: false } if visit.known.is_complete() => {
                visit.enter(SegmentState::Sealed, String::new());
            }
            Look::CaughtUp { is_active: false } => {
                match visit.verify_all(visit.known.cursor.next_byte)? {
                    Check::Same => self.seal(visit),
                    Check::HasTail => return Ok(Shipped::Part),
                    Check::Other => {}
                }
            }
            Look::Gone if visit.known.sealed => {}
            Look::Gone => visit.gone()?,
            // Told already; or half a line, or lines that came meanwhile.
            Look::Short { .. } | Look::Behind { .. } => {}
        }
        Ok(Shipped::Everything)
    }

    fn seal(&mut self, visit: &mut Visit<'_>) {
        visit.enter(SegmentState::Sealed, String::new());
        visit.known.sealed = true;
        visit.known.is_proven = true;
        self.sealed.push(visit.sealed());
    }

    /// Reads on one thread while the database applies the batch before on another.
    fn ship(&mut self, visit: &mut Visit<'_>, length: u64) -> Result<Shipped, SyncError> {
        let path = visit.path();
        let reading = Reading {
            path: path.clone(),
            file: visit.follower.file(),
            place: visit.known.place.clone(),
            from: visit.known.cursor,
            until_byte: length,
            limits: visit.follower.limits(),
            batches_max: BATCHES_PER_VISIT,
        };
        let (sender, batches) = mpsc::sync_channel(0);
        thread::scope(|scope| {
            let reader = thread::Builder::new()
                .name("tidelog-read".to_owned())
                .spawn_scoped(scope, move || reading.send_to(&sender))
                .map_err(DatabaseError::Thread)?;
            let shipped = self.apply_all(visit, batches);
            match reader.join() {
                Ok(()) => shipped,
                Err(_) => Err(SyncError::Reader { path }),
            }
        })
    }

    /// Takes batches until there are none. Returning early drops the channel, which ends the reader.
    fn apply_all(
        &mut self,
        visit: &mut Visit<'_>,
        batches: Receiver<Result<Arc<BatchRows>, SyncError>>,
    ) -> Result<Shipped, SyncError> {
        let mut applied = 0;
        for batch in batches {
            if self.is_late() {
                return Ok(Shipped::Part);
            }
            if !self.apply(visit, &batch?, self.method)? {
                return Ok(Shipped::Part);
            }
            applied += 1;
        }
        Ok(if applied == BATCHES_PER_VISIT { Shipped::Part } else { Shipped::Everything })
    }

    fn is_late(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Whether the batch was applied, so that the one after it can be.
    fn apply(
        &mut self,
        visit: &mut Visit<'_>,
        batch: &Arc<BatchRows>,
        method: Method,
    ) -> Result<bool, SyncError> {
        let start = Instant::now();
        match visit.replica.apply(batch, method) {
            Ok(Outcome::Applied) => {
                let is_fallback = method != self.method;
                let way = if is_fallback { "fallback" } else { batch.way(method) };
                self.count(visit, batch, way, start.elapsed());
                Ok(true)
            }
            Ok(Outcome::Stale) => {
                visit.resume()?;
                Ok(false)
            }
            Err(error) => self.refused(visit, batch, method, error),
        }
    }

    fn count(
        &mut self,
        visit: &mut Visit<'_>,
        batch: &BatchRows,
        way: &'static str,
        duration: Duration,
    ) {
        let (path, batch_of) = (visit.path(), batch.applied(way, duration));
        (visit.notice)(&Notice::Batch { path, batch: batch_of });
        visit.known.cursor = batch.to;
        visit.known.sealed = false;
        visit.follower.lines_sent = visit.follower.lines_sent.max(batch.to.next_line);
        visit.follower.passed(batch.from, batch.lines);
        self.touched.extend(batch.sessions.iter().cloned());
        self.report.batches += 1;
        self.report.lines += batch.lines as u64;
        self.report.quarantined += batch.quarantine.len() as u64;
    }

    fn refused(
        &mut self,
        visit: &mut Visit<'_>,
        batch: &Arc<BatchRows>,
        method: Method,
        error: DatabaseError,
    ) -> Result<bool, SyncError> {
        match error.class() {
            Class::Duplicate if method == Method::Fast => {
                self.report.conflicts += 1;
                let (path, first_line) = (visit.path(), batch.from.next_line);
                (visit.notice)(&Notice::Conflict { path, first_line });
                self.apply(visit, batch, Method::PassOver)
            }
            class if is_about_rows(class) && batch.lines == 1 => {
                self.quarantine(visit, batch, error)
            }
            class if is_about_rows(class) => {
                visit.follower.halve(batch.lines);
                Ok(false)
            }
            Class::Pooler if method == Method::Fast => {
                self.method = Method::PassOver;
                Ok(false)
            }
            Class::Retry => {
                visit.follower.halve(batch.lines);
                Err(error.into())
            }
            _ => Err(error.into()),
        }
    }

    /// Passes over one line that the server refuses, and keeps it, unless it refuses too much.
    fn quarantine(
        &mut self,
        visit: &mut Visit<'_>,
        batch: &BatchRows,
        error: DatabaseError,
    ) -> Result<bool, SyncError> {
        let (path, line) = (visit.path(), batch.from.next_line);
        let sqlstate = error.sqlstate().unwrap_or_default();
        if let Some(too_much) = self.breaker.ask(visit.replica, &batch.place, line, &sqlstate)? {
            visit.replica.note_state(batch.place.segment_no, "blocked")?;
            let too_much = Box::new(too_much);
            return Err(SyncError::TooMuchPoison { path, line, too_much, source: error });
        }
        let refusal = Refusal::by_server(error.to_string(), error.sqlstate());
        let line = follow::quarantined_line(&path, &batch.place, batch.from, &refusal)?;
        let Some(line) = line else { return Ok(false) };
        let start = Instant::now();
        match visit.replica.apply(&line, Method::PassOver) {
            Ok(Outcome::Applied) => self.count(visit, &line, "unnest", start.elapsed()),
            Ok(Outcome::Stale) => {}
            Err(source) if is_about_rows(source.class()) => {
                return Err(SyncError::Quarantine { path, line: batch.from.next_line, source });
            }
            Err(error) => return Err(error.into()),
        }
        Ok(false)
    }
}

/// Whether the server refuses what the rows hold, so that waiting does not help.
pub(crate) fn is_about_rows(class: Class) -> bool {
    matches!(class, Class::Poison | Class::Duplicate | Class::ForeignKey)
}
