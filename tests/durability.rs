//! What a session does when a disk fails, a segment is full, or records may wait in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tidelog::{
    BUFFER_BYTES, Body, Durability, Emergency, Error, EventId, OnMissed, Outcome, Recorded,
    Session, SessionOptions,
};

use crate::support::{TestStore, entries, session_id, telemetry};

const LONG: Duration = Duration::from_secs(3600);

fn steps(root: &Path) -> Vec<i64> {
    let records = entries(root).0.into_iter().filter_map(|entry| match entry.body {
        Body::Record(record) => Some(record.step),
        _ => None,
    });
    records.collect()
}

fn segments(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join("logs/telemetry")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn started(store: &TestStore, options: SessionOptions) -> Session {
    store.store().start_session_with(session_id("run-7"), options).unwrap()
}

fn buffered(persist_interval: Duration) -> SessionOptions {
    let durability = Durability::Buffered;
    SessionOptions { durability, persist_interval, ..SessionOptions::default() }
}

fn record(session: &Session, steps: std::ops::Range<i64>) {
    for step in steps {
        let recorded = session.record_telemetry(step, &telemetry(0.5)).unwrap();
        assert_eq!(recorded, Recorded::Kept, "step {step}: {:?}", session.missed());
    }
}

#[test]
fn buffered_records_wait_for_the_interval() {
    let store = TestStore::new();
    let session = started(&store, buffered(Duration::from_millis(50)));
    record(&session, 0..3);
    let start = Instant::now();
    while steps(&store.root()).len() < 3 {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn no_more_than_the_buffer_is_kept_in_memory() {
    let store = TestStore::new();
    let session = started(&store, buffered(LONG));
    record(&session, 0..1000);
    let file = fs::read(&segments(&store.root())[0]).unwrap();
    let line = file.split_inclusive(|byte| *byte == b'\n').next_back().unwrap().len();
    let in_memory = (1000 - steps(&store.root()).len()) * line;
    assert!(0 < in_memory && in_memory <= BUFFER_BYTES + line, "{in_memory} bytes");
}

#[test]
fn buffered_records_are_written_when_asked_for_and_at_the_end() {
    let store = TestStore::new();
    let session = started(&store, buffered(LONG));
    record(&session, 0..2);
    assert!(steps(&store.root()).is_empty());
    session.wait_durable(Durability::Buffered).unwrap();
    assert!(steps(&store.root()).is_empty());
    session.wait_durable(Durability::Written).unwrap();
    assert_eq!(steps(&store.root()), [0, 1]);
    record(&session, 2..3);
    session.wait_durable(Durability::Persisted).unwrap();
    assert_eq!(steps(&store.root()), [0, 1, 2]);
    record(&session, 3..4);
    session.end(Outcome::Completed).unwrap();
    assert_eq!(steps(&store.root()), [0, 1, 2, 3]);
}

#[test]
fn a_query_sees_what_its_own_process_buffers() {
    let store = TestStore::new();
    let session = started(&store, buffered(LONG));
    record(&session, 0..2);
    let found = store.store().get_telemetry_trajectory(&session_id("run-7"), 10).unwrap();
    assert_eq!(found.len(), 2);
}

#[test]
fn an_emergency_comes_after_the_records_before_it() {
    let store = TestStore::new();
    let session = started(&store, buffered(LONG));
    record(&session, 0..2);
    session.record_emergency(Emergency::new(EventId::generate(), "collapse", "high")).unwrap();
    let kinds: Vec<bool> =
        entries(&store.root()).0.iter().map(|e| matches!(e.body, Body::Emergency(_))).collect();
    assert_eq!(kinds, [false, false, false, true]);
}

#[test]
fn a_full_segment_is_followed_by_another_of_the_same_session() {
    for durability in [Durability::Buffered, Durability::Written, Durability::Persisted] {
        let store = TestStore::new();
        let options =
            SessionOptions { durability, segment_bytes_max: 2000, ..SessionOptions::default() };
        let session = started(&store, options);
        record(&session, 0..500);
        session.end(Outcome::Completed).unwrap();
        assert!(segments(&store.root()).len() > 1, "{durability:?}");
        let points = store.store().get_telemetry_trajectory(&session_id("run-7"), 999).unwrap();
        let found: Vec<i64> = points.iter().map(|point| point.step).collect();
        assert_eq!(found, (0..500).collect::<Vec<_>>(), "{durability:?}");
        let session = &store.store().sessions().unwrap()[0];
        assert_eq!((session.status.as_str(), session.attempts), ("completed", 1));
        assert!(store.store().verify(&mut |_| {}).unwrap().is_sound());
    }
}

#[test]
fn a_segment_that_was_removed_is_told_of_once_and_left() {
    let store = TestStore::new();
    let session = started(&store, SessionOptions::default());
    record(&session, 0..2);
    fs::remove_file(&segments(&store.root())[0]).unwrap();
    let error = session.persist().unwrap_err().to_string();
    assert!(error.contains("it was removed while it was being written"), "{error}");
    record(&session, 2..4);
    session.persist().unwrap();
    session.end(Outcome::Completed).unwrap();
    assert_eq!(steps(&store.root()), [2, 3]);
    let reason = entries(&store.root()).0.into_iter().find_map(|entry| match entry.body {
        Body::SessionEnded(ended) if ended.outcome == Outcome::Continued => ended.reason,
        _ => None,
    });
    assert!(reason.unwrap().contains("removed"));
    assert_eq!(fs::read_dir(store.root().join("active")).unwrap().count(), 1); // the turn
}

#[test]
fn a_failure_in_the_background_is_told_to_who_asks_next() {
    let store = TestStore::new();
    let persist_interval = Duration::from_millis(10);
    let session = started(&store, SessionOptions { persist_interval, ..Default::default() });
    fs::remove_file(&segments(&store.root())[0]).unwrap();
    let start = Instant::now();
    let mut step = 0;
    while steps(&store.root()).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20));
        record(&session, step..step + 1);
        step += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(matches!(session.persist(), Err(Error::SegmentPoisoned { .. })));
    session.persist().unwrap();
}

#[test]
fn the_end_tells_of_a_failure_of_which_nobody_was_told() {
    let store = TestStore::new();
    let persist_interval = Duration::from_millis(1);
    let session = started(&store, SessionOptions { persist_interval, ..Default::default() });
    fs::remove_file(&segments(&store.root())[0]).unwrap();
    let start = Instant::now();
    while segments(&store.root()).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20));
        record(&session, 0..1);
        std::thread::sleep(Duration::from_millis(5));
    }
    let error = session.end(Outcome::Completed).unwrap_err();
    assert!(matches!(error, Error::SegmentPoisoned { .. }), "{error}");
    assert_eq!(store.store().sessions().unwrap()[0].status, "completed");
}

