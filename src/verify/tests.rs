use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::*;
use crate::{
    Array, CheckpointId, Emergency, EventId, NewCheckpoint, Outcome, SessionId, Telemetry, Value,
};

/// A store of one ended session: header, start, three records, a checkpoint and its rank, end.
fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let session = store.start_session(SessionId::new("run").unwrap()).unwrap();
    for step in 0..3 {
        session.record_telemetry(step, &Telemetry::default()).unwrap();
    }
    let weights = ndarray::Array1::<f32>::zeros(100);
    let state = Value::Array(Array::from_ndarray(&weights));
    let mut checkpoint = NewCheckpoint::new(state, 0.7);
    checkpoint.checkpoint_id = Some(CheckpointId::new("c").unwrap());
    session.save_checkpoint(checkpoint).unwrap();
    session.end(Outcome::Completed).unwrap();
    (folder, store)
}

fn segment(store: &Store) -> PathBuf {
    store.root().join("logs/telemetry/session_run.jsonl")
}

fn change_byte(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn verify(store: &Store) -> VerifyReport {
    store.verify(&mut |_| {}).unwrap()
}

fn kinds(store: &Store) -> Vec<FindingKind> {
    verify(store).findings.iter().map(|finding| finding.kind).collect()
}

#[test]
fn a_sound_store_has_no_findings_and_totals() {
    let (_folder, store) = store();
    let report = verify(&store);
    assert_eq!(report.findings, []);
    assert!(report.is_sound());
    assert_eq!((report.segments, report.entries, report.records), (1, 7, 3));
    assert_eq!(report.checkpoints, 1);
    assert_eq!(report.journal_bytes, fs::metadata(segment(&store)).unwrap().len());
}

#[test]
fn a_changed_byte_is_found_by_file_line_and_byte() {
    let (_folder, store) = store();
    let text = fs::read_to_string(segment(&store)).unwrap();
    let byte = text.match_indices('\n').nth(2).unwrap().0 + 1;
    change_byte(&segment(&store), byte + 40);
    let report = verify(&store);
    let [finding] = &report.findings[..] else { panic!("{:?}", report.findings) };
    assert_eq!(finding.kind, FindingKind::LineInvalid);
    assert_eq!(finding.path, Path::new("logs/telemetry/session_run.jsonl"));
    assert_eq!((finding.line, finding.byte), (Some(3), Some(byte as u64)));
    assert_eq!(report.records, 2);
}

#[test]
fn a_torn_tail_of_a_sealed_segment_is_damage() {
    let (_folder, store) = store();
    append(&segment(&store), b"{\"timestamp");
    assert_eq!(kinds(&store), [FindingKind::TailTorn]);
}

#[test]
fn a_torn_tail_of_a_live_segment_is_no_finding() {
    let (_folder, store) = store();
    let session = store.start_session(SessionId::new("live").unwrap()).unwrap();
    append(&store.root().join("logs/telemetry/session_live.jsonl"), b"{\"timestamp");
    assert_eq!(kinds(&store), []);
    drop(session);
}

#[test]
fn a_lost_or_changed_checkpoint_is_damage_and_an_orphan_is_none() {
    let (_folder, store) = store();
    let folder = store.root().join("checkpoints");
    fs::copy(folder.join("c.npz"), folder.join("orphan.npz")).unwrap();
    change_byte(&folder.join("c.npz"), 200);
    assert_eq!(kinds(&store), [FindingKind::CheckpointDamaged, FindingKind::CheckpointOrphan]);
    fs::remove_file(folder.join("c.npz")).unwrap();
    let report = verify(&store);
    assert_eq!(report.findings[0].kind, FindingKind::CheckpointMissing);
    assert_eq!((report.damage_count, report.note_count), (1, 1));
}

#[test]
fn a_checkpoint_saved_again_after_pruning_is_looked_at() {
    let (_folder, store) = store();
    let id = CheckpointId::new("c").unwrap();
    store.prune_checkpoint(&id).unwrap();
    let session = store.start_session(SessionId::new("again").unwrap()).unwrap();
    let again = NewCheckpoint::new(Value::Null, 0.8);
    session.save_checkpoint(NewCheckpoint { checkpoint_id: Some(id), ..again }).unwrap();
    assert_eq!(kinds(&store), []);
    fs::remove_file(store.root().join("checkpoints/c.npz")).unwrap();
    assert_eq!(kinds(&store), [FindingKind::CheckpointMissing]);
}

#[test]
fn the_file_of_a_pruned_checkpoint_is_a_note() {
    let (_folder, store) = store();
    let file = store.root().join("checkpoints/c.npz");
    let bytes = fs::read(&file).unwrap();
    store.prune_checkpoint(&CheckpointId::new("c").unwrap()).unwrap();
    assert_eq!(kinds(&store), []);
    fs::write(file, bytes).unwrap();
    assert_eq!(kinds(&store), [FindingKind::CheckpointUnremoved]);
    assert!(verify(&store).is_sound());
}

#[test]
fn a_temporary_file_of_a_killed_process_is_a_note() {
    let (_folder, store) = store();
    let path = store.root().join("checkpoints/.tidelog-x1y2z3");
    fs::write(&path, "part").unwrap();
    assert_eq!(kinds(&store), []);
    let file = OpenOptions::new().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    assert_eq!(kinds(&store), [FindingKind::TemporaryLeftover]);
    assert!(verify(&store).is_sound());
    let status = store.status().unwrap();
    assert_eq!((status.leftover_files, status.leftover_bytes), (1, 4));
}

#[test]
fn a_lost_copy_of_an_emergency_is_a_note() {
    let (_folder, store) = store();
    let session = store.start_session(SessionId::new("e").unwrap()).unwrap();
    let id = EventId::new("e-1").unwrap();
    session.record_emergency(Emergency::new(id, "collapse", "high")).unwrap();
    assert_eq!(kinds(&store), []);
    fs::remove_file(store.root().join("logs/emergency/emergency_e-1.json")).unwrap();
    assert_eq!(kinds(&store), [FindingKind::EmergencyCopyMissing]);
    assert!(verify(&store).is_sound());
}

#[test]
fn files_that_are_no_segments_are_damage() {
    let (_folder, store) = store();
    let folder = store.root().join("logs/telemetry");
    fs::write(folder.join("empty.jsonl"), "").unwrap();
    fs::write(folder.join("other.jsonl"), "{}\n").unwrap();
    fs::copy(segment(&store), folder.join("twice.jsonl")).unwrap();
    let mut kinds = kinds(&store);
    kinds.sort_by_key(|kind| format!("{kind:?}"));
    let refused = FindingKind::FileRefused;
    assert_eq!(kinds, [refused, refused, FindingKind::SegmentTwice]);
}

#[test]
fn a_segment_of_another_store_is_damage_and_is_read() {
    let ((_folder, here), (_other_folder, other)) = (store(), store());
    let copy = here.root().join("logs/telemetry/session_copy.jsonl");
    fs::copy(segment(&other), copy).unwrap();
    let report = verify(&here);
    assert!(report.findings.iter().any(|found| found.kind == FindingKind::SegmentForeign));
    assert_eq!((report.segments, report.is_sound()), (2, false));
}

#[test]
fn a_marker_that_is_none_is_damage_and_keeps_nobody_from_writing() {
    let (_folder, store) = store();
    fs::write(store.root().join("active/x.json"), "{").unwrap();
    assert_eq!(kinds(&store), [FindingKind::MarkerInvalid]);
    let again = Store::open(store.root()).unwrap();
    again.start_session(SessionId::new("later").unwrap()).unwrap().end(Outcome::Completed).unwrap();
    assert_eq!(again.status().unwrap().refused_files.len(), 1);
}

#[test]
fn verifying_changes_no_file() {
    let (_folder, store) = store();
    append(&segment(&store), b"{\"torn");
    let before = fs::read(segment(&store)).unwrap();
    verify(&store);
    assert_eq!(fs::read(segment(&store)).unwrap(), before);
    assert!(!store.root().join("index.sqlite").exists());
}

#[test]
fn findings_beyond_the_limit_are_counted() {
    let (_folder, store) = store();
    append(&segment(&store), "damaged\n".repeat(FINDINGS_MAX + 5).as_bytes());
    let report = verify(&store);
    assert_eq!(report.findings.len(), FINDINGS_MAX);
    assert_eq!(report.damage_count, FINDINGS_MAX as u64 + 5);
}

#[test]
fn an_index_that_is_behind_or_up_to_date_is_sound() {
    let (_folder, store) = store();
    store.sessions().unwrap();
    assert_eq!(kinds(&store), []);
    let session = store.start_session(SessionId::new("later").unwrap()).unwrap();
    session.record_telemetry(1, &Telemetry::default()).unwrap();
    store.sessions().unwrap();
    session.record_telemetry(2, &Telemetry::default()).unwrap();
    session.end(Outcome::Completed).unwrap();
    assert_eq!(kinds(&store), []);
}

#[test]
fn a_row_that_is_missing_in_the_index_is_found() {
    let (_folder, store) = store();
    store.sessions().unwrap();
    let index = rusqlite::Connection::open(store.root().join("index.sqlite")).unwrap();
    index.execute("DELETE FROM telemetry_records WHERE step = 1", []).unwrap();
    let report = verify(&store);
    let [finding] = &report.findings[..] else { panic!("{:?}", report.findings) };
    let reason = "telemetry_records has 2 rows of logs/telemetry/session_run.jsonl, its lines \
                  give 3";
    assert_eq!((finding.kind, finding.reason.as_str()), (FindingKind::IndexDiffers, reason));
}

#[test]
fn bytes_that_changed_or_went_after_the_index_read_them_are_found() {
    let (_folder, store) = store();
    store.sessions().unwrap();
    let bytes = fs::read(segment(&store)).unwrap();
    change_byte(&segment(&store), bytes.len() - 5); // in the last line's checksum
    assert_eq!(kinds(&store)[..2], [FindingKind::LineInvalid, FindingKind::IndexDiffers]);
    let last = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap();
    fs::write(segment(&store), &bytes[..=last]).unwrap();
    let report = verify(&store);
    assert!(report.findings[0].reason.contains("the file lost some"), "{:?}", report.findings);
}

#[test]
fn an_index_that_is_no_database_is_a_note() {
    let (_folder, store) = store();
    fs::write(store.root().join("index.sqlite"), "not a database at all, no").unwrap();
    assert_eq!(kinds(&store), [FindingKind::IndexUnreadable]);
    assert!(verify(&store).is_sound());
}

#[test]
fn an_index_of_another_version_is_a_note() {
    let (_folder, store) = store();
    store.sessions().unwrap();
    let index = rusqlite::Connection::open(store.root().join("index.sqlite")).unwrap();
    index
        .execute_batch("UPDATE index_meta SET value = '0'; DELETE FROM telemetry_records")
        .unwrap();
    assert_eq!(kinds(&store), [FindingKind::IndexUnreadable]);
    assert_eq!(store.sessions().unwrap()[0].total_steps, 3);
    assert_eq!(kinds(&store), []);
}

/// Three thousand records, and among them what is none: a damaged line, lines of other programs, of
/// which one looks like a record for long, and a checkpoint.
fn long_store() -> (tempfile::TempDir, Store) {
    let (folder, store) = store();
    let session = store.start_session(SessionId::new("long").unwrap()).unwrap();
    let record = |steps: std::ops::Range<i64>| {
        for step in steps {
            session.record_telemetry(step, &Telemetry::default().with("loss", 0.5)).unwrap();
        }
    };
    let path = store.root().join("logs/telemetry/session_long.jsonl");
    record(0..1500);
    append(&path, b"no entry\n");
    let coords = serde_json::to_string(&vec![0.5; 64]).unwrap();
    for key in ["\"event\"", "\"\\u0065vent\""] {
        let line = format!(
            "{{\"timestamp\":\"2026-01-05T09:30:00.123456Z\",\"step\":1,\"telemetry\":{{}},\
             {key}:\"basin\",\"basin\":{{\"basin_coords\":{coords}}}}}\n"
        );
        append(&path, line.as_bytes());
    }
    session.save_checkpoint(NewCheckpoint::new(Value::Int(1), 0.7)).unwrap();
    record(1500..3000);
    session.end(Outcome::Completed).unwrap();
    (folder, store)
}

fn report(store: &Store) -> serde_json::Value {
    serde_json::to_value(verify(store)).unwrap()
}

#[test]
fn with_an_index_the_same_is_found_as_without() {
    let (_folder, store) = long_store();
    let without = report(&store);
    assert_eq!((&without["records"], &without["entries"]), (&3003.into(), &3013.into()));
    assert_eq!(without["findings"].as_array().unwrap().len(), 1);
    store.refresh_index(&mut |_| {}).unwrap();
    assert_eq!(report(&store), without);
}

#[test]
fn damage_in_what_the_index_has_read_is_found_by_line() {
    let (_folder, store) = long_store();
    store.refresh_index(&mut |_| {}).unwrap();
    let path = store.root().join("logs/telemetry/session_long.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let byte = text.match_indices('\n').nth(2500).unwrap().0 + 60;
    change_byte(&path, byte);
    let found = verify(&store).findings;
    let damaged = found.iter().find(|finding| finding.line == Some(2501)).unwrap();
    assert_eq!(damaged.kind, FindingKind::LineInvalid);
    assert!(found.iter().any(|finding| finding.kind == FindingKind::IndexDiffers));
}

#[test]
fn a_line_that_was_written_anew_with_its_checksum_is_found() {
    let (_folder, store) = long_store();
    store.refresh_index(&mut |_| {}).unwrap();
    let path = store.root().join("logs/telemetry/session_long.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let line = text.lines().find(|line| line.contains("\"step\":700,")).unwrap();
    let body = line.rsplit_once(",\"crc\"").unwrap().0.replace("0.5", "0.9");
    let anew = format!("{body},\"crc\":\"{:08x}\"}}", crc32fast::hash(body.as_bytes()));
    fs::write(&path, text.replace(line, &anew)).unwrap();
    let kinds: Vec<_> = verify(&store).findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [FindingKind::LineInvalid, FindingKind::IndexDiffers]);
}

