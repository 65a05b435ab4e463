//! `verify` finds whatever is not as the files say, and nothing else.

use tidelog_sync::{DifferenceKind, Verdict, Verification, verify};

use super::*;

/// Lines that no session writes: damage, texts with U+0000, what is new, what was removed.
const HARD_LINES: &str = r#"no json
{"timestamp":"2026-01-05T09:30:00Z","event":"new"}
{"timestamp":"2026-01-05T09:30:00Z","step":5,"telemetry":{"regime":"a\u0000b","phi":"NaN","curvature":-0.0}}
{"timestamp":"2026-01-05T09:30:00Z","step":6,"telemetry":{"x":1e-7,"longer":[1.5,"é\n",{"b":1,"a":null}]}}
{"timestamp":"2026-01-05T09:41:00Z","event":"gap","gap":{"records":3,"first_step":7,"last_step":9,"since":"2026-01-05T09:40:30Z"},"reason":"no space left on device"}
{"timestamp":"2099-01-05T09:30:00Z","event":"checkpoint_pruned","checkpoint_id":"old"}
{"timestamp":"2026-01-05T09:30:00Z","event":"session_deleted","session_id":"gone"}
"#;

/// A store with lines of every kind, and its replica, with which no agent is at work.
fn everything() -> (Files, TestDatabase) {
    let (files, database) = (Files::new(), TestDatabase::create());
    every_kind(&files);
    let gone = files.session("gone");
    record(&gone, 0..3);
    gone.save_checkpoint(NewCheckpoint::new(Value::Dict(Vec::new()), 0.1)).unwrap();
    gone.end(Outcome::Failed).unwrap();
    append(&files, "session_run-1.jsonl", HARD_LINES);
    once(&files, &database).unwrap();
    settle(&mut database.client());
    (files, database)
}

fn append(files: &Files, name: &str, lines: &str) {
    let mut file = OpenOptions::new().append(true).open(files.segment(name)).unwrap();
    file.write_all(lines.as_bytes()).unwrap();
}

/// The last agent wrote an hour ago.
pub(super) fn settle(client: &mut Client) {
    client
        .batch_execute("UPDATE sync_segments SET updated_at = now() - interval '1 hour'")
        .unwrap();
}

fn compare(files: &Files, database: &TestDatabase) -> Verification {
    let target = Target::parse(Some(&database.url()), &|_| None).unwrap();
    verify(files.store.root(), &target, None, |_| {}).unwrap()
}

pub(super) fn check_equal(files: &Files, database: &TestDatabase) {
    let found = compare(files, database);
    assert_eq!((found.verdict, &found.differences), ("equal", &Vec::new()), "{found:?}");
}

/// A table, the row that is changed, and how the row's own key is called; keys are told as missing and
/// extra rows.
const TABLES: [(&str, &str, &[&str]); 14] = [
    ("telemetry_records", "line_no = 4", LINE_KEY),
    ("emergency_events", "true", LINE_KEY),
    ("checkpoint_history", "true", LINE_KEY),
    ("basin_history", "true", LINE_KEY),
    ("telemetry_gaps", "true", LINE_KEY),
    ("sync_quarantine", "reason NOT LIKE '%U+0000%'", LINE_KEY),
    ("sync_unknown", "true", LINE_KEY),
    ("sync_lines", "line_no = 1", LINE_KEY),
    ("checkpoints", "true", &["checkpoint_id", "store_no"]),
    ("session_parts", "true", &["segment_id"]),
    ("telemetry_sessions", "true", &["session_id"]),
    (
        "tombstones",
        "kind = 'session'",
        &["kind", "key", "store_no", "segment_no", "line_no", "deleted_at"],
    ),
    ("sync_segments", "session_id = 'run-1'", SEGMENT_KEY),
    (
        "sync_batches",
        "segment_no = (SELECT segment_no FROM sync_segments WHERE session_id = 'run-1')",
        &["next_line"],
    ),
];
const LINE_KEY: &[&str] = &["segment_no", "line_no"];
/// Whoever changes these changes what is compared, and the verdict tells.
const SEGMENT_KEY: &[&str] = &["segment_no", "segment_id", "next_line"];

/// What no file tells, with the reason.
const NOT_OF_THE_FILES: [(&str, &[&str]); 3] = [
    // when, how often and by which version a line was put there
    ("sync_quarantine", &["agent_version", "first_seen", "last_seen", "attempts", "dropped_at"]),
    // the name at first sight, the agent's notes, and where a segment parted from another one's file
    (
        "sync_segments",
        &[
            "file_name",
            "state",
            "sealed",
            "registered_at",
            "updated_at",
            "below_floor",
            "parent_segment_id",
            "parent_line",
        ],
    ),
    // they only help to find the place of a fork
    ("sync_batches", &["segment_no", "first_line", "committed_at"]),
];

