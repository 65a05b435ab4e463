//! A store on a network file system, and on one without locks.
//!
//! The real program runs under `strace`, which changes what the kernel answers: `statfs` says NFS,
//! or `flock` says that there are no locks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{TestStore, session_id, telemetry};

/// The first field of the answer is the magic; this is NFS's.
const IS_NFS: &str = "inject=statfs:poke_exit=@arg2=6969000000000000";
const RECORDS: i64 = 12_000;

/// `tidelog` on a store, under changed system calls.
fn under(injections: &[&str], store: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=statfs,flock,fsync,fdatasync"]);
    command.args(injections.iter().flat_map(|injection| ["-e", injection]));
    command.arg(env!("CARGO_BIN_EXE_tidelog")).env_remove("TIDELOG_STORE");
    command.arg("--store").arg(store).args(arguments);
    command
}

fn output(mut command: Command) -> Output {
    command.output().expect("strace is missing: apt-get install strace")
}

fn ok(command: Command) -> String {
    let output = output(command);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

fn error(command: Command) -> String {
    let output = output(command);
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

fn count_records(injections: &[&str], store: &Path) -> String {
    ok(under(injections, store, &["--json", "sql", "SELECT count(*) AS n FROM telemetry_records"]))
}

fn counted(records: i64) -> String {
    format!("{{\"n\":{records}}}\n")
}

fn recorded(records: i64) -> TestStore {
    let store = TestStore::new();
    record(&store, "run-1", records);
    store
}

fn record(store: &TestStore, id: &str, records: i64) {
    let session = store.store().start_session(session_id(id)).unwrap();
    for step in 0..records {
        session.record_telemetry(step, &telemetry(0.5)).unwrap();
    }
}

fn index(store: &Path) -> PathBuf {
    store.join("index.sqlite")
}

/// Whether the file says that it is in WAL mode; there SQLite shares memory.
fn shares_memory(store: &Path) -> bool {
    fs::read(index(store)).unwrap()[18] == 2
}

#[test]
fn an_index_on_a_network_file_system_shares_no_memory() {
    let store = recorded(20);
    let root = store.root();
    store.store().sessions().unwrap();
    assert!(shares_memory(&root));
    assert_eq!(count_records(&[IS_NFS], &root), counted(20));
    assert!(!shares_memory(&root));
    assert!(!root.join("index.sqlite-shm").exists() && !root.join("index.sqlite-wal").exists());
    record(&store, "run-2", 5);
    assert_eq!(count_records(&[IS_NFS], &root), counted(25));
    // copied back to a local disk
    store.store().sessions().unwrap();
    assert!(shares_memory(&root));
}

#[test]
fn processes_that_catch_up_at_once_on_a_network_file_system_agree() {
    let store = recorded(RECORDS);
    let root = store.root();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(count_records(&[IS_NFS], &root), counted(RECORDS)));
        }
    });
    assert!(!shares_memory(&root));
    assert!(store.store().verify(&mut |_| {}).unwrap().is_sound());
}

#[test]
fn a_catch_up_killed_on_a_network_file_system_goes_on_where_it_was() {
    for kill_at in 1..=9 {
        let store = recorded(RECORDS);
        let kill = format!("inject=fsync,fdatasync:signal=SIGKILL:when={kill_at}");
        let killed = output(under(&[IS_NFS, &kill], &store.root(), &["sessions"]));
        assert!(!killed.status.success(), "there were only {kill_at} moments to kill at");
        assert_eq!(count_records(&[IS_NFS], &store.root()), counted(RECORDS));
        assert!(store.store().verify(&mut |_| {}).unwrap().is_sound());
    }
}

#[test]
fn a_reader_without_end_on_a_network_file_system_keeps_nobody_from_asking() {
    let store = recorded(20);
    assert_eq!(count_records(&[IS_NFS], &store.root()), counted(20));
    let reader = rusqlite::Connection::open(index(&store.root())).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM index_meta").unwrap();
    record(&store, "run-2", 5);
    assert_eq!(count_records(&[IS_NFS], &store.root()), counted(25));
}

#[test]
fn a_file_system_without_locks_is_named_before_anything_is_recorded() {
    let store = recorded(20);
    for (code, words) in [
        ("ENOLCK", "No locks available"),
        ("EOPNOTSUPP", "not supported"),
        ("ENOSYS", "not implemented"),
    ] {
        let no_locks = format!("inject=flock:error={code}");
        let error = error(under(&[IS_NFS, &no_locks], &store.root(), &["demo"]));
        assert!(error.contains("its file system (nfs) has no file locks"), "{error}");
        assert!(error.contains(words) && error.contains("local disk"), "{error}");
        assert!(!error.contains("is locked"), "{error}");
    }
    assert_eq!(store.store().sessions().unwrap().len(), 1);
}

#[test]
fn a_store_without_locks_is_read_with_an_index_that_nobody_shares() {
    let store = recorded(20);
    let no_locks = [IS_NFS, "inject=flock:error=ENOLCK"];
    assert_eq!(count_records(&no_locks, &store.root()), counted(20));
    assert!(!index(&store.root()).exists());
    let error = error(under(&no_locks, &store.root(), &["rebuild"]));
    assert!(error.contains("its file system (nfs) has no file locks"), "{error}");
}

/// NFS knows exclusive locks only of files that are open for writing.
#[test]
fn files_are_open_for_writing_when_they_are_locked() {
    let store = recorded(20);
    let _session = store.store().start_session(session_id("run-2")).unwrap();
    let log = store.root().join("../strace.log");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=openat", "-o"]).arg(&log);
    strace.arg(env!("CARGO_BIN_EXE_tidelog")).arg("--store").arg(store.root()).arg("status");
    ok(strace);
    let log = fs::read_to_string(log).unwrap();
    let opened: Vec<&str> = log.lines().filter(|line| is_lock(line)).collect();
    assert!(opened.len() > 1 && opened.iter().all(|line| line.contains("O_RDWR")), "{opened:#?}");
}

/// Markers, and the file whose lock is the turn to look at them.
fn is_lock(call: &str) -> bool {
    call.contains("/active/") && (call.contains(".json\"") || call.contains("/look\""))
}
