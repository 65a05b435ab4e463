//! Where segments and databases may stand towards each other: replaced, gone, parted, copied.

use tidelog_sync::NewTarget;

use super::*;

/// An agent that remembers, and what it tells.
fn remembering(
    files: &Files,
    database: &TestDatabase,
    new_target: NewTarget,
) -> (Agent, Receiver<String>) {
    let (sender, notices) = mpsc::channel();
    let tell = move |notice: &Notice| sender.send(notice.to_string()).unwrap();
    let folder = files.folder.path().join("state");
    (agent_with(files, database, "", tell).remembering(&folder, new_target), notices)
}

fn remembering_once(files: &Files, database: &TestDatabase) -> Result<Report, SyncError> {
    remembering(files, database, NewTarget::Refuse).0.once(Duration::ZERO)
}

/// A database that was made on its own, not restored from another one.
fn another_database() -> TestDatabase {
    let database = TestDatabase::create();
    let new_id = "UPDATE tidelog_meta SET database_id = md5(random()::text)::uuid";
    database.client().batch_execute(new_id).unwrap();
    database
}

fn state_of(client: &mut Client, session: &str) -> String {
    let sql = "SELECT state FROM sync_segments WHERE session_id = $1";
    client.query_one(sql, &[&session]).unwrap().get(0)
}

fn told(notices: &Receiver<String>, part: &str) -> Vec<String> {
    notices.try_iter().filter(|notice| notice.contains(part)).collect()
}

#[test]
fn another_empty_database_is_not_written_before_somebody_accepts_it() {
    let (files, first, second) = (Files::new(), another_database(), another_database());
    files.records("run-1", 5);
    remembering_once(&files, &first).unwrap();
    let error = remembering_once(&files, &second).unwrap_err();
    let id = |database: &TestDatabase| -> uuid::Uuid {
        let sql = "SELECT database_id FROM tidelog_meta";
        database.client().query_one(sql, &[]).unwrap().get(0)
    };
    let text = error.to_string();
    for part in [&id(&first).to_string(), &id(&second).to_string(), "--accept-new-target"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(count(&mut second.client(), "sync_stores"), 0);
    let (mut agent, notices) = remembering(&files, &second, NewTarget::Accept);
    agent.once(Duration::ZERO).unwrap();
    assert_eq!(told(&notices, "another database").len(), 1);
    assert_eq!(contents(&mut first.client()), contents(&mut second.client()));
    remembering_once(&files, &second).unwrap();
}

#[test]
fn another_database_that_has_the_store_goes_on_and_is_told() {
    let (files, first, second) = (Files::new(), another_database(), another_database());
    files.records("run-1", 5);
    once(&files, &second).unwrap();
    remembering_once(&files, &first).unwrap();
    let (mut agent, notices) = remembering(&files, &second, NewTarget::Refuse);
    assert_eq!(agent.once(Duration::ZERO).unwrap().lines, 0);
    assert_eq!(told(&notices, "another database").len(), 1);
}

#[test]
fn a_database_that_went_back_to_nothing_is_still_the_same() {
    let (files, database) = (Files::new(), another_database());
    let empty = database.copy();
    files.records("run-1", 5);
    remembering_once(&files, &database).unwrap();
    assert_eq!(remembering_once(&files, &empty).unwrap().lines, 7);
}

#[test]
fn an_agent_whose_memory_cannot_be_written_says_so_once_and_works() {
    let (files, database) = (Files::new(), TestDatabase::create());
    files.records("run-1", 5);
    fs::write(files.folder.path().join("state"), "no folder").unwrap();
    let (mut agent, notices) = remembering(&files, &database, NewTarget::Refuse);
    assert_eq!(agent.once(Duration::ZERO).unwrap().lines, 7);
    agent.once(Duration::ZERO).unwrap();
    assert_eq!(told(&notices, "cannot be written").len(), 1);
}

#[test]
fn lines_that_a_restored_database_wants_and_no_file_has_are_a_gap() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..3);
    remembering_once(&files, &database).unwrap();
    let backup = database.copy();
    record(&session, 3..9);
    session.end(Outcome::Completed).unwrap();
    files.records("run-2", 4);
    remembering_once(&files, &database).unwrap();
    for gone in ["session_run-1.jsonl", "session_run-2.jsonl"] {
        fs::rename(files.segment(gone), files.folder.path().join(gone)).unwrap();
    }
    files.records("run-3", 2);
    let (mut agent, notices) = remembering(&files, &backup, NewTarget::Refuse);
    agent.once(Duration::ZERO).unwrap();
    let gaps = told(&notices, "-> gap");
    assert!(gaps.iter().any(|gap| gap.contains("run-1.jsonl: discovered -> gap: lines 5 to 11")));
    assert!(gaps.iter().any(|gap| gap.contains("run-2.jsonl: discovered -> gap: lines 1 to 6")));
    let mut client = backup.client();
    assert_eq!(count(&mut client, "telemetry_records WHERE session_id = 'run-3'"), 2);
    assert_eq!(state_of(&mut client, "run-1"), "gap");

    // Told once, shown until acknowledged.
    let (mut agent, notices) = remembering(&files, &backup, NewTarget::Refuse);
    agent.once(Duration::ZERO).unwrap();
    assert_eq!(told(&notices, "gap"), [] as [String; 0]);
    let target = Target::parse(Some(&backup.url()), &|_| None).unwrap();
    let open_gaps = || status(files.store.root(), Some(&target)).unwrap().gaps;
    assert_eq!(open_gaps().len(), 2);
    let acknowledge = "SELECT acknowledge_gap(segment_id, 'pruned') FROM sync_gaps
                       WHERE file_name LIKE '%run-2%'";
    client.query_one(acknowledge, &[]).unwrap();
    assert_eq!(open_gaps()[0].first_line, 5);

    // The files come back, and with them their lines.
    for back in ["session_run-1.jsonl", "session_run-2.jsonl"] {
        fs::rename(files.folder.path().join(back), files.segment(back)).unwrap();
    }
    remembering_once(&files, &backup).unwrap();
    assert_eq!(count(&mut client, "sync_gaps"), 0);
    assert_eq!(count(&mut client, "telemetry_records"), 15);
}

