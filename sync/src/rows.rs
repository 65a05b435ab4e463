//! What do the lines of a batch mean as rows? Decided here, without a database.
//!
//! The result does not depend on how lines are cut into batches: rows are keyed by their line, and
//! what several lines say about one thing (a checkpoint, a part of a session) is folded by rules
//! that hold in any order, here inside a batch and in SQL between batches.

use std::collections::{BTreeMap, BTreeSet};

use tidelog::journal::{Batch, Content, Cursor, Line};
use tidelog::{
    Action, BasinPoint, Body, CheckpointAction, CheckpointCreated, Emergency, Gap, LineError,
    Outcome, Record, SegmentId, SessionEnded, SessionId, SessionStarted, Timestamp,
};

use crate::field::{Field, basin_fields, telemetry_json};
use crate::quarantine::{self, Refusal};
use crate::table::{self, Rows};
use crate::texts::Texts;

/// A segment as the replica knows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    pub(crate) store_no: i32,
    pub(crate) segment_no: i32,
    pub(crate) segment: SegmentId,
    pub(crate) session: Option<SessionId>,
    pub(crate) attempt: Option<i32>,
}

/// Everything that one transaction writes for a batch of lines.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BatchRows {
    pub(crate) place: Place,
    /// The cursor before the batch, as the replica has it.
    pub(crate) from: Cursor,
    /// The cursor after it.
    pub(crate) to: Cursor,
    /// Number of lines, damaged ones included.
    pub(crate) lines: usize,
    pub(crate) records: Rows,
    pub(crate) emergencies: Rows,
    pub(crate) basins: Rows,
    pub(crate) history: Rows,
    pub(crate) gaps: Rows,
    pub(crate) quarantine: Rows,
    pub(crate) unknown: Rows,
    pub(crate) checkpoints: BTreeMap<String, CheckpointRow>,
    /// Checkpoints that were created or pruned, whose state is decided anew.
    pub(crate) checkpoints_touched: BTreeSet<String>,
    /// The segment's own part of its session begins in this batch.
    pub(crate) start: Option<PartStart>,
    /// Parts that end, by segment.
    pub(crate) ends: BTreeMap<SegmentId, PartEnd>,
    pub(crate) deletions: BTreeMap<String, Burial>,
    /// Newest creations of checkpoints whose sessions are deleted.
    pub(crate) void_checkpoints: BTreeMap<String, Burial>,
    /// Every session that a row belongs to.
    pub(crate) sessions: BTreeSet<String>,
    texts: Texts,
}

/// The newest creation of a checkpoint in a batch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CheckpointRow {
    /// What makes it newer than another: time, then SHA-256.
    pub(crate) version: (Timestamp, String),
    session: Field,
    pub(crate) line_no: i32,
    pub(crate) fields: [Field; 17],
}

impl CheckpointRow {
    fn burial(&self) -> Burial {
        Burial { time: self.version.0, line_no: self.line_no }
    }
}

/// The beginning of a segment's part of its session.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PartStart {
    /// None: the segment is there, the line that says so is damaged or has not come yet.
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) metadata: Field,
}

impl PartStart {
    const UNKNOWN: Self = Self { started_at: None, metadata: Field::Null };
}

/// The end of a part. Of several, the greatest counts: that its writer went on elsewhere only this one
/// knows, so it counts before all others; else the later one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartEnd {
    is_continued: bool,
    pub(crate) ended_at: Timestamp,
    pub(crate) status: &'static str,
    pub(crate) reason: Option<String>,
    pub(crate) session: String,
}

/// The deletion of a session, or the creation of a checkpoint that is void because its session is
/// deleted. Of two the later one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Burial {
    pub(crate) time: Timestamp,
    pub(crate) line_no: i32,
}

/// Turns a batch into rows. A line that is damaged becomes a row of the quarantine; one with a text
/// that PostgreSQL could not hold becomes its usual rows, and the exact line is kept there beside.
///
/// # Errors
/// A line number beyond [`i32::MAX`], which no writer gives.
pub(crate) fn from_batch(
    place: &Place,
    from: Cursor,
    batch: &Batch,
) -> Result<BatchRows, std::num::TryFromIntError> {
    from_batch_but(place, from, batch, &BTreeMap::new())
}

/// As [`from_batch`], but these lines were refused by the server.
///
/// # Errors
/// A line number beyond [`i32::MAX`], which no writer gives.
pub(crate) fn from_batch_but(
    place: &Place,
    from: Cursor,
    batch: &Batch,
    refused: &BTreeMap<i32, Refusal>,
) -> Result<BatchRows, std::num::TryFromIntError> {
    let mut rows = BatchRows::empty(place, from, batch);
    for line in batch.lines() {
        let line_no = i32::try_from(line.number)?;
        if let Some(refusal) = refused.get(&line_no) {
            rows.quarantine(line_no, line, batch.raw(line), refusal.clone());
            continue;
        }
        let added = rows.add(line_no, line, batch.raw(line));
        let changed = rows.texts.take_changed().then(Refusal::changed_text);
        if let Some(refusal) = added.err().or(changed) {
            rows.quarantine(line_no, line, batch.raw(line), refusal);
        }
    }
    Ok(rows)
}

