//! A store and its replica: everything arrives, exactly once, whatever happens on the way.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;
use tempfile::TempDir;
use tidelog::checkpoint::npz::Compression;
use tidelog::{
    BasinCoords, BasinPoint, CheckpointId, Emergency, EventId, NewCheckpoint, Outcome, Session,
    SessionId, Store, Telemetry, Value,
};
use tidelog_sync::{Agent, Notice, Report, SyncError, Target, status};

use crate::support::postgres::TestDatabase;

/// A store in a temporary folder.
struct Files {
    folder: TempDir,
    store: Store,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store")).unwrap();
        Self { folder, store }
    }

    fn session(&self, id: &str) -> Session {
        self.store.start_session(SessionId::new(id).unwrap()).unwrap()
    }

    /// A finished session of so many plain records.
    fn records(&self, id: &str, count: i64) {
        let session = self.session(id);
        record(&session, 0..count);
        session.end(Outcome::Completed).unwrap();
    }

    fn segment(&self, name: &str) -> PathBuf {
        self.store.root().join("logs/telemetry").join(name)
    }
}

fn record(session: &Session, steps: std::ops::Range<i64>) {
    for step in steps {
        let phi = Some(f64::from(u16::try_from(step % 1000).unwrap()) / 1000.0);
        let telemetry = Telemetry { phi, ..Telemetry::default() }.with("loss", 0.5);
        session.record_telemetry(step, &telemetry).unwrap();
    }
}

fn agent_with(
    files: &Files,
    database: &TestDatabase,
    more: &str,
    notice: impl FnMut(&Notice) + 'static,
) -> Agent {
    let target = Target::parse(Some(&format!("{}{more}", database.url())), &|_| None).unwrap();
    Agent::new(files.store.root(), target, notice).unwrap()
}

fn once(files: &Files, database: &TestDatabase) -> Result<Report, SyncError> {
    agent_with(files, database, "", |_| {}).once(Duration::ZERO)
}

fn count(client: &mut Client, table: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).unwrap().get(0)
}

/// Every row of the tables that a user reads, as text.
fn contents(client: &mut Client) -> Vec<String> {
    const TABLES: [&str; 8] = [
        "telemetry_sessions",
        "telemetry_records",
        "emergency_events",
        "checkpoints",
        "checkpoint_history",
        "basin_history",
        "session_parts",
        "sync_quarantine",
    ];
    let mut rows = Vec::new();
    for table in TABLES {
        let sql = format!(
            "SELECT concat('{table} ', (to_jsonb(t) - 'first_seen' - 'last_seen')::text)
             FROM {table} t"
        );
        rows.extend(client.query(&sql, &[]).unwrap().iter().map(|row| row.get::<_, String>(0)));
    }
    rows.sort();
    rows
}

/// Which transaction wrote each row.
fn versions(client: &mut Client) -> Vec<String> {
    const TABLES: [&str; 7] = [
        "telemetry_sessions",
        "telemetry_records",
        "checkpoints",
        "session_parts",
        "sync_segments",
        "sync_stores",
        "sync_session_stats",
    ];
    TABLES
        .iter()
        .map(|table| {
            let sql =
                format!("SELECT concat('{table} ', string_agg(xmin::text, ',')) FROM {table}");
            client.query_one(&sql, &[]).unwrap().get(0)
        })
        .collect()
}

/// A session with an entry of every kind.
fn every_kind(files: &Files) -> CheckpointId {
    let metadata = Value::Dict(vec![("lr".into(), 0.1.into())]);
    let id = SessionId::new("run-1").unwrap();
    let session = files.store.start_session_with(id, Some(metadata)).unwrap();
    record(&session, 0..10);
    let mut coords = [0.5; 64];
    coords[7] = 0.1;
    let basin_coords = BasinCoords::from(coords);
    session
        .record_basin(BasinPoint {
            step: Some(3),
            basin_coords: basin_coords.clone(),
            phi: Some(0.7),
            kappa: None,
        })
        .unwrap();
    let mut emergency = Emergency::new(EventId::new("e-1").unwrap(), "collapse", "high");
    emergency.telemetry = Some(Telemetry { phi: Some(f64::NAN), ..Telemetry::default() });
    session.record_emergency(emergency).unwrap();
    let state = Value::Dict(vec![("epoch".into(), 3_i64.into())]);
    let checkpoint = NewCheckpoint {
        basin_coords: Some(basin_coords),
        compression: Compression::Stored,
        ..NewCheckpoint::new(state, 0.8)
    };
    let saved = session.save_checkpoint(checkpoint);
    session.end(Outcome::Completed).unwrap();
    saved.unwrap()
}

