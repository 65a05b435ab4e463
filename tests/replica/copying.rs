//! What an agent does on a good day.

use super::*;

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

#[test]
fn status_tells_the_lag_with_and_without_a_database() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..5);
    let without = status(files.store.root(), None).unwrap();
    assert_eq!((without.database, without.lag_lines), ("not named", None));
    let target = Target::parse(Some(&database.url()), &|_| None).unwrap();
    let ask = || status(files.store.root(), Some(&target)).unwrap();
    assert_eq!((ask().database, ask().lag_lines), ("ready", Some(6)));
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
fn a_segment_without_entries_is_no_lag_and_is_sealed() {
    let (files, database) = (Files::new(), TestDatabase::create());
    files.records("run-1", 3);
    let path = files.segment("session_run-1.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.split_inclusive('\n').next().unwrap()).unwrap();
    let target = Target::parse(Some(&database.url()), &|_| None).unwrap();
    let ask = || status(files.store.root(), Some(&target)).unwrap();
    assert_eq!(
        (ask().lag_lines, ask().lag_bytes, ask().lag_seconds),
        (Some(0), Some(0), Some(0.0))
    );
    once(&files, &database).unwrap();
    assert_eq!(ask().segments[0].state.as_deref(), Some("sealed"));
    let mut client = database.client();
    let before = versions(&mut client);
    once(&files, &database).unwrap();
    assert_eq!(versions(&mut client), before);
}

#[test]
fn status_knows_segments_that_came_from_another_store() {
    let (files, moved, database) = (Files::new(), Files::new(), TestDatabase::create());
    files.records("run-1", 3);
    once(&files, &database).unwrap();
    fs::create_dir_all(moved.segment("")).unwrap();
    let name = "session_run-1.jsonl";
    fs::copy(files.segment(name), moved.segment(name)).unwrap();
    let target = Target::parse(Some(&database.url()), &|_| None).unwrap();
    let found = status(moved.store.root(), Some(&target)).unwrap();
    assert_eq!((found.lag_lines, found.segments[0].state.as_deref()), (Some(0), Some("sealed")));
    assert!(found.last_commit_at.is_some());
    assert_eq!(count(&mut database.client(), "sync_stores"), 1);
}
