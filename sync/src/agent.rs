//! The agent of one store: connects, waits after failures, stops when asked.
//!
//! Several agents may follow one store, and none locks it: a batch moves the cursor only from where
//! it begins, so of two agents with the same batch one writes it and the other finds it done.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tidelog::Store;

use crate::backoff::Backoff;
use crate::blobs::{BlobPolicy, Blobs};
use crate::connect::Target;
use crate::error::SyncError;
use crate::insert::Method;
use crate::memory::{Memory, NewTarget, Recognition};
use crate::pass::{self, Pass};
use crate::progress::Progress;
use crate::pulse;
use crate::refresh::{self, Refresh};
use crate::replica::Replica;
use crate::reprocess;
use crate::ship::Shipped;
use crate::sqlstate::Class;
use crate::state::{AgentState, Notice};
use crate::turns::{Turn, Turns};
use crate::wake::{self, LOOK_INTERVAL, Wake};

/// How long an agent that was asked to stop goes on sending what is there, if nothing else is said.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);
/// A store at rest is looked at in the database, too, after so long.
const REST_MAX: Duration = Duration::from_secs(60);

/// Follows the files of one store and keeps a database an exact replica of them.
///
/// It only reads the store. Memory does not grow with what is left to send.
pub struct Agent {
    target: Target,
    pass: Pass,
    /// Kept from one attempt to the next where the server only refused something.
    replica: Option<Replica>,
    refresh: Refresh,
    blobs: Blobs,
    notice: Box<dyn FnMut(&Notice)>,
    drain_timeout: Duration,
    turns: Option<Arc<Turns>>,
}

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Segments of the store.
    pub segments: usize,
    /// Lines that were sent.
    pub lines: u64,
    /// Of these, lines that went to quarantine.
    pub quarantined: u64,
    /// Transactions.
    pub batches: u64,
    /// Batches of which rows were there before the cursor.
    pub conflicts: u64,
    /// Checkpoint files of which every byte was sent.
    pub checkpoint_files: u64,
    /// Files that could not be read; they are tried again later.
    pub unreadable: Vec<PathBuf>,
    /// Files whose lines are not sent, because what was sent of them before has changed since.
    pub forked: Vec<PathBuf>,
    /// Files that are gone together with lines that the replica wants.
    pub gaps: Vec<PathBuf>,
}

impl Agent {
    /// An agent for the store in this folder. It does not connect yet. `notice` is told of each
    /// change of state.
    ///
    /// # Errors
    /// The folder holds no store, or one of a newer tidelog.
    pub fn new(
        store: &Path,
        target: Target,
        notice: impl FnMut(&Notice) + 'static,
    ) -> Result<Self, SyncError> {
        Ok(Self::of(&Store::open_read_only(store)?, target, Box::new(notice)))
    }

    /// As [`new`](Self::new), but waits for the store, which the first session makes; `None` if
    /// `stop` was set before.
    ///
    /// # Errors
    /// As [`new`](Self::new), except that a folder without a store is waited for.
    pub fn await_store(
        store: &Path,
        target: Target,
        mut notice: impl FnMut(&Notice) + 'static,
        stop: &AtomicBool,
    ) -> Result<Option<Self>, SyncError> {
        let mut is_told = false;
        while !stop.load(Ordering::Relaxed) {
            match Store::open_read_only(store) {
                Ok(store) => return Ok(Some(Self::of(&store, target, Box::new(notice)))),
                Err(tidelog::Error::NotAStore { path }) => {
                    if !std::mem::replace(&mut is_told, true) {
                        notice(&Notice::Agent(AgentState::AwaitingStore(path)));
                    }
                }
                Err(error) => return Err(error.into()),
            }
            wake::pause(LOOK_INTERVAL, stop);
        }
        Ok(None)
    }

    /// Remembers in this folder which database was sent to, and which segments, from one run to the
    /// next; `new_target` says what to do with another database that has nothing of the store. The
    /// folder may be shared by agents of several stores. Without this call nothing is remembered, and
    /// every database is as welcome as the first one.
    #[must_use]
    pub fn remembering(mut self, folder: &Path, new_target: NewTarget) -> Self {
        self.pass.memory = Memory::open(folder, self.pass.store_id(), new_target);
        self
    }

