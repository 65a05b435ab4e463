//! Recording one session.

use std::sync::{Arc, Mutex, OnceLock};

use crate::checkpoint::{self, NewCheckpoint};
use crate::durability::{Durability, Missed, Recorded, SessionOptions};
use crate::emergency;
use crate::entry::{
    Action, BasinPoint, Body, CheckpointAction, Emergency, Entry, Outcome, SessionEnded,
    SessionStarted, line,
};
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, SessionId};
use crate::journal::marker::{self, Seen};
use crate::journal::{is_deleted, last_attempt};
use crate::recorder::{Appended, Recorder};
use crate::store::{Store, lock};
use crate::telemetry::Telemetry;
use crate::timestamp::Timestamp;
use crate::value::Value;

/// One writer's part of a session: segments of its own.
///
/// Threads may share it; each call is one step. [`end`](Self::end) consumes it. Dropped without
/// an end, as by a panic, the session is marked as aborted; a killed process is found at the next
/// open of the store. Either way every record whose call returned is kept.
///
/// # What survives
/// Start, end, emergencies and checkpoints survive a power cut when the call returns. For records
/// and basin points the session's [`Durability`] says what survives; by default they survive the
/// death of this process at once, and a power cut after at most
/// [`PERSIST_INTERVAL`](crate::PERSIST_INTERVAL).
///
/// # When the disk refuses
/// Training goes on: a record that cannot be written is counted, see [`missed`](Self::missed), and
/// the journal tells of the gap once it can be written again. Emergencies, the end and the entries
/// of checkpoints have a reserve of space on the disk, which the files of checkpoints do not get:
/// they are large. What does not succeed returns an error.
///
/// # Forks
/// A forked child that records goes on in a segment of its own, as another rank would.
#[derive(Debug)]
pub struct Session {
    store: Store,
    id: SessionId,
    attempt: u32,
    recorder: Arc<Recorder>,
    best_phi: Mutex<Option<f64>>,
    /// What a forked child records to, begun at its first call.
    forked: OnceLock<Box<Session>>,
}

impl Store {
    /// Starts a session, or resumes it if the id is known: then the attempt is one higher, unless
    /// another process is writing the session right now (a rank of the same run), whose attempt
    /// it shares. Persisted on return.
    ///
    /// # Errors
    /// [`Error::SessionDeleted`]; the store is open for reading only, or its folder cannot be read
    /// and written.
    pub fn start_session(&self, id: SessionId) -> Result<Session> {
        self.start_session_with(id, SessionOptions::default())
    }

    /// As [`start_session`](Self::start_session), with options of its own.
    ///
    /// # Errors
    /// As [`start_session`](Self::start_session).
    pub fn start_session_with(&self, id: SessionId, options: SessionOptions) -> Result<Session> {
        let store = self.here()?;
        if is_deleted(store.root(), &id)? {
            return Err(Error::SessionDeleted { id });
        }
        let attempt = store.next_attempt(&id)?;
        store.begin_session(id, attempt, options)
    }

    fn begin_session(
        self,
        id: SessionId,
        attempt: u32,
        mut options: SessionOptions,
    ) -> Result<Session> {
        let persister = self.persister()?;
        let started = SessionStarted { attempt, metadata: options.metadata.take() };
        let body = Body::SessionStarted(started);
        let first = Entry { timestamp: Timestamp::now(), body };
        let part = Some((id.clone(), attempt));
        let root = self.root().to_owned();
        let recorder = Arc::new(Recorder::begin(root, self.id(), part, options, &[first])?);
        persister.watch(&recorder);
        let (best_phi, forked) = (Mutex::new(None), OnceLock::new());
        Ok(Session { store: self, id, attempt, recorder, best_phi, forked })
    }

    fn next_attempt(&self, id: &SessionId) -> Result<u32> {
        for seen in marker::look(self.root())?.seen {
            if let Seen::Live(marker) = seen
                && marker.session.as_ref() == Some(id)
            {
                return Ok(marker.attempt.unwrap_or(1));
            }
        }
        Ok(last_attempt(self.root(), id)?.saturating_add(1))
    }
}