/// Puts the lines of a batch that the server refused into quarantine, whatever they hold.
///
/// # Errors
/// A line number beyond [`i32::MAX`], which no writer gives.
pub(crate) fn refused_by_server(
    place: &Place,
    from: Cursor,
    batch: &Batch,
    refusal: &Refusal,
) -> Result<BatchRows, std::num::TryFromIntError> {
    let refused = |line: &Line| i32::try_from(line.number).map(|number| (number, refusal.clone()));
    let all = batch.lines().iter().map(refused).collect::<Result<_, _>>()?;
    from_batch_but(place, from, batch, &all)
}

impl BatchRows {
    fn empty(place: &Place, from: Cursor, batch: &Batch) -> Self {
        // A part begins with the first line after the header, whatever that line says.
        let begins = from.next_line <= 1 && !batch.lines().is_empty() && place.session.is_some();
        Self {
            place: place.clone(),
            from,
            to: *batch.to(),
            lines: batch.lines().len(),
            records: Rows::new(&table::TELEMETRY_RECORDS),
            emergencies: Rows::new(&table::EMERGENCY_EVENTS),
            basins: Rows::new(&table::BASIN_HISTORY),
            history: Rows::new(&table::CHECKPOINT_HISTORY),
            gaps: Rows::new(&table::TELEMETRY_GAPS),
            quarantine: Rows::new(&table::SYNC_QUARANTINE),
            unknown: Rows::new(&table::SYNC_UNKNOWN),
            checkpoints: BTreeMap::new(),
            checkpoints_touched: BTreeSet::new(),
            start: begins.then_some(PartStart::UNKNOWN),
            ends: BTreeMap::new(),
            deletions: BTreeMap::new(),
            void_checkpoints: BTreeMap::new(),
            sessions: place.session.iter().map(ToString::to_string).collect(),
            texts: Texts::default(),
        }
    }

    /// Tables whose rows never change, in the order in which they are written.
    pub(crate) fn immutable(&self) -> [&Rows; 7] {
        [
            &self.records,
            &self.emergencies,
            &self.history,
            &self.basins,
            &self.gaps,
            &self.quarantine,
            &self.unknown,
        ]
    }

    /// Leaves out what belongs to these sessions, apart from the audit trail.
    pub(crate) fn without(mut self, sessions: &BTreeSet<String>) -> Self {
        self.records = self.records.without(sessions);
        self.emergencies = self.emergencies.without(sessions);
        self.basins = self.basins.without(sessions);
        self.gaps = self.gaps.without(sessions);
        self.quarantine = self.quarantine.without(sessions);
        self.unknown = self.unknown.without(sessions);
        for (id, row) in std::mem::take(&mut self.checkpoints) {
            if matches!(&row.session, Field::Text(session) if sessions.contains(session)) {
                self.void_checkpoints.insert(id, row.burial());
            } else {
                self.checkpoints.insert(id, row);
            }
        }
        self.ends.retain(|_, end| !sessions.contains(&end.session));
        if self.place.session.as_ref().is_some_and(|id| sessions.contains(id.as_str())) {
            self.start = None;
        }
        self
    }

    fn quarantine(&mut self, line_no: i32, line: &Line, raw: &[u8], refusal: Refusal) {
        let session = match &line.content {
            Content::Entry(entry) => self.session_of(named_session(&entry.body)),
            Content::Invalid(_) => self.session_of(None),
        };
        self.quarantine.push(quarantine::row(&self.place, line_no, session, raw, refusal));
    }

