//! Files that changed, lines that PostgreSQL refuses, databases that went back.

use tidelog_sync::sqlstate::Class;

use super::*;

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
fn lines_that_postgres_cannot_hold_are_kept_whole_and_their_neighbours_pass() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..1);
    let regime = Some("a\0b".to_owned());
    session.record_telemetry(1, &Telemetry { regime, ..Telemetry::default() }).unwrap();
    session.record_telemetry(2, &Telemetry::default().with("x\0", 1.0)).unwrap();
    session.record_telemetry(3, &Telemetry::default().with("x", "\0")).unwrap();
    let mut file =
        OpenOptions::new().append(true).open(files.segment("session_run-1.jsonl")).unwrap();
    file.write_all(b"no json\n{\"timestamp\":\"2026-01-05T09:30:00Z\",\"event\":\"new\"}\n")
        .unwrap();
    record(&session, 4..6);
    let report = once(&files, &database).unwrap();
    assert_eq!(report.quarantined, 3);
    let mut client = database.client();
    let steps: Vec<i64> = client
        .query("SELECT step FROM telemetry_records ORDER BY line_no", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(steps, [0, 1, 2, 3, 4, 5]);
    let sql = "SELECT line_no, reason, raw, raw_bytes_total FROM sync_quarantine ORDER BY 1";
    let rows = client.query(sql, &[]).unwrap();
    let bytes = fs::read(files.segment("session_run-1.jsonl")).unwrap();
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    for row in &rows {
        let line = lines[usize::try_from(row.get::<_, i32>(0)).unwrap()];
        assert_eq!(row.get::<_, &[u8]>(2), line);
        assert_eq!(row.get::<_, i64>(3), i64::try_from(line.len()).unwrap());
    }
    assert_eq!(rows[0].get::<_, &str>(1), "text holds U+0000; shown as U+FFFD");
    assert_eq!(count(&mut client, "sync_unknown WHERE event = 'new'"), 1);
}