/// SQL for another value of the column.
fn another(column: &str, ty: &str) -> String {
    let words = [
        ("status", "'failed'"),
        ("action", "'loaded'"),
        ("state", "'pruned'"),
        ("kind", "'checkpoint'"),
    ];
    if let Some((_, word)) = words.iter().find(|(name, _)| *name == column) {
        return (*word).to_owned();
    }
    match ty {
        "int4" | "int8" => format!("COALESCE({column}, 0) + 1000"),
        "float8" => format!("CASE WHEN {column} = 0.25 THEN 0.5 ELSE 0.25 END"),
        "text" => format!("concat({column}, 'x')"),
        "timestamptz" => format!("COALESCE({column}, now()) + interval '1 microsecond'"),
        "jsonb" => "'{\"changed\": true}'".to_owned(),
        "bool" => format!("NOT COALESCE({column}, false)"),
        "bytea" => format!("{column} || '\\x00'"),
        "uuid" => "'ffffffff-ffff-4fff-8fff-ffffffffffff'".to_owned(),
        "vector" => "array_fill(0.125::real, ARRAY[64])::vector".to_owned(),
        "_float8" => "array_fill(0.125::double precision, ARRAY[64])".to_owned(),
        ty => panic!("{column} has type {ty}: say how to change it"),
    }
}

