//! What an entry of each kind means as rows.

use tidelog::journal::Content;
use tidelog::{
    Action, BasinPoint, Body, CheckpointAction, CheckpointCreated, Emergency, Gap, LineError,
    Outcome, Record, SessionEnded, SessionId, SessionStarted, Timestamp,
};

use super::{BatchRows, Burial, CheckpointRow};
use crate::field::{Field, basin_fields, telemetry_json};
use crate::part::{PartEnd, PartStart};
use crate::quarantine::Refusal;

impl BatchRows {
    pub(super) fn add(
        &mut self,
        line_no: i32,
        content: &Content,
        raw: &[u8],
    ) -> Result<(), Refusal> {
        let entry = match content {
            Content::Entry(entry) => entry,
            Content::Invalid(LineError::TooLong { bytes }) => {
                return Err(Refusal::too_long(*bytes));
            }
            Content::Invalid(error) => return Err(Refusal::of(error.to_string())),
        };
        let time = entry.timestamp;
        match &entry.body {
            Body::Record(record) => self.add_record(line_no, time, record),
            Body::SessionStarted(started) => self.add_start(time, started),
            Body::SessionEnded(ended) => self.add_end(time, ended),
            Body::Emergency(emergency) => self.add_emergency(line_no, time, emergency),
            Body::Basin(point) => self.add_basin(line_no, time, point),
            Body::CheckpointCreated(created) => self.add_checkpoint(line_no, time, created),
            Body::Checkpoint(action) => self.add_action(line_no, time, action),
            Body::Gap(gap) => self.add_gap(line_no, time, gap),
            Body::SessionDeleted { session_id } => {
                let burial = Burial { time, line_no };
                self.sessions.insert(session_id.to_string());
                let last = self.deletions.entry(session_id.to_string()).or_insert(burial);
                *last = burial.max(*last);
                Ok(())
            }
            other => self.add_unknown(line_no, other, raw),
        }
    }

    /// The session that the whole segment belongs to.
    fn own_session(&self) -> Result<String, Refusal> {
        let session = self.place.session.as_ref().map(ToString::to_string);
        session.ok_or_else(|| Refusal::of("belongs to a session, and its file to none".into()))
    }

    /// The session of the segment, or else the one that an entry names.
    pub(super) fn session_of(&mut self, named: Option<&SessionId>) -> Field {
        let Some(session) = self.place.session.as_ref().or(named) else { return Field::Null };
        let session = session.to_string();
        self.sessions.insert(session.clone());
        Field::Text(session)
    }

    fn add_record(
        &mut self,
        line_no: i32,
        time: Timestamp,
        record: &Record,
    ) -> Result<(), Refusal> {
        let t = &record.telemetry;
        self.records.push([
            self.place.segment_no.into(),
            line_no.into(),
            Field::Text(self.own_session()?),
            time.into(),
            record.step.into(),
            t.phi.into(),
            t.kappa_eff.into(),
            self.texts.field(t.regime.as_deref()),
            t.basin_distance.into(),
            t.recursion_depth.into(),
            t.geodesic_distance.into(),
            t.curvature.into(),
            t.fisher_metric_trace.into(),
            t.breakdown_pct.into(),
            t.coherence_drift.into(),
            t.emergency.into(),
            t.meta_awareness.into(),
            t.generativity.into(),
            t.grounding.into(),
            t.temporal_coherence.into(),
            t.external_coupling.into(),
            self.texts.json("extra", (!t.extra.is_empty()).then_some(&t.extra))?,
        ]);
        Ok(())
    }

    fn add_start(&mut self, time: Timestamp, started: &SessionStarted) -> Result<(), Refusal> {
        self.own_session()?;
        let metadata = self.texts.json("metadata", started.metadata.as_ref())?;
        // The first one counts: a segment is read in order.
        if self.start.as_ref().is_none_or(|start| start.started_at.is_none()) {
            self.start = Some(PartStart { started_at: Some(time), metadata });
        }
        Ok(())
    }

    fn add_end(&mut self, time: Timestamp, ended: &SessionEnded) -> Result<(), Refusal> {
        let (segment, session) = match &ended.of {
            Some(part) => (part.segment, part.session_id.to_string()),
            None => (self.place.segment, self.own_session()?),
        };
        self.sessions.insert(session.clone());
        let status = ended.outcome.as_str();
        let reason = ended.reason.as_deref().map(|reason| self.texts.text(reason));
        let is_continued = ended.outcome == Outcome::Continued;
        let end = PartEnd { is_continued, ended_at: time, status, reason, session };
        let last = self.ends.entry(segment).or_insert_with(|| end.clone());
        *last = end.max(last.clone());
        Ok(())
    }

