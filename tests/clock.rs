//! The wall clock steps, leaps or shows a wrong year: entries keep their order and their number.
//!
//! Programs run under `faketime`, which changes the time that they see, and not the monotonic one.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tidelog::{
    Body, Emergency, EventId, NewCheckpoint, Outcome, Session, SessionOptions, SqlValue, Store,
    Timestamp, Value,
};

use crate::support::compare::check_replica;
use crate::support::postgres::TestDatabase;
use crate::support::{TestStore, entries, program, session_id, telemetry};

const STORE: &str = "TIDELOG_TEST_CLOCK_STORE";
/// From this size on the child goes on in another segment.
const SEGMENT_BYTES: &str = "TIDELOG_TEST_CLOCK_SEGMENT_BYTES";
/// Forward and back, by seconds and by lifetimes.
const TIMES: [&str; 7] = [
    "2026-06-01 12:00:00",
    "2026-06-01 11:59:59",
    "2038-01-19 03:14:08",
    "1960-02-29 23:59:59",
    "1996-06-01 12:00:00",
    "2099-12-31 23:59:59",
    "2026-06-01 12:00:01",
];
/// Longer than any persist takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process of its own that does what its standard input says; does nothing in a usual test run.
#[test]
fn child_that_records_by_another_clock() {
    let Ok(root) = std::env::var(STORE) else { return };
    let store = Store::open(root).unwrap();
    let mut options = SessionOptions::default();
    if let Ok(bytes) = std::env::var(SEGMENT_BYTES) {
        options.segment_bytes_max = bytes.parse().unwrap();
    }
    let mut session = Some(store.start_session_with(session_id("run-7"), options).unwrap());
    writeln!(std::io::stdout(), "\ndone").unwrap();
    for (number, line) in std::io::stdin().lines().enumerate() {
        match line.unwrap().split_once(' ').unwrap() {
            ("record", steps) => record(session.as_ref().unwrap(), steps),
            ("save", phi) => save(session.as_ref().unwrap(), phi.parse().unwrap(), number),
            ("end", _) => session.take().unwrap().end(Outcome::Completed).unwrap(),
            other => panic!("{other:?}"),
        }
        writeln!(std::io::stdout(), "\ndone").unwrap();
    }
}

fn record(session: &Session, steps: &str) {
    for step in steps.split(' ') {
        session.record_telemetry(step.parse().unwrap(), &telemetry(0.5)).unwrap();
    }
}

fn save(session: &Session, phi: f64, number: usize) {
    session.save_checkpoint(NewCheckpoint::new(Value::Null, phi)).unwrap();
    let event = EventId::new(format!("event-{number}")).unwrap();
    session.record_emergency(Emergency::new(event, "collapse", "high")).unwrap();
}

/// Such a process, and the clock that it sees.
struct Recorder {
    child: Child,
    answers: Lines<BufReader<ChildStdout>>,
    clock: tempfile::TempDir,
}

impl Recorder {
    fn start(root: &Path, time: &str) -> Self {
        let this = std::env::current_exe().unwrap();
        Self::start_by(Command::new(this), root, time)
    }

    /// With a program that starts this one.
    fn start_by(mut command: Command, root: &Path, time: &str) -> Self {
        let clock = tempfile::tempdir().unwrap();
        fs::write(clock.path().join("now"), time).unwrap();
        let mut child = command
            .args(["--exact", "clock::child_that_records_by_another_clock", "--nocapture"])
            .env(STORE, root)
            .env("LD_PRELOAD", faketime_library())
            .env("FAKETIME_TIMESTAMP_FILE", clock.path().join("now"))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut recorder = Self { child, answers, clock };
        recorder.await_done();
        recorder
    }

    /// Sets the clock; the file is replaced at once, so that no half of it is read.
    fn set_clock(&self, time: &str) {
        let next = self.clock.path().join("next");
        fs::write(&next, time).unwrap();
        fs::rename(next, self.clock.path().join("now")).unwrap();
    }

    fn call(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
        self.await_done();
    }

