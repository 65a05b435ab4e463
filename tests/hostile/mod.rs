//! Input that somebody made to do harm, or that no program of ours ever wrote: ids, lines,
//! archives, pickles, links, a broken index. Nothing panics, nothing hangs, nothing leaves the
//! store, and what is refused hides nothing else.
//!
//! What one parser alone must bear stands with that parser; whole stores with one fault each are
//! in `fixtures/faults`.

mod archives;
mod ids;
mod index;
mod lines;
#[cfg(unix)]
mod links;
#[cfg(unix)]
mod modes;
mod pickles;
mod values;

use std::fs;
use std::path::{Path, PathBuf};

use tidelog::{Outcome, Store, VerifyReport};

use crate::support::{TestStore, session_id, telemetry};

const SEGMENT: &str = "logs/telemetry/session_run-7.jsonl";

/// A store with one session of three records.
fn store() -> TestStore {
    let store = TestStore::new();
    let session = store.store().start_session(session_id("run-7")).unwrap();
    for step in 0..3 {
        session.record_telemetry(step, &telemetry(0.5)).unwrap();
    }
    session.end(Outcome::Completed).unwrap();
    store
}

/// Steps of a session's records, as a query finds them.
fn steps(store: &Store, session: &str) -> Vec<i64> {
    let points = store.get_telemetry_trajectory(&session_id(session), 1_000).unwrap();
    points.into_iter().map(|point| point.step).collect()
}

fn verify(root: &Path) -> VerifyReport {
    Store::open_read_only(root).unwrap().verify(&mut |_| {}).unwrap()
}

/// Every entry below a folder, links not followed.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(below(&entry.path()));
        }
        found.push(entry.path());
    }
    found.sort();
    found
}
