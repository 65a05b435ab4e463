//! One writer's way through its segments.
//!
//! Usually there is one. A segment that is full, or whose disk failed so that nobody knows what is
//! in it, is left, and the same session goes on in another one: its first lines say so. Training
//! goes on in any case: a record that the disk refuses is counted, and the journal tells of the
//! **gap** in the same write as the next record that it takes.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::disk;
use crate::durability::{BUFFER_BYTES, Durability, Missed, OnMissed, Recorded, SessionOptions};
use crate::entry::{Body, EndedPart, Entry, Gap, Outcome, SessionEnded, SessionStarted, line};
use crate::error::{Error, Result};
use crate::fork::Process;
use crate::ids::{SegmentId, SessionId, StoreId};
use crate::journal::Header;
use crate::journal::writer::{PersistHandle, Place, SegmentWriter};
use crate::store::{self, lock};
use crate::timestamp::Timestamp;

/// After a new segment could not be begun, records are counted for this long before the next try:
/// a try waits for the disk.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Whose segments these are: a session and its attempt, or the store's own.
pub(crate) type Part = Option<(SessionId, u32)>;

/// Writes one session, or the store's own journal.
#[derive(Debug)]
pub(crate) struct Recorder {
    root: PathBuf,
    store: StoreId,
    part: Part,
    options: SessionOptions,
    /// A forked child must not write here.
    process: Process,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// None once the session has ended.
    writer: Option<SegmentWriter>,
    /// Records that are missing and of which the journal does not tell yet.
    gap: Option<(Timestamp, Missed)>,
    missed: Missed,
    /// A persist that failed in the background; the next caller who asks for one is told.
    untold: Option<Error>,
    /// The segment whose failed persist its caller was told of.
    told_of: Option<SegmentId>,
    /// Until then no new segment is tried.
    pause_until: Option<Instant>,
    /// What the reserve gave is about to be used.
    lends_reserve: bool,
}

/// Where an entry stands, and how to persist it: after it the session may go on elsewhere.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) segment: SegmentId,
    pub(crate) line: u32,
    pub(crate) handle: PersistHandle,
}

/// Why a record is not in the segment.
enum Refused {
    /// The caller's mistake.
    Input(Error),
    /// The disk's: it counts.
    Disk(Error),
}

impl Recorder {
    /// Begins the first segment with its first entries; persisted on return.
    pub(crate) fn begin(
        root: PathBuf,
        store: StoreId,
        part: Part,
        options: SessionOptions,
        first: &[Entry],
    ) -> Result<Self> {
        store::check_still_there(&root, store)?;
        let header = Header::new(store, part.clone());
        let writer = SegmentWriter::create(&root, header, first)?;
        let state = Mutex::new(State {
            writer: Some(writer),
            gap: None,
            missed: Missed::default(),
            untold: None,
            told_of: None,
            pause_until: None,
            lends_reserve: false,
        });
        Ok(Self { root, store, part, options, process: Process::this(), state })
    }