#[test]
fn a_session_whose_texts_hold_nul_starts_and_ends() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    session.end_because(Outcome::Failed, "a\0b").unwrap();
    once(&files, &database).unwrap();
    let mut client = database.client();
    assert_eq!(count(&mut client, "telemetry_sessions WHERE status = 'failed'"), 1);
    assert_eq!(count(&mut client, "session_parts WHERE reason = U&'a\\FFFDb'"), 1);
    assert_eq!(count(&mut client, "sync_quarantine WHERE line_no = 2"), 1);
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
fn isolation_does_not_depend_on_the_default_of_the_database() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let mut client = database.client();
    client
        .batch_execute(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation
                 TO ''repeatable read''', current_database()); END $$;
             CREATE TABLE seen (isolation text);
             CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO seen VALUES (current_setting('transaction_isolation'));
                 RETURN NEW; END $$;
             CREATE TRIGGER see BEFORE INSERT ON sync_batches FOR EACH ROW EXECUTE FUNCTION see()",
        )
        .unwrap();
    files.records("run-1", 3);
    once(&files, &database).unwrap();
    assert_eq!(count(&mut client, "seen"), 1);
    assert_eq!(count(&mut client, "seen WHERE isolation = 'read committed'"), 1);
}

/// Makes the batches of one session fail with this code.
pub(super) fn fail_batches(client: &mut Client, session: &str, sqlstate: &str) {
    client
        .batch_execute(&format!(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.segment_no = (SELECT segment_no FROM sync_segments
                                      WHERE session_id = '{session}')
                 THEN RAISE EXCEPTION 'not now' USING ERRCODE = '{sqlstate}'; END IF;
                 RETURN NEW; END $$;
             CREATE TRIGGER fail BEFORE INSERT ON sync_batches FOR EACH ROW EXECUTE FUNCTION fail()"
        ))
        .unwrap();
}

#[test]
fn a_segment_that_the_server_refuses_for_now_holds_up_no_other() {
    let (files, database) = (Files::new(), TestDatabase::create());
    for session in ["run-1", "run-2", "run-3"] {
        files.records(session, 3);
    }
    let mut client = database.client();
    for (session, sqlstate) in [("run-2", "40001"), ("run-2", "XX000")] {
        fail_batches(&mut client, session, sqlstate);
        let error = once(&files, &database).unwrap_err().to_string();
        assert!(error.contains(sqlstate), "{error}");
        assert_eq!(count(&mut client, "telemetry_records"), 6);
        client.batch_execute("DROP FUNCTION fail CASCADE").unwrap();
    }
    assert_eq!(once(&files, &database).unwrap().lines, 5);
}

#[test]
fn a_connection_outlives_a_failure_that_may_pass() {
    let (files, database) = (Files::new(), TestDatabase::create());
    files.records("run-1", 3);
    let mut client = database.client();
    fail_batches(&mut client, "run-1", "40P01");
    while_running(&files, &database, |notices| {
        await_notice(notices, "connecting");
        await_notice(notices, "backoff");
        await_notice(notices, "backoff");
        client.batch_execute("DROP FUNCTION fail CASCADE").unwrap();
        await_count(&mut client, "telemetry_records", 3);
        assert!(notices.try_iter().all(|notice| !notice.contains("connecting")));
    })
    .unwrap();
}

#[test]
fn a_quarantine_that_refuses_a_line_blocks() {
    let (files, database) = (Files::new(), TestDatabase::create());
    files.records("run-1", 1);
    let mut file =
        OpenOptions::new().append(true).open(files.segment("session_run-1.jsonl")).unwrap();
    file.write_all(b"no json\n").unwrap();
    let mut client = database.client();
    client.batch_execute("ALTER TABLE sync_quarantine ADD CHECK (line_no < 0)").unwrap();
    let error = once(&files, &database).unwrap_err();
    assert_eq!(error.class(), Some(Class::Blocked), "{error}");
    assert!(error.to_string().contains("quarantine"), "{error}");
}

#[test]
fn a_part_begins_although_the_server_refuses_its_first_line() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..2);
    let mut client = database.client();
    client.batch_execute("ALTER TABLE session_parts ADD CHECK (started_at IS NULL)").unwrap();
    assert_eq!(once(&files, &database).unwrap().quarantined, 1);
    assert_eq!(count(&mut client, "session_parts WHERE attempt = 1"), 1);
    assert_eq!(count(&mut client, "telemetry_sessions WHERE status = 'active'"), 1);
}

#[test]
fn slow_statistics_hold_up_no_lines() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..3);
    let mut client = database.client();
    client
        .batch_execute(
            "CREATE OR REPLACE FUNCTION update_session_stats(session_id text) RETURNS void
             LANGUAGE sql AS 'SELECT pg_sleep(120)'",
        )
        .unwrap();
    while_running(&files, &database, |_| {
        for count in [3, 4, 5] {
            await_count(&mut client, "telemetry_records", count);
            record(&session, count..count + 1);
        }
        await_count(&mut client, "telemetry_records", 6);
    })
    .unwrap();
}

#[test]
fn an_agent_that_is_asked_to_stop_gives_up_in_time() {
    let (files, database) = (Files::new(), TestDatabase::create());
    files.records("run-1", 3);
    database
        .client()
        .batch_execute(
            "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM pg_sleep(50); RETURN NEW; END $$;
             CREATE TRIGGER hang BEFORE INSERT ON sync_batches FOR EACH ROW EXECUTE FUNCTION hang()",
        )
        .unwrap();
    let start = Instant::now();
    let stop = AtomicBool::new(true);
    let error = agent_with(&files, &database, "", |_| {}).run(Duration::ZERO, &stop).unwrap_err();
    assert!(matches!(error, SyncError::NotDrained { seconds: 25 }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
}
