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