#[test]
fn lines_that_were_seen_and_are_gone_before_they_were_sent_are_a_gap() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    let mut client = database.client();
    while_running(&files, &database, |notices| {
        await_count(&mut client, "sync_segments WHERE next_line > 0", 1);
        faults::fail_batches(&mut client, "run-1", "40001");
        record(&session, 0..2);
        await_notice(notices, "backoff");
        fs::remove_file(files.segment("session_run-1.jsonl")).unwrap();
        let notice = await_notice(notices, "-> gap");
        assert!(notice.contains("lines from 2 on are gone"), "{notice}");
    })
    .unwrap();
    assert_eq!(state_of(&mut client, "run-1"), "gap");
}

/// A copy of a store's folder, as of a machine that was cloned: no store was opened in it.
fn cloned(files: &Files) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = files.store.root().join(".");
    let copied = std::process::Command::new("cp").arg("-r").args([&from, folder.path()]).status();
    assert!(copied.unwrap().success());
    folder
}

fn once_at(root: &Path, database: &TestDatabase) -> (Report, Vec<String>) {
    let target = Target::parse(Some(&database.url()), &|_| None).unwrap();
    let (sender, notices) = mpsc::channel();
    let tell = move |notice: &Notice| sender.send(notice.to_string()).unwrap();
    let report = Agent::new(root, target, tell).unwrap().once(Duration::from_secs(30)).unwrap();
    (report, notices.try_iter().collect())
}

/// What a writer of the clone appends to the segment of `run-1`: lines with their CRC.
fn append(root: &Path, lines: &str) {
    let path = root.join("logs/telemetry/session_run-1.jsonl");
    OpenOptions::new().append(true).open(path).unwrap().write_all(lines.as_bytes()).unwrap();
}

/// Lines of records, and of an end, of another moment than all others.
fn lines(steps: std::ops::Range<i64>) -> String {
    let other = Files::new();
    let session = other.session("run-1");
    record(&session, steps);
    session.end(Outcome::Completed).unwrap();
    let text = fs::read_to_string(other.segment("session_run-1.jsonl")).unwrap();
    text.split_inclusive('\n').skip(2).collect()
}

fn records_of(text: &str, count: usize) -> String {
    text.split_inclusive('\n').take(count).collect()
}

/// Steps of the session, each as often as it is there.
fn steps(client: &mut Client) -> Vec<i64> {
    let sql = "SELECT step FROM telemetry_records WHERE session_id = 'run-1' ORDER BY step";
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn the_tail_of_a_clone_is_sent_once_beside_the_other_one() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..5);
    let clone = cloned(&files);
    record(&session, 5..9);
    // One batch, so that the fork lies within it.
    once(&files, &database).unwrap();
    let more = lines(100..107);
    append(clone.path(), &records_of(&more, 5));
    let (report, notices) = once_at(clone.path(), &database);
    assert_eq!((report.lines, report.forked.len()), (5, 0));
    let told = notices.iter().find(|notice| notice.contains("parts at line 7")).unwrap();
    assert!(told.contains("sent as segment"), "{told}");
    assert_eq!(once_at(clone.path(), &database).0.lines, 0);
    append(clone.path(), more.strip_prefix(&records_of(&more, 5)).unwrap());
    fs::remove_dir_all(clone.path().join("active")).unwrap();
    assert_eq!(once_at(clone.path(), &database).0.lines, 3);
    session.end(Outcome::Completed).unwrap();
    once(&files, &database).unwrap();
    let mut client = database.client();
    assert_eq!(steps(&mut client), (0..9).chain(100..107).collect::<Vec<i64>>());
    assert_eq!(count(&mut client, "sync_segments WHERE parent_line = 7 AND sealed"), 1);
    assert_eq!(count(&mut client, "sync_segments WHERE sealed"), 2);
    assert_eq!(count(&mut client, "telemetry_sessions WHERE status = 'completed'"), 1);
    assert_eq!(count(&mut client, "sync_quarantine"), 0);
}

