//! Many processes and threads use one store at once, from its first moment on.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tidelog::{
    Body, Emergency, EventId, NewCheckpoint, Outcome, SqlValue, Store, StoreId, journal,
};

use crate::support::{entries, session_id, telemetry};

const PROCESSES: usize = 8;
const THREADS: i64 = 8;
const WRITERS: usize = 16;
/// How often the moment of making a store is tried.
const STORES: usize = 100;
const RECORDS: i64 = 50;
/// Each record's step tells its writer: this many steps belong to one.
const STEPS_OF_WRITER: i64 = 1_000_000;

/// What a child is told by its environment.
const STORE: &str = "TIDELOG_TEST_PROCESSES_STORE";
const SESSION: &str = "TIDELOG_TEST_PROCESSES_SESSION";
const WRITER: &str = "TIDELOG_TEST_PROCESSES_WRITER";
const RECORDS_OF_ONE: &str = "TIDELOG_TEST_PROCESSES_RECORDS";

/// A process of its own that records; does nothing in a usual test run. It starts when its standard
/// input closes, so that all start at once.
#[test]
fn child_that_records() {
    let Ok(root) = std::env::var(STORE) else { return };
    let (session, writer) = (std::env::var(SESSION).unwrap(), number(WRITER));
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (root, session) = (&root, &session);
            scope.spawn(move || record_as(Path::new(root), session, writer * THREADS + thread));
        }
    });
}

fn number(variable: &str) -> i64 {
    std::env::var(variable).unwrap().parse().unwrap()
}

/// One writer: opens the store itself, as a program of its own would.
fn record_as(root: &Path, session: &str, writer: i64) {
    let store = Store::open(root).unwrap();
    let session = store.start_session(session_id(session)).unwrap();
    for number in 0..self::number(RECORDS_OF_ONE) {
        let step = writer * STEPS_OF_WRITER + number;
        session.record_telemetry(step, &telemetry(0.5)).unwrap();
        writeln!(std::io::stdout(), "acknowledged {step}").unwrap();
    }
    let event = EventId::new(format!("event-{writer}")).unwrap();
    session.record_emergency(Emergency::new(event, "collapse", "high")).unwrap();
    session.save_checkpoint(NewCheckpoint::new(writer.into(), writer as f64)).unwrap();
    session.end(Outcome::Completed).unwrap();
}

/// Children that wait for their start.
struct Children(Vec<Child>);

impl Children {
    fn new(root: &Path, session: &str, processes: usize, records: i64) -> Self {
        let child = |writer: usize| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "processes::child_that_records", "--nocapture"])
                .envs([(STORE, root.to_str().unwrap()), (SESSION, session)])
                .env(WRITER, writer.to_string())
                .env(RECORDS_OF_ONE, records.to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        };
        Self((0..processes).map(child).collect())
    }

    /// Lets them go, and waits for all; the steps that they acknowledged, sorted.
    fn run(mut self) -> Vec<i64> {
        self.0.iter_mut().for_each(|child| drop(child.stdin.take()));
        let readers: Vec<_> =
            self.0.into_iter().map(|child| thread::spawn(|| finish(child))).collect();
        let mut steps: Vec<i64> = readers.into_iter().flat_map(|r| r.join().unwrap()).collect();
        steps.sort();
        steps
    }
}

fn finish(mut child: Child) -> Vec<i64> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let steps = lines.filter_map(|line| line.split("acknowledged ").nth(1)?.parse().ok());
    let steps: Vec<i64> = steps.collect();
    assert!(child.wait().unwrap().success());
    steps
}

/// The steps in the files, sorted, and in each segment in the order of their writing.
fn steps(root: &Path) -> Vec<i64> {
    let (entries, invalid) = entries(root);
    assert_eq!(invalid, 0);
    let records = entries.into_iter().filter_map(|entry| match entry.body {
        Body::Record(record) => Some(record.step),
        _ => None,
    });
    let mut steps: Vec<i64> = records.collect();
    let mut last_of_writer = BTreeMap::new();
    for step in &steps {
        let last = last_of_writer.insert(step / STEPS_OF_WRITER, *step);
        assert!(last.is_none_or(|last| last < *step), "{step} after {last:?}");
    }
    steps.sort();
    steps
}

fn count(store: &Store, table: &str) -> i64 {
    let mut found = None;
    let query = format!("SELECT count(*) FROM {table}");
    let on_row = |row: &[SqlValue]| {
        found = row.first().cloned();
        ControlFlow::Continue(())
    };
    store.sql(&query, |_| {}, on_row).unwrap();
    match found {
        Some(SqlValue::Integer(count)) => count,
        other => panic!("{table}: {other:?}"),
    }
}