    /// Whether this process began it, and did not inherit it by a fork.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.process.is_this()
    }

    /// How it records.
    pub(crate) fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// What could not be written so far.
    pub(crate) fn missed(&self) -> Missed {
        lock(&self.state).missed.clone()
    }

    /// Adds one record's line. What the disk refuses is counted; what is wrong with the line is an
    /// error.
    pub(crate) fn record(
        &self,
        step: Option<i64>,
        line: impl FnOnce(Timestamp, &mut Vec<u8>) -> Result<()>,
    ) -> Result<Recorded> {
        let mut state = lock(&self.state);
        match self.try_record(&mut state, line) {
            Ok(Some(handle)) => {
                drop(state); // others may record while this one waits
                self.persist_record(&handle)
            }
            Ok(None) => Ok(Recorded::Kept),
            Err(Refused::Input(error)) => Err(error),
            Err(Refused::Disk(error)) => self.miss(&mut state, step, error),
        }
    }

    /// What is to be persisted before the call returns.
    fn try_record(
        &self,
        state: &mut State,
        line: impl FnOnce(Timestamp, &mut Vec<u8>) -> Result<()>,
    ) -> Result<Option<PersistHandle>, Refused> {
        if state.writer.is_none() {
            return Err(Refused::Input(self.ended()));
        }
        let now = Timestamp::now();
        let writer = self.ready(state).map_err(Refused::Disk)?;
        let place = writer.place();
        let gap = state.add_gap(now).map_err(Refused::Input)?;
        let writer = state.writer.as_mut().ok_or_else(|| Refused::Input(self.ended()))?;
        if let Err(error) = writer.add(|buffer| line(now, buffer)) {
            writer.go_back(place);
            return Err(Refused::Input(error));
        }
        let waits = self.options.durability == Durability::Buffered && gap.is_none();
        if waits && writer.pending_bytes() < BUFFER_BYTES {
            return Ok(None);
        }
        state.flush(gap, place).map_err(Refused::Disk)?;
        let is_persisted = self.options.durability == Durability::Persisted;
        let writer = state.writer.as_ref().filter(|_| is_persisted);
        Ok(writer.map(SegmentWriter::persist_handle))
    }

    /// The record is in the operating system; whether it is on disk is another matter.
    fn persist_record(&self, handle: &PersistHandle) -> Result<Recorded> {
        match (self.persist_line(handle), self.options.on_missed) {
            (Ok(()), _) => Ok(Recorded::Kept),
            (Err(error), OnMissed::Raise) => Err(error),
            (Err(_), OnMissed::Count) => Ok(Recorded::NotPersisted),
        }
    }

    fn miss(&self, state: &mut State, step: Option<i64>, error: Error) -> Result<Recorded> {
        let reason = error.to_string();
        state.missed.add(step, &reason);
        let (_, gap) = state.gap.get_or_insert_with(|| (Timestamp::now(), Missed::default()));
        gap.add(step, &reason);
        match self.options.on_missed {
            OnMissed::Count => Ok(Recorded::Missed),
            OnMissed::Raise => Err(error),
        }
    }

    /// Appends an entry that must not be missing: on a full disk it gets the reserve. Not persisted.
    pub(crate) fn append(&self, entry: &Entry) -> Result<Appended> {
        self.append_to(&mut lock(&self.state), entry)
    }

    fn append_to(&self, state: &mut State, entry: &Entry) -> Result<Appended> {
        if state.writer.is_none() {
            return Err(self.ended());
        }
        state.pause_until = None;
        let appended = loop {
            match self.try_append(state, entry) {
                Err(error) if disk::is_full(&error) && state.release_reserve() => {}
                appended => break appended,
            }
        };
        state.refill_reserve();
        appended
    }

    fn try_append(&self, state: &mut State, entry: &Entry) -> Result<Appended> {
        let place = self.ready(state)?.place();
        let gap = state.add_gap(entry.timestamp)?;
        let writer = state.writer.as_mut().ok_or_else(|| self.ended())?;
        let (segment, handle) = (writer.header().segment, writer.persist_handle());
        let added = writer.add(|buffer| line::write_checked(entry, buffer));
        let line = added.inspect_err(|_| writer.go_back(place))?;
        state.flush(gap, place)?;
        Ok(Appended { segment, line, handle })
    }

    /// Does what needs a little space, and gives it the reserve if the disk is full. Records do not
    /// wait for it.
    pub(crate) fn with_reserve<T>(&self, mut action: impl FnMut() -> Result<T>) -> Result<T> {
        lock(&self.state).lends_reserve = true;
        let done = loop {
            match action() {
                Err(error) if disk::is_full(&error) && lock(&self.state).release_reserve() => {}
                done => break done,
            }
        };
        let mut state = lock(&self.state);
        state.lends_reserve = false;
        state.refill_reserve();
        done
    }

    /// The segment to write to: the one there is, or a new one if that is of no use any more.
    fn ready<'a>(&self, state: &'a mut State) -> Result<&'a mut SegmentWriter> {
        let writer = state.writer.as_mut().ok_or_else(|| self.ended())?;
        let broken = writer.check().err();
        if broken.is_some() || writer.is_full(self.options.segment_bytes_max) {
            self.go_on_elsewhere(state, broken)?;
        }
        state.writer.as_mut().ok_or_else(|| self.ended())
    }

    fn go_on_elsewhere(&self, state: &mut State, broken: Option<Error>) -> Result<()> {
        let Some(old) = state.writer.as_mut() else { return Err(self.ended()) };
        if state.pause_until.is_some_and(|until| Instant::now() < until) {
            return old.check().and_then(|()| old.check_numbers());
        }
        if broken.is_none() {
            old.flush()?;
            old.persist_handle().persist()?;
        }
        let reason = broken.as_ref().map_or_else(|| "is full".to_owned(), Error::to_string);
        match self.begin_another(old.header(), reason) {
            Err(error) => {
                state.pause_until = Some(Instant::now() + RETRY_PAUSE);
                let takes_more = broken.is_none() && !old.has_all_lines();
                if takes_more { Ok(()) } else { Err(error) }
            }
            Ok(mut new) => {
                let is_told = state.told_of == Some(old.header().segment);
                if let Some(old) = state.writer.take() {
                    new.take_over(&old.leave());
                }
                state.writer = Some(new);
                state.untold = broken.filter(|_| !is_told).or(state.untold.take());
                Ok(())
            }
        }
    }

    fn begin_another(&self, old: &Header, reason: String) -> Result<SegmentWriter> {
        self.check_store()?;
        let header = Header::new(self.store, self.part.clone());
        let timestamp = header.created_at;
        let header = header.behind(old);
        let first = self.part.clone().map_or_else(Vec::new, |(session_id, attempt)| {
            let of = Some(EndedPart { segment: old.segment, session_id });
            let outcome = Outcome::Continued;
            let started = SessionStarted { attempt, metadata: None };
            let ended = SessionEnded { outcome, reason: Some(reason), of };
            let bodies = [Body::SessionStarted(started), Body::SessionEnded(ended)];
            bodies.map(|body| Entry { timestamp, body }).into()
        });
        SegmentWriter::create(&self.root, header, &first)
    }

    /// Fails if the folder is no longer the store that was opened: nothing of it may come to lie in
    /// another one.
    pub(crate) fn check_store(&self) -> Result<()> {
        store::check_still_there(&self.root, self.store)
    }

    /// Hands what is buffered to the operating system.
    pub(crate) fn flush(&self) -> Result<()> {
        match lock(&self.state).writer.as_mut() {
            Some(writer) => writer.flush(),
            None => Ok(()),
        }
    }

    /// Persists everything recorded so far, or tells, once, that something earlier may not be.
    pub(crate) fn persist(&self) -> Result<()> {
        let (flushed, handle) = {
            let mut state = lock(&self.state);
            if let Some(untold) = state.untold.take() {
                return Err(untold);
            }
            let Some(writer) = state.writer.as_mut() else { return Err(self.ended()) };
            (writer.flush(), writer.persist_handle())
        };
        flushed.and_then(|()| handle.persist()).inspect_err(|_| {
            lock(&self.state).told_of = Some(handle.segment());
            self.leave_if_broken();
        })
    }

    /// Persists the segment that a line was written to. After a failure the next line goes to a new
    /// segment, and who asks for everything to be persisted is told, too.
    pub(crate) fn persist_line(&self, handle: &PersistHandle) -> Result<()> {
        handle.persist().inspect_err(|_| self.leave_if_broken())
    }

    fn leave_if_broken(&self) {
        let mut state = lock(&self.state);
        if state.writer.as_ref().is_some_and(|writer| writer.check().is_err()) {
            self.ready(&mut state).ok(); // the next record tries again
        }
    }

    /// What the persister does: the writer does not wait for the disk.
    pub(crate) fn persist_in_background(&self) {
        if let Some(handle) = self.flush_in_background() {
            handle.persist().ok(); // it poisons the segment, which the next record finds
        }
    }

    fn flush_in_background(&self) -> Option<PersistHandle> {
        let mut state = lock(&self.state);
        let lends_reserve = state.lends_reserve;
        let writer = state.writer.as_mut()?;
        writer.flush().ok(); // the lines stay, the next one tries again
        if !lends_reserve {
            writer.top_up_reserve();
        }
        Some(writer.persist_handle())
    }

    /// Writes the last entry and seals the segment; tells of a failed persist that nobody was told
    /// of. Nothing is recorded afterwards, even if that fails; the next open of the store marks the
    /// session as aborted then.
    pub(crate) fn end(&self, last: Option<&Entry>) -> Result<()> {
        let mut state = lock(&self.state);
        if state.writer.is_none() {
            return Ok(());
        }
        let appended = last.map_or(Ok(()), |entry| self.append_to(&mut state, entry).map(|_| ()));
        let writer = state.writer.take();
        appended?;
        writer.map_or(Ok(()), SegmentWriter::seal)?;
        state.untold.take().map_or(Ok(()), Err)
    }

    fn ended(&self) -> Error {
        match &self.part {
            Some((id, _)) => Error::SessionEnded { id: id.clone() },
            None => Error::ReadOnly { path: self.root.clone() },
        }
    }
}

