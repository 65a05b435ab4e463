//! What must be in the replica? Read from the files of stores, by other code than the library's.
//!
//! A line that is no JSON is one for the quarantine, one with an event of no known name is kept raw,
//! each other one is a row or a part of a folded one. A line without its newline is none.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::content::{Content, Place, at, row_text};
use super::fold::{Checkpoints, Parts};
use crate::Result;

/// Which lines are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent<'a> {
    /// All that are complete.
    Everything,
    /// Those before the cursor of their segment.
    Before(&'a BTreeMap<String, i64>),
}

/// What a replica of these stores holds.
///
/// # Errors
/// A file cannot be read, or a header is none.
pub(crate) fn content(stores: &[PathBuf], extent: Extent<'_>) -> Result<Content> {
    let mut reading = Reading::default();
    for store in stores {
        for kind in ["telemetry", "store"] {
            for path in files(&store.join("logs").join(kind))? {
                reading.segment(&fs::read(&path)?, extent)?;
            }
        }
    }
    reading.parts.fold(&mut reading.content);
    reading.checkpoints.fold(&mut reading.content);
    Ok(reading.content)
}

/// Nothing, where there is no folder yet.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let paths: std::io::Result<Vec<PathBuf>> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect();
    Ok(paths?.into_iter().filter(|path| path.extension().is_some_and(|it| it == "jsonl")).collect())
}

#[derive(Default)]
struct Reading {
    content: Content,
    parts: Parts,
    checkpoints: Checkpoints,
}

/// What a header says.
struct Segment {
    id: String,
    store: String,
    session: Value,
    attempt: Option<i64>,
}

impl Reading {
    fn segment(&mut self, bytes: &[u8], extent: Extent<'_>) -> Result<()> {
        let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        lines.pop(); // what follows the last newline is no line
        let Some((header, lines)) = lines.split_first() else { return Ok(()) };
        let segment = Segment::parse(header)?;
        let there = i64::try_from(lines.len())? + 1;
        let end = match extent {
            Extent::Everything => there,
            Extent::Before(cursors) => cursors.get(&segment.id).copied().unwrap_or(0).min(there),
        };
        if end <= 1 {
            return Ok(());
        }
        if let Some(session) = segment.session.as_str() {
            self.parts.begin(&segment.id, session, segment.attempt);
        }
        for (number, line) in (1..end).zip(lines) {
            self.line(&segment, number, line);
        }
        // A store may be there twice, one of them with fewer lines.
        let known = self.content.cursors.entry(segment.id).or_default();
        *known = end.max(*known);
        Ok(())
    }

    fn line(&mut self, segment: &Segment, number: i64, raw: &[u8]) {
        let place = (segment.id.clone(), number);
        let Ok(line) = serde_json::from_slice::<Value>(raw) else {
            return self.row(place, "sync_quarantine", json!({ "raw": hex(raw) }));
        };
        let session = &segment.session;
        let own_row = |kind| own_row(session, &line, kind);
        match at(&line, "event").as_str() {
            None => self.row(place, "telemetry_records", record(session, &line)),
            Some("session_started") => self.parts.start(&segment.id, at(&line, "timestamp")),
            Some("session_ended") => self.parts.end(&segment.id, session, &line),
            Some("emergency") => self.row(place, "emergency_events", own_row("emergency")),
            Some("basin") => self.row(place, "basin_history", own_row("basin")),
            Some("gap") => self.row(place, "telemetry_gaps", own_row("gap")),
            Some(event) => match event.strip_prefix("checkpoint_") {
                Some(action) => self.checkpoint(segment, place, action, &line),
                None => {
                    let row = json!({ "event": event, "session_id": session, "raw": hex(raw) });
                    self.row(place, "sync_unknown", row);
                }
            },
        }
    }

    fn checkpoint(&mut self, segment: &Segment, place: Place, action: &str, line: &Value) {
        let time = at(line, "timestamp");
        let created = at(line, "checkpoint");
        let id = if action == "created" {
            at(created, "checkpoint_id")
        } else {
            at(line, "checkpoint_id")
        };
        let name = id.as_str().unwrap_or_default();
        match action {
            "created" => {
                self.checkpoints.create(&segment.store, name, time, &segment.session, created)
            }
            "pruned" => self.checkpoints.prune(&segment.store, name, time),
            _ => {}
        }
        let row = json!({ "checkpoint_id": id, "action": action, "timestamp": time,
                          "details": at(line, "details") });
        self.row(place, "checkpoint_history", row);
    }

    fn row(&mut self, place: Place, table: &'static str, row: Value) {
        self.content.rows.insert((place, table), row_text(&row));
    }
}

impl Segment {
    fn parse(header: &[u8]) -> Result<Self> {
        let header: Value = serde_json::from_slice(header)?;
        let text = |key: &str| at(&header, key).as_str().map(str::to_owned);
        Ok(Self {
            id: text("segment").ok_or("a header without a segment")?,
            store: text("store").ok_or("a header without a store")?,
            session: at(&header, "session").clone(),
            attempt: at(&header, "attempt").as_i64(),
        })
    }
}

/// Telemetry with a column of its own; all else is extra.
const COLUMNS: [&str; 16] = [
    "phi",
    "kappa_eff",
    "regime",
    "basin_distance",
    "recursion_depth",
    "geodesic_distance",
    "curvature",
    "fisher_metric_trace",
    "breakdown_pct",
    "coherence_drift",
    "emergency",
    "meta_awareness",
    "generativity",
    "grounding",
    "temporal_coherence",
    "external_coupling",
];

/// What an event says of itself, with what its line says of it.
fn own_row(session: &Value, line: &Value, kind: &str) -> Value {
    let mut row = at(line, kind).as_object().cloned().unwrap_or_default();
    row.insert("session_id".into(), session.clone());
    row.insert("timestamp".into(), at(line, "timestamp").clone());
    if let Some(step) = line.get("step") {
        row.insert("step".into(), step.clone());
    }
    row.into()
}

fn record(session: &Value, line: &Value) -> Value {
    let telemetry = at(line, "telemetry").as_object().cloned().unwrap_or_default();
    let is_column = |(key, _): &(String, Value)| COLUMNS.contains(&key.as_str());
    let (mut row, extra): (Map<_, _>, Map<_, _>) = telemetry.into_iter().partition(is_column);
    if !extra.is_empty() {
        row.insert("extra".into(), extra.into());
    }
    for (key, value) in
        [("session_id", session), ("timestamp", at(line, "timestamp")), ("step", at(line, "step"))]
    {
        row.insert(key.into(), value.clone());
    }
    row.into()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
