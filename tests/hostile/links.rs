//! Links, pipes and folders where a store has files. Nothing outside is read into an answer or
//! written, and nothing waits for a pipe.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tidelog::{
    CheckpointId, Emergency, EventId, FindingKind, NewCheckpoint, Outcome, Store, Value,
};

use super::{SEGMENT, below, steps, store, verify};
use crate::support::{TestStore, session_id, telemetry};

const FOLDERS: [&str; 7] = [
    "active",
    "checkpoints",
    "logs",
    "logs/emergency",
    "logs/import",
    "logs/store",
    "logs/telemetry",
];

/// A folder beside the store with a file that nobody may touch.
fn outside(store: &TestStore) -> PathBuf {
    let folder = store.root().parent().unwrap().join("outside");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("secret"), "secret").unwrap();
    folder
}

fn is_untouched(outside: &Path) -> bool {
    below(outside) == [outside.join("secret")]
        && fs::read(outside.join("secret")).unwrap() == b"secret"
}

/// Everything that writes: a session with one of each, from opening to closing.
fn write_everything(root: &Path) -> tidelog::Result<()> {
    let store = Store::open(root)?;
    let session = store.start_session(session_id("run-7"))?;
    session.record_telemetry(9, &telemetry(0.5))?;
    session.record_emergency(Emergency::new(EventId::new("e").unwrap(), "collapse", "high"))?;
    let mut new = NewCheckpoint::new(Value::Null, 0.5);
    new.checkpoint_id = Some(CheckpointId::new("c").unwrap());
    session.save_checkpoint(new)?;
    session.end(Outcome::Completed)?;
    store.load_checkpoint(&CheckpointId::new("c").unwrap()).map(|_| ())?;
    store.refresh_index(&mut |_| {})
}

fn links(root: &Path) -> Vec<PathBuf> {
    let findings = verify(root).findings.into_iter();
    findings.filter(|found| found.kind == FindingKind::LinkRefused).map(|f| f.path).collect()
}

#[test]
fn a_folder_that_leads_out_is_refused_by_name() {
    for folder in FOLDERS {
        let store = store();
        let outside = outside(&store);
        let path = store.root().join(folder);
        fs::remove_dir_all(&path).ok();
        symlink(&outside, &path).unwrap();
        for error in [
            write_everything(&store.root()).unwrap_err().to_string(),
            Store::open_read_only(store.root()).unwrap_err().to_string(),
        ] {
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(error.contains("symbolic link"), "{error}");
        }
        assert!(is_untouched(&outside), "{folder}");
    }
}

#[test]
fn a_store_that_is_itself_reached_through_a_link_is_a_store() {
    let store = store();
    let link = store.root().parent().unwrap().join("link");
    symlink(store.root(), &link).unwrap();
    write_everything(&link).unwrap();
    assert_eq!(steps(&Store::open_read_only(&link).unwrap(), "run-7"), [0, 1, 2, 9]);
}

#[test]
fn links_with_the_names_of_files_to_be_written_are_neither_followed_nor_replaced() {
    let store = store();
    let outside = outside(&store);
    let planted = [
        "logs/telemetry/session_run-7.jsonl",
        "logs/emergency/emergency_e.json",
        "logs/import/lock",
        "index.sqlite",
        "index.sqlite-wal",
        "index.sqlite-shm",
        "index.sqlite-journal",
    ];
    fs::remove_file(store.root().join(SEGMENT)).unwrap();
    for (number, path) in planted.iter().enumerate() {
        let path = store.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let target = if number % 2 == 0 { "secret" } else { "new" };
        symlink(outside.join(target), path).unwrap();
    }
    write_everything(&store.root()).unwrap();
    assert_eq!(steps(store.store(), "run-7"), [9]);
    assert!(is_untouched(&outside));
    for path in planted {
        assert!(store.root().join(path).is_symlink(), "{path}");
    }
    let found = links(&store.root());
    for path in &planted[..4] {
        assert!(found.contains(&PathBuf::from(path)), "{path}: {found:?}");
    }
}

#[test]
fn a_journal_of_sqlite_that_is_a_link_is_not_followed() {
    for ending in ["-wal", "-shm", "-journal"] {
        let store = store();
        store.store().refresh_index(&mut |_| {}).unwrap();
        let outside = outside(&store);
        let path = store.root().join(format!("index.sqlite{ending}"));
        fs::remove_file(&path).ok();
        symlink(outside.join("new"), &path).unwrap();
        assert_eq!(steps(store.store(), "run-7"), [0, 1, 2], "{ending}");
        verify(&store.root());
        assert!(is_untouched(&outside), "{ending}");
    }
}