    fn of(store: &Store, target: Target, notice: Box<dyn FnMut(&Notice)>) -> Self {
        let method = if target.transaction_pooler() { Method::PassOver } else { Method::Fast };
        let pass = Pass::new(store, method);
        let (refresh, drain_timeout) = (Refresh::default(), DRAIN_TIMEOUT);
        let (replica, blobs, turns) = (None, Blobs::default(), None);
        Self { target, pass, replica, refresh, blobs, notice, drain_timeout, turns }
    }

    /// Sends these checkpoint files; without this call those of at most 1 GiB.
    #[must_use]
    pub fn with_blobs(self, policy: BlobPolicy) -> Self {
        Self { blobs: Blobs::new(policy), ..self }
    }

    /// Asked to stop, it goes on sending for so long instead of [`DRAIN_TIMEOUT`].
    #[must_use]
    pub fn with_drain_timeout(self, drain_timeout: Duration) -> Self {
        Self { drain_timeout, ..self }
    }

    /// Shares connections with the agents of other stores: in [`run`](Self::run) it is connected
    /// only while it has a turn.
    #[must_use]
    pub fn with_turns(self, turns: Arc<Turns>) -> Self {
        Self { turns: Some(turns), ..self }
    }

    /// Where its segments stand, for others to watch.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        self.pass.progress()
    }

    /// Stops writing a segment of which the server refuses more than so many of 20 times as many lines
    /// for one reason, instead of [`POISON_LIMIT`](crate::POISON_LIMIT). 0: at the first one.
    #[must_use]
    pub fn with_poison_limit(mut self, lines: u32) -> Self {
        self.pass.limit_poison(lines);
        self
    }

    /// Sends what is in the files now, brings statistics and rankings up to date, and returns.
    ///
    /// After a failure that may pass it tries again for `retry_for`, counted from the last batch
    /// that was applied.
    ///
    /// # Errors
    /// The last failure. What was applied before it stays, and another call goes on from there.
    pub fn once(&mut self, retry_for: Duration) -> Result<Report, SyncError> {
        let mut backoff = Backoff::default();
        let mut last_progress = Instant::now();
        loop {
            let batches_before = self.pass.batches();
            let error = match self.send_all() {
                Ok(()) => break,
                Err(error) => error,
            };
            if self.pass.batches() > batches_before {
                backoff.batch_committed();
                last_progress = Instant::now();
            }
            let Some(state) = waiting(&error, &mut backoff) else { return Err(error) };
            let AgentState::Backoff { wait, .. } = state else { return Err(error) };
            if last_progress.elapsed() + wait > retry_for {
                return Err(error);
            }
            self.tell(state);
            thread::sleep(wait);
        }
        self.replica = None;
        self.tell(AgentState::Stopped);
        Ok(self.report())
    }

    /// Follows the store until `stop` is set; then sends what is there, for a limited time.
    ///
    /// It begins after `first_delay` ([`Backoff::first_delay`] for a fleet). While the database is
    /// away it waits, without a limit: the files are the queue.
    ///
    /// # Errors
    /// Once asked to stop, not everything could be sent.
    pub fn run(&mut self, first_delay: Duration, stop: &AtomicBool) -> Result<Report, SyncError> {
        let mut wake = Wake::new(self.pass.root());
        let mut backoff = Backoff::default();
        self.tell(AgentState::Starting { wait: first_delay });
        wake::pause(first_delay, stop);
        while !stop.load(Ordering::Relaxed) {
            let batches_before = self.pass.batches();
            let Ok(turn) = self.take_turn(|| stop.load(Ordering::Relaxed)) else { break };
            let Err(error) = self.follow(&mut wake, stop, turn.as_ref()) else {
                drop(turn);
                self.rest(&mut wake, stop);
                continue;
            };
            self.leave(turn);
            if self.pass.batches() > batches_before {
                backoff.batch_committed();
            }
            match waiting(&error, &mut backoff) {
                Some(AgentState::Backoff { wait, reason }) => {
                    self.tell(AgentState::Backoff { wait, reason });
                    wake::pause(wait, stop);
                }
                Some(AgentState::Blocked { wait, reason }) => {
                    self.tell(AgentState::Blocked { wait, reason });
                    wake::pause(wait, stop);
                }
                _ => return Err(error),
            }
        }
        self.drain()
    }

    fn report(&self) -> Report {
        Report { checkpoint_files: self.blobs.completed(), ..self.pass.report() }
    }

    /// Sends checkpoint files for a moment; whether there are more.
    fn send_files(&mut self, replica: &mut Replica) -> Result<bool, SyncError> {
        let batches = self.pass.batches();
        self.blobs.slice(self.pass.root(), replica, batches, &mut self.notice)
    }

    /// Tries again for as long as there is time, because a database that is away may be back.
    fn drain(&mut self) -> Result<Report, SyncError> {
        self.tell(AgentState::Draining);
        let until = Instant::now() + self.drain_timeout;
        let mut backoff = Backoff::default();
        let Ok(_turn) = self.take_turn(|| Instant::now() >= until) else {
            return Err(self.not_drained());
        };
        while let Err(error) = self.drain_once(until) {
            let left = until.saturating_duration_since(Instant::now());
            match waiting(&error, &mut backoff) {
                Some(AgentState::Backoff { wait, reason }) if wait < left => {
                    self.tell(AgentState::Backoff { wait, reason });
                    pulse::beat(wait);
                    thread::sleep(wait);
                }
                Some(AgentState::Backoff { .. }) => return Err(self.not_drained()),
                _ if left.is_zero() => return Err(self.not_drained()),
                _ => return Err(error),
            }
        }
        self.replica = None;
        self.tell(AgentState::Stopped);
        Ok(self.report())
    }

    fn drain_once(&mut self, until: Instant) -> Result<(), SyncError> {
        self.connected(Some(until), |agent, replica| {
            while agent.pass.once_over(replica, &mut agent.notice)? == Shipped::Part {
                if Instant::now() >= until {
                    return Err(agent.not_drained());
                }
            }
            // What is not up to date in time is found at the next start.
            agent.refresh.brief(replica, agent.pass.touched()).ok();
            while agent.send_files(replica)? {
                if Instant::now() >= until {
                    return Err(agent.not_drained());
                }
            }
            Ok(())
        })
    }

    fn not_drained(&self) -> SyncError {
        SyncError::NotDrained { seconds: self.drain_timeout.as_secs() }
    }

    /// A turn to be connected, nothing if connections are not shared; an error if it `gives_up`.
    fn take_turn(&self, gives_up: impl Fn() -> bool) -> Result<Option<Turn>, ()> {
        self.turns.as_ref().map(|turns| turns.take(gives_up).ok_or(())).transpose()
    }

    /// Lets others connect if they wait for it.
    fn leave(&mut self, turn: Option<Turn>) {
        if turn.is_some_and(|turn| turn.is_wanted()) {
            self.replica = None;
        }
    }

    /// Has left its turn to others: waits until there is something to send.
    fn rest(&mut self, wake: &mut Wake, stop: &AtomicBool) {
        self.replica = None;
        let start = Instant::now();
        if self.pass.is_at_rest() {
            self.tell(AgentState::Resting);
        }
        while self.pass.is_at_rest() && start.elapsed() < REST_MAX && !stop.load(Ordering::Relaxed)
        {
            wake.wait(stop);
        }
    }

    /// Everything that is there, then the statistics.
    fn send_all(&mut self) -> Result<(), SyncError> {
        self.connected(None, |agent, replica| {
            while agent.pass.once_over(replica, &mut agent.notice)? == Shipped::Part {}
            refresh::all(replica)?;
            while agent.send_files(replica)? {}
            Ok(())
        })
    }

    /// What comes, as it comes.
    fn follow(
        &mut self,
        wake: &mut Wake,
        stop: &AtomicBool,
        turn: Option<&Turn>,
    ) -> Result<(), SyncError> {
        self.connected(None, |agent, replica| {
            while !stop.load(Ordering::Relaxed) {
                let shipped = agent.pass.once_over(replica, &mut agent.notice)?;
                let batches = agent.pass.batches();
                agent.refresh.if_due(replica, batches, agent.pass.touched())?;
                let is_over = match shipped {
                    Shipped::Everything => turn.is_some_and(Turn::is_wanted),
                    Shipped::Part => turn.is_some_and(Turn::is_over),
                };
                if is_over {
                    break;
                }
                if shipped == Shipped::Everything && !agent.send_files(replica)? {
                    wake.wait(stop);
                }
            }
            Ok(())
        })
    }

    /// Works on the connection that is there, or a new one. Only a failure after which the server
    /// goes on with the same connection leaves it. No call lasts longer than `until`.
    fn connected(
        &mut self,
        until: Option<Instant>,
        work: impl FnOnce(&mut Self, &mut Replica) -> Result<(), SyncError>,
    ) -> Result<(), SyncError> {
        self.pass.give_up_at(until);
        let mut replica = match self.replica.take() {
            Some(replica) => replica,
            None => self.connect(until)?,
        };
        replica.give_up_at(until);
        let outcome = work(self, &mut replica);
        if outcome.as_ref().err().is_none_or(|error| error.class() == Some(Class::Retry)) {
            self.replica = Some(replica);
        }
        outcome
    }

    fn connect(&mut self, until: Option<Instant>) -> Result<Replica, SyncError> {
        self.tell(AgentState::Connecting(self.target.redacted().to_owned()));
        // Before the database is reached: what vanishes while it is away was there.
        self.pass.discover(&mut self.notice)?;
        let mut replica = Replica::open(&self.target, until)?;
        self.recognise(&mut replica)?;
        replica.register_store(self.pass.store_id())?;
        self.pass.connect(&mut replica, &mut self.notice)?;
        reprocess::known_kinds(&mut replica, &mut self.notice)?;
        self.refresh = Refresh::default();
        self.blobs.reconnected();
        self.tell(AgentState::Ready);
        Ok(replica)
    }

    /// Whether this is the database of the last time, before anything is written to it.
    fn recognise(&mut self, replica: &mut Replica) -> Result<(), SyncError> {
        let store = self.pass.store_id();
        let identity = replica.identify(store)?;
        let now = identity.database;
        match self.pass.memory.recognise(identity) {
            Recognition::Known => {}
            Recognition::Replaced { before } => (self.notice)(&Notice::Replaced { before, now }),
            Recognition::Refused { before } => {
                return Err(SyncError::AnotherDatabase { store, before, now });
            }
        }
        pass::tell_if_forgotten(self.pass.memory.keep_database(now), &mut self.notice);
        Ok(())
    }

    fn tell(&mut self, state: AgentState) {
        (self.notice)(&Notice::Agent(state));
    }
}

