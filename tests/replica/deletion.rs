//! What the store deletes is gone from the replica, and nothing brings it back.

use std::process::Command;

use super::*;
use crate::support::compare::check_replica;
use crate::support::program;

fn id(text: &str) -> SessionId {
    SessionId::new(text).unwrap()
}

const TABLES: [&str; 7] = [
    "telemetry_sessions",
    "telemetry_records",
    "emergency_events",
    "basin_history",
    "checkpoints",
    "session_parts",
    "sync_quarantine",
];

fn check_gone(client: &mut Client, session: &str) {
    for table in TABLES {
        let rows = count(client, &format!("{table} WHERE session_id = '{session}'"));
        assert_eq!(rows, 0, "{table}");
    }
}

#[test]
fn a_session_that_the_store_deleted_comes_back_by_no_way() {
    let (files, database) = (Files::new(), TestDatabase::create());
    every_kind(&files);
    files.records("run-2", 3);
    once(&files, &database).unwrap();
    let backup = database.copy();
    files.store.delete_session(&id("run-1")).unwrap();
    once(&files, &database).unwrap();
    let from_nothing = TestDatabase::create();
    // A backup from before, a database that is new, and all lines once more.
    database
        .client()
        .batch_execute(
            "UPDATE sync_segments SET next_line = 0, next_byte = 0, sealed = false,
                                      chain_hash = decode(repeat('00', 32), 'hex')",
        )
        .unwrap();
    for replica in [&backup, &from_nothing, &database] {
        once(&files, replica).unwrap();
        check_gone(&mut replica.client(), "run-1");
        check_replica(&files.store, &mut replica.client());
    }
    files.store.rebuild_index(&mut |_| {}).unwrap();
    check_replica(&files.store, &mut database.client());
}

#[test]
fn a_deletion_takes_the_parts_in_other_stores_and_those_to_come() {
    let (files, other, database) = (Files::new(), Files::new(), TestDatabase::create());
    files.records("run-1", 5);
    let rank = other.session("run-1");
    record(&rank, 0..5);
    once(&files, &database).unwrap();
    once(&other, &database).unwrap();
    files.store.delete_session(&id("run-1")).unwrap();
    once(&files, &database).unwrap();
    record(&rank, 5..9);
    rank.end(Outcome::Completed).unwrap();
    once(&other, &database).unwrap();
    check_gone(&mut database.client(), "run-1");
}

#[test]
fn the_command_deletes_only_when_told_to() {
    let files = Files::new();
    every_kind(&files);
    let delete = |more: &[&str]| {
        let mut command = Command::new(program("tidelog"));
        command.arg("--store").arg(files.store.root()).args(["delete", "run-1"]).args(more);
        command.output().unwrap()
    };
    let asked = delete(&[]);
    assert_eq!(asked.status.code(), Some(2));
    let text = String::from_utf8(asked.stderr).unwrap();
    assert!(text.contains("session run-1 with 10 records and 1 checkpoint file"), "{text}");
    assert_eq!(files.store.sessions().unwrap().len(), 1);
    assert!(delete(&["--yes"]).status.success());
    assert_eq!(files.store.sessions().unwrap().len(), 0);
    assert_eq!(delete(&["--yes"]).status.code(), Some(1));
}
