//! What is between the files and PostgreSQL breaks; short runs of `scripts/faults agent-crash`,
//! `proxy`, `rewind`, `pooler`, `stall`, `disk`, `partition` and `model`.
//!
//! Each makes servers of its own with the programs that `scripts/postgres start` puts on the path.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use tidelog::Outcome;
use tidelog_faults::agent;
use tidelog_sync::{Agent, Target};

use super::{check, options};
use crate::support::postgres::TestDatabase;
use crate::support::{TestStore, is_root, session_id, telemetry};

#[test]
fn an_agent_and_a_server_that_are_killed_lose_and_double_nothing() {
    check(&agent::crash(&options(3)).unwrap(), 14);
}

#[test]
fn a_connection_that_fails_at_any_byte_costs_no_line() {
    let report = agent::proxy(&options(12)).unwrap();
    check(&report, 12);
    assert!(report.counts["cut after COMMIT"] > 0, "{report}");
}

#[test]
fn a_server_that_was_set_back_catches_up_and_it_is_told_once() {
    check(&agent::rewind(&options(2)).unwrap(), 2);
}

#[test]
fn four_agents_pass_through_a_pool_of_two() {
    check(&agent::pooler(&options(4)).unwrap(), if is_root() { 3 } else { 0 });
}

#[test]
fn a_backend_that_stops_in_a_batch_is_left_and_may_go_on() {
    check(&agent::stall(&options(1)).unwrap(), 2);
}

#[test]
fn a_server_that_takes_nothing_is_waited_for() {
    check(&agent::disk(&options(1)).unwrap(), if is_root() { 3 } else { 2 });
}

#[test]
fn a_network_that_goes_away_is_waited_for() {
    check(&agent::partition(&options(2)).unwrap(), if is_root() { 2 } else { 0 });
}

#[test]
fn random_actions_of_everybody_leave_what_the_files_say() {
    check(&agent::model(&options(50)).unwrap(), 50);
}

/// A store with a damaged line, and its replica.
fn replica() -> (TestStore, TestDatabase) {
    let (store, database) = (TestStore::new(), TestDatabase::create());
    let session = store.store().start_session(session_id("run-1")).unwrap();
    for step in 0..20 {
        session.record_telemetry(step, &telemetry(0.5).with("loss", 0.1)).unwrap();
    }
    let file = store.root().join("logs/telemetry/session_run-1.jsonl");
    OpenOptions::new().append(true).open(file).unwrap().write_all(b"no entry\n").unwrap();
    session.end(Outcome::Completed).unwrap();
    let target = Target::parse(Some(&database.url()), &|_| None).unwrap();
    Agent::new(&store.root(), target, |_| {}).unwrap().once(Duration::ZERO).unwrap();
    (store, database)
}

/// What the oracles of the end and of any moment before say after this was done to the replica.
fn told_after(sql: &str) -> [Vec<String>; 2] {
    let (store, database) = replica();
    let mut client = database.client();
    client.batch_execute(sql).unwrap();
    let stores: [PathBuf; 1] = [store.root()];
    [agent::exact(&stores, &mut client).unwrap(), agent::prefix(&stores, &mut client).unwrap()]
}

#[test]
fn the_oracle_accepts_a_replica_that_is_exact() {
    assert_eq!(told_after(""), [[""; 0]; 2]);
}

#[test]
fn the_oracle_notices_whatever_is_not_as_the_files_say() {
    for sql in [
        "DELETE FROM telemetry_records WHERE step = 7",
        "UPDATE telemetry_records SET phi = 0.5000000000000001 WHERE step = 7",
        "UPDATE telemetry_records SET line_no = 500 WHERE step = 7",
        "INSERT INTO telemetry_records (session_id, step) VALUES ('run-1', 7)",
        "DELETE FROM sync_quarantine",
        "UPDATE sync_quarantine SET raw = ''",
        "UPDATE telemetry_sessions SET status = 'failed'",
        "UPDATE sync_segments SET next_line = next_line - 1",
    ] {
        let [exact, prefix] = told_after(sql);
        assert!(!exact.is_empty() && !prefix.is_empty(), "{sql}: {exact:?} {prefix:?}");
    }
}

#[test]
fn a_cursor_without_its_rows_is_noticed_and_a_replica_that_is_behind_only_in_the_end() {
    let behind = "UPDATE sync_segments SET next_line = 10;
                  DELETE FROM telemetry_records WHERE line_no >= 10; DELETE FROM sync_quarantine;
                  UPDATE telemetry_sessions SET status = 'active', ended_at = NULL";
    let [exact, prefix] = told_after(behind);
    assert!(!exact.is_empty(), "{exact:?}");
    assert_eq!(prefix, [""; 0]);
}
