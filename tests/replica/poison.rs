//! A line that the server refuses stops nothing; a server that refuses everything stops the agent.

use tidelog_sync::sqlstate::Class;
use tidelog_sync::{Quarantine, Selection};

use super::*;

const REFUSE: &str = "ALTER TABLE telemetry_records ADD CONSTRAINT odd CHECK (phi IS NULL)";
const ACCEPT: &str = "ALTER TABLE telemetry_records DROP CONSTRAINT odd";

fn limited(files: &Files, database: &TestDatabase, lines: u32) -> Result<Report, SyncError> {
    agent_with(files, database, "", |_| {}).with_poison_limit(lines).once(Duration::ZERO)
}

#[test]
fn a_server_that_refuses_everything_stops_the_segment_and_says_why() {
    let (files, database, other) = (Files::new(), TestDatabase::create(), TestDatabase::create());
    files.records("run-1", 300);
    let session = files.session("run-2");
    session.record_telemetry(1, &Telemetry::default()).unwrap();
    session.end(Outcome::Completed).unwrap();
    let mut client = database.client();
    client.batch_execute(REFUSE).unwrap();
    // A second agent knows of the first one's lines.
    for _ in 0..2 {
        let error = once(&files, &database).unwrap_err();
        assert_eq!(error.class(), Some(Class::Blocked), "{error}");
        let text = error.to_string();
        for part in ["line 102", "100 of the last 2000 lines", "23514", "--poison-limit above 100"]
        {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(count(&mut client, "sync_quarantine"), 100);
        assert_eq!(count(&mut client, "sync_segments WHERE sealed"), 1);
    }
    client.batch_execute(ACCEPT).unwrap();
    once(&files, &database).unwrap();
    let target = Target::parse(Some(&database.url()), &|_| None).unwrap();
    Quarantine::connect(&target).unwrap().retry(&Selection::default()).unwrap();
    once(&files, &other).unwrap();
    assert_eq!(contents(&mut client), contents(&mut other.client()));
}

#[test]
fn a_segment_that_waits_holds_up_no_other() {
    let (files, database) = (Files::new(), TestDatabase::create());
    files.records("run-1", 150);
    let session = files.session("run-2");
    let mut client = database.client();
    client
        .batch_execute(
            "ALTER TABLE telemetry_records ADD CONSTRAINT odd CHECK (session_id <> 'run-1')",
        )
        .unwrap();
    let outcome = while_running(&files, &database, |notices| {
        await_notice(notices, "blocked");
        for count in 1..=5 {
            record(&session, count..count + 1);
            await_count(&mut client, "telemetry_records", count);
        }
        assert!(notices.try_iter().all(|notice| !notice.contains("blocked")));
    });
    assert!(matches!(outcome, Err(SyncError::TooMuchPoison { .. })), "{outcome:?}");
    assert_eq!(count(&mut client, "sync_segments WHERE state = 'blocked'"), 1);
    assert_eq!(count(&mut client, "sync_quarantine"), 100);
}

#[test]
fn a_greater_limit_lets_them_all_go_to_quarantine_and_zero_none() {
    let (files, database) = (Files::new(), TestDatabase::create());
    files.records("run-1", 150);
    let mut client = database.client();
    client.batch_execute(REFUSE).unwrap();
    limited(&files, &database, 0).unwrap_err();
    assert_eq!(count(&mut client, "sync_quarantine"), 0);
    assert_eq!(limited(&files, &database, 1000).unwrap().quarantined, 150);
}

#[test]
fn dropped_lines_count_no_more() {
    let (files, database) = (Files::new(), TestDatabase::create());
    files.records("run-1", 15);
    let mut client = database.client();
    client.batch_execute(REFUSE).unwrap();
    limited(&files, &database, 10).unwrap_err();
    let target = Target::parse(Some(&database.url()), &|_| None).unwrap();
    let dropped = Quarantine::connect(&target).unwrap().drop_lines(&Selection::default()).unwrap();
    assert_eq!(dropped, 10);
    assert_eq!(limited(&files, &database, 10).unwrap().quarantined, 5);
}

#[test]
fn a_damaged_file_stops_nothing() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    let mut file =
        OpenOptions::new().append(true).open(files.segment("session_run-1.jsonl")).unwrap();
    file.write_all("no json\n".repeat(3000).as_bytes()).unwrap();
    record(&session, 0..1);
    session.end(Outcome::Completed).unwrap();
    let mut client = database.client();
    client.batch_execute(REFUSE).unwrap();
    assert_eq!(once(&files, &database).unwrap().quarantined, 3001);
}