#[test]
fn every_interval_can_be_chosen() {
    let store = TestStore::new();
    for persist_interval in [Duration::ZERO, Duration::MAX] {
        let session = started(&store, SessionOptions { persist_interval, ..Default::default() });
        record(&session, 0..1);
        session.end(Outcome::Completed).unwrap();
    }
}

#[test]
fn training_goes_on_when_the_store_is_removed() {
    for on_missed in [OnMissed::Count, OnMissed::Raise] {
        let store = TestStore::new();
        let session = started(&store, SessionOptions { on_missed, ..Default::default() });
        fs::remove_dir_all(store.root()).unwrap();
        record(&session, 1..2);
        session.persist().unwrap_err();
        let recorded = (0..3).map(|_| session.record_telemetry(7, &telemetry(0.5)));
        let recorded: Vec<_> = recorded.collect();
        match on_missed {
            OnMissed::Count => assert!(recorded.iter().all(|r| matches!(r, Ok(Recorded::Missed)))),
            OnMissed::Raise => assert!(recorded.iter().all(Result::is_err)),
        }
        let missed = session.missed().unwrap();
        assert_eq!((missed.records, missed.first_step), (3, Some(7)));
        assert!(!store.root().exists());
        assert!(session.end(Outcome::Completed).is_err());
    }
}

/// The body of a process whose files may not grow at first; does nothing in a usual test run.
#[test]
fn child_whose_files_may_not_grow() {
    let Ok(root) = std::env::var("TIDELOG_TEST_SMALL_FILES_STORE") else { return };
    let on_missed = OnMissed::Count;
    let store = tidelog::Store::open(root).unwrap();
    let options = SessionOptions { on_missed, ..Default::default() };
    let session = store.start_session_with(session_id("run-7"), options).unwrap();
    let kept = (0..200).take_while(|step| {
        session.record_telemetry(*step, &telemetry(0.5)).unwrap() == Recorded::Kept
    });
    let kept = kept.count() as i64;
    for step in kept + 1..kept + 5 {
        assert_eq!(session.record_telemetry(step, &telemetry(0.5)).unwrap(), Recorded::Missed);
    }
    assert_eq!(session.missed().unwrap().records, 5);
    let pid = std::process::id().to_string();
    let raised = Command::new("prlimit").args(["--fsize=unlimited:", "--pid", &pid]).status();
    assert!(raised.unwrap().success());
    record(&session, 1000..1001);
    session.end(Outcome::Completed).unwrap();
    std::io::Write::write_all(&mut std::io::stdout(), format!("kept {kept}\n").as_bytes()).unwrap();
}

