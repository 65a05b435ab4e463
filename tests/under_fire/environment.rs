//! The machine around a session fails: `scripts/faults environment`, and what needs no machine.

use std::fs;
use std::path::{Path, PathBuf};

use tidelog::{
    CheckpointId, Emergency, EventId, NewCheckpoint, Recorded, Session, SessionOptions, Value,
};
use tidelog_faults::environment;

use super::check;
use crate::support::{TestStore, is_root, program, session_id, telemetry};

/// Of the cases, those that need neither root nor loop devices.
const CASES_FOR_ANYBODY: usize = 6;
/// All of them.
const CASES: usize = 24;

#[test]
fn training_goes_on_whatever_the_machine_does() {
    let cases = if is_root() { CASES } else { CASES_FOR_ANYBODY };
    check(&environment::run(program("tidelog-faults"), 7).unwrap(), cases);
}

/// A session in a store one of whose folders is a file now.
fn session_without(store: &TestStore, folder: &str, options: SessionOptions) -> (Session, PathBuf) {
    let session = store.store().start_session_with(session_id("run-7"), options).unwrap();
    session.record_telemetry(1, &telemetry(0.5)).unwrap();
    let folder = store.root().join(folder);
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "in the way").unwrap();
    (session, folder)
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn a_checkpoint_whose_entry_was_refused_can_be_saved_again() {
    let store = TestStore::new();
    let (session, in_the_way) =
        session_without(&store, "logs/telemetry", SessionOptions::default());
    session.persist().unwrap_err();
    let new = || NewCheckpoint {
        checkpoint_id: Some(CheckpointId::new("c-1").unwrap()),
        ..NewCheckpoint::new(Value::Null, 0.5)
    };
    session.save_checkpoint(new()).unwrap_err();
    assert_eq!(files(&store.root().join("checkpoints")), 0);
    fs::remove_file(in_the_way).unwrap();
    session.save_checkpoint(new()).unwrap();
    session.end(tidelog::Outcome::Completed).unwrap();
}

#[test]
fn a_failed_persist_is_told_once_though_the_next_segment_has_to_wait() {
    let store = TestStore::new();
    let (session, in_the_way) =
        session_without(&store, "logs/telemetry", SessionOptions::default());
    session.persist().unwrap_err();
    assert_eq!(session.record_telemetry(2, &telemetry(0.5)).unwrap(), Recorded::Missed);
    fs::remove_file(in_the_way).unwrap();
    let event = EventId::new("e-1").unwrap();
    session.record_emergency(Emergency::new(event, "collapse", "high")).unwrap();
    session.persist().unwrap();
}

#[test]
fn a_full_segment_that_no_other_can_follow_takes_more_without_trying_each_time() {
    let store = TestStore::new();
    let options = SessionOptions { segment_bytes_max: 1, ..SessionOptions::default() };
    let (session, in_the_way) = session_without(&store, "active", options);
    assert_eq!(session.record_telemetry(2, &telemetry(0.5)).unwrap(), Recorded::Kept);
    fs::remove_file(in_the_way).unwrap();
    let segments = store.root().join("logs/telemetry");
    let before = files(&segments);
    assert_eq!(session.record_telemetry(3, &telemetry(0.5)).unwrap(), Recorded::Kept);
    assert_eq!(files(&segments), before);
}
