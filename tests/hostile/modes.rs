//! A store belongs to the user who trains, whatever the umask says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tidelog::import::{ImportOptions, import};
use tidelog::{Emergency, EventId, NewCheckpoint, Store, Value};

use super::below;
use crate::support::{session_id, telemetry};

const CHILD: &str = "hostile::modes::child_that_makes_every_kind_of_file";
const CHILD_STORE: &str = "TIDELOG_TEST_MODES_STORE";
const PREDECESSOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/predecessor");

/// Names that must be among the files, so that the test looks at what it says.
const KINDS: [&str; 9] = [
    "active/",
    "checkpoints/",
    "index.sqlite",
    "index.sqlite-shm",
    "index.sqlite-wal",
    "logs/emergency/",
    "logs/import/",
    "logs/telemetry/",
    "store.json",
];

/// The body of a process under another umask; does nothing in a usual test run.
#[test]
fn child_that_makes_every_kind_of_file() {
    let Ok(root) = std::env::var(CHILD_STORE) else { return };
    let store = Store::open(&root).unwrap();
    let session = store.start_session(session_id("run-7")).unwrap();
    session.record_telemetry(1, &telemetry(0.5)).unwrap();
    session.record_emergency(Emergency::new(EventId::generate(), "collapse", "high")).unwrap();
    let id = session.save_checkpoint(NewCheckpoint::new(Value::Null, 0.5)).unwrap();
    import(&store, Path::new(PREDECESSOR), &ImportOptions::default(), &mut |_| ()).unwrap();
    store.load_checkpoint(&id).unwrap();
    store.refresh_index(&mut |_| {}).unwrap();
    let index = rusqlite::Connection::open(Path::new(&root).join("index.sqlite")).unwrap();
    index.query_row("SELECT count(*) FROM index_meta", [], |_| Ok(())).unwrap();
    check_modes(Path::new(&root));
}

fn check_modes(root: &Path) {
    let files = below(root);
    for kind in KINDS {
        let path = root.join(kind);
        let found = files.iter().any(|file| file.starts_with(&path) && file.is_file());
        assert!(found, "{kind}: {files:?}");
    }
    for path in files.iter().map(AsRef::as_ref).chain([root]) {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{}: {mode:o}", path.display());
    }
}

#[test]
fn files_are_0600_and_folders_0700_under_any_umask() {
    for umask in ["000", "022", "077"] {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new("sh")
            .args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", CHILD, "--nocapture"])
            .env(CHILD_STORE, folder.path().join("a/store"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{umask}: {}", String::from_utf8_lossy(&output.stdout));
    }
}
