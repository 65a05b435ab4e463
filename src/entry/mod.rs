//! What happened: one **entry** is one line of the journal.
//!
//! A telemetry **record** is `{"timestamp":…,"step":…,"telemetry":{…},"crc":…}`; every other
//! entry has an `event`. [`line`] turns entries into lines and back; the types here are what the
//! rest of the code works with.

pub(crate) mod line;
mod read;
mod record;
mod write;

pub(crate) use record::write_record;

use line::LineError;
use serde::{Deserialize, Serialize};

use crate::basin::BasinCoords;
use crate::ids::{CheckpointId, EventId, SegmentId, SessionId};
use crate::telemetry::Telemetry;
use crate::timestamp::Timestamp;
use crate::value::Value;

/// One line of the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When it happened by the writer's clock, UTC. No identity, and no order within a segment:
    /// both are the line's. Of facts about one thing in several segments the newer one counts.
    pub timestamp: Timestamp,
    /// What happened.
    pub body: Body,
}

impl Entry {
    /// Reads one line of a segment, given without its newline, as
    /// [`SegmentReader`](crate::journal::SegmentReader) does: for a line that was kept elsewhere.
    ///
    /// # Errors
    /// What is wrong with the line, its checksum included.
    pub fn read(line: &[u8]) -> Result<Self, LineError> {
        line::read(line)
    }

    /// Appends the line that this version writes of the entry: checksum and newline at its end.
    ///
    /// # Errors
    /// A value has no JSON, or the line would be too long; the buffer's contents are then of no use.
    pub fn write_line(&self, buffer: &mut Vec<u8>) -> crate::Result<()> {
        match &self.body {
            Body::Record(record) => {
                line::write_record(self.timestamp, record.step, &record.telemetry, buffer)
            }
            _ => line::write_checked(self, buffer),
        }
    }
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Body {
    /// One step's telemetry.
    Record(Record),
    /// A writer began to write this session.
    SessionStarted(SessionStarted),
    /// A writer's part of a session is over.
    SessionEnded(SessionEnded),
    /// Something broke down.
    Emergency(Box<Emergency>),
    /// A point of the basin's trajectory.
    Basin(BasinPoint),
    /// A checkpoint file is complete.
    CheckpointCreated(Box<CheckpointCreated>),
    /// Something else happened to a checkpoint.
    Checkpoint(CheckpointAction),
    /// Records that the disk refused are missing here.
    Gap(Gap),
    /// A session was deleted and does not come back.
    SessionDeleted {
        /// The deleted session.
        session_id: SessionId,
    },
    /// An event that a newer tidelog wrote. Its line stays as it is.
    Unknown {
        /// The event's name.
        event: String,
    },
}

/// One step's telemetry.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The training step. Steps may repeat after a resume and go back.
    pub step: i64,
    /// What was measured.
    pub telemetry: Telemetry,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The training loop reached its end.
    Completed,
    /// The training program reported a failure.
    Failed,
    /// The writer went away without ending the session.
    Aborted,
    /// The same writer went on in another segment, because this one was full or its disk failed.
    Continued,
}

impl Outcome {
    /// The word in files and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Completed => "completed",
            Outcome::Failed => "failed",
            Outcome::Aborted => "aborted",
            Outcome::Continued => "continued",
        }
    }
}

/// The first entry of a session's segment.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionStarted {
    /// 1 at first, one more at each resume.
    pub attempt: u32,
    /// Whatever the caller wants to keep with the session.
    pub metadata: Option<Value>,
}

/// The end of one writer's part of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionEnded {
    /// How it ended.
    pub outcome: Outcome,
    /// In the caller's words.
    pub reason: Option<String>,
    /// The part that ended, when another writer says so because its own is gone.
    pub of: Option<EndedPart>,
}

/// A part whose writer went away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedPart {
    /// Its segment.
    pub segment: SegmentId,
    /// Its session.
    pub session_id: SessionId,
}

/// Records that could not be written, all of one stretch of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// How many records and basin points are missing.
    pub records: u64,
    /// The smallest step among them; none if none had a step.
    pub first_step: Option<i64>,
    /// The greatest step among them.
    pub last_step: Option<i64>,
    /// When the first of them was to be written. The entry's timestamp is when writing went on.
    pub since: Timestamp,
    /// What the disk said.
    pub reason: String,
}

/// A detected breakdown.
#[derive(Debug, Clone, PartialEq)]
pub struct Emergency {
    /// Names the event and its standalone file.
    pub event_id: EventId,
    /// Set only in entries outside the session's own segments.
    pub session_id: Option<SessionId>,
    /// The step, if it belongs to one.
    pub step: Option<i64>,
    /// What broke down.
    pub reason: String,
    /// A word; info < low < warning < medium < high < critical.
    pub severity: String,
    /// The metric that crossed its threshold.
    pub metric: Option<String>,
    /// Its value.
    pub value: Option<f64>,
    /// The threshold.
    pub threshold: Option<f64>,
    /// The telemetry of that moment.
    pub telemetry: Option<Telemetry>,
    /// Whatever else the caller gave.
    pub metadata: Option<Value>,
}

/// A point of the basin's trajectory.
#[derive(Debug, Clone, PartialEq)]
pub struct BasinPoint {
    /// The step, if it belongs to one.
    pub step: Option<i64>,
    /// The point.
    pub basin_coords: BasinCoords,
    /// Φ there.
    pub phi: Option<f64>,
    /// κ there.
    pub kappa: Option<f64>,
}

/// A complete checkpoint file, as the journal knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckpointCreated {
    /// Its id.
    pub checkpoint_id: CheckpointId,
    /// Set only in entries outside the session's own segments.
    pub session_id: Option<SessionId>,
    /// The step, if it belongs to one.
    pub step: Option<i64>,
    /// Φ of the state; checkpoints are ranked by it.
    pub phi: Option<f64>,
    /// κ of the state.
    pub kappa: Option<f64>,
    /// Regime of the state.
    pub regime: Option<String>,
    /// The state's place in the basin.
    pub basin_coords: Option<BasinCoords>,
    /// The state tree's [summary](Value::summary); the file holds it whole.
    pub state_dict: Value,
    /// Whatever the caller wants to keep with the checkpoint.
    pub metadata: Option<Value>,
    /// File name inside `checkpoints/`.
    pub file: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its SHA-256, 64 hexadecimal digits.
    pub sha256: String,
}

/// What happened to a checkpoint after it was created.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckpointAction {
    /// The checkpoint.
    pub checkpoint_id: CheckpointId,
    /// What happened.
    pub action: Action,
    /// More about it.
    pub details: Option<Value>,
}

/// The life of a checkpoint after its creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It was read back.
    Loaded,
    /// Its file was removed on purpose.
    Pruned,
    /// Its Φ is above all earlier ones of this attempt, as its writer saw them.
    Ranked,
}

impl Action {
    /// The word in `checkpoint_history.action`.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Loaded => "loaded",
            Action::Pruned => "pruned",
            Action::Ranked => "ranked",
        }
    }
}