#[test]
fn once_copies_every_kind_of_entry() {
    let (files, database) = (Files::new(), TestDatabase::create());
    every_kind(&files);
    let report = once(&files, &database).unwrap();
    assert_eq!((report.lines, report.quarantined, report.conflicts), (16, 0, 0));
    let mut client = database.client();
    for (table, rows) in [
        ("telemetry_records", 10),
        ("emergency_events", 1),
        ("checkpoints", 1),
        ("checkpoint_history", 2),
        ("basin_history", 1),
        ("sync_quarantine", 0),
        ("sync_segments WHERE sealed", 1),
    ] {
        assert_eq!(count(&mut client, table), rows, "{table}");
    }
    let row = client
        .query_one(
            "SELECT status, total_steps, max_phi, emergency_count, checkpoint_count,
                    best_checkpoint_phi
             FROM session_stats",
            &[],
        )
        .unwrap();
    assert_eq!(row.get::<_, String>(0), "completed");
    assert_eq!((row.get::<_, i64>(1), row.get::<_, i64>(3), row.get::<_, i64>(4)), (10, 1, 1));
    assert_eq!((row.get::<_, f64>(2), row.get::<_, f64>(5)), (0.009, 0.8));
}

#[test]
fn a_second_once_writes_nothing() {
    let (files, database) = (Files::new(), TestDatabase::create());
    files.records("run-1", 1500);
    files.records("run-2", 10);
    once(&files, &database).unwrap();
    let mut client = database.client();
    let before = versions(&mut client);
    assert_eq!(once(&files, &database).unwrap().lines, 0);
    assert_eq!(versions(&mut client), before);
}

#[test]
fn copy_and_unnest_leave_the_same_rows() {
    let files = Files::new();
    let (copied, unnested) = (TestDatabase::create(), TestDatabase::create());
    every_kind(&files);
    let session = files.session("run-2");
    for index in 0..1200_u32 {
        let mut coords = [f64::from(index) + 0.1; 64];
        coords[0] = if index % 3 == 0 { f64::NAN } else { -0.0 };
        coords[1] = 1e-45_f32.into();
        coords[2] = if index % 2 == 0 { 1e300 } else { 5e-324 };
        let basin_coords = BasinCoords::from(coords);
        let point = BasinPoint { step: None, basin_coords, phi: None, kappa: Some(-0.0) };
        session.record_basin(point).unwrap();
    }
    drop(session);
    files.records("run-3", 1200);
    once(&files, &copied).unwrap();
    agent_with(&files, &unnested, "?pgbouncer=true", |_| {}).once(Duration::ZERO).unwrap();
    let rows = contents(&mut copied.client());
    assert_eq!(rows.len(), contents(&mut unnested.client()).len());
    assert_eq!(rows, contents(&mut unnested.client()));
}

#[test]
fn two_agents_at_once_are_exact() {
    let (files, database) = (Files::new(), TestDatabase::create());
    for session in 0..4 {
        files.records(&format!("run-{session}"), 7000);
    }
    let agent = || agent_with(&files, &database, "", |_| {}).once(Duration::from_secs(30)).unwrap();
    let reports = thread::scope(|scope| {
        [scope.spawn(agent), scope.spawn(agent)].map(|agent| agent.join().unwrap())
    });
    assert_eq!(reports.iter().map(|report| report.lines).sum::<u64>(), 4 * 7002);
    assert_eq!(reports.iter().map(|report| report.conflicts).sum::<u64>(), 0);
    let mut client = database.client();
    assert_eq!(count(&mut client, "telemetry_records"), 28_000);
    assert_eq!(count(&mut client, "telemetry_sessions WHERE total_steps = 7000"), 4);
    assert_eq!(count(&mut client, "sync_segments WHERE next_line = 7003 AND sealed"), 4);
}

#[test]
fn an_agent_that_stopped_half_way_goes_on_where_it_was() {
    let (files, database) = (Files::new(), TestDatabase::create());
    files.records("run-1", 12_000);
    let mut client = database.client();
    // The third batch fails as if somebody shut the server down.
    client
        .batch_execute(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 RAISE EXCEPTION 'shutting down' USING ERRCODE = '57P01'; END $$;
             CREATE TRIGGER fail BEFORE INSERT ON sync_batches FOR EACH ROW
             WHEN (NEW.first_line > 10000) EXECUTE FUNCTION fail()",
        )
        .unwrap();
    let error = once(&files, &database).unwrap_err().to_string();
    assert!(error.contains("57P01"), "{error}");
    assert_eq!(count(&mut client, "telemetry_records"), 9999);
    client.batch_execute("DROP TRIGGER fail ON sync_batches").unwrap();
    let report = once(&files, &database).unwrap();
    assert_eq!((report.batches, report.conflicts), (1, 0));
    let sql = "telemetry_records r WHERE r.step = r.line_no - 2";
    assert_eq!(count(&mut client, sql), 12_000);
    assert_eq!(count(&mut client, "telemetry_sessions WHERE total_steps = 12000"), 1);
}

