//! An entry as JSON. The names here are the on-disk format: a change is a new format version.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{
    BasinPoint, Body, CheckpointAction, CheckpointCreated, Emergency, Entry, Gap, SessionEnded,
    SessionStarted,
};
use crate::float::Float;
use crate::telemetry::Telemetry;

/// Writes `{…}` of an entry, without the checksum that its line adds.
impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", &self.timestamp)?;
        match &self.body {
            Body::Record(record) => write_record(&mut map, record.step, &record.telemetry)?,
            Body::SessionStarted(started) => write_started(&mut map, started)?,
            Body::SessionEnded(ended) => write_ended(&mut map, ended)?,
            Body::Emergency(emergency) => write_emergency(&mut map, emergency)?,
            Body::Basin(point) => write_basin(&mut map, point)?,
            Body::CheckpointCreated(created) => write_created(&mut map, created)?,
            Body::Checkpoint(action) => write_action(&mut map, action)?,
            Body::Gap(gap) => write_gap(&mut map, gap)?,
            Body::SessionDeleted { session_id } => {
                map.serialize_entry("event", "session_deleted")?;
                map.serialize_entry("session_id", session_id)?;
            }
            Body::Unknown { event } => map.serialize_entry("event", event)?,
        }
        map.end()
    }
}

fn optional<M: SerializeMap>(
    map: &mut M,
    key: &'static str,
    value: Option<&impl Serialize>,
) -> Result<(), M::Error> {
    match value {
        Some(value) => map.serialize_entry(key, value),
        None => Ok(()),
    }
}

fn write_record<M: SerializeMap>(
    map: &mut M,
    step: i64,
    telemetry: &Telemetry,
) -> Result<(), M::Error> {
    map.serialize_entry("step", &step)?;
    map.serialize_entry("telemetry", telemetry)
}

fn write_started<M: SerializeMap>(map: &mut M, started: &SessionStarted) -> Result<(), M::Error> {
    map.serialize_entry("event", "session_started")?;
    map.serialize_entry("attempt", &started.attempt)?;
    optional(map, "metadata", started.metadata.as_ref())
}

fn write_ended<M: SerializeMap>(map: &mut M, ended: &SessionEnded) -> Result<(), M::Error> {
    map.serialize_entry("event", "session_ended")?;
    map.serialize_entry("status", &ended.outcome)?;
    optional(map, "reason", ended.reason.as_ref())?;
    optional(map, "session_id", ended.of.as_ref().map(|part| &part.session_id))?;
    optional(map, "segment", ended.of.as_ref().map(|part| &part.segment))
}

fn write_emergency<M: SerializeMap>(map: &mut M, emergency: &Emergency) -> Result<(), M::Error> {
    map.serialize_entry("event", "emergency")?;
    optional(map, "session_id", emergency.session_id.as_ref())?;
    optional(map, "step", emergency.step.as_ref())?;
    map.serialize_entry("emergency", &Inner(emergency))?;
    optional(map, "telemetry", emergency.telemetry.as_ref())?;
    optional(map, "metadata", emergency.metadata.as_ref())
}

fn write_basin<M: SerializeMap>(map: &mut M, point: &BasinPoint) -> Result<(), M::Error> {
    map.serialize_entry("event", "basin")?;
    optional(map, "step", point.step.as_ref())?;
    map.serialize_entry("basin", &Inner(point))
}

fn write_created<M: SerializeMap>(
    map: &mut M,
    created: &CheckpointCreated,
) -> Result<(), M::Error> {
    map.serialize_entry("event", "checkpoint_created")?;
    optional(map, "session_id", created.session_id.as_ref())?;
    optional(map, "step", created.step.as_ref())?;
    map.serialize_entry("checkpoint", &Inner(created))?;
    optional(map, "metadata", created.metadata.as_ref())
}

fn write_action<M: SerializeMap>(map: &mut M, action: &CheckpointAction) -> Result<(), M::Error> {
    let event = match action.action {
        super::Action::Loaded => "checkpoint_loaded",
        super::Action::Pruned => "checkpoint_pruned",
        super::Action::Ranked => "checkpoint_ranked",
    };
    map.serialize_entry("event", event)?;
    map.serialize_entry("checkpoint_id", &action.checkpoint_id)?;
    optional(map, "details", action.details.as_ref())
}

fn write_gap<M: SerializeMap>(map: &mut M, gap: &Gap) -> Result<(), M::Error> {
    map.serialize_entry("event", "gap")?;
    map.serialize_entry("gap", &Inner(gap))?;
    map.serialize_entry("reason", &gap.reason)
}

/// The object inside an event that has the event's own name.
struct Inner<'a, T>(&'a T);

impl Serialize for Inner<'_, Emergency> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("event_id", &self.0.event_id)?;
        map.serialize_entry("reason", &self.0.reason)?;
        map.serialize_entry("severity", &self.0.severity)?;
        optional(&mut map, "metric", self.0.metric.as_ref())?;
        optional(&mut map, "value", self.0.value.map(Float).as_ref())?;
        optional(&mut map, "threshold", self.0.threshold.map(Float).as_ref())?;
        map.end()
    }
}

impl Serialize for Inner<'_, BasinPoint> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("basin_coords", &self.0.basin_coords)?;
        optional(&mut map, "phi", self.0.phi.map(Float).as_ref())?;
        optional(&mut map, "kappa", self.0.kappa.map(Float).as_ref())?;
        map.end()
    }
}

impl Serialize for Inner<'_, Gap> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("records", &self.0.records)?;
        optional(&mut map, "first_step", self.0.first_step.as_ref())?;
        optional(&mut map, "last_step", self.0.last_step.as_ref())?;
        map.serialize_entry("since", &self.0.since)?;
        map.end()
    }
}

impl Serialize for Inner<'_, CheckpointCreated> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("checkpoint_id", &self.0.checkpoint_id)?;
        optional(&mut map, "phi", self.0.phi.map(Float).as_ref())?;
        optional(&mut map, "kappa", self.0.kappa.map(Float).as_ref())?;
        optional(&mut map, "regime", self.0.regime.as_ref())?;
        map.serialize_entry("file", &self.0.file)?;
        map.serialize_entry("size_bytes", &self.0.size_bytes)?;
        map.serialize_entry("sha256", &self.0.sha256)?;
        optional(&mut map, "basin_coords", self.0.basin_coords.as_ref())?;
        map.serialize_entry("state_dict", &self.0.state_dict)?;
        map.end()
    }
}
