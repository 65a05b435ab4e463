//! Any text as an id. What is accepted names files below the store, and is found in their names.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};

use libfuzzer_sys::{Corpus, fuzz_target};
use tidelog::{
    CheckpointId, Emergency, EventId, NewCheckpoint, Outcome, SessionId, Store, Telemetry, Value,
};

/// A store in a folder of its own.
struct Place {
    folder: tempfile::TempDir,
    store: Store,
}

thread_local! {
    static PLACE: Place = Place::default();
}

impl Default for Place {
    fn default() -> Self {
        let folder = tidelog_fuzz::folder();
        let store = Store::open(folder.path().join("store")).expect("a store");
        Self { folder, store }
    }
}

/// Takes the one file of a folder away. Its name holds the id, whose prefix stands there once.
fn take_away(store: &Path, folder: &str, prefix: &str, ending: &str, text: &str) {
    let files = fs::read_dir(store.join(folder)).expect("a folder");
    let files: Vec<PathBuf> = files.map(|file| file.expect("a folder").path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    let name = file.file_name().expect("a name").to_str().expect("text");
    let prefix = if text.starts_with(prefix) { "" } else { prefix };
    let id = name.strip_prefix(prefix).and_then(|name| name.strip_suffix(ending));
    assert_eq!(id.map(|name| name.replace("%3A", ":")).as_deref(), Some(text), "{name}");
    fs::remove_file(file).expect("a file");
}

/// Writes whatever an id can name, looks where it went, and takes it away again.
fn check(place: &Place, text: &str) {
    let session = place.store.start_session(SessionId::new(text).expect("checked"));
    let session = session.expect("an id that is accepted can be used");
    session.record_telemetry(1, &Telemetry::default()).expect("a record");
    let event = Emergency::new(EventId::new(text).expect("of one rule"), "r", "high");
    session.record_emergency(event).expect("an event");
    let mut new = NewCheckpoint::new(Value::Null, 0.5);
    new.checkpoint_id = Some(CheckpointId::new(text).expect("of one rule"));
    session.save_checkpoint(new).expect("a checkpoint");
    session.end(Outcome::Completed).expect("an end");

    let outside = fs::read_dir(place.folder.path()).expect("a folder").count();
    assert_eq!(outside, 1, "something lies beside the store");
    let root = place.folder.path().join("store");
    take_away(&root, "logs/telemetry", "session_", ".jsonl", text);
    take_away(&root, "logs/emergency", "emergency_", ".json", text);
    take_away(&root, "checkpoints", "", ".npz", text);
}

fuzz_target!(|text: &str| -> Corpus {
    let accepted = SessionId::new(text).is_ok();
    assert_eq!(CheckpointId::new(text).is_ok(), accepted);
    assert_eq!(EventId::new(text).is_ok(), accepted);
    let json = serde_json::to_string(text).expect("text");
    let read: Result<SessionId, _> = serde_json::from_str(&json);
    assert_eq!(read.ok().map(|id| id.to_string()), accepted.then(|| text.to_owned()));
    if accepted {
        PLACE.with(|place| check(place, text));
    }
    Corpus::Keep
});