/// Files and index hold what was acknowledged, each once; nothing is damaged or left.
fn check(root: &Path, acknowledged: &[i64], writers: i64) {
    assert_eq!(acknowledged.len() as i64, writers * RECORDS);
    assert_eq!(steps(root), acknowledged);
    let store = Store::open(root).unwrap();
    let segments = journal::discover(root).unwrap().segments;
    assert!(segments.iter().all(|segment| segment.header.store == store.id()));
    assert_eq!(count(&store, "telemetry_records"), writers * RECORDS);
    assert_eq!(count(&store, "emergency_events"), writers);
    assert_eq!(count(&store, "checkpoints"), writers);
    let report = store.verify(&mut |_| {}).unwrap();
    assert_eq!(report.findings, []);
    let status = store.status().unwrap();
    assert!(status.writers.is_empty() && status.abandoned.is_empty());
    assert_eq!(status.segments as i64, writers);
}

fn empty_folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("runs/store");
    (folder, root)
}

#[test]
fn processes_and_threads_that_start_at_once_make_one_store() {
    let (_folder, root) = empty_folder();
    let acknowledged = Children::new(&root, "run-7", PROCESSES, RECORDS).run();
    check(&root, &acknowledged, PROCESSES as i64 * THREADS);
    // all were ranks of one session
    let [session] = &Store::open(&root).unwrap().sessions().unwrap()[..] else { panic!() };
    assert_eq!(session.status, "completed");
}

#[test]
fn threads_that_make_one_store_at_once_get_the_same_one() {
    for _ in 0..STORES {
        let (_folder, root) = empty_folder();
        let start = Barrier::new(PROCESSES);
        let ids: BTreeSet<StoreId> = thread::scope(|scope| {
            let open = || {
                start.wait();
                Store::open(&root).unwrap().id()
            };
            let threads: Vec<_> = (0..PROCESSES).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(ids, BTreeSet::from([Store::open(&root).unwrap().id()]));
    }
}

#[test]
fn sixteen_processes_write_one_session_while_others_read_it() {
    let (_folder, root) = empty_folder();
    drop(Store::open(&root).unwrap());
    let children = Children::new(&root, "run-7", WRITERS, RECORDS);
    let done = AtomicBool::new(false);
    let acknowledged = thread::scope(|scope| {
        let readers = [0, 1].map(|_| scope.spawn(|| read_until(&root, &done)));
        let acknowledged = children.run();
        done.store(true, Ordering::Release);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
        acknowledged
    });
    check(&root, &acknowledged, WRITERS as i64 * THREADS);
}

/// Reads in all ways until the writers are done; how often. What a reader has seen stays.
fn read_until(root: &Path, done: &AtomicBool) -> usize {
    let (mut rounds, mut seen) = (0, 0);
    while !done.load(Ordering::Acquire) {
        let store = Store::open_read_only(root).unwrap();
        let records = count(&store, "telemetry_records");
        assert!(records >= seen, "{records} records after {seen}");
        seen = records;
        store.status().unwrap();
        let report = store.verify(&mut |_| {}).unwrap();
        assert!(report.is_sound(), "{:?}", report.findings);
        assert!(run("status", root).contains("\"store_id\""));
        rounds += 1;
    }
    rounds
}

/// Standard output of `tidelog --json`.
fn run(command: &str, root: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tidelog"))
        .args(["--json", command, "--store"])
        .arg(root)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_index_that_is_rebuilt_by_several_at_once_while_others_write_is_whole() {
    let (_folder, root) = empty_folder();
    let children = Children::new(&root, "run-7", 2, RECORDS);
    drop(Store::open(&root).unwrap());
    let acknowledged = thread::scope(|scope| {
        let rebuilds: Vec<_> = (0..4).map(|_| scope.spawn(|| run("rebuild", &root))).collect();
        let acknowledged = children.run();
        rebuilds.into_iter().for_each(|rebuild| drop(rebuild.join().unwrap()));
        acknowledged
    });
    thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(|| run("rebuild", &root))));
    });
    check(&root, &acknowledged, 2 * THREADS);
}

#[test]
fn programs_that_start_at_once_on_an_empty_store_all_record() {
    let (_folder, root) = empty_folder();
    thread::scope(|scope| {
        (0..PROCESSES).for_each(|_| drop(scope.spawn(|| run("demo", &root))));
    });
    let store = Store::open(&root).unwrap();
    assert_eq!(count(&store, "telemetry_records"), PROCESSES as i64 * 1_000);
    assert!(store.verify(&mut |_| {}).unwrap().is_sound());
}
