//! Whichever segment comes first, the rows are the same, and the same as in the index.

use super::*;
use crate::support::compare::check_replica;

/// A segment: its number, its session, its lines after the header.
type Part<'a> = (u32, Option<&'a str>, &'a [&'a str]);

const START: &str = r#"{"timestamp":"2026-01-05T09:30:00Z","event":"session_started","attempt":1}"#;

fn write_part(files: &Files, (number, session, lines): Part<'_>) {
    let folder = files.store.root().join("logs/telemetry");
    fs::create_dir_all(&folder).unwrap();
    let session = session.map_or("null".to_owned(), |session| format!("\"{session}\""));
    let header = format!(
        "{{\"tidelog\":1,\"segment\":\"6f2a3b1c-0000-4000-8000-{number:012}\",\"store\":\"{}\",\
         \"session\":{session},\"writer\":{{\"pid\":1,\"host\":\"h\",\"program\":\"t\"}},\
         \"created_at\":\"2026-01-05T09:30:00Z\"}}",
        files.store.id()
    );
    let text = format!("{header}\n{}\n", lines.join("\n"));
    fs::write(folder.join(format!("part-{number}.jsonl")), text).unwrap();
}

/// Sends the segments one after the other, in both orders, and gives the replica.
fn in_any_order(one: Part<'_>, other: Part<'_>) -> TestDatabase {
    let [first, second] = [[one, other], [other, one]].map(|order| {
        let (files, database) = (Files::new(), TestDatabase::create());
        for part in order {
            write_part(&files, part);
            once(&files, &database).unwrap();
        }
        check_replica(&files.store, &mut database.client());
        database
    });
    assert_eq!(rows(&first), rows(&second));
    first
}

/// Rows as text, without the numbers that a database gives its segments.
fn rows(database: &TestDatabase) -> Vec<String> {
    let mut client = database.client();
    let mut rows = Vec::new();
    for table in ["telemetry_sessions", "session_parts", "checkpoints", "checkpoint_history"] {
        let sql = format!("SELECT concat('{table} ', to_jsonb(t) - 'segment_no') FROM {table} t");
        rows.extend(client.query(&sql, &[]).unwrap().iter().map(|row| row.get::<_, String>(0)));
    }
    rows.sort();
    rows
}

#[test]
fn the_header_of_a_part_tells_its_session_whatever_an_end_says() {
    let end = r#"{"timestamp":"2026-01-05T10:00:00Z","event":"session_ended","status":"aborted","session_id":"other","segment":"6f2a3b1c-0000-4000-8000-000000000007"}"#;
    let database = in_any_order((7, Some("run-7"), &[START]), (1, None, &[end]));
    let mut client = database.client();
    assert_eq!(count(&mut client, "telemetry_sessions"), 1);
    let ended = "telemetry_sessions WHERE session_id = 'run-7' AND status = 'aborted'";
    assert_eq!(count(&mut client, ended), 1);
}

#[test]
fn the_first_start_of_a_part_counts_however_its_lines_are_cut() {
    let later = START.replace("09:30", "09:40");
    let (whole, cut) = (TestDatabase::create(), TestDatabase::create());
    let files = Files::new();
    write_part(&files, (1, Some("run-1"), &[START]));
    once(&files, &cut).unwrap();
    write_part(&files, (1, Some("run-1"), &[START, &later]));
    for database in [&whole, &cut] {
        once(&files, database).unwrap();
        check_replica(&files.store, &mut database.client());
    }
    assert_eq!(rows(&whole), rows(&cut));
}

#[test]
fn a_part_whose_lines_are_all_damaged_is_a_part() {
    let (files, database) = (Files::new(), TestDatabase::create());
    write_part(&files, (1, Some("run-1"), &["no entry"]));
    once(&files, &database).unwrap();
    check_replica(&files.store, &mut database.client());
    assert_eq!(count(&mut database.client(), "telemetry_sessions WHERE status = 'active'"), 1);
}