/// How to wait after a failure of the database; none for other failures.
fn waiting(error: &SyncError, backoff: &mut Backoff) -> Option<AgentState> {
    let reason = error.to_string();
    let random = fastrand::u16(..);
    match error.class()? {
        // The one segment waits by itself, and holds up no other.
        Class::Blocked if matches!(error, SyncError::TooMuchPoison { .. }) => {
            Some(AgentState::Blocked { wait: LOOK_INTERVAL, reason })
        }
        Class::Blocked => {
            let wait = backoff.next_delay(Backoff::SLOW_CAP, random);
            Some(AgentState::Blocked { wait, reason })
        }
        Class::RetrySlowly => {
            let wait = backoff.next_delay(Backoff::SLOW_CAP, random);
            Some(AgentState::Backoff { wait, reason })
        }
        _ => Some(AgentState::Backoff { wait: backoff.next_delay(Backoff::CAP, random), reason }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn an_agent_waits_for_its_store_and_says_so_once() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("later");
        let target = Target::parse(Some("host=localhost user=u dbname=d"), &|_| None).unwrap();
        let stop = AtomicBool::new(false);
        let (sender, notices) = mpsc::channel();
        let make = root.clone();
        let tell = move |notice: &Notice| {
            Store::open(&make).unwrap();
            sender.send(notice.to_string()).unwrap();
        };
        let agent = Agent::await_store(&root, target.clone(), tell, &stop).unwrap();
        assert!(agent.is_some());
        let told: Vec<String> = notices.try_iter().collect();
        assert_eq!(told, [format!("agent: waiting until {} is a store", root.display())]);
        stop.store(true, Ordering::Relaxed);
        let never = folder.path().join("never");
        assert!(Agent::await_store(&never, target, |_| {}, &stop).unwrap().is_none());
    }
}