#[test]
fn a_forked_segment_is_not_written_while_others_go_on() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let (changed, other) = (files.session("changed"), files.session("other"));
    record(&changed, 0..5);
    once(&files, &database).unwrap();
    let path = files.segment("session_changed.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"step\":3", "\"step\":7")).unwrap();
    record(&changed, 5..6);
    record(&other, 0..3);
    let (sender, notices) = std::sync::mpsc::channel();
    let mut agent =
        agent_with(&files, &database, "", move |notice| sender.send(notice.to_string()).unwrap());
    let report = agent.once(Duration::ZERO).unwrap();
    assert_eq!(report.forked, [path]);
    let forked = notices.try_iter().find(|notice| notice.contains("-> forked")).unwrap();
    assert!(forked.contains("between lines 0 and 6"), "{forked}");
    let mut client = database.client();
    assert_eq!(count(&mut client, "telemetry_records WHERE session_id = 'changed'"), 5);
    assert_eq!(count(&mut client, "telemetry_records WHERE session_id = 'other'"), 3);
    assert_eq!(count(&mut client, "sync_segments WHERE state = 'forked' AND next_line = 7"), 1);
}

#[test]
fn a_shorter_file_is_not_written() {
    let (files, database) = (Files::new(), TestDatabase::create());
    files.records("run-1", 5);
    once(&files, &database).unwrap();
    let path = files.segment("session_run-1.jsonl");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(fs::metadata(&path).unwrap().len() - 10).unwrap();
    assert_eq!(once(&files, &database).unwrap().lines, 0);
    let mut client = database.client();
    assert_eq!(count(&mut client, "sync_segments WHERE state = 'local_behind'"), 1);
}

#[test]
fn lines_that_postgres_cannot_hold_are_quarantined_and_their_neighbours_pass() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..1);
    let regime = Some("a\0b".to_owned());
    session.record_telemetry(1, &Telemetry { regime, ..Telemetry::default() }).unwrap();
    session.record_telemetry(2, &Telemetry::default().with("x\0", 1.0)).unwrap();
    session.record_telemetry(3, &Telemetry::default().with("x", "\0")).unwrap();
    // Too long for an index: only the server knows.
    let severity: String =
        (0..9000_u32).map(|n| char::from_u32(0x4e00 + n * 7919 % 20_000).unwrap()).collect();
    session
        .record_emergency(Emergency::new(EventId::new("e").unwrap(), "reason", &severity))
        .unwrap();
    let mut file =
        OpenOptions::new().append(true).open(files.segment("session_run-1.jsonl")).unwrap();
    file.write_all(b"no json\n{\"timestamp\":\"2026-01-05T09:30:00Z\",\"event\":\"new\"}\n")
        .unwrap();
    record(&session, 4..6);
    let report = once(&files, &database).unwrap();
    assert_eq!(report.quarantined, 4);
    let mut client = database.client();
    let steps: Vec<i64> = client
        .query("SELECT step FROM telemetry_records ORDER BY line_no", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(steps, [0, 3, 4, 5]);
    let sql =
        "SELECT line_no, sqlstate, reason, raw, raw_bytes_total FROM sync_quarantine ORDER BY 1";
    let rows = client.query(sql, &[]).unwrap();
    let bytes = fs::read(files.segment("session_run-1.jsonl")).unwrap();
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    for row in &rows {
        let line = lines[usize::try_from(row.get::<_, i32>(0)).unwrap()];
        assert_eq!(row.get::<_, &[u8]>(3), line);
        assert_eq!(row.get::<_, i64>(4), i64::try_from(line.len()).unwrap());
    }
    assert_eq!(rows[2].get::<_, Option<&str>>(1), Some("54000"));
    assert_eq!(count(&mut client, "sync_unknown WHERE event = 'new'"), 1);
}

