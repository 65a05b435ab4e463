//! What the program tells of a full disk, and on one.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;

use super::{demo, ok, text};

/// Writes down that the disk refused records of the demo.
fn add_gap(store: &Path, records: &str) {
    let gap = format!(
        r#"{{"timestamp":"2026-01-05T09:41:00Z","event":"gap","gap":{{"records":{records},"first_step":7,"last_step":9,"since":"2026-01-05T09:40:30Z"}},"reason":"no space left on device"}}"#
    );
    let segment = store.join("logs/telemetry/session_demo-42.jsonl");
    let mut file = fs::OpenOptions::new().append(true).open(segment).unwrap();
    writeln!(file, "{gap}").unwrap();
}

#[test]
fn what_the_disk_refused_is_shown_and_counted() {
    let (_folder, store) = demo();
    for records in ["3", "18446744073709551615", "18446744073709551615"] {
        add_gap(&store, records);
        let shown = ok(&store, &["show", "demo-42"]);
        let told =
            "3 records missing, steps 7–9, since 2026-01-05 09:40:30Z: no space left on device";
        assert!(shown.contains(told), "{shown}");
        assert!(ok(&store, &["status"]).contains("missing because the disk refused them: "));
    }
    let status: Json = serde_json::from_str(&ok(&store, &["status", "--json"])).unwrap();
    assert_eq!(status["missed_records"], i64::MAX);
    for arguments in [["--json", "show", "demo-42"], ["--json", "tail", "demo-42"]] {
        assert!(ok(&store, &arguments).contains("\"last_step\""));
    }
}

/// Standard output and error of a command that another program starts.
fn run_by(starter: &[&str], store: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(starter[0]);
    command.args(&starter[1..]).arg(env!("CARGO_BIN_EXE_tidelog")).arg("--store").arg(store);
    let output = command.args(arguments).output().unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_disk_without_room_for_the_index_keeps_nobody_from_asking() {
    let (_folder, store) = demo();
    add_gap(&store, "3");
    fs::remove_file(store.join("index.sqlite")).unwrap();
    let full = ["bash", "-c", r#"trap "" XFSZ; ulimit -S -f 8; exec "$0" "$@""#];
    for (arguments, words) in [
        (&["status"][..], "refused them: 3 records, of demo-42;"),
        (&["sessions"], "demo-42"),
        (&["show", "demo-42"], "3 records missing"),
        (&["sql", "SELECT count(*) FROM telemetry_records"], "200"),
    ] {
        let (code, output, error) = run_by(&full, &store, arguments);
        assert!(code == Some(0) && output.contains(words), "{arguments:?}: {output}{error}");
    }
}

#[test]
fn status_tells_what_it_knows_without_an_index() {
    let (_folder, store) = demo();
    let index = store.join("index.sqlite");
    let inject = "inject=pread64:error=EIO";
    let broken = ["strace", "-qq", "-o", "/dev/null", "-P", index.to_str().unwrap(), "-e", inject];
    let (code, output, error) = run_by(&broken, &store, &["status"]);
    assert!(code == Some(1) && error.contains("index.sqlite: disk I/O error"), "{error}");
    assert!(output.contains("journal") && output.contains("free"), "{output}");
    let (_, output, _) = run_by(&broken, &store, &["status", "--json"]);
    let status: Json = serde_json::from_str(&output).unwrap();
    assert!(status["segments"].is_u64() && status.get("missed_records").is_none(), "{output}");
}

#[test]
fn gaps_that_are_not_shown_are_counted() {
    let (_folder, store) = demo();
    (0..12).for_each(|_| add_gap(&store, "3"));
    let shown = ok(&store, &["show", "demo-42"]);
    assert!(shown.contains("the newest 10 of 12 gaps"), "{shown}");
    assert!(shown.contains("200, and 36 missing"), "{shown}");
    let shown: Json = serde_json::from_str(&ok(&store, &["show", "demo-42", "--json"])).unwrap();
    assert_eq!((&shown["gap_count"], &shown["missed_records"]), (&12.into(), &36.into()));
}

#[test]
fn the_size_of_the_index_is_that_of_the_one_that_status_made() {
    let (_folder, store) = demo();
    fs::remove_file(store.join("index.sqlite")).unwrap();
    let status: Json = serde_json::from_str(&ok(&store, &["status", "--json"])).unwrap();
    let bytes = fs::metadata(store.join("index.sqlite")).unwrap().len();
    assert_eq!(status["index_bytes"], bytes);
}