impl State {
    fn release_reserve(&mut self) -> bool {
        self.writer.as_mut().is_some_and(SegmentWriter::release_reserve)
    }

    /// What was given and not used must not go to records.
    fn refill_reserve(&mut self) {
        if let Some(writer) = &mut self.writer {
            writer.refill_reserve();
        }
    }

    /// Hands the added lines to the operating system, or forgets those since `place` that did not
    /// get there. The gap is told once its line is in the file.
    fn flush(&mut self, gap: Option<u32>, place: Place) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let flushed = writer.write_pending();
        if flushed.is_err() {
            writer.go_back(place);
        }
        if gap.is_some_and(|line| line < writer.lines_in_file()) {
            self.gap = None;
        }
        flushed
    }

    /// Adds the line that tells of the missing records before the line that follows them; its
    /// number, if there was anything to tell.
    fn add_gap(&mut self, now: Timestamp) -> Result<Option<u32>> {
        let (Some((since, missed)), Some(writer)) = (&self.gap, &mut self.writer) else {
            return Ok(None);
        };
        let body = Body::Gap(Gap {
            records: missed.records,
            first_step: missed.first_step,
            last_step: missed.last_step,
            since: *since,
            reason: missed.reason.clone().unwrap_or_default(),
        });
        let entry = Entry { timestamp: now, body };
        writer.add(|buffer| line::write_checked(&entry, buffer)).map(Some)
    }
}

#[cfg(test)]
impl Recorder {
    pub(crate) fn is_persisted(&self) -> bool {
        lock(&self.state).writer.as_ref().is_none_or(SegmentWriter::is_persisted)
    }
}
