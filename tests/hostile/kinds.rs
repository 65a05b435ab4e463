//! Entries of a store's folders that are no regular files, or that nobody may read. They are passed
//! over and nothing waits for them; what they stand beside is there.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use tidelog::journal::{BatchLimits, Cursor, SegmentReader};
use tidelog::{FindingKind, Outcome, Store};

use super::{SEGMENT, steps, store, verify};
use crate::support::{say, session_id, telemetry};

const PLACES: [&str; 7] = [
    "active/x.json",
    "checkpoints/x.npz",
    "index.sqlite",
    "logs/emergency/emergency_x.json",
    "logs/import/x.jsonl",
    "logs/store/x.jsonl",
    "logs/telemetry/session_x.jsonl",
];

type Make = fn(&Path) -> bool;

/// What can lie under a file's name; each tells whether this machine could make it.
const KINDS: [(&str, Make); 6] = [
    ("folder", |path| fs::create_dir(path).is_ok()),
    ("pipe", |path| ran(Command::new("mkfifo").arg(path))),
    ("device", |path| ran(Command::new("mknod").arg(path).args(["c", "1", "5"]))),
    ("socket", |path| UnixListener::bind(path).is_ok()),
    ("link to itself", |path| symlink(path, path).is_ok()),
    ("link to nothing", |path| symlink("nothing", path).is_ok()),
];

fn ran(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

#[test]
fn what_is_no_regular_file_is_passed_over_wherever_it_lies() {
    for (place, (kind, make)) in PLACES.iter().flat_map(|place| KINDS.map(|kind| (place, kind))) {
        let store = store();
        let path = store.root().join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if !make(&path) {
            assert_eq!(kind, "device", "only devices need a privilege");
            say(&format!("SKIPPED: {kind} at {place}: this user may not make one"));
            continue;
        }
        assert_eq!(steps(store.store(), "run-7"), [0, 1, 2], "{kind} at {place}");
        assert_eq!(verify(&store.root()).records, 3, "{kind} at {place}");
        let again = Store::open(store.root()).unwrap();
        let session = again.start_session(session_id("run-8")).unwrap();
        session.record_telemetry(1, &telemetry(0.5)).unwrap();
        session.end(Outcome::Completed).unwrap();
        assert_eq!(steps(&again, "run-8"), [1], "{kind} at {place}");
        assert!(fs::symlink_metadata(&path).is_ok(), "{kind} at {place} is left alone");
    }
}

/// The program, without the privilege of root to read everything.
fn unprivileged(root: &Path, arguments: &[&str]) -> std::process::Output {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt;
        own.uid() == 0
    });
    let mut command = match is_root {
        true => Command::new("setpriv"),
        false => Command::new("env"),
    };
    if is_root {
        command.arg("--bounding-set=-dac_override,-dac_read_search");
    }
    command.arg(env!("CARGO_BIN_EXE_tidelog")).args(arguments).arg("--store").arg(root);
    command.output().unwrap()
}

#[test]
fn a_segment_that_nobody_may_read_is_named_and_hides_no_other() {
    let store = store();
    let session = store.store().start_session(session_id("run-8")).unwrap();
    session.record_telemetry(1, &telemetry(0.5)).unwrap();
    session.end(Outcome::Completed).unwrap();
    let path = store.root().join(SEGMENT);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let output = unprivileged(&store.root(), &["show", "run-8", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("\"total_steps\": 1"), "{output:?}");
    let output = unprivileged(&store.root(), &["verify", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(text.contains("session_run-7.jsonl") && text.contains("denied"), "{text}");
}

/// Another program cuts the file, or writes another one over it, between two batches.
#[test]
fn a_file_that_shrinks_or_changes_under_its_reader_ends_the_reading() {
    let store = store();
    let path = store.root().join(SEGMENT);
    let whole = fs::read(&path).unwrap();
    let replaced = [whole.as_slice(), &b"x\n".repeat(100)].concat();
    for bytes in [&b""[..], &whole[..whole.len() / 2], b"\n", &[0; 100_000], &replaced] {
        fs::write(&path, &whole).unwrap();
        let mut reader = SegmentReader::open(&path, Cursor::START).unwrap();
        let limits = BatchLimits { lines_max: 1, bytes_max: 1 };
        reader.next_batch(limits).unwrap().unwrap();
        let mut file = fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        file.write_all(bytes).unwrap();
        let mut batches = 0;
        while reader.next_batch(limits).unwrap().is_some() {
            batches += 1;
        }
        assert!(batches <= 104, "{batches}");
        SegmentReader::open(&path, *reader.cursor()).unwrap().next_batch(limits).unwrap();
    }
}

#[test]
fn a_store_that_lies_in_a_file_a_device_or_nowhere_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for (path, named) in [
        (file.as_path(), file.as_path()),
        (&file.join("below"), &file),
        (Path::new("/dev/null"), Path::new("/dev/null")),
    ] {
        for error in [Store::open(path).unwrap_err(), Store::open_read_only(path).unwrap_err()] {
            assert!(error.to_string().contains(named.to_str().unwrap()), "{error}");
        }
    }
    assert!(Store::open_read_only(folder.path().join("nothing")).is_err());
    assert_eq!(fs::read(&file).unwrap(), b"");
}

#[test]
fn a_link_to_a_folder_of_segments_is_named() {
    let (store, other) = (store(), store());
    symlink(other.root(), store.root().join("logs/telemetry/nested.jsonl")).unwrap();
    assert_eq!(steps(store.store(), "run-7"), [0, 1, 2]);
    let kinds: Vec<FindingKind> =
        verify(&store.root()).findings.iter().map(|found| found.kind).collect();
    assert_eq!(kinds, [FindingKind::LinkRefused]);
}
