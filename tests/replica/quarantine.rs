//! What a person does with lines in quarantine.

use std::process::{Command, Output};

use tidelog_sync::{Quarantine, Retried, Selection};

use super::*;
use crate::support::program;

/// A session with a few lines of which the database refuses some for now.
fn refused(files: &Files, database: &TestDatabase) -> Client {
    let session = files.session("run-1");
    record(&session, 0..6);
    session.end(Outcome::Completed).unwrap();
    let mut client = database.client();
    client
        .batch_execute(
            "ALTER TABLE telemetry_records ADD CONSTRAINT odd CHECK (step NOT IN (2, 3))",
        )
        .unwrap();
    assert_eq!(once(files, database).unwrap().quarantined, 2);
    client
}

fn accept(client: &mut Client) {
    client.batch_execute("ALTER TABLE telemetry_records DROP CONSTRAINT odd").unwrap();
}

fn quarantine(database: &TestDatabase) -> Quarantine {
    Quarantine::connect(&Target::parse(Some(&database.url()), &|_| None).unwrap()).unwrap()
}

#[test]
fn a_line_that_is_accepted_now_gets_its_row_and_leaves() {
    let (files, database, other) = (Files::new(), TestDatabase::create(), TestDatabase::create());
    let mut client = refused(&files, &database);
    accept(&mut client);
    let retried = quarantine(&database).retry(&Selection::default()).unwrap();
    assert_eq!(retried, Retried { applied: 2, beside: 0, refused: 0 });
    once(&files, &other).unwrap();
    assert_eq!(contents(&mut client), contents(&mut other.client()));
    let again = quarantine(&database).retry(&Selection::default()).unwrap();
    assert_eq!(again, Retried::default());
    rewind(&mut client);
    once(&files, &database).unwrap();
    assert_eq!(contents(&mut client), contents(&mut other.client()));
    verify::settle(&mut client);
    verify::check_equal(&files, &database);
}

#[test]
fn a_line_that_is_still_refused_stays_and_is_counted() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let mut client = refused(&files, &database);
    let retried = quarantine(&database).retry(&Selection::default()).unwrap();
    assert_eq!((retried.applied, retried.refused), (0, 2));
    let counted = "sync_quarantine WHERE attempts = 2 AND last_seen > first_seen
                   AND sqlstate = '23514'";
    assert_eq!(count(&mut client, counted), 2);
    assert_eq!(count(&mut client, "telemetry_records"), 4);
}

#[test]
fn a_line_with_rows_that_are_not_exact_stays_beside_them() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    let regime = Some("a\0b".to_owned());
    session.record_telemetry(1, &Telemetry { regime, ..Telemetry::default() }).unwrap();
    let mut file =
        OpenOptions::new().append(true).open(files.segment("session_run-1.jsonl")).unwrap();
    file.write_all(b"no json\n").unwrap();
    once(&files, &database).unwrap();
    let mut client = database.client();
    client.batch_execute("DELETE FROM telemetry_records").unwrap();
    let retried = quarantine(&database).retry(&Selection::default()).unwrap();
    assert_eq!(retried, Retried { applied: 0, beside: 1, refused: 1 });
    assert_eq!(count(&mut client, "telemetry_records"), 1);
    assert_eq!(count(&mut client, "sync_quarantine WHERE attempts = 2"), 2);
}

#[test]
fn a_dropped_line_does_not_come_back() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let mut client = refused(&files, &database);
    let by_reason = Selection { reason: Some("odd".into()), ..Selection::default() };
    let mut lines = quarantine(&database);
    assert_eq!(lines.drop_lines(&by_reason).unwrap(), 2);
    assert_eq!(lines.drop_lines(&by_reason).unwrap(), 0);
    rewind(&mut client);
    once(&files, &database).unwrap();
    assert_eq!(lines.count(&Selection::default()).unwrap(), 0);
    assert_eq!(lines.retry(&Selection::default()).unwrap(), Retried::default());
    assert_eq!(count(&mut client, "sync_quarantine WHERE raw = ''"), 2);
    let target = Target::parse(Some(&database.url()), &|_| None).unwrap();
    let found = status(files.store.root(), Some(&target)).unwrap();
    assert_eq!(found.quarantined_lines, Some(0));
    assert_eq!(count(&mut client, "sync_lines WHERE line_no IN (4, 5)"), 0);
    verify::settle(&mut client);
    verify::check_equal(&files, &database);
}

#[test]
fn retries_and_an_agent_at_once_are_exact() {
    let (files, database, other) = (Files::new(), TestDatabase::create(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..2000);
    let mut client = database.client();
    client
        .batch_execute("ALTER TABLE telemetry_records ADD CONSTRAINT odd CHECK (step % 500 <> 7)")
        .unwrap();
    once(&files, &database).unwrap();
    accept(&mut client);
    rewind(&mut client);
    let retry = || quarantine(&database).retry(&Selection::default()).unwrap();
    while_running(&files, &database, |_| {
        let retried = thread::scope(|scope| {
            let both = [scope.spawn(retry), scope.spawn(retry)];
            record(&session, 2000..4000);
            both.map(|retried| retried.join().unwrap().applied).into_iter().sum::<u64>()
        });
        assert_eq!(retried, 4);
        await_count(&mut client, "telemetry_records", 4000);
    })
    .unwrap();
    session.end(Outcome::Completed).unwrap();
    once(&files, &database).unwrap();
    once(&files, &other).unwrap();
    assert_eq!(contents(&mut client), contents(&mut other.client()));
}

fn sync(database: &TestDatabase, arguments: &[&str]) -> Output {
    Command::new(program("tidelog-sync"))
        .args(arguments)
        .env_clear()
        .env("DATABASE_URL", database.url())
        .output()
        .unwrap()
}

#[test]
fn the_command_shows_a_line_bit_for_bit_and_drops_only_when_told_to() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let mut client = refused(&files, &database);
    let list = sync(&database, &["quarantine", "list", "--json", "--limit", "1"]);
    let found: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    let segment = found[0]["segment_id"].as_str().unwrap().to_owned();
    let line = found[0]["line"].to_string();
    let shown = sync(&database, &["quarantine", "show", &segment, &line, "--raw"]);
    let bytes = fs::read(files.segment("session_run-1.jsonl")).unwrap();
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    assert_eq!(shown.stdout, lines[line.parse::<usize>().unwrap()]);
    let drop = ["quarantine", "drop", segment.as_str(), line.as_str(), "--yes"];
    assert_eq!(sync(&database, &drop[..4]).status.code(), Some(2));
    assert_eq!(sync(&database, &["quarantine", "drop", "--all", "--yes"]).status.code(), Some(2));
    assert_eq!(count(&mut client, "sync_quarantine WHERE dropped_at IS NULL"), 2);
    let refused = sync(&database, &["quarantine", "retry", "--all"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(sync(&database, &drop).status.success());
    assert_eq!(sync(&database, &drop).status.code(), Some(1));
    accept(&mut client);
    assert!(sync(&database, &["quarantine", "retry", "--all"]).status.success());
    assert_eq!(count(&mut client, "telemetry_records"), 5);
}
