//! Recording one session.

use std::sync::Mutex;

use crate::checkpoint::{self, NewCheckpoint};
use crate::emergency;
use crate::entry::{
    Action, BasinPoint, Body, CheckpointAction, Emergency, Entry, Outcome, RecordLine,
    SessionEnded, SessionStarted, line,
};
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, SegmentId, SessionId};
use crate::journal::marker::{self, Seen};
use crate::journal::writer::SegmentWriter;
use crate::journal::{Header, last_attempt};
use crate::store::{Store, lock};
use crate::telemetry::Telemetry;
use crate::timestamp::Timestamp;
use crate::value::Value;

/// One writer's part of a session: a segment of its own.
///
/// Threads may share it; each call is one step. [`end`](Self::end) consumes it. Dropped without
/// an end, as by a panic, the session is marked as aborted; a killed process is found at the next
/// open of the store. Either way every record whose call returned is kept.
///
/// # What survives
/// When a call returns, its entry is in the operating system: it survives the death of this
/// process. Start, end, emergencies and checkpoints also survive a power cut; records and basin
/// points do so at most [`PERSIST_INTERVAL`](crate::PERSIST_INTERVAL) later.
#[derive(Debug)]
pub struct Session {
    store: Store,
    id: SessionId,
    attempt: u32,
    segment: SegmentId,
    /// None once it has ended.
    writer: Mutex<Option<SegmentWriter>>,
    best_phi: Mutex<Option<f64>>,
}

impl Store {
    /// Starts a session, or resumes it if the id is known: then the attempt is one higher, unless
    /// another process is writing the session right now (a rank of the same run), whose attempt
    /// it shares. Persisted on return.
    ///
    /// # Errors
    /// The store is open for reading only, or its folder cannot be written.
    pub fn start_session(&self, id: SessionId) -> Result<Session> {
        self.start_session_with(id, None)
    }

    /// As [`start_session`](Self::start_session), with something to keep: a configuration, a
    /// commit hash.
    ///
    /// # Errors
    /// As [`start_session`](Self::start_session).
    pub fn start_session_with(&self, id: SessionId, metadata: Option<Value>) -> Result<Session> {
        let persister = self.persister()?;
        let attempt = self.next_attempt(&id)?;
        let header = Header::new(self.id(), Some((id.clone(), attempt)));
        let body = Body::SessionStarted(SessionStarted { attempt, metadata });
        let first = Entry { timestamp: header.created_at, body };
        let writer = SegmentWriter::create(self.root(), header, Some(&first))?;
        let segment = writer.header().segment;
        persister.begin(segment, writer.persist_handle());
        Ok(Session {
            store: self.clone(),
            id,
            attempt,
            segment,
            writer: Mutex::new(Some(writer)),
            best_phi: Mutex::new(None),
        })
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
    /// The line could not be written (nothing of it stays in the file), is longer than
    /// [`LINE_BYTES_MAX`](crate::LINE_BYTES_MAX), or `extra` holds what belongs into a field: a
    /// value that [`Telemetry::with`] would put there, or any for a field that is set.
    pub fn record_telemetry(&self, step: i64, telemetry: &Telemetry) -> Result<()> {
        check_names(telemetry)?;
        let mut writer = lock(&self.writer);
        let timestamp = Timestamp::now();
        self.open(&mut writer)?.append(&RecordLine { timestamp, step, telemetry }).map(|_| ())
    }

    /// Records a point of the basin's trajectory.
    ///
    /// # Errors
    /// The line could not be written; nothing of it stays in the file.
    pub fn record_basin(&self, point: BasinPoint) -> Result<()> {
        self.append(Body::Basin(point)).map(|_| ())
    }

    /// Records a breakdown, in the journal and as a file of its own under `logs/emergency`.
    /// Persisted on return.
    ///
    /// # Errors
    /// The journal or the file could not be written. The entry comes first: an error about the
    /// file means that the entry is kept.
    pub fn record_emergency(&self, mut emergency: Emergency) -> Result<()> {
        emergency.telemetry.as_ref().map_or(Ok(()), check_names)?;
        emergency.session_id = None;
        let event_id = emergency.event_id.clone();
        let (mut entry, line) = self.append(Body::Emergency(Box::new(emergency)))?;
        self.persist()?;
        if let Body::Emergency(emergency) = &mut entry.body {
            emergency.session_id = Some(self.id.clone());
        }
        let place = format!("{}-{line}", self.segment.short());
        emergency::write_copy(self.store.root(), &event_id, &entry, &place)
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
        let phi = new.phi;
        let expected = checkpoint::expect(&new)?;
        let body = Body::CheckpointCreated(Box::new(expected.clone()));
        // a file whose entry is refused would be an orphan in the way of the next try
        line::check(&Entry { timestamp: Timestamp::now(), body })?;
        let created = checkpoint::save(self.store.root(), &new, expected)?;
        let checkpoint_id = created.checkpoint_id.clone();
        self.append(Body::CheckpointCreated(Box::new(created)))?;
        if self.is_best(phi) {
            let rank = Value::Dict(vec![(Value::Text("rank".into()), Value::Int(1))]);
            self.append(Body::Checkpoint(CheckpointAction {
                checkpoint_id: checkpoint_id.clone(),
                action: Action::Ranked,
                details: Some(rank),
            }))?;
        }
        self.persist()?;
        Ok(checkpoint_id)
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
    /// The disk refused. The session is closed then: what was not persisted may be lost, and a
    /// second try could not know.
    pub fn persist(&self) -> Result<()> {
        let mut writer = lock(&self.writer);
        self.open(&mut writer)?.persist()
    }

    /// Ends this part of the session. Persisted on return.
    ///
    /// # Errors
    /// The end could not be written; the next open of the store marks the session as aborted.
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

    fn finish(&self, outcome: Outcome, reason: Option<String>) -> Result<()> {
        let Some(mut writer) = lock(&self.writer).take() else { return Ok(()) };
        if let Ok(persister) = self.store.persister() {
            persister.end(self.segment);
        }
        let body = Body::SessionEnded(SessionEnded { outcome, reason, of: None });
        writer.append(&Entry { timestamp: Timestamp::now(), body })?;
        writer.seal()
    }

    fn append(&self, body: Body) -> Result<(Entry, u32)> {
        let mut writer = lock(&self.writer);
        let entry = Entry { timestamp: Timestamp::now(), body };
        let line = self.open(&mut writer)?.append(&entry)?;
        Ok((entry, line))
    }

    fn open<'a>(&self, writer: &'a mut Option<SegmentWriter>) -> Result<&'a mut SegmentWriter> {
        writer.as_mut().ok_or_else(|| Error::SessionEnded { id: self.id.clone() })
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