#[test]
fn one_poison_line_of_many_is_found() {
    let (files, database) = (Files::new(), TestDatabase::create());
    files.records("run-1", 6000);
    let mut client = database.client();
    client
        .batch_execute(
            "ALTER TABLE telemetry_records ADD CHECK (step NOT IN (17, 2500, 2501, 5999))",
        )
        .unwrap();
    let report = once(&files, &database).unwrap();
    assert_eq!(report.quarantined, 4);
    assert_eq!(count(&mut client, "telemetry_records"), 5996);
    assert_eq!(count(&mut client, "sync_quarantine WHERE sqlstate = '23514'"), 4);
}

#[test]
fn run_sends_what_comes_and_drains_when_it_is_asked_to_stop() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..5);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let agent = scope.spawn(|| {
            agent_with(&files, &database, "", |_| {}).run(Duration::ZERO, &stop).unwrap()
        });
        let mut client = database.client();
        await_count(&mut client, "telemetry_sessions WHERE total_steps = 5", 1);
        record(&session, 5..8);
        files.records("run-2", 3);
        await_count(&mut client, "telemetry_records", 11);
        record(&session, 8..9);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(agent.join().unwrap().lines, 15);
        assert_eq!(count(&mut client, "telemetry_sessions WHERE total_steps IN (9, 3)"), 2);
    });
}

/// Waits until the agent has done something.
fn await_count(client: &mut Client, table: &str, expected: i64) {
    let start = Instant::now();
    while count(client, table) != expected {
        assert!(start.elapsed() < Duration::from_secs(30), "{table} never has {expected} rows");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn status_tells_the_lag_with_and_without_a_database() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..5);
    let without = status(files.store.root(), None).unwrap();
    assert_eq!((without.database, without.lag_lines), ("not named", None));
    let target = Target::parse(Some(&database.url()), &|_| None).unwrap();
    let ask = || status(files.store.root(), Some(&target)).unwrap();
    assert_eq!((ask().database, ask().lag_lines), ("ready", Some(7)));
    once(&files, &database).unwrap();
    record(&session, 5..8);
    let behind = ask();
    assert_eq!(
        (behind.lag_lines, behind.segments[0].state.as_deref()),
        (Some(3), Some("streaming"))
    );
    assert!(behind.lag_seconds.unwrap() > 0.0 && behind.last_commit_at.is_some());
    once(&files, &database).unwrap();
    assert_eq!((ask().lag_lines, ask().lag_seconds), (Some(0), Some(0.0)));
}

#[test]
fn a_database_without_a_schema_blocks_and_says_what_to_run() {
    let (files, database) = (Files::new(), TestDatabase::empty());
    let error = once(&files, &database).unwrap_err().to_string();
    assert!(error.contains("tidelog-sync migrate"), "{error}");
    let target = Target::parse(Some(&database.url()), &|_| None).unwrap();
    assert_eq!(status(files.store.root(), Some(&target)).unwrap().database, "blocked");
}

#[test]
fn numbers_come_back_bit_for_bit() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    let numbers = [f64::NAN, -0.0, f64::NEG_INFINITY, f64::MAX, 5e-324, 0.1 + 0.2];
    for (phi, depth) in std::iter::zip(numbers, [i64::MIN, i64::MAX, -1, 0, 1, 2]) {
        let (phi, recursion_depth) = (Some(phi), Some(depth));
        let telemetry = Telemetry { phi, recursion_depth, ..Telemetry::default() };
        session.record_telemetry(depth, &telemetry.with("x", phi.unwrap())).unwrap();
    }
    once(&files, &database).unwrap();
    let sql =
        "SELECT phi, recursion_depth, step, extra::text FROM telemetry_records ORDER BY line_no";
    for (row, phi) in std::iter::zip(database.client().query(sql, &[]).unwrap(), numbers) {
        assert_eq!(row.get::<_, f64>(0).to_bits(), phi.to_bits());
        assert_eq!(row.get::<_, i64>(1), row.get::<_, i64>(2));
        let extra: Telemetry = serde_json::from_str(row.get(3)).unwrap();
        assert_eq!(extra.extra["x"], Value::Float(phi));
    }
}

#[test]
fn a_point_with_nan_has_no_vector_and_every_number() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    let mut coords = [0.1; 64];
    coords[5] = f64::NAN;
    let basin_coords = BasinCoords::from(coords);
    session.record_basin(BasinPoint { step: None, basin_coords, phi: None, kappa: None }).unwrap();
    once(&files, &database).unwrap();
    let sql = "SELECT basin_coords IS NULL, basin_coords_exact FROM basin_history";
    let row = database.client().query_one(sql, &[]).unwrap();
    assert!(row.get::<_, bool>(0));
    let exact: Vec<f64> = row.get(1);
    assert!(exact[5].is_nan() && exact[6].to_bits() == 0.1_f64.to_bits());
}

