//! What do the lines of a batch mean as rows? Decided here, without a database.
//!
//! The result does not depend on how lines are cut into batches: rows are keyed by their line, and
//! what several lines say about one thing (a checkpoint, a part of a session) is folded by rules
//! that hold in any order, here inside a batch and in SQL between batches.

mod entries;

use std::collections::{BTreeMap, BTreeSet};

use tidelog::journal::{Batch, Content, Cursor};
use tidelog::{Entry, SegmentId, Timestamp};

use crate::field::Field;
use crate::lines;
use crate::part::{PartEnd, PartStart};
use crate::place::Place;
use crate::quarantine::{self, Refusal};
use crate::table::{self, Rows};
use crate::texts::Texts;

/// Everything that one transaction writes for a batch of lines.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BatchRows {
    pub(crate) place: Place,
    /// The cursor before the batch, as the replica has it.
    pub(crate) from: Cursor,
    /// The cursor after it.
    pub(crate) to: Cursor,
    /// The first line and the one after the last, as a database counts them.
    pub(crate) line_range: (i64, i64),
    /// Number of lines, damaged ones included.
    pub(crate) lines: usize,
    pub(crate) records: Rows,
    pub(crate) emergencies: Rows,
    pub(crate) basins: Rows,
    pub(crate) history: Rows,
    pub(crate) gaps: Rows,
    pub(crate) quarantine: Rows,
    pub(crate) unknown: Rows,
    /// Lines that do not come back from their rows.
    pub(crate) kept: Rows,
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
    let mut rows = BatchRows::empty(place, from, *batch.to(), batch.lines().len());
    rows.keep_header(batch);
    let mut rewritten = Vec::new();
    for line in batch.lines() {
        let (line_no, raw) = (i32::try_from(line.number)?, batch.raw(line));
        match refused.get(&line_no) {
            Some(refusal) => {
                rows.keep(line_no, &line.content, raw);
                rows.quarantine(line_no, &line.content, raw, refusal.clone());
            }
            None => rows.add_or_keep(line_no, &line.content, raw, &mut rewritten),
        }
    }
    Ok(rows)
}

/// Turns lines of one segment that were kept by number and bytes into rows. They may lie anywhere in
/// it, and no cursor moves by them.
pub(crate) fn from_kept(place: &Place, lines: &[(i32, Vec<u8>)]) -> BatchRows {
    let first = lines.first().map_or(0, |(line_no, _)| *line_no);
    let at = Cursor { next_line: u32::try_from(first).unwrap_or_default(), ..Cursor::START };
    let mut rows = BatchRows::empty(place, at, at, lines.len());
    let mut rewritten = Vec::new();
    for (line_no, raw) in lines {
        let content = Entry::read(raw).map_or_else(Content::Invalid, Content::Entry);
        rows.add_or_keep(*line_no, &content, raw, &mut rewritten);
    }
    rows
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
    let refused = |line: &tidelog::journal::Line| {
        i32::try_from(line.number).map(|number| (number, refusal.clone()))
    };
    let all = batch.lines().iter().map(refused).collect::<Result<_, _>>()?;
    from_batch_but(place, from, batch, &all)
}

impl BatchRows {
    fn empty(place: &Place, from: Cursor, to: Cursor, lines: usize) -> Self {
        // A part begins with the first line after the header, whatever that line says.
        let is_first = from.next_line.max(1) == place.first_line.max(1);
        let begins = is_first && lines > 0 && place.session.is_some();
        Self {
            place: place.clone(),
            from,
            to,
            line_range: (from.next_line.into(), to.next_line.into()),
            lines,
            records: Rows::new(&table::TELEMETRY_RECORDS),
            emergencies: Rows::new(&table::EMERGENCY_EVENTS),
            basins: Rows::new(&table::BASIN_HISTORY),
            history: Rows::new(&table::CHECKPOINT_HISTORY),
            gaps: Rows::new(&table::TELEMETRY_GAPS),
            quarantine: Rows::new(&table::SYNC_QUARANTINE),
            unknown: Rows::new(&table::SYNC_UNKNOWN),
            kept: Rows::new(&table::SYNC_LINES),
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
    pub(crate) fn immutable(&self) -> [&Rows; 8] {
        [
            &self.records,
            &self.emergencies,
            &self.history,
            &self.basins,
            &self.gaps,
            &self.quarantine,
            &self.unknown,
            &self.kept,
        ]
    }

    /// Of these, the tables that only entries have rows in.
    pub(crate) fn data(&self) -> [&Rows; 5] {
        [&self.records, &self.emergencies, &self.history, &self.basins, &self.gaps]
    }

    /// Leaves out what belongs to these sessions, apart from the audit trail.
    pub(crate) fn without(mut self, sessions: &BTreeSet<String>) -> Self {
        self.records = self.records.without(sessions);
        self.emergencies = self.emergencies.without(sessions);
        self.basins = self.basins.without(sessions);
        self.gaps = self.gaps.without(sessions);
        self.quarantine = self.quarantine.without(sessions);
        self.unknown = self.unknown.without(sessions);
        self.kept = self.kept.without(sessions);
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

    /// Adds the rows of a line, and the line itself where they do not say all. `rewritten` is room to
    /// try that.
    fn add_or_keep(
        &mut self,
        line_no: i32,
        content: &Content,
        raw: &[u8],
        rewritten: &mut Vec<u8>,
    ) {
        let added = self.add(line_no, content, raw);
        let changed = self.texts.take_changed().then(Refusal::changed_text);
        let refusal = added.err().or(changed);
        if refusal.is_some() || !lines::comes_back(content, raw, rewritten) {
            self.keep(line_no, content, raw);
        }
        if let Some(refusal) = refusal {
            self.quarantine(line_no, content, raw, refusal);
        }
    }

    pub(crate) fn session_of_content(&mut self, content: &Content) -> Field {
        self.session_of(lines::named_session(content))
    }

    fn quarantine(&mut self, line_no: i32, content: &Content, raw: &[u8], refusal: Refusal) {
        let session = self.session_of_content(content);
        self.quarantine.push(quarantine::row(&self.place, line_no, session, raw, refusal));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tidelog::SessionId;
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
        let place =
            Place { store_no: 1, segment_no: 2, segment, session, attempt: Some(1), first_line: 0 };
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
    fn a_line_that_its_row_does_not_tell_is_kept() {
        let rows = rows(
            Some("s"),
            &[
                "\"step\":1,\"telemetry\":{}",
                "\"event\":\"session_started\",\"attempt\":1",
                "\"event\":\"from_the_future\"",
                "\"step\":\"no step\"",
            ],
        );
        let kept: Vec<&Field> = rows.kept.column(1);
        // line 1 has no checksum, so its row would come back with one
        assert_eq!(kept, [0, 1, 2, 3, 4].map(Field::Int4).iter().collect::<Vec<_>>());
        assert_eq!(rows.kept.column(3)[0], &Field::Bytes(b"header".into()));
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