#[test]
fn an_index_that_is_a_link_is_neither_read_nor_written() {
    let (store, other) = (store(), store());
    other.store().refresh_index(&mut |_| {}).unwrap();
    let index = other.root().join("index.sqlite");
    let (files, bytes) = (below(&other.root()), fs::read(&index).unwrap());
    symlink(&index, store.root().join("index.sqlite")).unwrap();
    assert_eq!(steps(store.store(), "run-7"), [0, 1, 2]);
    store.store().rebuild_index(&mut |_| {}).unwrap_err();
    assert_eq!(links(&store.root()), [PathBuf::from("index.sqlite")]);
    assert!(below(&other.root()) == files && fs::read(&index).unwrap() == bytes);
}

#[test]
fn a_segment_that_is_a_link_is_passed_over_and_named() {
    let (store, other) = (store(), store());
    let link = store.root().join("logs/telemetry/session_other.jsonl");
    symlink(other.root().join(SEGMENT), &link).unwrap();
    fs::create_dir_all(store.root().join("logs/store")).unwrap();
    symlink("/etc/passwd", store.root().join("logs/telemetry/session_passwd.jsonl")).unwrap();
    symlink("/dev/zero", store.root().join("logs/store/zero.jsonl")).unwrap();
    assert_eq!(steps(store.store(), "run-7"), [0, 1, 2]);
    let report = verify(&store.root());
    assert!(report.records == 3 && !format!("{report:?}").contains("root:"));
    assert_eq!(links(&store.root()).len(), 3);
}

#[test]
fn a_checkpoint_that_is_a_link_is_neither_loaded_nor_pruned_outside() {
    let store = store();
    write_everything(&store.root()).unwrap();
    let (inside, outside) = (store.root().join("checkpoints/c.npz"), outside(&store));
    let moved = outside.join("moved.npz");
    fs::rename(&inside, &moved).unwrap();
    symlink(&moved, &inside).unwrap();
    let id = CheckpointId::new("c").unwrap();
    let error = store.store().load_checkpoint(&id).unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
    let kinds: Vec<FindingKind> =
        verify(&store.root()).findings.iter().map(|found| found.kind).collect();
    assert_eq!(kinds, [FindingKind::LinkRefused, FindingKind::CheckpointDamaged]);
    store.store().prune_checkpoint(&id).unwrap();
    assert!(moved.exists() && !inside.is_symlink());
}

#[test]
fn a_marker_that_is_a_link_or_names_one_cuts_nothing() {
    let store = store();
    let outside = outside(&store);
    let marker = |file: &str| {
        format!(
            "{{\"segment\":\"{}\",\"file\":\"{file}\",\"session\":null,\"attempt\":null,\"writer\":\
             {{\"pid\":1,\"host\":\"h\",\"program\":\"p\"}},\"created_at\":\"2026-01-05T09:30:00Z\"}}",
            uuid::Uuid::nil()
        )
    };
    let link = "logs/telemetry/session_link.jsonl";
    symlink(outside.join("secret"), store.root().join(link)).unwrap();
    for (number, file) in
        [link, "../outside/secret", outside.join("secret").to_str().unwrap()].iter().enumerate()
    {
        fs::write(store.root().join(format!("active/{number}.json")), marker(file)).unwrap();
    }
    symlink(outside.join("secret"), store.root().join("active/link.json")).unwrap();
    drop(Store::open(store.root()).unwrap());
    assert!(is_untouched(&outside));
    assert_eq!(links(&store.root()).len(), 2);
}

#[test]
fn store_json_that_is_a_link_is_refused() {
    let (store, outside) = (store(), tempfile::tempdir().unwrap());
    let path = store.root().join("store.json");
    fs::rename(&path, outside.path().join("store.json")).unwrap();
    for target in ["store.json", "nothing"] {
        fs::remove_file(&path).ok();
        symlink(outside.path().join(target), &path).unwrap();
        let error = Store::open(store.root()).unwrap_err().to_string();
        assert!(error.contains("store.json: it is a symbolic link"), "{error}");
    }
    assert!(!outside.path().join("nothing").exists());
}

#[test]
fn pipes_are_not_waited_for() {
    let store = store();
    write_everything(&store.root()).unwrap();
    for name in ["checkpoints/c.npz", "active/x.json", "logs/telemetry/x.jsonl", "index.sqlite"] {
        let path = store.root().join(name);
        fs::remove_file(&path).ok();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    }
    assert_eq!(steps(store.store(), "run-7"), [0, 1, 2, 9]);
    assert!(store.store().load_checkpoint(&CheckpointId::new("c").unwrap()).is_err());
    let kinds: Vec<FindingKind> =
        verify(&store.root()).findings.iter().map(|found| found.kind).collect();
    assert_eq!(kinds, [FindingKind::MarkerInvalid, FindingKind::CheckpointDamaged]);
    drop(Store::open(store.root()).unwrap());
    let path = store.root().join("store.json");
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let error = Store::open(store.root()).unwrap_err().to_string();
    assert!(error.contains("no regular file"), "{error}");
}