fn columns(client: &mut Client, table: &str) -> Vec<(String, String)> {
    let sql = "SELECT column_name::text, udt_name::text FROM information_schema.columns
               WHERE table_schema = 'public' AND table_name = $1 ORDER BY ordinal_position";
    client.query(sql, &[&table]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Changes one row of a table, looks whether `verify` tells, and changes it back.
fn with_change(client: &mut Client, table: &str, change: &str, look: impl FnOnce()) {
    client.batch_execute(&format!("CREATE TEMP TABLE before AS TABLE {table}")).unwrap();
    assert_eq!(client.execute(change, &[]).unwrap(), 1, "{change}");
    look();
    client
        .batch_execute(&format!(
            "DELETE FROM {table}; INSERT INTO {table} TABLE before; DROP TABLE before"
        ))
        .unwrap();
}

#[test]
fn every_cell_that_is_changed_is_found_and_named() {
    let (files, database) = everything();
    let mut client = database.client();
    check_equal(&files, &database);
    client
        .batch_execute(
            "INSERT INTO sync_stores (store_no, store_id) SELECT 1001, gen_random_uuid()",
        )
        .unwrap();
    let mut changed = 0;
    for (table, row, key) in TABLES {
        let exempt = NOT_OF_THE_FILES.iter().find(|(name, _)| *name == table);
        for (column, ty) in columns(&mut client, table) {
            if exempt.is_some_and(|(_, exempt)| exempt.contains(&column.as_str())) {
                continue;
            }
            let change = format!(
                "UPDATE {table} SET {column} = {} WHERE ctid = (SELECT min(ctid) FROM {table} WHERE {row})",
                another(&column, &ty)
            );
            with_change(&mut client, table, &change, || {
                let found = compare(&files, &database);
                let is_key = key.contains(&column.as_str());
                let is_named = found.differences.iter().any(|difference| {
                    difference.table == table
                        && (is_key || difference.column.as_ref() == Some(&column))
                });
                assert_ne!(found.verdict, "equal", "{change}");
                assert!(is_named || key == SEGMENT_KEY && is_key, "{change}: {found:#?}");
            });
            changed += 1;
        }
    }
    assert!(changed > 120, "{changed}");
    check_equal(&files, &database);
}

#[test]
fn a_row_that_is_missing_or_added_is_found() {
    let (files, database) = everything();
    let mut client = database.client();
    for (table, row, _) in &TABLES[..12] {
        let delete =
            format!("DELETE FROM {table} WHERE ctid = (SELECT min(ctid) FROM {table} WHERE {row})");
        let is_there = |kind: DifferenceKind| {
            let found = compare(&files, &database);
            let is_named = |d: &tidelog_sync::Difference| d.table == *table && d.kind == kind;
            assert!(found.differences.iter().any(is_named), "{table}: {found:#?}");
            assert_eq!(found.verdict, "different");
        };
        with_change(&mut client, table, &delete, || is_there(DifferenceKind::Missing));
        for key in match *table {
            // Somebody may keep a session of his own beside those of the files.
            "telemetry_sessions" => Vec::new(),
            "checkpoints" => vec![r#"{"checkpoint_id":"other"}"#],
            "session_parts" => vec![r#"{"segment_id":"ffffffff-ffff-4fff-8fff-ffffffffffff"}"#],
            "tombstones" => vec![r#"{"key":"other"}"#],
            // Line 4 is a record, which comes back from its row.
            "sync_lines" => vec![r#"{"line_no":-1}"#, r#"{"line_no":4}"#, r#"{"line_no":90000}"#],
            _ => vec![r#"{"line_no":-1}"#, r#"{"line_no":1}"#, r#"{"line_no":90000}"#],
        } {
            let add = format!(
                "INSERT INTO {table} SELECT (jsonb_populate_record(t, '{key}')).* FROM {table} t
                 WHERE {row} LIMIT 1"
            );
            with_change(&mut client, table, &add, || is_there(DifferenceKind::Extra));
        }
    }
    check_equal(&files, &database);
}

#[test]
fn a_single_bit_of_a_number_is_found() {
    let (files, database) = everything();
    let zero = "UPDATE telemetry_records SET curvature = 0 WHERE curvature = 0";
    assert_eq!(database.client().execute(zero, &[]).unwrap(), 1);
    let found = compare(&files, &database);
    let values = found.differences.iter().map(|d| (d.replica.as_deref(), d.expected.as_deref()));
    assert_eq!(values.collect::<Vec<_>>(), [(Some("0"), Some("-0"))]);
}

#[test]
fn one_changed_cell_of_many_lines_is_found_at_its_line() {
    let (files, database) = (Files::new(), TestDatabase::create());
    files.records("run-1", 10_000);
    once(&files, &database).unwrap();
    check_equal(&files, &database);
    let change = "UPDATE telemetry_records SET phi = 0.7 WHERE step = 8500";
    database.client().execute(change, &[]).unwrap();
    let found = compare(&files, &database);
    let line = Some(8502);
    assert_eq!(found.segments[0].verdict, Verdict::Different { line });
    assert_eq!(
        found.differences[0].to_string(),
        "segment session_run-1.jsonl, line 8502, telemetry_records: column phi is 0.7 in the replica, \
         0.5 in the file"
    );
}

#[test]
fn lines_that_are_not_sent_yet_are_behind_and_no_difference() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    let of_nothing = compare(&files, &database);
    assert_eq!(of_nothing.segments[0].verdict, Verdict::Behind { lines_behind: 1 });
    record(&session, 0..5);
    once(&files, &database).unwrap();
    record(&session, 5..12);
    let found = compare(&files, &database);
    assert_eq!((found.verdict, found.lines), ("behind", 6));
    assert_eq!(found.segments[0].verdict, Verdict::Behind { lines_behind: 7 });
}

#[test]
fn a_file_that_lost_its_end_or_changed_or_is_gone_is_told() {
    let (files, database) = (Files::new(), TestDatabase::create());
    for id in ["short", "changed", "gone"] {
        files.records(id, 20);
    }
    once(&files, &database).unwrap();
    let path = |id: &str| files.segment(&format!("session_{id}.jsonl"));
    let short = fs::read_to_string(path("short")).unwrap();
    let kept: String = short.split_inclusive('\n').take(10).collect();
    fs::write(path("short"), kept).unwrap();
    let changed = fs::read_to_string(path("changed")).unwrap();
    fs::write(path("changed"), changed.replacen(r#"{"timestamp"#, r#"{ "timestamp"#, 7)).unwrap();
    fs::remove_file(path("gone")).unwrap();
    let found = compare(&files, &database);
    let verdict = |id: &str| {
        let segment = found.segments.iter().find(|s| s.file.contains(id)).unwrap();
        segment.verdict.clone()
    };
    assert_eq!(verdict("short"), Verdict::Ahead { lines_ahead: 13 });
    assert!(matches!(verdict("changed"), Verdict::Forked { first_line: 0, .. }));
    assert_eq!(verdict("gone"), Verdict::Missing { sealed: true });
    assert_eq!(found.verdict, "forked");
    assert!(found.folds_left_out.is_some());
}

#[test]
fn lines_that_the_server_refused_are_equal_and_compared() {
    let (files, database) = (Files::new(), TestDatabase::create());
    files.records("run-1", 50);
    let mut client = database.client();
    client.batch_execute("ALTER TABLE telemetry_records ADD CHECK (step <> 17)").unwrap();
    once(&files, &database).unwrap();
    check_equal(&files, &database);
    client.batch_execute("UPDATE sync_quarantine SET raw = raw || 'x'").unwrap();
    assert_eq!(
        compare(&files, &database).segments[0].verdict,
        Verdict::Different { line: Some(19) }
    );
}

#[test]
fn verify_beside_a_writer_and_an_agent_finds_nothing() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    while_running(&files, &database, |notices| {
        await_notice(notices, "ready");
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for step in 0..3000 {
                    record(&session, step..step + 1);
                    thread::sleep(Duration::from_micros(300));
                }
            });
            while !writer.is_finished() {
                let found = compare(&files, &database);
                assert!(["equal", "behind"].contains(&found.verdict), "{found:#?}");
            }
        });
    })
    .unwrap();
    session.end(Outcome::Completed).unwrap();
    once(&files, &database).unwrap();
    check_equal(&files, &database);
}

#[test]
fn verify_writes_nothing() {
    let (files, database) = everything();
    let mut client = database.client();
    let before = versions(&mut client);
    compare(&files, &database);
    assert_eq!(versions(&mut client), before);
}
