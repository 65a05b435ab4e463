//! Files that are replaced, copied, or cannot be read.

use super::*;

/// Puts another file in a segment's place, as `mv` does.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

#[test]
fn a_file_that_takes_the_place_of_a_segment_is_not_read_on_from_its_cursor() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..3);
    let path = files.segment("session_run-1.jsonl");
    while_running(&files, &database, |notices| {
        await_count(&mut database.client(), "telemetry_records", 3);
        let text = fs::read_to_string(&path).unwrap();
        let last = text.lines().last().unwrap();
        replace(&path, &format!("{}{last}\n{last}\n", text.replace("\"step\":1", "\"step\":7")));
        await_notice(notices, "-> forked");
    })
    .unwrap();
    assert_eq!(count(&mut database.client(), "telemetry_records"), 3);
}

#[test]
fn a_segment_that_takes_the_place_of_another_one_is_sent_once() {
    let (files, other, database) = (Files::new(), Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..3);
    other.records("run-2", 40);
    let path = files.segment("session_run-1.jsonl");
    while_running(&files, &database, |notices| {
        let mut client = database.client();
        await_count(&mut client, "telemetry_records", 3);
        replace(&path, &fs::read_to_string(other.segment("session_run-2.jsonl")).unwrap());
        await_notice(notices, "-> missing");
        await_count(&mut client, "sync_segments WHERE sealed", 1);
    })
    .unwrap();
    let mut client = database.client();
    assert_eq!(count(&mut client, "telemetry_records WHERE session_id = 'run-1'"), 3);
    assert_eq!(count(&mut client, "telemetry_records WHERE session_id = 'run-2'"), 40);
    assert_eq!(count(&mut client, "sync_segments WHERE state = 'missing'"), 1);
}

#[test]
fn of_a_segment_and_its_older_copy_the_longer_file_is_followed() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..3);
    fs::copy(files.segment("session_run-1.jsonl"), files.segment("session_run-1-bak.jsonl"))
        .unwrap();
    record(&session, 3..5);
    let (sender, notices) = mpsc::channel();
    let mut agent =
        agent_with(&files, &database, "", move |notice| sender.send(notice.to_string()).unwrap());
    agent.once(Duration::ZERO).unwrap();
    assert_eq!(count(&mut database.client(), "telemetry_records"), 5);
    let refused: Vec<String> =
        notices.try_iter().filter(|notice| notice.contains("second file of segment")).collect();
    assert!(refused.len() == 1 && refused[0].contains("run-1-bak.jsonl"), "{refused:?}");
    let target = Target::parse(Some(&database.url()), &|_| None).unwrap();
    let found = status(files.store.root(), Some(&target)).unwrap();
    assert_eq!((found.segments.len(), found.lag_bytes), (1, Some(0)));
}

#[test]
fn a_segment_that_cannot_be_read_holds_up_no_other() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let (first, other) = (files.session("run-1"), files.session("run-2"));
    record(&first, 0..3);
    let path = files.segment("session_run-1.jsonl");
    while_running(&files, &database, |notices| {
        let mut client = database.client();
        await_count(&mut client, "telemetry_records", 3);
        let aside = path.with_extension("aside");
        fs::rename(&path, &aside).unwrap();
        // Opens, and fails when it is read.
        fs::create_dir(&path).unwrap();
        let notice = await_notice(notices, "-> unreadable");
        assert!(notice.contains("session_run-1.jsonl"), "{notice}");
        record(&other, 0..2);
        await_count(&mut client, "telemetry_records", 5);
        fs::remove_dir(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
        await_notice(notices, "unreadable ->");
    })
    .unwrap();
}

#[test]
fn once_tells_which_segments_could_not_be_read() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..3);
    let mut agent = agent_with(&files, &database, "", |_| {});
    assert_eq!(agent.once(Duration::ZERO).unwrap().unreadable, [] as [PathBuf; 0]);
    let path = files.segment("session_run-1.jsonl");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(agent.once(Duration::ZERO).unwrap().unreadable, [path]);
}

#[test]
fn a_fork_of_equal_length_is_seen_before_the_segment_is_sealed() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..5);
    once(&files, &database).unwrap();
    let path = files.segment("session_run-1.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"step\":1", "\"step\":7")).unwrap();
    assert_eq!(once(&files, &database).unwrap().forked, [path]);
    assert_eq!(count(&mut database.client(), "sync_segments WHERE state = 'forked'"), 1);
}

#[test]
fn a_change_of_early_lines_while_the_agent_runs_is_seen_at_the_end() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..3);
    while_running(&files, &database, |notices| {
        await_count(&mut database.client(), "telemetry_records", 3);
        record(&session, 3..5);
        await_count(&mut database.client(), "telemetry_records", 5);
        let path = files.segment("session_run-1.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"step\":1", "\"step\":7")).unwrap();
        session.end(Outcome::Completed).unwrap();
        await_notice(notices, "-> forked");
    })
    .unwrap();
    assert_eq!(count(&mut database.client(), "sync_segments WHERE sealed"), 0);
}
