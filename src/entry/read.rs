//! JSON as an entry. Keys that this version does not know are passed over; an event that it does
//! not know becomes [`Body::Unknown`], whatever its other keys hold.

use std::borrow::Cow;

use serde::Deserialize;

use super::{
    Action, BasinPoint, Body, CheckpointAction, CheckpointCreated, Emergency, EndedPart, Entry,
    Gap, Outcome, Record, SessionEnded, SessionStarted,
};
use crate::basin::BasinCoords;
use crate::float;
use crate::ids::{CheckpointId, EventId, SegmentId, SessionId};
use crate::telemetry::Telemetry;
use crate::timestamp::Timestamp;
use crate::value::Value;

/// Every key that an entry's line can have, apart from `crc`.
#[derive(Deserialize)]
pub(super) struct Wire<'a> {
    timestamp: Timestamp,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    session_id: Option<SessionId>,
    segment: Option<SegmentId>,
    step: Option<i64>,
    attempt: Option<u32>,
    status: Option<Outcome>,
    reason: Option<String>,
    emergency: Option<WireEmergency>,
    basin: Option<WireBasin>,
    gap: Option<WireGap>,
    checkpoint: Option<WireCheckpoint>,
    checkpoint_id: Option<CheckpointId>,
    details: Option<Value>,
    metadata: Option<Value>,
    telemetry: Option<Telemetry>,
}

/// What every event has, of any version.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    timestamp: Timestamp,
    #[serde(borrow)]
    event: Cow<'a, str>,
}

/// The events of this version.
const EVENTS: [&str; 10] = [
    "session_started",
    "session_ended",
    "emergency",
    "basin",
    "checkpoint_created",
    "checkpoint_loaded",
    "checkpoint_pruned",
    "checkpoint_ranked",
    "gap",
    "session_deleted",
];

impl Envelope<'_> {
    /// The entry of an event that this version does not know.
    pub(super) fn into_unknown(self) -> Option<Entry> {
        let is_known = EVENTS.contains(&self.event.as_ref());
        let body = Body::Unknown { event: self.event.into_owned() };
        (!is_known).then_some(Entry { timestamp: self.timestamp, body })
    }
}

#[derive(Deserialize)]
struct WireEmergency {
    event_id: EventId,
    reason: String,
    severity: String,
    metric: Option<String>,
    #[serde(default, deserialize_with = "float::optional")]
    value: Option<f64>,
    #[serde(default, deserialize_with = "float::optional")]
    threshold: Option<f64>,
}

#[derive(Deserialize)]
struct WireBasin {
    basin_coords: BasinCoords,
    #[serde(default, deserialize_with = "float::optional")]
    phi: Option<f64>,
    #[serde(default, deserialize_with = "float::optional")]
    kappa: Option<f64>,
}

#[derive(Deserialize)]
struct WireGap {
    records: u64,
    first_step: Option<i64>,
    last_step: Option<i64>,
    since: Timestamp,
}

#[derive(Deserialize)]
struct WireCheckpoint {
    checkpoint_id: CheckpointId,
    #[serde(default, deserialize_with = "float::optional")]
    phi: Option<f64>,
    #[serde(default, deserialize_with = "float::optional")]
    kappa: Option<f64>,
    regime: Option<String>,
    file: String,
    size_bytes: u64,
    sha256: String,
    basin_coords: Option<BasinCoords>,
    state_dict: Value,
}

/// The key that an event of this kind must have, and has not.
pub(super) struct Missing(pub(super) &'static str);

fn needed<T>(value: Option<T>, key: &'static str) -> Result<T, Missing> {
    value.ok_or(Missing(key))
}

impl Wire<'_> {
    pub(super) fn into_entry(self) -> Result<Entry, Missing> {
        Ok(Entry { timestamp: self.timestamp, body: self.into_body()? })
    }

    fn into_body(self) -> Result<Body, Missing> {
        let Some(event) = &self.event else { return self.into_record() };
        match event.as_ref() {
            "session_started" => self.into_started(),
            "session_ended" => self.into_ended(),
            "emergency" => self.into_emergency(),
            "basin" => self.into_basin(),
            "checkpoint_created" => self.into_created(),
            "checkpoint_loaded" => self.into_action(Action::Loaded),
            "checkpoint_pruned" => self.into_action(Action::Pruned),
            "checkpoint_ranked" => self.into_action(Action::Ranked),
            "gap" => self.into_gap(),
            "session_deleted" => {
                Ok(Body::SessionDeleted { session_id: needed(self.session_id, "session_id")? })
            }
            unknown => Ok(Body::Unknown { event: unknown.to_owned() }),
        }
    }

    fn into_record(self) -> Result<Body, Missing> {
        Ok(Body::Record(Record {
            step: needed(self.step, "step")?,
            telemetry: needed(self.telemetry, "telemetry")?,
        }))
    }

    fn into_started(self) -> Result<Body, Missing> {
        Ok(Body::SessionStarted(SessionStarted {
            attempt: needed(self.attempt, "attempt")?,
            metadata: self.metadata,
        }))
    }

    fn into_ended(self) -> Result<Body, Missing> {
        let of = match self.segment {
            Some(segment) => {
                Some(EndedPart { segment, session_id: needed(self.session_id, "session_id")? })
            }
            None => None,
        };
        let outcome = needed(self.status, "status")?;
        Ok(Body::SessionEnded(SessionEnded { outcome, reason: self.reason, of }))
    }

    fn into_emergency(self) -> Result<Body, Missing> {
        let inner = needed(self.emergency, "emergency")?;
        Ok(Body::Emergency(Box::new(Emergency {
            event_id: inner.event_id,
            session_id: self.session_id,
            step: self.step,
            reason: inner.reason,
            severity: inner.severity,
            metric: inner.metric,
            value: inner.value,
            threshold: inner.threshold,
            telemetry: self.telemetry,
            metadata: self.metadata,
        })))
    }

    fn into_basin(self) -> Result<Body, Missing> {
        let inner = needed(self.basin, "basin")?;
        Ok(Body::Basin(BasinPoint {
            step: self.step,
            basin_coords: inner.basin_coords,
            phi: inner.phi,
            kappa: inner.kappa,
        }))
    }

    fn into_gap(self) -> Result<Body, Missing> {
        let inner = needed(self.gap, "gap")?;
        Ok(Body::Gap(Gap {
            records: inner.records,
            first_step: inner.first_step,
            last_step: inner.last_step,
            since: inner.since,
            reason: needed(self.reason, "reason")?,
        }))
    }

    fn into_created(self) -> Result<Body, Missing> {
        let inner = needed(self.checkpoint, "checkpoint")?;
        Ok(Body::CheckpointCreated(Box::new(CheckpointCreated {
            checkpoint_id: inner.checkpoint_id,
            session_id: self.session_id,
            step: self.step,
            phi: inner.phi,
            kappa: inner.kappa,
            regime: inner.regime,
            basin_coords: inner.basin_coords,
            state_dict: inner.state_dict,
            metadata: self.metadata,
            file: inner.file,
            size_bytes: inner.size_bytes,
            sha256: inner.sha256,
        })))
    }

    fn into_action(self, action: Action) -> Result<Body, Missing> {
        Ok(Body::Checkpoint(CheckpointAction {
            checkpoint_id: needed(self.checkpoint_id, "checkpoint_id")?,
            action,
            details: self.details,
        }))
    }
}