    fn await_done(&mut self) {
        let done = self.answers.by_ref().map_while(Result::ok).any(|line| line == "done");
        assert!(done, "the recorder failed");
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn finish(mut self) {
        self.call("end now");
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

/// What `faketime` preloads; the system's loader knows what its `$LIB` means.
fn faketime_library() -> String {
    let output = Command::new("faketime").args(["2020-01-01", "printenv", "LD_PRELOAD"]).output();
    let output = output.expect("faketime is missing: apt-get install faketime");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A program under another clock.
fn at(time: &str, program: &Path) -> Command {
    let mut command = Command::new("faketime");
    command.arg(time).arg(program);
    command
}

/// Steps of the files, in their order.
fn steps_in_files(root: &Path) -> Vec<i64> {
    let (entries, invalid) = entries(root);
    assert_eq!(invalid, 0);
    let step = |body| match body {
        Body::Record(record) => Some(record.step),
        _ => None,
    };
    entries.into_iter().filter_map(|entry| step(entry.body)).collect()
}

fn steps_in_index(store: &Store) -> Vec<i64> {
    let query = "SELECT step FROM telemetry_records ORDER BY segment_no, line_no";
    let mut steps = Vec::new();
    let on_row = |row: &[SqlValue]| {
        steps.extend(row.iter().filter_map(|cell| match cell {
            SqlValue::Integer(step) => Some(*step),
            _ => None,
        }));
        ControlFlow::Continue(())
    };
    store.sql(query, |_| {}, on_row).unwrap();
    steps
}

fn trajectory(store: &Store) -> Vec<i64> {
    let points = store.get_telemetry_trajectory(&session_id("run-7"), 1_000).unwrap();
    points.into_iter().map(|point| point.step).collect()
}

/// Everybody who can be asked gives the steps 0, 1, 2 … in this order, and nothing is damaged.
fn check_order(store: &Store, records: i64) {
    let expected: Vec<i64> = (0..records).collect();
    assert_eq!(trajectory(store), expected);
    assert_eq!(store.verify(&mut |_| {}).unwrap().findings, []);
}

#[test]
fn a_clock_that_steps_while_recording_changes_no_order() {
    let store = TestStore::new();
    let mut recorder = Recorder::start(&store.root(), TIMES[0]);
    for (step, time) in TIMES.iter().enumerate() {
        recorder.set_clock(time);
        recorder.call(&format!("record {step}"));
        // the index reads on after each step of the clock
        assert_eq!(steps_in_index(store.store()).len(), step + 1);
    }
    recorder.finish();
    let expected: Vec<i64> = (0..TIMES.len() as i64).collect();
    assert_eq!(steps_in_files(&store.root()), expected);
    assert_eq!(steps_in_index(store.store()), expected);
    check_order(store.store(), TIMES.len() as i64);
}

#[test]
fn a_session_that_goes_on_in_other_segments_keeps_its_order_though_the_clock_steps() {
    let store = TestStore::new();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.env(SEGMENT_BYTES, "2000");
    let mut recorder = Recorder::start_by(child, &store.root(), TIMES[0]);
    for (number, time) in TIMES.iter().enumerate() {
        recorder.set_clock(time);
        let steps: Vec<String> = (20 * number..20 * number + 20).map(|s| s.to_string()).collect();
        recorder.call(&format!("record {}", steps.join(" ")));
    }
    recorder.finish();
    assert!(store.store().status().unwrap().segments > TIMES.len());
    check_order(store.store(), 20 * TIMES.len() as i64);
}

#[test]
fn each_entry_keeps_the_time_that_the_clock_showed() {
    let store = TestStore::new();
    let mut recorder = Recorder::start(&store.root(), TIMES[0]);
    for time in TIMES {
        recorder.set_clock(time);
        recorder.call("record 1");
    }
    recorder.kill();
    let is_record = |body: &Body| matches!(body, Body::Record(_));
    let (entries, _) = entries(&store.root());
    let records = entries.iter().filter(|entry| is_record(&entry.body));
    let shown: Vec<String> = records.map(|entry| to_second(entry.timestamp)).collect();
    assert_eq!(shown, TIMES);
}

fn to_second(time: Timestamp) -> String {
    time.to_jiff().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[test]
fn attempts_stand_in_their_order_though_the_clock_went_back_between_them() {
    let store = TestStore::new();
    for (attempt, time) in TIMES.iter().enumerate() {
        let mut recorder = Recorder::start(&store.root(), time);
        recorder.call(&format!("record {} {}", 2 * attempt, 2 * attempt + 1));
        recorder.finish();
    }
    check_order(store.store(), 2 * TIMES.len() as i64);
    let [session] = &store.store().sessions().unwrap()[..] else { panic!() };
    assert_eq!((session.attempts, session.status.as_str()), (7, "completed"));
}

#[test]
fn a_session_that_ends_before_it_starts_is_whole() {
    let store = TestStore::new();
    let mut recorder = Recorder::start(&store.root(), "2026-06-01 12:00:00");
    recorder.call("record 0 1 2");
    recorder.set_clock("2026-06-01 11:00:00");
    recorder.finish();
    let stats = store.store().get_session_stats(&session_id("run-7")).unwrap();
    assert_eq!((stats.status.as_str(), stats.total_steps), ("completed", 3));
    // what the clock said; nobody else knows
    let duration = stats.duration_seconds.unwrap();
    assert!((-3_600.0..-3_590.0).contains(&duration), "{duration}");
    check_order(store.store(), 3);
}

#[test]
fn a_process_killed_in_the_future_is_recovered_in_the_past() {
    let store = TestStore::new();
    let mut recorder = Recorder::start(&store.root(), "2099-01-01 00:00:00");
    recorder.call("record 0 1 2");
    recorder.kill();
    let sessions = at("1996-01-01 00:00:00", &program("tidelog"))
        .args(["--store", store.root().to_str().unwrap(), "demo", "--steps", "20"])
        .status()
        .unwrap();
    assert!(sessions.success());
    let sessions = store.store().sessions().unwrap();
    let killed = sessions.iter().find(|session| session.session_id == session_id("run-7"));
    assert_eq!(killed.unwrap().status, "aborted");
    check_order(store.store(), 3);
}

#[test]
fn programs_of_any_year_use_one_store() {
    let store = TestStore::new();
    for time in TIMES {
        for command in ["demo", "rebuild", "best", "sessions", "status", "verify"] {
            let output = at(time, &program("tidelog"))
                .args(["--store", store.root().to_str().unwrap(), command])
                .output()
                .unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{time} {command}: {error}");
        }
    }
    assert_eq!(store.store().sessions().unwrap().len(), TIMES.len());
    assert_eq!(steps_in_index(store.store()).len(), TIMES.len() * 1_000);
}

/// Facts of no session go into the store's own segments, which are named by the time.
#[test]
fn checkpoints_saved_and_pruned_by_a_clock_that_steps_stay_so() {
    let store = TestStore::new();
    for time in TIMES {
        let mut recorder = Recorder::start(&store.root(), time);
        recorder.call("save 0.5");
        recorder.kill();
        store.store().status().unwrap();
    }
    let checkpoints = store.store().list_checkpoints(100).unwrap();
    assert_eq!(checkpoints.len(), TIMES.len());
    for checkpoint in &checkpoints {
        store.store().prune_checkpoint(&checkpoint.checkpoint_id).unwrap();
    }
    let pruned = store.store().list_checkpoints(100).unwrap();
    assert!(pruned.len() == TIMES.len() && pruned.iter().all(|checkpoint| checkpoint.is_pruned()));
    assert!(store.store().verify(&mut |_| {}).unwrap().is_sound());
}

#[test]
fn a_step_back_does_not_put_a_persist_off() {
    let store = TestStore::new();
    let log = store.root().join("../strace.log");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=fdatasync", "-o"]).arg(&log);
    strace.arg(std::env::current_exe().unwrap());
    let mut recorder = Recorder::start_by(strace, &store.root(), TIMES[0]);
    for time in ["2026-05-01 00:00:00", "1960-01-01 00:00:00", "2099-01-01 00:00:00"] {
        recorder.set_clock(time);
        let before = persists(&log);
        recorder.call("record 1");
        let start = Instant::now();
        while persists(&log) == before {
            assert!(start.elapsed() < PATIENCE, "nothing was persisted at {time}");
            thread::sleep(Duration::from_millis(20));
        }
    }
    recorder.finish();
}

fn persists(log: &Path) -> usize {
    fs::read_to_string(log).unwrap().lines().filter(|line| line.contains("fdatasync(")).count()
}

#[test]
fn an_agent_of_the_wrong_year_copies_what_clocks_that_stepped_have_written() {
    let (store, database) = (TestStore::new(), TestDatabase::create());
    let mut recorder = Recorder::start(&store.root(), TIMES[0]);
    for (step, time) in TIMES.iter().enumerate() {
        recorder.set_clock(time);
        recorder.call(&format!("record {step}"));
        recorder.call(&format!("save 0.{step}"));
        let agent = at(TIMES[TIMES.len() - 1 - step], &program("tidelog-sync"))
            .arg("once")
            .env("TIDELOG_STORE", store.root())
            .env("DATABASE_URL", database.url())
            .output()
            .unwrap();
        assert!(agent.status.success(), "{time}: {}", String::from_utf8_lossy(&agent.stderr));
    }
    recorder.kill();
    check_replica(store.store(), &mut database.client());
}