    fn add(&mut self, line_no: i32, line: &Line, raw: &[u8]) -> Result<(), Refusal> {
        let entry = match &line.content {
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
    fn session_of(&mut self, named: Option<&SessionId>) -> Field {
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

/// The session that an entry names, which may stand in a segment that belongs to none.
fn named_session(body: &Body) -> Option<&SessionId> {
    match body {
        Body::Emergency(emergency) => emergency.session_id.as_ref(),
        Body::CheckpointCreated(created) => created.session_id.as_ref(),
        Body::SessionEnded(ended) => ended.of.as_ref().map(|part| &part.session_id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tidelog::journal::{BatchLimits, SegmentReader};

    use super::*;

    /// Rows of these entries, given without their timestamps.
    fn rows(session: Option<&str>, entries: &[&str]) -> BatchRows {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.jsonl");
        let time = |n: usize| format!("{{\"timestamp\":\"2026-01-05T09:30:{n:02}Z\",");
        let lines: String =
            entries.iter().enumerate().map(|(n, entry)| time(n) + entry + "}\n").collect();
        fs::write(&path, format!("header\n{lines}")).unwrap();
        let session = session.map(|id| SessionId::new(id).unwrap());
        let segment = SegmentId::random();
        let place = Place { store_no: 1, segment_no: 2, segment, session, attempt: Some(1) };
        let limits = BatchLimits { lines_max: 100, bytes_max: 1 << 20 };
        let mut reader = SegmentReader::open(&path, Cursor::START).unwrap();
        let batch = reader.next_batch(limits).unwrap().unwrap();
        from_batch(&place, Cursor::START, &batch).unwrap()
    }

    fn checkpoint(id: &str, sha256: &str) -> String {
        format!(
            "\"event\":\"checkpoint_created\",\"checkpoint\":{{\"checkpoint_id\":\"{id}\",\
             \"file\":\"f\",\"size_bytes\":1,\"sha256\":\"{sha256}\",\"state_dict\":{{}}}}"
        )
    }

    #[test]
    fn a_record_is_keyed_by_its_line() {
        let rows = rows(Some("s"), &["\"step\":7,\"telemetry\":{\"phi\":0.5,\"loss\":1}"]);
        let record: Vec<&Field> = rows.records.iter().flatten().collect();
        assert_eq!(record[..3], [&Field::Int4(2), &Field::Int4(1), &Field::Text("s".into())]);
        assert_eq!(record[21], &Field::Json("{\"loss\":1}".into()));
        assert_eq!((rows.from.next_line, rows.to.next_line), (0, 2));
    }

    #[test]
    fn a_record_without_a_session_goes_to_quarantine() {
        let rows = rows(None, &["\"step\":7,\"telemetry\":{}"]);
        assert_eq!((rows.records.len(), rows.quarantine.len()), (0, 1));
    }

    #[test]
    fn a_part_begins_although_its_first_line_is_damaged() {
        let rows = rows(Some("s"), &["\"event\":\"session_started\""]);
        assert_eq!(rows.start, Some(PartStart::UNKNOWN));
        assert_eq!(rows.quarantine.len(), 1);
    }

    #[test]
    fn the_greatest_end_of_a_part_counts() {
        let end = |status: &str| format!("\"event\":\"session_ended\",\"status\":\"{status}\"");
        let rows = rows(Some("s"), &[&end("failed"), &end("completed")]);
        let statuses: Vec<&str> = rows.ends.values().map(|end| end.status).collect();
        assert_eq!(statuses, ["completed"]);
    }

    #[test]
    fn the_newest_creation_of_a_checkpoint_counts_and_all_are_in_the_history() {
        let rows = rows(Some("s"), &[&checkpoint("c", "00"), &checkpoint("c", "11")]);
        let created: Vec<&Field> =
            rows.checkpoints.values().flat_map(|row| row.fields.last()).collect();
        assert_eq!(created, [&Field::Text("11".into())]);
        assert_eq!(rows.history.len(), 2);
    }

    #[test]
    fn a_deleted_session_keeps_its_audit_trail_only() {
        let rows = rows(
            Some("s"),
            &[
                "\"step\":7,\"telemetry\":{}",
                &checkpoint("c", "00"),
                "\"event\":\"session_started\",\"attempt\":1",
            ],
        );
        let left = rows.without(&BTreeSet::from(["s".to_owned()]));
        assert_eq!((left.records.len(), left.checkpoints.len(), left.start), (0, 0, None));
        assert_eq!(left.history.len(), 1);
    }

    #[test]
    fn a_text_with_nul_is_shown_without_it_and_its_line_is_kept_beside() {
        let nul = "\\u0000";
        let rows = rows(
            Some("s"),
            &[
                &format!("\"step\":1,\"telemetry\":{{\"regime\":\"{nul}\"}}"),
                &format!("\"step\":2,\"telemetry\":{{\"{nul}\":1}}"),
                "\"step\":3,\"telemetry\":{\"x\":{\"$text\":\"AA==\"}}",
                &format!("\"event\":\"session_ended\",\"status\":\"failed\",\"reason\":\"{nul}\""),
            ],
        );
        assert_eq!((rows.quarantine.len(), rows.records.len()), (3, 3));
        assert_eq!(rows.records.column(7)[0], &Field::Text("\u{fffd}".into()));
        assert_eq!(rows.records.column(21)[1], &Field::Json("{\"\u{fffd}\":1}".into()));
        let reasons: Vec<_> = rows.ends.values().map(|end| end.reason.as_deref()).collect();
        assert_eq!(reasons, [Some("\u{fffd}")]);
    }
}