#[test]
fn a_database_that_was_restored_to_an_earlier_state_catches_up() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..100);
    once(&files, &database).unwrap();
    let backup = database.copy();
    record(&session, 100..200);
    once(&files, &database).unwrap();
    let restored = backup;
    record(&session, 200..300);
    session.end(Outcome::Completed).unwrap();
    let report = once(&files, &restored).unwrap();
    assert_eq!((report.lines, report.conflicts), (201, 0));
    once(&files, &database).unwrap();
    assert_eq!(contents(&mut restored.client()), contents(&mut database.client()));
}

#[test]
fn rows_that_are_there_before_their_cursor_are_kept_and_counted() {
    let (files, database) = (Files::new(), TestDatabase::create());
    files.records("run-1", 2000);
    once(&files, &database).unwrap();
    let mut client = database.client();
    let before = contents(&mut client);
    client
        .batch_execute(
            "UPDATE sync_segments SET next_line = 0, next_byte = 0, sealed = false,
                                      chain_hash = decode(repeat('00', 32), 'hex')",
        )
        .unwrap();
    let report = once(&files, &database).unwrap();
    assert_eq!((report.lines, report.conflicts), (2002, 1));
    assert_eq!(contents(&mut client), before);
}

#[test]
fn a_pruned_checkpoint_is_pruned_whichever_entry_comes_first() {
    let files = Files::new();
    let id = every_kind(&files);
    let store_journal = |action: &str, day: u32| {
        format!(
            "{{\"timestamp\":\"2099-01-{day:02}T00:00:00Z\",\"event\":\"checkpoint_{action}\",\
             \"checkpoint_id\":\"{id}\"}}\n"
        )
    };
    let path = write_store_segment(&files, &store_journal("pruned", 1));
    let both = TestDatabase::create();
    once(&files, &both).unwrap();
    // The pruning first: its segment alone, then the session's.
    let reversed = TestDatabase::create();
    let session = files.segment("session_run-1.jsonl");
    let aside = files.folder.path().join("aside");
    fs::rename(&session, &aside).unwrap();
    once(&files, &reversed).unwrap();
    fs::rename(&aside, &session).unwrap();
    once(&files, &reversed).unwrap();
    for database in [&both, &reversed] {
        let mut client = database.client();
        assert_eq!(count(&mut client, "checkpoints WHERE state = 'pruned' AND rank IS NULL"), 1);
    }
    assert!(path.exists());
}

#[test]
fn a_deleted_session_does_not_come_back() {
    let (files, database) = (Files::new(), TestDatabase::create());
    every_kind(&files);
    files.records("run-2", 3);
    once(&files, &database).unwrap();
    write_store_segment(
        &files,
        "{\"timestamp\":\"2026-01-05T09:30:00Z\",\"event\":\"session_deleted\",\"session_id\":\"run-1\"}\n",
    );
    once(&files, &database).unwrap();
    let check = |client: &mut Client| {
        for table in ["telemetry_records", "emergency_events", "basin_history", "checkpoints"] {
            assert_eq!(count(client, &format!("{table} WHERE session_id = 'run-1'")), 0, "{table}");
        }
        assert_eq!(count(client, "telemetry_sessions"), 1);
        assert_eq!(count(client, "session_parts"), 1);
        assert_eq!(count(client, "checkpoint_history"), 2);
    };
    let mut client = database.client();
    check(&mut client);
    // Replayed from the first line, with the tombstone there already.
    client
        .batch_execute(
            "UPDATE sync_segments SET next_line = 0, next_byte = 0,
                                      chain_hash = decode(repeat('00', 32), 'hex')
             WHERE session_id = 'run-1'",
        )
        .unwrap();
    once(&files, &database).unwrap();
    check(&mut client);
    let from_nothing = TestDatabase::create();
    once(&files, &from_nothing).unwrap();
    check(&mut from_nothing.client());
}

/// A segment of the store's own journal with these lines.
fn write_store_segment(files: &Files, lines: &str) -> PathBuf {
    let header = format!(
        "{{\"tidelog\":1,\"segment\":\"{}\",\"store\":\"{}\",\"session\":null,\
         \"writer\":{{\"pid\":1,\"host\":\"h\",\"program\":\"t\"}},\
         \"created_at\":\"2026-01-05T09:30:00Z\"}}\n",
        tidelog::SegmentId::random(),
        files.store.id()
    );
    let folder = files.store.root().join("logs/store");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{}.jsonl", tidelog::SegmentId::random()));
    fs::write(&path, header + lines).unwrap();
    path
}
