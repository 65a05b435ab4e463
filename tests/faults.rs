//! `fixtures/faults`: each fault is found where it is, hides nothing else, and stops nobody.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use tidelog::{CheckpointId, NewCheckpoint, Outcome, SqlValue, Store, Value};

use crate::support::{session_id, telemetry};

/// What `expected.json` says.
#[derive(Deserialize)]
struct Expected {
    #[serde(default)]
    findings: Vec<Found>,
    #[serde(default)]
    findings_after: Vec<Found>,
    #[serde(default)]
    records: i64,
    #[serde(default)]
    loads: Vec<CheckpointId>,
    /// The store cannot be opened.
    error: Option<String>,
}

/// A finding without its words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Found {
    kind: String,
    path: String,
    line: Option<u64>,
    byte: Option<u64>,
}

/// A fixture, copied so that it can be opened.
struct Fault {
    expected: Expected,
    root: PathBuf,
    _folder: tempfile::TempDir,
}

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/faults");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn name(fixture: &Path) -> String {
    fixture.file_name().unwrap().to_string_lossy().into_owned()
}

impl Fault {
    fn copied(fixture: &Path) -> Self {
        let text = fs::read_to_string(fixture.join("expected.json"));
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", fixture.display()));
        let expected = serde_json::from_str(&text).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("store");
        for (path, bytes) in files(&fixture.join("store")) {
            fs::create_dir_all(root.join(&path).parent().unwrap()).unwrap();
            fs::write(root.join(&path), bytes).unwrap();
        }
        Self { expected, root, _folder: folder }
    }

    /// What `tidelog verify --json` finds; it ends with code 3 exactly if there is damage.
    fn verify(&self) -> Vec<Found> {
        let mut program = Command::new(env!("CARGO_BIN_EXE_tidelog"));
        let output =
            program.args(["verify", "--json", "--store"]).arg(&self.root).output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let code = if report["damage_count"] == 0 { 0 } else { 3 };
        assert_eq!(output.status.code(), Some(code), "{report}");
        let mut findings: Vec<Found> = serde_json::from_value(report["findings"].clone()).unwrap();
        findings.sort();
        findings
    }

    fn check(&self) {
        if let Some(reason) = &self.expected.error {
            return self.check_refused(reason);
        }
        let before = files(&self.root);
        assert_eq!(self.verify(), sorted(&self.expected.findings));
        assert_eq!(names(&files(&self.root)), names(&before), "verify adds and removes nothing");
        assert!(files(&self.root) == before, "verify changes nothing");
        self.check_neighbours(&Store::open_read_only(&self.root).unwrap(), 0);
        self.write();
        assert_eq!(self.verify(), sorted(&self.expected.findings_after));
        self.check_neighbours(&Store::open(&self.root).unwrap(), 2);
    }

    /// The store cannot be opened, and `tidelog verify` says the same. Damage is its own exit code;
    /// another folder or another version is none, and the remedy stands behind the reason.
    fn check_refused(&self, reason: &str) {
        let error = Store::open_read_only(&self.root).unwrap_err();
        let is_damaged = matches!(error, tidelog::Error::Damaged { .. });
        let mut program = Command::new(env!("CARGO_BIN_EXE_tidelog"));
        let output = program.args(["verify", "--store"]).arg(&self.root).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(reason) && said.contains(&error.to_string()), "{said}");
        assert_eq!(output.status.code(), Some(if is_damaged { 3 } else { 1 }), "{said}");
        assert!(said.contains("; "), "no remedy: {said}");
    }

    /// Everything that the fault did not hit is there, and `more` records.
    fn check_neighbours(&self, store: &Store, more: i64) {
        assert_eq!(records(store), self.expected.records + more);
        for id in &self.expected.loads {
            let epoch = (Value::from("epoch"), Value::Int(3));
            let state = store.load_checkpoint(id).unwrap().state_dict;
            assert!(matches!(state, Value::Dict(pairs) if pairs.contains(&epoch)));
        }
    }

    fn write(&self) {
        let store = Store::open(&self.root).unwrap();
        let session = store.start_session(session_id("hurt")).unwrap();
        session.record_telemetry(1, &telemetry(0.5)).unwrap();
        session.record_telemetry(2, &telemetry(0.6)).unwrap();
        session.save_checkpoint(NewCheckpoint::new(Value::Null, 0.6)).unwrap();
        session.end(Outcome::Completed).unwrap();
        store.refresh_index(&mut |_| {}).unwrap();
    }
}

fn sorted(findings: &[Found]) -> Vec<Found> {
    let mut findings = findings.to_vec();
    findings.sort();
    findings
}

fn records(store: &Store) -> i64 {
    let mut count = None;
    let on_row = |row: &[SqlValue]| {
        count = row.first().cloned();
        ControlFlow::Continue(())
    };
    store.sql("SELECT count(*) FROM telemetry_records", |_| (), on_row).unwrap();
    match count {
        Some(SqlValue::Integer(count)) => count,
        other => panic!("{other:?}"),
    }
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let bytes = fs::read(&path).unwrap();
                    found.insert(path.strip_prefix(folder).unwrap().to_owned(), bytes);
                }
            }
        }
    }
    found
}

fn names(files: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<&PathBuf> {
    files.keys().collect()
}

#[test]
fn each_fault_is_found_where_it_is_and_stops_nobody() {
    let mut failed = Vec::new();
    for fixture in fixtures() {
        let check = || Fault::copied(&fixture).check();
        if std::panic::catch_unwind(check).is_err() {
            failed.push(name(&fixture));
        }
    }
    assert!(failed.is_empty(), "{failed:?}, see above");
}

#[test]
fn every_fault_that_was_promised_has_a_fixture() {
    let names: Vec<String> = fixtures().iter().map(|fixture| name(fixture)).collect();
    for fault in [
        "torn_tail",
        "flipped_bit",
        "missing_header",
        "two_headers",
        "bad_crc_in_the_middle",
        "future_version",
        "empty_file",
        "orphan_npz",
        "missing_npz",
        "truncated_npz",
        "flipped_npz",
        "index_of_another_version",
        "index_that_is_no_database",
        "nul_tail",
        "duplicate_key",
    ] {
        assert!(names.iter().any(|name| name == fault), "{fault}");
    }
}