#[test]
fn thoroughly_not_even_an_index_that_was_made_to_agree_is_believed() {
    let (_folder, store) = long_store();
    store.refresh_index(&mut |_| {}).unwrap();
    let path = store.root().join("logs/telemetry/session_long.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let line = text.lines().find(|line| line.contains("\"step\":700,")).unwrap();
    let anew = line.replace("\"step\":700,", "\"step\":900,");
    let text = text.replace(line, &anew);
    fs::write(&path, &text).unwrap();
    let db = rusqlite::Connection::open(store.root().join("index.sqlite")).unwrap();
    let marks = "SELECT segment_no, line_no, byte FROM index_marks WHERE byte > 99999";
    let marks: Vec<(i64, i64, i64)> = db
        .prepare(marks)
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(!marks.is_empty());
    for (segment, line, byte) in marks {
        let crc = crc32fast::hash(&text.as_bytes()[..usize::try_from(byte).unwrap()]);
        let sql = "UPDATE index_marks SET crc = ?1 WHERE segment_no = ?2 AND line_no = ?3";
        db.execute(sql, (crc, segment, line)).unwrap();
    }
    drop(db);
    let found = |report: VerifyReport| report.findings.iter().any(|it| it.line == Some(702));
    assert!(found(store.verify_thoroughly(&mut |_| {}).unwrap()));
}