#[test]
fn what_a_disk_refused_is_counted_and_the_journal_tells_of_it() {
    let store = TestStore::new();
    let test = std::env::current_exe().unwrap();
    let script = r#"trap "" XFSZ; ulimit -S -f 8; exec "$0" --exact "$1" --nocapture"#;
    let child = Command::new("bash")
        .args(["-c", script])
        .arg(test)
        .arg("durability::child_whose_files_may_not_grow")
        .env("TIDELOG_TEST_SMALL_FILES_STORE", store.root())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success(), "{output}{}", String::from_utf8_lossy(&child.stderr));
    let kept = output.split_once("kept ").unwrap().1.lines().next().unwrap().to_owned();
    let kept: i64 = kept.parse().unwrap();
    let found = steps(&store.root());
    assert_eq!(found, (0..kept).chain([1000]).collect::<Vec<_>>());
    let (all, damaged) = entries(&store.root());
    let gaps: Vec<_> = all
        .iter()
        .filter_map(|entry| match &entry.body {
            Body::Gap(gap) => Some((gap.records, gap.first_step, gap.last_step)),
            _ => None,
        })
        .collect();
    assert_eq!(gaps, [(5, Some(kept), Some(kept + 4))]);
    assert_eq!(damaged, 0);
}

/// The body of a process that forks; does nothing in a usual test run.
#[test]
fn child_that_forks() {
    let Ok(root) = std::env::var("TIDELOG_TEST_FORK_STORE") else { return };
    let store = tidelog::Store::open(root).unwrap();
    let session = store.start_session(session_id("run-7")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // holds the session's locks much of the time, also when the fork happens
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                session.record_telemetry(1, &telemetry(0.5)).unwrap();
            }
        });
        let children: Vec<i32> =
            (0..8).map(|child| fork(|| in_the_child(&session, child))).collect();
        let codes: Vec<i32> = children.into_iter().map(wait).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(codes, [0; 8]);
    });
    session.record_telemetry(2, &telemetry(0.5)).unwrap();
    session.end(Outcome::Completed).unwrap();
}

fn in_the_child(session: &Session, child: i64) {
    for step in 0..50 {
        session.record_telemetry(1000 + child * 100 + step, &telemetry(0.5)).unwrap();
    }
    session.persist().unwrap();
    let grandchild = fork(|| record(session, 5000..5001));
    assert_eq!(wait(grandchild), 0);
}

#[expect(unsafe_code, reason = "there is no safe fork")]
fn fork(child: impl FnOnce()) -> i32 {
    // SAFETY: the child uses what the test is about, and leaves without running destructors.
    match unsafe { libc::fork() } {
        0 => {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
            unsafe { libc::_exit(i32::from(result.is_err())) }
        }
        pid => pid,
    }
}

#[expect(unsafe_code, reason = "there is no safe fork")]
fn wait(pid: i32) -> i32 {
    let mut status = -1;
    // SAFETY: the pid is a child's and the status is ours.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    status
}

#[test]
fn a_forked_child_writes_a_segment_of_its_own() {
    let mut store = TestStore::new();
    let child = Command::new("timeout")
        .args(["--kill-after=1", "60"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "durability::child_that_forks", "--nocapture"])
        .env("TIDELOG_TEST_FORK_STORE", store.root())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    store.reopen(); // the children left without an end
    assert_eq!(segments(&store.root()).len(), 1 + 8 + 8);
    let mut found = steps(&store.root());
    assert_eq!(found.iter().filter(|step| **step == 5000).count(), 8);
    found.retain(|step| ![1, 5000].contains(step));
    found.sort();
    let children = (0..8).flat_map(|child| (0..50).map(move |step| 1000 + child * 100 + step));
    assert_eq!(found, std::iter::once(2).chain(children).collect::<Vec<_>>());
    for path in segments(&store.root()) {
        let text = fs::read_to_string(path).unwrap();
        let pids = text.lines().filter(|line| line.contains("\"pid\"")).count();
        assert_eq!(pids, 1);
    }
    let session = &store.store().sessions().unwrap()[0];
    assert_eq!(session.status, "completed");
}