#[test]
fn a_clone_with_fewer_lines_than_were_sent_parted_too() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..3);
    once(&files, &database).unwrap();
    let clone = cloned(&files);
    record(&session, 3..50);
    once(&files, &database).unwrap();
    assert_eq!(once_at(clone.path(), &database).0.lines, 0);
    append(clone.path(), &records_of(&lines(100..102), 2));
    assert_eq!(once_at(clone.path(), &database).0.lines, 2);
    let mut client = database.client();
    assert_eq!(steps(&mut client), (0..50).chain(100..102).collect::<Vec<i64>>());
    record(&session, 50..52);
    assert_eq!(once(&files, &database).unwrap().lines, 2);
    assert_eq!(state_of_root(&mut client), "streaming");
}

/// State of the segment that has no parent.
fn state_of_root(client: &mut Client) -> String {
    let sql = "SELECT state FROM sync_segments WHERE parent_segment_id IS NULL";
    client.query_one(sql, &[]).unwrap().get(0)
}

#[test]
fn a_clone_that_is_as_long_as_what_was_sent_is_found_by_an_agent_that_remembers() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..5);
    let clone = cloned(&files);
    record(&session, 5..9);
    session.end(Outcome::Completed).unwrap();
    once(&files, &database).unwrap();
    append(clone.path(), &lines(5..9));
    fs::remove_dir_all(clone.path().join("active")).unwrap();
    let target = Target::parse(Some(&database.url()), &|_| None).unwrap();
    let agent = Agent::new(clone.path(), target, |_| {}).unwrap();
    let state = tempfile::tempdir().unwrap();
    let report = agent.remembering(state.path(), NewTarget::Refuse).once(Duration::ZERO).unwrap();
    assert_eq!(report.lines, 5);
    let mut client = database.client();
    assert_eq!(count(&mut client, "telemetry_records"), 13);
    assert_eq!(count(&mut client, "sync_segments WHERE sealed"), 2);
}

#[test]
fn every_agent_gives_a_tail_the_same_segment_and_each_clone_has_its_own() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..5);
    let (clone, other) = (cloned(&files), cloned(&files));
    record(&session, 5..9);
    once(&files, &database).unwrap();
    append(clone.path(), &lines(100..110));
    append(other.path(), &lines(200..220));
    thread::scope(|scope| {
        for root in [clone.path(), clone.path(), other.path()] {
            let database = &database;
            scope.spawn(move || once_at(root, database));
        }
    });
    let mut client = database.client();
    let expected: Vec<i64> = (0..9).chain(100..110).chain(200..220).collect();
    assert_eq!(steps(&mut client), expected);
    assert_eq!(count(&mut client, "sync_segments"), 3);
}

#[test]
fn a_line_that_was_changed_together_with_its_crc_is_no_fork() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..9);
    once(&files, &database).unwrap();
    let path = files.segment("session_run-1.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let line = text.split_inclusive('\n').nth(5).unwrap();
    fs::write(&path, text.replace(line, &records_of(&lines(3..4), 1))).unwrap();
    record(&session, 9..10);
    let (report, _) = once_at(files.store.root(), &database);
    assert_eq!((report.lines, report.forked), (0, vec![path]));
    let mut client = database.client();
    assert_eq!(steps(&mut client), (0..9).collect::<Vec<i64>>());
    assert_eq!(state_of(&mut client, "run-1"), "forked");
}

#[test]
fn a_copied_store_adds_nothing_and_both_go_on_in_segments_of_their_own() {
    let (files, database) = (Files::new(), TestDatabase::create());
    files.records("run-1", 3000);
    let copy = cloned(&files);
    let lines: u64 = thread::scope(|scope| {
        let roots = [files.store.root(), copy.path()];
        let database = &database;
        let agents = roots.map(|root| scope.spawn(move || once_at(root, database).0.lines));
        agents.map(|agent| agent.join().unwrap()).iter().sum()
    });
    assert_eq!(lines, 3002);
    files.records("run-2", 10);
    let store = Store::open(copy.path()).unwrap();
    let session = store.start_session(SessionId::new("run-2").unwrap()).unwrap();
    record(&session, 10..20);
    session.end(Outcome::Completed).unwrap();
    for root in [files.store.root(), copy.path(), files.store.root()] {
        let (report, notices) = once_at(root, &database);
        assert_eq!((report.conflicts, report.forked.len()), (0, 0), "{notices:?}");
    }
    let mut client = database.client();
    assert_eq!(count(&mut client, "telemetry_records"), 3020);
    assert_eq!(count(&mut client, "telemetry_sessions WHERE status = 'completed'"), 2);
    assert_eq!(count(&mut client, "sync_segments WHERE state = 'sealed'"), 3);
}

