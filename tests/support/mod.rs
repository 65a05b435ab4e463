//! What several test modules need.

pub(crate) mod compare;
pub(crate) mod postgres;
pub(crate) mod specification;

use std::path::{Path, PathBuf};

use tidelog::journal::{self, BatchLimits, Content, Cursor, SegmentReader};
use tidelog::{Entry, SessionId, Store, Telemetry};

/// A store in a folder of its own, gone with the value.
pub(crate) struct TestStore {
    folder: tempfile::TempDir,
    store: Option<Store>,
}

impl TestStore {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Some(Store::open(folder.path().join("store")).unwrap());
        Self { folder, store }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub(crate) fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// Closes the store and opens it as the next process would.
    pub(crate) fn reopen(&mut self) -> &Store {
        self.store = None;
        self.store.insert(Store::open(self.root()).unwrap())
    }
}

pub(crate) fn session_id(id: &str) -> SessionId {
    SessionId::new(id).unwrap()
}

pub(crate) fn telemetry(phi: f64) -> Telemetry {
    Telemetry {
        phi: Some(phi),
        kappa_eff: Some(64.2),
        regime: Some("geometric".into()),
        ..Telemetry::default()
    }
}

/// Every valid entry of a store, segment by segment, and the number of invalid lines.
pub(crate) fn entries(root: &Path) -> (Vec<Entry>, usize) {
    let limits = BatchLimits { lines_max: 1000, bytes_max: 1 << 20 };
    let (mut entries, mut invalid) = (Vec::new(), 0);
    for segment in journal::discover(root).unwrap().segments {
        let mut reader = SegmentReader::open(&segment.path, Cursor::START).unwrap();
        while let Some(batch) = reader.next_batch(limits).unwrap() {
            for line in batch.lines() {
                match &line.content {
                    Content::Entry(entry) => entries.push(entry.clone()),
                    Content::Invalid(_) => invalid += 1,
                }
            }
        }
    }
    (entries, invalid)
}

/// A program of this workspace as `cargo build` made it beside this one.
pub(crate) fn program(name: &str) -> PathBuf {
    let folder = std::env::current_exe().unwrap();
    let path = folder.ancestors().nth(2).unwrap().join(name);
    assert!(path.exists(), "{} is missing; scripts/test builds it", path.display());
    path
}

/// For whoever runs the tests, also when they pass: what `println` says is shown on failure only.
pub(crate) fn say(text: &str) {
    use std::io::Write;
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

pub(crate) fn is_root() -> bool {
    std::process::Command::new("id").arg("-u").output().unwrap().stdout == b"0\n"
}
