//! Sends the lines of one segment, after a look at whether it still is the segment that was sent.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use tidelog::journal::Cursor;

use crate::agent::Report;
use crate::apply::Outcome;
use crate::database::DatabaseError;
use crate::error::SyncError;
use crate::follow::{self, FileId, Follower, Known, Look, Reading};
use crate::insert::Method;
use crate::quarantine::Refusal;
use crate::replica::Replica;
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
    /// When to give up.
    pub(crate) until: Option<Instant>,
    /// Sessions that were written to; whoever refreshes their statistics clears it.
    pub(crate) touched: BTreeSet<String>,
    /// Segments whose end was reached, to be written down together.
    pub(crate) sealed: Vec<(i32, Cursor)>,
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
    fn path(&self) -> PathBuf {
        self.follower.segment.path.clone()
    }

    /// Whether the state is a new one.
    fn enter(&mut self, to: SegmentState, detail: String) -> bool {
        let from = std::mem::replace(&mut self.follower.state, to);
        if from != to {
            let path = self.path();
            (self.notice)(&Notice::Segment { path, from, to, detail });
        }
        from != to
    }

    /// Stops at a state that somebody should know of.
    fn stop(&mut self, to: SegmentState, detail: String) -> Result<(), SyncError> {
        if self.enter(to, detail) {
            self.replica.note_state(self.known.place.segment_no, to.as_str())?;
        }
        Ok(())
    }

    /// Whether the file before the cursor is what was sent. If not, this file is not looked at
    /// again on this connection, because a look reads all of it.
    fn verify(&mut self) -> Result<bool, SyncError> {
        // A file that fails half-way is no news each time.
        if self.follower.is_unread() && self.follower.state != SegmentState::Unreadable {
            self.enter(SegmentState::Verifying, String::new());
        }
        let is_same = self.follower.compare(&self.known.cursor)?;
        if is_same == Some(true) {
            self.enter(SegmentState::Streaming, String::new());
        }
        self.judge(is_same)
    }

    /// Whether every line is what was sent. Read once more before nobody looks any more.
    fn verify_all(&mut self) -> Result<bool, SyncError> {
        let is_same = self.follower.compare_all(&self.known.cursor)?;
        self.judge(is_same)
    }

    fn judge(&mut self, is_same: Option<bool>) -> Result<bool, SyncError> {
        match is_same {
            Some(true) => return Ok(true),
            Some(false) => {
                let place = self.fork_place()?;
                self.stop(SegmentState::Forked, place)?;
            }
            None => self.stop(SegmentState::LocalBehind, self.sent())?,
        }
        self.known.stopped = FileId::of(&self.follower.segment.path).ok();
        Ok(false)
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
            self.stop(SegmentState::Missing, self.sent())?;
        } else {
            self.follower.retry_at = Some(Instant::now() + UNREADABLE_WAIT);
            self.stop(SegmentState::Unreadable, error.to_string())?;
        }
        Ok(Shipped::Everything)
    }

    fn sent(&self) -> String {
        format!("{} lines were sent", self.known.cursor.next_line)
    }

    fn fork_place(&mut self) -> Result<String, SyncError> {
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
        self.known.cursor = self.replica.cursor(self.known.place.segment_no)?;
        Ok(())
    }

    /// Brings the state up to what the file and the cursor say.
    fn settle(&mut self) -> Result<Option<(i32, Cursor)>, SyncError> {
        match self.follower.look(self.root, &self.known)? {
            Look::CaughtUp { is_active: true } => {
                self.enter(SegmentState::Streaming, String::new());
            }
            Look::CaughtUp { is_active: false } if self.known.sealed => {
                self.enter(SegmentState::Sealed, String::new());
            }
            Look::CaughtUp { is_active: false } => {
                if self.verify_all()? {
                    self.enter(SegmentState::Sealed, String::new());
                    self.known.sealed = true;
                    return Ok(Some((self.known.place.segment_no, self.known.cursor)));
                }
            }
            Look::Short { length } => {
                let detail = format!("the file has {length} bytes, {}", self.sent());
                self.stop(SegmentState::LocalBehind, detail)?;
            }
            Look::Gone if self.known.sealed => {}
            Look::Gone => self.stop(SegmentState::Missing, self.sent())?,
            // Half a line, or lines that came meanwhile.
            Look::Behind { .. } => {}
        }
        Ok(None)
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
        if visit.is_stopped() {
            return Ok(shipped);
        }
        match visit.follower.look(visit.root, &visit.known)? {
            Look::Behind { length } if visit.verify()? => shipped = self.ship(visit, length)?,
            // A change that left the length as it was shows only when it is looked for.
            Look::CaughtUp { is_active: true } if visit.follower.is_unread() => {
                visit.verify()?;
            }
            _ => {}
        }
        if !visit.is_stopped() {
            self.sealed.extend(visit.settle()?);
        }
        Ok(shipped)
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
                self.quarantine(visit, batch, &error)
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

    /// Passes over one line that the server refuses, and keeps it.
    fn quarantine(
        &mut self,
        visit: &mut Visit<'_>,
        batch: &BatchRows,
        error: &DatabaseError,
    ) -> Result<bool, SyncError> {
        let refusal = Refusal::by_server(error.to_string(), error.sqlstate());
        let path = visit.path();
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
fn is_about_rows(class: Class) -> bool {
    matches!(class, Class::Poison | Class::Duplicate | Class::ForeignKey)
}
