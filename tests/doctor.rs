//! `tidelog doctor`: what it says of an environment that something is wrong with.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;
use tidelog::Store;
use tidelog::doctor::{self, Level};

use crate::support::{TestStore, program, session_id, telemetry};

/// `tidelog doctor --json` on a store, started by another program with these arguments.
fn doctor_by(starter: &[&str], store: &Path) -> (i32, Json) {
    let mut command = match starter {
        [] => Command::new(env!("CARGO_BIN_EXE_tidelog")),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(env!("CARGO_BIN_EXE_tidelog"));
            command
        }
    };
    command.args(["doctor", "--json", "--store"]).arg(store);
    let output = command.env_remove("DATABASE_URL").env_remove("PGHOST").output().unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{starter:?}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

/// Level and words of the worst finding of a check.
fn worst(report: &Json, check: &str) -> (String, String) {
    let levels = ["ok", "note", "warning", "problem"];
    let of_check = report["findings"].as_array().unwrap().iter().filter(|f| f["check"] == check);
    let level = |f: &&Json| levels.iter().position(|level| f["level"] == *level).unwrap();
    let found = of_check.max_by_key(level).unwrap_or_else(|| panic!("no {check}: {report}"));
    (found["level"].as_str().unwrap().into(), found.to_string())
}

fn recorded() -> TestStore {
    let store = TestStore::new();
    let session = store.store().start_session(session_id("run-7")).unwrap();
    session.record_telemetry(1, &telemetry(0.5)).unwrap();
    drop(session);
    store.store().sessions().unwrap();
    store
}

/// Content and time of every file of a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => {
                let modified = path.metadata().unwrap().modified().unwrap();
                found.insert(path.clone(), (fs::read(&path).unwrap(), modified));
            }
        }
    }
    found
}

#[test]
fn a_sound_store_has_no_problem_and_stays_as_it_is() {
    let store = recorded();
    let before = files(&store.root());
    let (code, report) = doctor_by(&[], &store.root());
    assert_eq!((code, &report["problem_count"]), (0, &Json::from(0)), "{report}");
    assert_eq!(files(&store.root()), before);
}

#[test]
fn a_missing_store_is_explained_and_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let (code, report) = doctor_by(&[], &folder.path().join("runs/store"));
    assert_eq!(code, 0);
    assert!(worst(&report, "store").1.contains("is not there"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_lost_store_file_is_a_problem_and_comes_back_from_the_segments() {
    let mut store = recorded();
    let id = store.store().id();
    fs::remove_file(store.root().join("store.json")).unwrap();
    let (code, report) = doctor_by(&[], &store.root());
    assert_eq!(code, 1);
    let (level, finding) = worst(&report, "store");
    assert!(level == "problem" && finding.contains("from a backup"), "{finding}");
    assert_eq!(store.reopen().id(), id);
    assert!(store.store().verify(&mut |_| {}).unwrap().is_sound());
}

#[test]
fn segments_of_several_stores_give_no_store_file_back() {
    let (store, other) = (recorded(), recorded());
    let name = |of: &str| format!("logs/telemetry/session_{of}.jsonl");
    fs::copy(other.root().join(name("run-7")), store.root().join(name("other"))).unwrap();
    fs::remove_file(store.root().join("store.json")).unwrap();
    let error = Store::open(store.root()).unwrap_err().to_string();
    assert!(error.contains("name several stores") && error.contains("from a backup"), "{error}");
    assert!(!store.root().join("store.json").exists());
}

#[test]
fn a_store_of_somebody_else_is_a_problem_and_gets_no_probe() {
    let store = recorded();
    // the user nobody may read it all; only root can try
    for path in [store.root().parent().unwrap().into(), store.root()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let copy = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let tidelog = copy.path().join("tidelog");
    fs::copy(program("tidelog"), &tidelog).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(tidelog)
        .args(["doctor", "--json", "--store"])
        .arg(store.root())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let report = serde_json::from_slice(&output.stdout).unwrap();
    assert!(worst(&report, "access").1.contains("may not write"));
    assert!(!report.to_string().contains("\"persist\""));
}

#[test]
fn low_limits_are_told_and_end_nobody() {
    let store = recorded();
    for (file_bytes, code, words) in [("10000000", 0, "9 MiB"), ("4096", 1, "4 KiB")] {
        let fsize = format!("--fsize={file_bytes}");
        let (found, report) = doctor_by(&["prlimit", "--nofile=64", &fsize], &store.root());
        assert_eq!(found, code);
        let report = report.to_string();
        assert!(report.contains("64 open files at most"), "{report}");
        assert!(report.contains(&format!("files of {words} at most")), "{report}");
    }
}

#[test]
fn a_network_file_system_and_missing_locks_are_told() {
    let store = recorded();
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=statfs,flock"];
    let nfs = [&strace[..], &["-e", "inject=statfs:poke_exit=@arg2=6969000000000000"]].concat();
    let (code, report) = doctor_by(&nfs, &store.root());
    assert_eq!((code, worst(&report, "file_system").0.as_str()), (0, "note"));
    let (code, report) =
        doctor_by(&[&nfs[..], &["-e", "inject=flock:error=ENOLCK"]].concat(), &store.root());
    assert_eq!(code, 1);
    let (level, locks) = worst(&report, "locks");
    assert!(level == "problem" && locks.contains("(nfs) has no file locks"), "{locks}");
}

#[test]
fn a_disk_that_fails_is_a_problem() {
    let store = recorded();
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync"];
    let broken = [&strace[..], &["-e", "inject=fdatasync:error=EIO"]].concat();
    let (code, report) = doctor_by(&broken, &store.root());
    assert_eq!((code, worst(&report, "persist").0.as_str()), (1, "problem"));
}

#[test]
fn a_clock_that_is_wrong_is_a_warning() {
    let store = recorded();
    for (time, words) in
        [("1999-01-01 00:00:00", "cannot be right"), ("2026-01-01 00:00:00", "ahead of the clock")]
    {
        let (code, report) = doctor_by(&["faketime", time], &store.root());
        assert_eq!(code, 0);
        let clock = worst(&report, "clock");
        assert!(clock.0 == "warning" && report.to_string().contains(words), "{time}: {clock:?}");
    }
}

#[test]
fn what_lies_in_the_store_is_told() {
    let store = recorded();
    let session = store.store().start_session(session_id("run-8")).unwrap();
    fs::write(store.root().join("logs/telemetry/notes.jsonl"), "hello\n").unwrap();
    fs::write(store.root().join("index.sqlite"), [7; 8192]).unwrap();
    let report = doctor::examine(&store.root());
    let found = |check: &str| report.findings.iter().find(|f| f.check == check).unwrap();
    assert!(found("writers").found.contains(&format!("process {}", std::process::id())));
    assert_eq!(found("files").level, Level::Warning);
    assert_eq!(found("index").level, Level::Warning);
    drop(session);
}

/// Ports below 1024 that nobody listens on refuse at once.
#[test]
fn an_agent_without_its_database_is_a_warning() {
    let store = recorded();
    program("tidelog-sync");
    let output = Command::new(program("tidelog"))
        .args(["doctor", "--json", "--store"])
        .arg(store.root())
        .env("DATABASE_URL", "postgres://127.0.0.1:1/none?sslmode=disable")
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), worst(&report, "agent").0.as_str()), (Some(0), "warning"));
}
