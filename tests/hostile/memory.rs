//! Files that would take more memory than a machine has: what reads them is given little.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Output};

use tidelog::{
    Array, CheckpointId, LINE_BYTES_MAX, LINE_VALUES_MAX, NewCheckpoint, Outcome, Value,
};

use super::lines::{append, record, with_field};
use super::{SEGMENT, store};
use crate::support::{TestStore, session_id};

/// Runs the program with at most `kibibytes` of address space.
fn run_within(kibibytes: u32, root: &Path, arguments: &[&str]) -> Output {
    Command::new("sh")
        .args(["-c", &format!("ulimit -v {kibibytes}; exec \"$@\""), "sh"])
        .arg(env!("CARGO_BIN_EXE_tidelog"))
        .args(arguments)
        .arg("--store")
        .arg(root)
        .output()
        .unwrap()
}

/// A line of a gibibyte, which takes no room on disk, and a record behind it.
fn add_huge_line(store: &TestStore) {
    let mut file = OpenOptions::new().write(true).open(store.root().join(SEGMENT)).unwrap();
    file.seek(SeekFrom::End(1 << 30)).unwrap();
    file.write_all(format!("\n{}", record(3)).as_bytes()).unwrap();
}

#[test]
fn a_line_of_a_gibibyte_takes_a_quarter_of_that_memory_at_most() {
    const KIBIBYTES: u32 = 256 << 10;
    let store = store();
    add_huge_line(&store);
    let output = run_within(KIBIBYTES, &store.root(), &["show", "run-7", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("\"total_steps\": 4"), "{output:?}");
    let output = run_within(KIBIBYTES, &store.root(), &["verify", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(text.contains("a line holds at most"), "{text}");
}

/// A line of the given beginning, repeated part and end, as long as a line may be.
fn filled(begin: &str, part: impl Fn(usize) -> String, end: &str) -> String {
    let mut value = begin.to_owned();
    let room = LINE_BYTES_MAX - with_field(end).len();
    for number in 0.. {
        let next = part(number);
        if value.len() + next.len() > room {
            break;
        }
        value += &next;
    }
    with_field(&format!("{value}{end}"))
}

/// Each of these was read into half a gibibyte once.
#[test]
fn a_line_full_of_small_values_is_refused_in_little_memory() {
    let lines = [
        filled("[", |_| "0,".into(), "0]"),
        filled("[", |_| "[],".into(), "0]"),
        filled("{", |key| format!("\"{key}\":0,"), "\"a\":0}"),
        filled("{\"$dict\":[", |key| format!("[{key},0],"), "[\"a\",0]]}"),
    ];
    for line in lines {
        assert!(line.len() > LINE_BYTES_MAX - 100 && line.len() <= LINE_BYTES_MAX);
        let store = store();
        append(&store, line.as_bytes());
        append(&store, record(4).as_bytes());
        let output = run_within(160 << 10, &store.root(), &["show", "run-7", "--json"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("\"total_steps\": 4"), "{output:?}");
    }
}

#[test]
fn a_line_of_as_many_values_as_allowed_is_read_in_bounded_memory() {
    let keys: Vec<String> =
        (0..LINE_VALUES_MAX / 2 - 10).map(|key| format!("\"k{key}\":0")).collect();
    let store = store();
    append(&store, with_field(&format!("{{{}}}", keys.join(","))).as_bytes());
    let output = run_within(320 << 10, &store.root(), &["show", "run-7", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("\"total_steps\": 4"), "{output:?}");
}

/// A quarter of a gibibyte of weights, verified with less.
#[test]
fn a_checkpoint_larger_than_memory_is_verified() {
    let store = TestStore::new();
    let session = store.store().start_session(session_id("run-7")).unwrap();
    let weights = ndarray::Array1::<f64>::zeros(32 << 20);
    let mut new = NewCheckpoint::new(Value::Array(Array::from_ndarray(&weights)), 0.5);
    new.checkpoint_id = Some(CheckpointId::new("c").unwrap());
    session.save_checkpoint(new).unwrap();
    session.end(Outcome::Completed).unwrap();
    let output = run_within(192 << 10, &store.root(), &["verify", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("\"checkpoints\": 1"), "{output:?}");
}