#[test]
fn the_copy_of_a_live_segment_stands_by_while_its_writer_goes_on() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..5);
    let copy = cloned(&files);
    record(&session, 5..9);
    once(&files, &database).unwrap();
    let before = contents(&mut database.client());
    assert_eq!(once_at(copy.path(), &database).0.lines, 0);
    assert_eq!(contents(&mut database.client()), before);
    session.end(Outcome::Completed).unwrap();
    assert_eq!(once(&files, &database).unwrap().lines, 1);
    assert_eq!(once_at(copy.path(), &database).0.lines, 0);
    assert_eq!(count(&mut database.client(), "sync_segments WHERE sealed"), 1);
}

/// Makes a replica look as if an agent had sent it that knew only records, starts and ends.
fn as_an_older_agent_left_it(files: &Files, client: &mut Client) {
    client
        .batch_execute(
            "TRUNCATE emergency_events, basin_history, checkpoints, checkpoint_history;
             UPDATE telemetry_sessions SET emergency_count = 0",
        )
        .unwrap();
    let text = fs::read_to_string(files.segment("session_run-1.jsonl")).unwrap();
    for (line_no, line) in (0_i32..).zip(text.lines()) {
        let event = ["emergency", "basin", "checkpoint_created", "checkpoint_ranked", "newer"]
            .into_iter()
            .find(|event| line.contains(&format!("\"event\":\"{event}\"")));
        let Some(event) = event else { continue };
        let sql = "INSERT INTO sync_unknown SELECT segment_no, $1, session_id, $2, $3
                   FROM sync_segments ON CONFLICT DO NOTHING";
        client.execute(sql, &[&line_no, &event, &line.as_bytes()]).unwrap();
    }
}

#[test]
fn entries_that_an_older_agent_did_not_know_become_rows() {
    let files = Files::new();
    every_kind(&files);
    let mut file =
        OpenOptions::new().append(true).open(files.segment("session_run-1.jsonl")).unwrap();
    file.write_all(b"{\"timestamp\":\"2026-01-05T09:30:00Z\",\"event\":\"newer\"}\n").unwrap();
    let (expected, database) = (TestDatabase::create(), TestDatabase::create());
    once(&files, &expected).unwrap();
    once(&files, &database).unwrap();
    let mut client = database.client();
    as_an_older_agent_left_it(&files, &mut client);
    assert_eq!(count(&mut client, "sync_unknown"), 5);
    let (_, notices) = once_at(files.store.root(), &database);
    let told: Vec<&String> = notices.iter().filter(|n| n.contains("became rows")).collect();
    assert!(told.len() == 1 && told[0].starts_with("4 entries"), "{told:?}");
    assert_eq!(contents(&mut client), contents(&mut expected.client()));
    assert_eq!(count(&mut client, "sync_unknown WHERE event = 'newer'"), 1);
    assert_eq!(count(&mut client, "sync_unknown"), 1);
}

#[test]
fn a_kept_line_that_the_server_refuses_as_a_row_stays_kept_and_holds_up_no_other() {
    let (files, database) = (Files::new(), TestDatabase::create());
    every_kind(&files);
    once(&files, &database).unwrap();
    let mut client = database.client();
    as_an_older_agent_left_it(&files, &mut client);
    client.batch_execute("ALTER TABLE basin_history ADD CHECK (phi < 0)").unwrap();
    once(&files, &database).unwrap();
    assert_eq!(count(&mut client, "sync_unknown WHERE event = 'basin'"), 1);
    assert_eq!(count(&mut client, "sync_unknown"), 1);
    assert_eq!(count(&mut client, "emergency_events"), 1);
}

#[test]
fn kept_lines_of_a_deleted_session_do_not_come_back() {
    let (files, database) = (Files::new(), TestDatabase::create());
    every_kind(&files);
    once(&files, &database).unwrap();
    let mut client = database.client();
    client
        .batch_execute(
            "INSERT INTO tombstones
             SELECT 'session', 'run-1', store_no, segment_no, 1, now() FROM sync_segments",
        )
        .unwrap();
    as_an_older_agent_left_it(&files, &mut client);
    once(&files, &database).unwrap();
    assert_eq!(count(&mut client, "sync_unknown"), 0);
    assert_eq!(count(&mut client, "emergency_events"), 0);
    assert_eq!(count(&mut client, "checkpoint_history"), 2);
}
