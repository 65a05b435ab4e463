//! Three ways into the tables leave the same rows, and whatever PostgreSQL cannot hold is kept bit for
//! bit.

use super::*;

/// A segment of session `run` with these lines.
fn write_lines(files: &Files, lines: &[Vec<u8>]) -> PathBuf {
    let mut bytes = format!(
        "{{\"tidelog\":1,\"segment\":\"6f2a3b1c-0000-4000-8000-000000000001\",\"store\":\"{}\",\
         \"session\":\"run\",\"attempt\":1,\"writer\":{{\"pid\":1,\"host\":\"h\",\"program\":\"t\"}},\
         \"created_at\":\"2026-01-05T09:30:00Z\"}}\n",
        files.store.id()
    )
    .into_bytes();
    for line in lines {
        bytes.extend(line);
        bytes.push(b'\n');
    }
    let path = files.segment("session_run.jsonl");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

fn entry(rest: &str) -> Vec<u8> {
    format!("{{\"timestamp\":\"2026-01-05T09:30:00.123456Z\",{rest}}}").into_bytes()
}

fn telemetry(step: usize, fields: &str) -> Vec<u8> {
    entry(&format!("\"step\":{step},\"telemetry\":{{{fields}}}"))
}

/// A number as the journal writes it, of any bits but those of a NaN with a message.
fn number(random: &mut fastrand::Rng) -> String {
    let number = match random.u8(..8) {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => -0.0,
        _ => f64::from_bits(random.u64(..)),
    };
    match number {
        n if n.is_nan() => "\"NaN\"".into(),
        n if n.is_infinite() => if n > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" }.into(),
        n => serde_json::to_string(&n).unwrap(),
    }
}

const TEXTS: [&str; 6] = ["plain", "\\u0000", "é\\u0000\\\\u0000", "\\ud83d\\ude00", "", "\\\\"];

fn line(random: &mut fastrand::Rng, step: usize) -> Vec<u8> {
    let text = TEXTS[random.usize(..TEXTS.len())];
    let [a, b] = [number(random), number(random)];
    match random.u8(..20) {
        0 => b"no json".to_vec(),
        1 => entry("\"event\":\"newer\",\"x\":1"),
        2 => {
            let coords: Vec<String> = (0..64).map(|_| number(random)).collect();
            let coords = coords.join(",");
            entry(&format!(
                "\"event\":\"basin\",\"basin\":{{\"basin_coords\":[{coords}],\"phi\":{a}}}"
            ))
        }
        3 => entry(&format!(
            "\"event\":\"emergency\",\"emergency\":{{\"event_id\":\"e-{step}\",\
             \"reason\":\"{text}\",\"severity\":\"high\",\"value\":{a}}},\"telemetry\":{{\"phi\":{b}}}"
        )),
        4 => entry(&format!(
            "\"event\":\"checkpoint_created\",\"checkpoint\":{{\"checkpoint_id\":\"c-{}\",\"phi\":{a},\
             \"file\":\"f\",\"size_bytes\":1,\"sha256\":\"{step:064}\",\"state_dict\":null}}",
            step % 7
        )),
        5 => {
            entry(&format!("\"event\":\"checkpoint_pruned\",\"checkpoint_id\":\"c-{}\"", step % 5))
        }
        _ => telemetry(
            step,
            &format!(
                "\"phi\":{a},\"kappa_eff\":{b},\"regime\":\"{text}\",\"loss\":{step},\"{text}x\":[1,\"{text}\"]"
            ),
        ),
    }
}

/// Every row, each number with every bit: `jsonb`, which the usual comparison goes through, has no -0.
fn every_row(database: &TestDatabase) -> Vec<String> {
    let mut client = database.client();
    let mut rows = contents(&mut client);
    for table in
        ["telemetry_records", "emergency_events", "basin_history", "checkpoints", "sync_unknown"]
    {
        let sql = format!("SELECT t::text FROM {table} t ORDER BY 1");
        rows.extend(client.query(&sql, &[]).unwrap().iter().map(|row| row.get::<_, String>(0)));
    }
    rows
}

#[test]
fn copy_unnest_and_fallback_leave_the_same_rows_of_random_journals() {
    for seed in 0..4 {
        let files = Files::new();
        let mut random = fastrand::Rng::with_seed(seed);
        let lines: Vec<Vec<u8>> = (0..3000).map(|step| line(&mut random, step)).collect();
        write_lines(&files, &lines);
        let [copied, unnested, again] = std::array::from_fn(|_| TestDatabase::create());
        assert_eq!(once(&files, &copied).unwrap().conflicts, 0);
        agent_with(&files, &unnested, "?pgbouncer=true", |_| {}).once(Duration::ZERO).unwrap();
        // Rows of half the lines are there before their cursor.
        once(&files, &again).unwrap();
        for table in ["telemetry_records", "emergency_events", "basin_history", "sync_quarantine"] {
            let sql = format!("DELETE FROM {table} WHERE line_no % 2 = 1");
            again.client().batch_execute(&sql).unwrap();
        }
        again
            .client()
            .batch_execute(
                "UPDATE sync_segments SET next_line = 0, next_byte = 0, sealed = false,
                                          chain_hash = decode(repeat('00', 32), 'hex')",
            )
            .unwrap();
        assert_eq!(once(&files, &again).unwrap().conflicts, 1, "seed {seed}");
        let expected = every_row(&copied);
        assert!(expected.len() > 4000, "seed {seed}");
        assert_eq!(every_row(&unnested), expected, "seed {seed}");
        assert_eq!(every_row(&again), expected, "seed {seed}");
    }
}

fn refuse(database: &TestDatabase, step: usize) {
    let sql = format!("ALTER TABLE telemetry_records ADD CHECK (step <> {step})");
    database.client().batch_execute(&sql).unwrap();
}

fn check_all_but_one(files: &Files, database: &TestDatabase, poison: usize, lines: i64) {
    let mut client = database.client();
    assert_eq!(count(&mut client, "telemetry_records"), lines - 1, "{poison}");
    let row = client.query_one("SELECT line_no, raw FROM sync_quarantine", &[]).unwrap();
    let line = usize::try_from(row.get::<_, i32>(0)).unwrap();
    assert_eq!(line, poison + 1);
    let bytes = fs::read(files.segment("session_run.jsonl")).unwrap();
    assert_eq!(Some(row.get::<_, &[u8]>(1)), bytes.split(|byte| *byte == b'\n').nth(line));
    assert_eq!(count(&mut client, "sync_segments WHERE sealed"), 1);
}

#[test]
fn poison_is_found_at_the_beginning_the_middle_and_the_end_of_a_batch() {
    let files = Files::new();
    let lines: Vec<Vec<u8>> = (0..5000).map(|step| telemetry(step, "\"phi\":0.5")).collect();
    write_lines(&files, &lines);
    for poison in [0, 2500, 4999] {
        let database = TestDatabase::create();
        refuse(&database, poison);
        assert_eq!(once(&files, &database).unwrap().quarantined, 1);
        check_all_but_one(&files, &database, poison, 5000);
    }
}

#[test]
fn poison_is_found_in_batches_of_one_line() {
    let lines: Vec<Vec<u8>> = (0..3).map(|step| telemetry(step, "\"phi\":0.5")).collect();
    for poison in 0..3 {
        let (files, database) = (Files::new(), TestDatabase::create());
        refuse(&database, poison);
        for sent in 1..=lines.len() {
            write_lines(&files, &lines[..sent]);
            assert_eq!(once(&files, &database).unwrap().lines, 1);
        }
        check_all_but_one(&files, &database, poison, 3);
    }
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kept {
    /// As a row that says all of it.
    Row,
    /// As a row, and whole beside it.
    Beside,
    /// Whole, and as no row.
    Raw,
}

#[test]
fn what_postgres_cannot_hold_is_kept_bit_for_bit() {
    use Kept::{Beside, Raw, Row};
    let time = |time: &str| {
        format!("{{\"timestamp\":\"{time}\",\"step\":1,\"telemetry\":{{}}}}").into_bytes()
    };
    let basin = |number: &str| {
        let coords = vec![number; 64].join(",");
        entry(&format!("\"event\":\"basin\",\"basin\":{{\"basin_coords\":[{coords}]}}"))
    };
    let emergency = |reason: &str| {
        entry(&format!(
            "\"event\":\"emergency\",\"emergency\":{{\"event_id\":\"e\",\"reason\":\"{reason}\",\
             \"severity\":\"low\"}}"
        ))
    };
    let table: [(Vec<u8>, Kept); 21] = [
        (telemetry(1, "\"regime\":\"a\\u0000b\""), Beside),
        (telemetry(1, "\"x\\u0000\":1"), Beside),
        (emergency("\\u0000"), Beside),
        (telemetry(1, "\"regime\":\"\\ud800\""), Raw),
        (telemetry(1, "\"x\":\"\\udfff\""), Raw),
        (emergency("\\ud800"), Raw),
        (telemetry(1, "\"regime\":\"\\ud83d\\ude00\""), Row),
        (telemetry(1, "\"phi\":\"NaN\",\"kappa_eff\":\"-Infinity\""), Row),
        (telemetry(1, "\"phi\":NaN"), Raw),
        (telemetry(1, "\"phi\":1e400"), Raw),
        (telemetry(1, "\"phi\":5e-324,\"kappa_eff\":1.7976931348623157e308"), Row),
        (basin("\"NaN\""), Row),
        (basin("\"Infinity\""), Row),
        (basin("1e300"), Row),
        (entry("\"step\":9223372036854775808,\"telemetry\":{}"), Raw),
        (entry("\"step\":-9223372036854775808,\"telemetry\":{}"), Row),
        (telemetry(1, "\"recursion_depth\":1e30"), Row),
        (time("300000-01-05T09:30:00Z"), Raw),
        (time("9999-12-29T23:59:59.999999Z"), Row),
        (time("0001-01-03T00:00:00Z"), Row),
        (b"\xff\xfe\x00".to_vec(), Raw),
    ];
    let (files, database) = (Files::new(), TestDatabase::create());
    let lines: Vec<Vec<u8>> = table.iter().map(|(line, _)| line.clone()).collect();
    write_lines(&files, &lines);
    once(&files, &database).unwrap();
    let mut client = database.client();
    for (number, (line, kept)) in (1_i32..).zip(&table) {
        let shown = String::from_utf8_lossy(line);
        let row = "SELECT count(*) FROM (
                       SELECT segment_no, line_no FROM telemetry_records UNION ALL
                       SELECT segment_no, line_no FROM emergency_events UNION ALL
                       SELECT segment_no, line_no FROM basin_history) r WHERE line_no = $1";
        let rows: i64 = client.query_one(row, &[&number]).unwrap().get(0);
        let sql = "SELECT raw FROM sync_quarantine WHERE line_no = $1";
        let raw: Option<Vec<u8>> = client.query_opt(sql, &[&number]).unwrap().map(|row| row.get(0));
        let found = match (rows, &raw) {
            (1, None) => Row,
            (1, Some(_)) => Beside,
            (0, Some(_)) => Raw,
            other => panic!("{other:?}: {shown}"),
        };
        assert_eq!(found, *kept, "{shown}");
        assert!(raw.is_none_or(|raw| raw == *line), "{shown}");
    }
}
