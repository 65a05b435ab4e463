//! Emergency files: one event each, all new ones of a run in sealed segments of the store's own.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::Run;
use super::fields::Fields;
use super::known::Known;
use super::report::Area;
use super::time::LocalTimes;
use crate::emergency;
use crate::entry::{Body, Emergency, Entry, line};
use crate::error::Result;
use crate::ids::{EventId, SessionId};
use crate::journal::Header;
use crate::journal::whole::WholeSegment;

/// Longest JSON file that is read whole.
const JSON_FILE_BYTES_MAX: u64 = 16 << 20;

/// One segment holds so many events at most, and the memory of an import too.
const BATCH_EVENTS: usize = 1024;
const BATCH_BYTES: u64 = 16 << 20;

/// Events on their way into a segment.
#[derive(Default)]
struct Pending {
    entries: Vec<Entry>,
    bytes: u64,
}

/// Imports emergency files.
///
/// Order on disk: the segment, whole; then the standalone copies. A crash in between leaves
/// events without a copy; the entry is what counts.
///
/// # Errors
/// The store cannot be written. What is wrong with a file is reported.
pub(super) fn import_files<'p>(
    run: &mut Run<'_>,
    known: &mut Known,
    paths: impl Iterator<Item = &'p Path>,
) -> Result<()> {
    let mut pending = Pending::default();
    for path in paths {
        match read_event(run, known, path) {
            Ok((entry, bytes)) => take(run, known, &mut pending, path, entry, bytes)?,
            Err(reason) => run.recorder.refuse(Area::Emergencies, path, reason)?,
        }
        if pending.entries.len() >= BATCH_EVENTS || pending.bytes >= BATCH_BYTES {
            write(run, std::mem::take(&mut pending))?;
        }
        run.file_done(path);
    }
    write(run, pending)
}

/// Takes an event unless one of its id is known.
fn take(
    run: &mut Run<'_>,
    known: &mut Known,
    pending: &mut Pending,
    path: &Path,
    entry: Entry,
    bytes: u64,
) -> Result<()> {
    let Body::Emergency(event) = &entry.body else { return Ok(()) };
    match known.same_event(&event.event_id, event) {
        Some(true) => {
            run.recorder.report.emergencies.already_there += 1;
            Ok(())
        }
        Some(false) => {
            let reason = format!("another event of the id {} is in the store", event.event_id);
            run.recorder.refuse(Area::Emergencies, path, reason)
        }
        None => {
            if let Err(error) = line::check(&entry) {
                return run.recorder.refuse(Area::Emergencies, path, error.to_string());
            }
            run.recorder.report.emergencies.taken += 1;
            known.add_event(event);
            pending.entries.push(entry);
            pending.bytes += bytes;
            Ok(())
        }
    }
}

fn write(run: &Run<'_>, pending: Pending) -> Result<()> {
    if run.dry_run || pending.entries.is_empty() {
        return Ok(());
    }
    let root = run.store.root();
    let header = Header::new(run.store.id(), None);
    let mut segment = WholeSegment::of_store(root)?;
    for entry in &pending.entries {
        segment.append(entry)?;
    }
    segment.finish(&header)?;
    for entry in &pending.entries {
        if let Body::Emergency(event) = &entry.body {
            emergency::write_copy(root, &event.event_id, entry, &header.segment.short())?;
        }
    }
    Ok(())
}

/// Reads a small file whole.
pub(super) fn read_json_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(JSON_FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > JSON_FILE_BYTES_MAX {
        return Err(format!("is longer than {JSON_FILE_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

fn read_event(run: &mut Run<'_>, known: &Known, path: &Path) -> Result<(Entry, u64), String> {
    let bytes = read_json_file(path)?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut entry = event(&bytes, &stem, &mut run.times)?;
    if let Body::Emergency(event) = &mut entry.body
        && event.session_id.is_none()
    {
        event.session_id = known.session_at(entry.timestamp);
    }
    Ok((entry, bytes.len() as u64))
}

/// An event as its file has it. Its id is the file's own, else the file's name.
fn event(bytes: &[u8], stem: &str, times: &mut LocalTimes) -> Result<Entry, String> {
    let mut fields = Fields::parse(bytes)?;
    let mut inner = fields
        .object("emergency")
        .ok_or("is no emergency event: it has no \"emergency\" object")?;
    let time = fields.text("timestamp").ok_or("has no text \"timestamp\"")?;
    let id = inner.text("event_id").or_else(|| fields.text("event_id"));
    let session = fields.text("session_id").or_else(|| inner.text("session_id"));
    let needed = |text: Option<String>, key: &str| {
        text.ok_or_else(|| format!("is no emergency event: its \"emergency\" has no text {key:?}"))
    };
    let emergency = Emergency {
        event_id: EventId::new(id.unwrap_or_else(|| stem.to_owned()))
            .map_err(|error| error.to_string())?,
        session_id: session.map(SessionId::new).transpose().map_err(|error| error.to_string())?,
        step: fields.integer("step").or_else(|| inner.integer("step")),
        reason: needed(inner.text("reason"), "reason")?,
        severity: needed(inner.text("severity"), "severity")?,
        metric: inner.text("metric"),
        value: inner.float("value"),
        threshold: inner.float("threshold"),
        telemetry: fields.object("telemetry").map(Fields::into_telemetry),
        metadata: {
            fields.put_back("emergency", inner);
            fields.into_metadata()
        },
    };
    Ok(Entry { timestamp: times.read(&time)?, body: Body::Emergency(Box::new(emergency)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    fn read(json: &str) -> Result<Emergency, String> {
        let mut times = LocalTimes::new(jiff::tz::TimeZone::UTC);
        match event(json.as_bytes(), "emergency_7", &mut times)?.body {
            Body::Emergency(emergency) => Ok(*emergency),
            _ => Err("another event".into()),
        }
    }

    #[test]
    fn an_event_without_an_id_is_called_like_its_file() {
        let event = r#"{"timestamp": "2025-12-18T08:25:34", "emergency": {"reason": "collapse",
            "severity": "critical", "metric": "phi", "value": NaN, "threshold": 0.5}}"#;
        let event = read(event).unwrap();
        assert_eq!((event.event_id.as_str(), event.session_id), ("emergency_7", None));
        assert!(event.value.unwrap().is_nan());
        assert_eq!(event.metadata, None);
    }

    #[test]
    fn ids_in_the_file_are_kept_and_unknown_keys_too() {
        let event = r#"{"timestamp": "2025-12-18T08:25:34", "session_id": "s", "step": 4,
            "emergency": {"event_id": "e", "reason": "r", "severity": "low", "value": "high"}}"#;
        let event = read(event).unwrap();
        assert_eq!((event.event_id.as_str(), event.step), ("e", Some(4)));
        let inner = Value::Dict(vec![("value".into(), "high".into())]);
        assert_eq!(event.metadata, Some(Value::Dict(vec![("emergency".into(), inner)])));
    }

    #[test]
    fn a_report_of_something_else_is_refused() {
        for json in [
            r#"{"timestamp": "2026-01-04T11:35:03", "abort_reasons": []}"#,
            r#"{"timestamp": "2026-01-04T11:35:03", "emergency": {"reason": "r"}}"#,
            r#"{"emergency": {"reason": "r", "severity": "low"}}"#,
            "[]",
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}
