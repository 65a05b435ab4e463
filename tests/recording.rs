//! Sessions: what a returned call promises.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use tidelog::{
    BasinCoords, BasinPoint, Body, CheckpointId, Emergency, EventId, NewCheckpoint, Outcome,
    Session, Store, Value,
};

use crate::support::{TestStore, entries, session_id, telemetry};

fn steps(root: &std::path::Path) -> Vec<i64> {
    let records = entries(root).0.into_iter().filter_map(|entry| match entry.body {
        Body::Record(record) => Some(record.step),
        _ => None,
    });
    records.collect()
}

fn outcomes(root: &std::path::Path) -> Vec<Outcome> {
    let ends = entries(root).0.into_iter().filter_map(|entry| match entry.body {
        Body::SessionEnded(ended) => Some(ended.outcome),
        _ => None,
    });
    ends.collect()
}

fn started(store: &TestStore, id: &str) -> Session {
    store.store().start_session(session_id(id)).unwrap()
}

#[test]
fn what_was_recorded_is_in_a_file_that_a_person_finds() {
    let store = TestStore::new();
    let session = started(&store, "session_20251218_001");
    session.record_telemetry(42, &telemetry(0.72)).unwrap();
    let path = store.root().join("logs/telemetry/session_20251218_001.jsonl");
    let text = fs::read_to_string(path).unwrap();
    let record = text.lines().nth(2).unwrap();
    assert!(record.contains(r#""step":42,"telemetry":{"phi":0.72,"kappa_eff":64.2,"#), "{record}");
}

#[test]
fn a_resume_is_the_next_attempt_in_a_segment_of_its_own() {
    let store = TestStore::new();
    let first = started(&store, "run-7");
    first.record_telemetry(1, &telemetry(0.5)).unwrap();
    first.end(Outcome::Failed).unwrap();
    let second = started(&store, "run-7");
    second.record_telemetry(1, &telemetry(0.6)).unwrap();
    assert_eq!(second.attempt(), 2);
    assert_eq!(fs::read_dir(store.root().join("logs/telemetry")).unwrap().count(), 2);
    assert_eq!(steps(&store.root()), [1, 1]);
}

#[test]
fn ranks_that_write_one_session_at_once_share_its_attempt() {
    let store = TestStore::new();
    let ranks = [started(&store, "run-7"), started(&store, "run-7")];
    assert_eq!(ranks.map(|rank| rank.attempt()), [1, 1]);
}

#[test]
fn many_writers_start_one_session_at_once() {
    let store = TestStore::new();
    std::thread::scope(|scope| {
        for step in 0..8 {
            let store = Store::open(store.root()).unwrap();
            scope.spawn(move || {
                let session = store.start_session(session_id("run-7")).unwrap();
                session.record_telemetry(step, &telemetry(0.5)).unwrap();
                session.end(Outcome::Completed).unwrap();
            });
        }
    });
    let mut found = steps(&store.root());
    found.sort();
    assert_eq!(found, (0..8).collect::<Vec<_>>());
}

#[test]
fn a_dropped_session_is_aborted() {
    let store = TestStore::new();
    drop(started(&store, "run-7"));
    assert_eq!(outcomes(&store.root()), [Outcome::Aborted]);
}

#[test]
fn an_emergency_has_a_file_of_its_own() {
    let store = TestStore::new();
    let session = started(&store, "run-7");
    let mut emergency =
        Emergency::new(EventId::new("emergency_1734489600").unwrap(), "collapse", "high");
    emergency.value = Some(0.45);
    session.record_emergency(emergency).unwrap();
    let path = store.root().join("logs/emergency/emergency_1734489600.json");
    let copy: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(copy["session_id"], "run-7");
    assert_eq!(copy["emergency"]["value"], 0.45);
}

#[test]
fn a_field_given_in_extra_is_refused_and_nothing_is_written() {
    let store = TestStore::new();
    let session = started(&store, "run-7");
    for (name, value) in [("phi", "high".into()), ("grounding", 1_i64.into())] {
        let mut telemetry = telemetry(0.5);
        telemetry.extra.insert(name.into(), value);
        let error = session.record_telemetry(1, &telemetry).unwrap_err().to_string();
        assert!(error.contains(&format!("has {name:?} in extra, which is a field")), "{error}");
    }
    assert!(steps(&store.root()).is_empty());
}

#[test]
fn a_record_longer_than_a_line_is_refused_and_the_next_one_is_kept() {
    let store = TestStore::new();
    let session = started(&store, "run-7");
    let long = "x".repeat(tidelog::LINE_BYTES_MAX);
    assert!(session.record_telemetry(1, &telemetry(0.5).with("note", long)).is_err());
    session.record_telemetry(2, &telemetry(0.5)).unwrap();
    assert_eq!(steps(&store.root()), [2]);
}

#[test]
fn a_checkpoint_never_replaces_another() {
    let store = TestStore::new();
    let session = started(&store, "run-7");
    let mut new = NewCheckpoint::new(Value::from("state"), 0.723);
    new.checkpoint_id = Some(CheckpointId::new("best").unwrap());
    session.save_checkpoint(new.clone()).unwrap();
    let error = session.save_checkpoint(new).unwrap_err();
    assert!(error.to_string().contains("checkpoint best exists"), "{error}");
}

#[test]
fn a_checkpoint_whose_entry_is_refused_leaves_no_file() {
    let store = TestStore::new();
    let session = started(&store, "run-7");
    let mut new = NewCheckpoint::new(Value::from("state"), 0.5);
    new.checkpoint_id = Some(CheckpointId::new("best").unwrap());
    let twice = || ("note".into(), Value::Null);
    let long = Value::Bytes(vec![0; tidelog::LINE_BYTES_MAX]);
    for metadata in [Value::Dict(vec![twice(), twice()]), long] {
        let refused = NewCheckpoint { metadata: Some(metadata), ..new.clone() };
        session.save_checkpoint(refused).unwrap_err();
        assert!(!store.root().join("checkpoints").exists());
    }
    session.save_checkpoint(new).unwrap();
}

#[test]
fn a_checkpoint_holds_bytes_that_no_line_has_room_for() {
    let store = TestStore::new();
    let session = started(&store, "run-7");
    let state = Value::List(vec![Value::Bytes(vec![7; tidelog::LINE_BYTES_MAX]), Value::Int(1)]);
    let id = session.save_checkpoint(NewCheckpoint::new(state.clone(), 0.5)).unwrap();
    let loaded = store.store().load_checkpoint(&id).unwrap();
    assert_eq!(loaded.state_dict, state);
    assert_eq!(loaded.created.state_dict, state.summary().unwrap());
}

#[test]
fn checkpoints_of_one_second_get_ids_of_their_own() {
    let store = TestStore::new();
    let session = started(&store, "run-7");
    let save = || session.save_checkpoint(NewCheckpoint::new(Value::Null, 0.5)).unwrap();
    let ids: std::collections::BTreeSet<CheckpointId> = (0..5).map(|_| save()).collect();
    assert_eq!(ids.len(), 5);
}

#[test]
fn every_phi_makes_an_id() {
    let store = TestStore::new();
    let session = started(&store, "run-7");
    for phi in [f64::MAX, f64::NEG_INFINITY, f64::NAN, -1e300, 5e-324] {
        let id = session.save_checkpoint(NewCheckpoint::new(Value::Null, phi)).unwrap();
        assert!(CheckpointId::new(id.as_str()).is_ok(), "{id}");
    }
}

#[test]
fn only_a_new_best_is_ranked() {
    let store = TestStore::new();
    let session = started(&store, "run-7");
    for phi in [0.5, f64::NAN, 0.4, 0.6] {
        session.save_checkpoint(NewCheckpoint::new(Value::Null, phi)).unwrap();
    }
    let (all, _) = entries(&store.root());
    let ranked = all.iter().filter(|entry| matches!(entry.body, Body::Checkpoint(_))).count();
    assert_eq!(ranked, 2);
}

#[test]
fn basin_points_read_back() {
    let store = TestStore::new();
    let basin_coords = BasinCoords::from([0.25; 64]);
    let point = BasinPoint { step: Some(1), basin_coords, phi: Some(0.5), kappa: None };
    let session = started(&store, "run-7");
    session.record_basin(point.clone()).unwrap();
    let found = entries(&store.root()).0.into_iter().any(|e| e.body == Body::Basin(point.clone()));
    assert!(found);
}

#[test]
fn a_read_only_store_refuses_to_record() {
    let store = TestStore::new();
    let reader = Store::open_read_only(store.root()).unwrap();
    let error = reader.start_session(session_id("run-7")).unwrap_err();
    assert!(error.to_string().contains("open for reading only"), "{error}");
}

#[test]
fn a_folder_without_a_store_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Store::open_read_only(folder.path()).unwrap_err();
    assert!(error.to_string().contains("is not a tidelog store"), "{error}");
}

/// The body of a process that records until it is killed; does nothing in a usual test run.
#[test]
fn child_that_records_until_it_is_killed() {
    let Ok(root) = std::env::var("TIDELOG_TEST_CHILD_STORE") else { return };
    let session = Store::open(root).unwrap().start_session(session_id("run-7")).unwrap();
    let mut out = std::io::stdout().lock();
    for step in 0.. {
        session.record_telemetry(step, &telemetry(0.5)).unwrap();
        writeln!(out, "acknowledged {step}").unwrap();
    }
}

fn spawn_recorder(root: &std::path::Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "recording::child_that_records_until_it_is_killed", "--nocapture"])
        .env("TIDELOG_TEST_CHILD_STORE", root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills the recorder once it acknowledged `steps`; the last step that it acknowledged.
fn kill_after(mut child: Child, steps: i64) -> i64 {
    let mut last = -1;
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines.map_while(Result::ok) {
        if let Some(step) = line.strip_prefix("acknowledged ") {
            last = step.parse().unwrap();
        }
        if last == steps {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    last
}

#[test]
fn a_returned_call_survives_kill_9() {
    for kill_at in [0, 1, 10, 500, 2000] {
        let mut store = TestStore::new();
        let last = kill_after(spawn_recorder(&store.root()), kill_at);
        store.reopen();
        let found = steps(&store.root());
        assert!(last >= kill_at);
        assert!(found.len() as i64 > last, "{} records, {last} acknowledged", found.len());
        assert_eq!(found, (0..found.len() as i64).collect::<Vec<_>>());
    }
}

#[test]
fn the_session_of_a_killed_process_is_aborted_at_the_next_open() {
    let mut store = TestStore::new();
    kill_after(spawn_recorder(&store.root()), 3);
    store.reopen();
    assert_eq!(outcomes(&store.root()), [Outcome::Aborted]);
    store.reopen();
    assert_eq!(outcomes(&store.root()), [Outcome::Aborted]);
    assert_eq!(started(&store, "run-7").attempt(), 2);
}

#[test]
fn torn_tail_is_cut_on_open_and_nothing_else_is() {
    let mut store = TestStore::new();
    kill_after(spawn_recorder(&store.root()), 3);
    let path = store.root().join("logs/telemetry/session_run-7.jsonl");
    let whole = fs::read(&path).unwrap();
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"timestamp\":\"20").unwrap();
    store.reopen();
    let last_newline = whole.iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    assert_eq!(fs::read(&path).unwrap(), whole[..last_newline]);
    let reason = entries(&store.root()).0.into_iter().find_map(|entry| match entry.body {
        Body::SessionEnded(ended) => ended.reason,
        _ => None,
    });
    assert!(reason.unwrap().contains("bytes of an unfinished line were cut"));
}

#[test]
fn a_live_writers_segment_is_not_touched_by_another_open() {
    let store = TestStore::new();
    let session = started(&store, "run-7");
    session.record_telemetry(1, &telemetry(0.5)).unwrap();
    let other = Store::open(store.root()).unwrap();
    assert_eq!(other.status().unwrap().writers.len(), 1);
    session.record_telemetry(2, &telemetry(0.5)).unwrap();
    session.end(Outcome::Completed).unwrap();
    assert_eq!(outcomes(&store.root()), [Outcome::Completed]);
    assert_eq!(other.status().unwrap().writers.len(), 0);
}