impl Session {
    /// The session's id.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// 1 at first, one more at each resume.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Records one step. Steps may repeat and go back; every record is kept.
    ///
    /// # Errors
    /// The record is longer than [`LINE_BYTES_MAX`](crate::LINE_BYTES_MAX), or `extra` holds what
    /// belongs into a field: a value that [`Telemetry::with`] would put there, or any for a field
    /// that is set; nothing is recorded then. What the disk refuses is an error only with
    /// [`OnMissed::Raise`](crate::OnMissed::Raise); it is counted in any case.
    pub fn record_telemetry(&self, step: i64, telemetry: &Telemetry) -> Result<Recorded> {
        check_names(telemetry)?;
        self.here()?.recorder.record(Some(step), |timestamp, buffer| {
            line::write_record(timestamp, step, telemetry, buffer)
        })
    }

    /// Records a point of the basin's trajectory.
    ///
    /// # Errors
    /// As [`record_telemetry`](Self::record_telemetry).
    pub fn record_basin(&self, point: BasinPoint) -> Result<Recorded> {
        let (step, body) = (point.step, Body::Basin(point));
        self.here()?.recorder.record(step, |timestamp, buffer| {
            line::write_checked(&Entry { timestamp, body }, buffer)
        })
    }

    /// What this writer could not write so far.
    ///
    /// # Errors
    /// In a forked child: the store cannot be opened.
    pub fn missed(&self) -> Result<Missed> {
        Ok(self.here()?.recorder.missed())
    }

    /// Records a breakdown, in the journal and as a file of its own under `logs/emergency`.
    /// Persisted on return. On a full disk it gets the session's reserve of 256 KiB.
    ///
    /// # Errors
    /// The journal or the file could not be written. The entry comes first: an error about the
    /// file means that the entry is kept.
    pub fn record_emergency(&self, mut emergency: Emergency) -> Result<()> {
        emergency.telemetry.as_ref().map_or(Ok(()), check_names)?;
        emergency.session_id = None;
        let here = self.here()?;
        let event_id = emergency.event_id.clone();
        let body = Body::Emergency(Box::new(emergency));
        let mut entry = Entry { timestamp: Timestamp::now(), body };
        let appended = here.recorder.append(&entry)?;
        let persisted = here.recorder.persist_line(&appended.handle);
        if let Body::Emergency(emergency) = &mut entry.body {
            emergency.session_id = Some(self.id.clone());
        }
        here.recorder.check_store()?;
        let place = format!("{}-{}", appended.segment.short(), appended.line);
        let copy = || emergency::write_copy(self.store.root(), &event_id, &entry, &place);
        // in any case: where one is not on disk, the other may be
        let copied = here.recorder.with_reserve(copy);
        persisted.and(copied)
    }

    /// Saves model state as an NPZ file that numpy reads, and journals it. On return both are
    /// persisted: a crash at any time leaves a complete checkpoint or an orphan file.
    ///
    /// The first checkpoint, and each one whose Φ is above all earlier ones of this attempt, is
    /// also journaled as `ranked`.
    ///
    /// # Errors
    /// A checkpoint of the given id exists, the metadata is too long for a line or has no JSON form
    /// (nothing is written then), or the file or the journal could not be written.
    pub fn save_checkpoint(&self, new: NewCheckpoint) -> Result<CheckpointId> {
        let here = self.here()?;
        let phi = new.phi;
        let expected = checkpoint::expect(&new)?;
        let body = Body::CheckpointCreated(Box::new(expected.clone()));
        // a file whose entry is refused would be an orphan in the way of the next try
        line::check(&Entry { timestamp: Timestamp::now(), body })?;
        here.recorder.check_store()?;
        let created = checkpoint::save(self.store.root(), &new, expected)?;
        let (checkpoint_id, file) = (created.checkpoint_id.clone(), created.file.clone());
        let saved = here
            .append(Body::CheckpointCreated(Box::new(created)))
            .inspect_err(|_| checkpoint::take_back(self.store.root(), &file))?;
        if here.is_best(phi) {
            let rank = Value::Dict(vec![(Value::Text("rank".into()), Value::Int(1))]);
            let ranked = here.append(Body::Checkpoint(CheckpointAction {
                checkpoint_id: checkpoint_id.clone(),
                action: Action::Ranked,
                details: Some(rank),
            }))?;
            here.recorder.persist_line(&ranked.handle)?;
        }
        here.recorder.persist_line(&saved.handle)?;
        Ok(checkpoint_id)
    }