    fn add_emergency(
        &mut self,
        line_no: i32,
        time: Timestamp,
        emergency: &Emergency,
    ) -> Result<(), Refusal> {
        let telemetry = emergency.telemetry.as_ref().map(telemetry_json).transpose();
        let telemetry = telemetry.map_err(|error| Refusal::no_json("telemetry", &error))?;
        let row = [
            self.place.segment_no.into(),
            line_no.into(),
            Field::Text(emergency.event_id.to_string()),
            self.session_of(emergency.session_id.as_ref()),
            time.into(),
            emergency.step.into(),
            self.texts.field(Some(&emergency.reason)),
            self.texts.field(Some(&emergency.severity)),
            self.texts.field(emergency.metric.as_deref()),
            emergency.value.into(),
            emergency.threshold.into(),
            self.texts.json("telemetry", telemetry.as_ref())?,
            self.texts.json("metadata", emergency.metadata.as_ref())?,
        ];
        self.emergencies.push(row);
        Ok(())
    }

    fn add_basin(
        &mut self,
        line_no: i32,
        time: Timestamp,
        basin: &BasinPoint,
    ) -> Result<(), Refusal> {
        let [rounded, exact] = basin_fields(Some(&basin.basin_coords));
        self.basins.push([
            self.place.segment_no.into(),
            line_no.into(),
            Field::Text(self.own_session()?),
            time.into(),
            basin.step.into(),
            rounded,
            exact,
            basin.phi.into(),
            basin.kappa.into(),
        ]);
        Ok(())
    }

    /// A count that no column holds is its greatest number.
    fn add_gap(&mut self, line_no: i32, time: Timestamp, gap: &Gap) -> Result<(), Refusal> {
        self.gaps.push([
            self.place.segment_no.into(),
            line_no.into(),
            Field::Text(self.own_session()?),
            time.into(),
            i64::try_from(gap.records).unwrap_or(i64::MAX).into(),
            gap.first_step.into(),
            gap.last_step.into(),
            gap.since.into(),
            self.texts.field(Some(&gap.reason)),
        ]);
        Ok(())
    }

    fn add_checkpoint(
        &mut self,
        line_no: i32,
        time: Timestamp,
        created: &CheckpointCreated,
    ) -> Result<(), Refusal> {
        let id = created.checkpoint_id.to_string();
        let size_bytes = i64::try_from(created.size_bytes)
            .map_err(|_| Refusal::of(format!("size_bytes {} is no size", created.size_bytes)))?;
        let [rounded, exact] = basin_fields(created.basin_coords.as_ref());
        let session = self.session_of(created.session_id.as_ref());
        let sha256 = self.texts.text(&created.sha256);
        let fields = [
            Field::Text(id.clone()),
            self.place.store_no.into(),
            self.place.segment_no.into(),
            line_no.into(),
            session.clone(),
            created.step.into(),
            time.into(),
            created.phi.into(),
            created.kappa.into(),
            self.texts.field(created.regime.as_deref()),
            rounded,
            exact,
            self.texts.json("state_dict", Some(&created.state_dict))?,
            self.texts.json("metadata", created.metadata.as_ref())?,
            self.texts.field(Some(&created.file)),
            size_bytes.into(),
            Field::Text(sha256.clone()),
        ];
        let new = CheckpointRow { version: (time, sha256), session, line_no, fields };
        match self.checkpoints.get(&id) {
            Some(known) if known.version >= new.version => {}
            _ => {
                self.checkpoints.insert(id.clone(), new);
            }
        }
        self.add_history(line_no, time, id, "created", Field::Null);
        Ok(())
    }

    fn add_action(
        &mut self,
        line_no: i32,
        time: Timestamp,
        action: &CheckpointAction,
    ) -> Result<(), Refusal> {
        let details = self.texts.json("details", action.details.as_ref())?;
        let id = action.checkpoint_id.to_string();
        self.add_history(line_no, time, id, action.action.as_str(), details);
        Ok(())
    }

    fn add_history(
        &mut self,
        line_no: i32,
        time: Timestamp,
        id: String,
        action: &str,
        details: Field,
    ) {
        if action == "created" || action == Action::Pruned.as_str() {
            self.checkpoints_touched.insert(id.clone());
        }
        self.history.push([
            self.place.segment_no.into(),
            line_no.into(),
            Field::Text(id),
            Field::Text(action.to_owned()),
            time.into(),
            details,
        ]);
    }

    fn add_unknown(&mut self, line_no: i32, body: &Body, raw: &[u8]) -> Result<(), Refusal> {
        let event = match body {
            Body::Unknown { event } => event.as_str(),
            _ => "(an entry newer than this agent)",
        };
        let session = self.session_of(None);
        self.unknown.push([
            self.place.segment_no.into(),
            line_no.into(),
            session,
            self.texts.field(Some(event)),
            Field::Bytes(raw.to_vec()),
        ]);
        Ok(())
    }
}