    fn append(&self, body: Body) -> Result<Appended> {
        self.recorder.append(&Entry { timestamp: Timestamp::now(), body })
    }

    /// Whether Φ is above all before it; NaN never is.
    fn is_best(&self, phi: f64) -> bool {
        let mut best = lock(&self.best_phi);
        let better = !phi.is_nan() && best.is_none_or(|best| phi > best);
        if better {
            *best = Some(phi);
        }
        better
    }

    /// Persists everything recorded so far: it survives a power cut.
    ///
    /// # Errors
    /// The disk refused, now or since the last call, in the background or in another call: what was recorded before
    /// may not survive a power cut, and a second try could not know. What is recorded from now on
    /// goes to a new segment, about which the next call tells.
    pub fn persist(&self) -> Result<()> {
        self.here()?.recorder.persist()
    }

    /// Waits until everything recorded so far is at least as safe as `level` says.
    ///
    /// # Errors
    /// As [`persist`](Self::persist); with [`Durability::Written`] that the buffered records could
    /// not be written, which stay buffered.
    pub fn wait_durable(&self, level: Durability) -> Result<()> {
        match level {
            Durability::Buffered => Ok(()),
            Durability::Written => self.here()?.recorder.flush(),
            Durability::Persisted => self.persist(),
        }
    }

    /// Ends this part of the session. Persisted on return.
    ///
    /// # Errors
    /// The end could not be written or persisted; where the next open of the store does not find
    /// it, it marks the session as aborted. Or the end is there, and a persist failed earlier of
    /// which nobody was told: what was recorded before may not survive a power cut.
    pub fn end(self, outcome: Outcome) -> Result<()> {
        self.finish(outcome, None)
    }

    /// Ends this part of the session with a reason in words.
    ///
    /// # Errors
    /// As [`end`](Self::end).
    pub fn end_because(self, outcome: Outcome, reason: &str) -> Result<()> {
        self.finish(outcome, Some(reason.to_owned()))
    }

    /// In a forked child it is the child's own part that ends, if it recorded anything.
    fn finish(&self, outcome: Outcome, reason: Option<String>) -> Result<()> {
        if !self.recorder.is_of_this_process() {
            return match self.forked.get() {
                Some(child) => child.finish(outcome, reason),
                None => Ok(()),
            };
        }
        let body = Body::SessionEnded(SessionEnded { outcome, reason, of: None });
        self.recorder.end(Some(&Entry { timestamp: Timestamp::now(), body }))
    }

    /// This session, or what takes its place in a forked child: a child that wrote into its
    /// parent's segment would be a second writer there.
    fn here(&self) -> Result<&Session> {
        if self.recorder.is_of_this_process() {
            return Ok(self);
        }
        if let Some(child) = self.forked.get() {
            return child.here();
        }
        let options = self.recorder.options().clone();
        let child = self.store.here()?.begin_session(self.id.clone(), self.attempt, options)?;
        // no lock, which another fork could leave locked: of two threads the slower one's is left
        if let Err(slower) = self.forked.set(Box::new(child)) {
            slower.finish(Outcome::Continued, Some("another thread was faster".into())).ok();
        }
        self.here()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // a failure here leaves the marker, and the next open marks the session as aborted
        self.finish(Outcome::Aborted, Some("dropped without an end".into())).ok();
    }
}

fn check_names(telemetry: &Telemetry) -> Result<()> {
    match telemetry.misplaced() {
        None => Ok(()),
        Some(name) => Err(Error::InvalidValue {
            what: "telemetry",
            reason: format!("has {name:?} in extra, which is a field; set the field, and once"),
        }),
    }
}
