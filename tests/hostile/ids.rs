//! Ids from a configuration or a job's name.

use std::fs;

use tidelog::{
    CheckpointId, Emergency, EventId, ID_BYTES_MAX, InvalidId, NewCheckpoint, Outcome, SessionId,
    Value,
};

use super::verify;
use crate::support::{TestStore, telemetry};

fn refused(text: &str) -> Vec<InvalidId> {
    let errors = [
        SessionId::new(text).err(),
        CheckpointId::new(text).err(),
        EventId::new(text).err(),
        text.parse::<SessionId>().err(),
    ];
    let json = serde_json::to_string(text).unwrap();
    assert!(serde_json::from_str::<SessionId>(&json).is_err(), "{text:?}");
    errors.into_iter().map(|error| error.unwrap_or_else(|| panic!("{text:?}"))).collect()
}

#[test]
fn ids_that_are_paths_or_trick_a_reader_are_refused() {
    let long = "x".repeat(10 << 10);
    let over = [129, 255, 256].map(|length| "x".repeat(length));
    for text in [
        "",
        ".",
        "..",
        "../../etc/x",
        "/etc/x",
        "a/b",
        "a\\b",
        "..\\x",
        "C:\\x",
        "a\0b",
        "a\nb",
        "a\rb",
        "a\tb",
        "\u{1b}[2J",
        "e\u{301}",
        "é",
        "CON",
        "con.txt",
        "nul.json",
        "LPT9",
        "a.",
        "a ",
        " a",
        "-rf",
        ".hidden",
        "\u{202e}gpj.exe",
        "a\u{200b}b",
        "🦀",
        "'; DROP TABLE x;--",
        "%2e%2e%2f",
        "~",
        "$HOME",
        "a*",
        "a?b",
        "a|b",
        "a\"b",
        over[0].as_str(),
        over[1].as_str(),
        over[2].as_str(),
        long.as_str(),
    ] {
        for error in refused(text) {
            assert!(error.to_string().len() < 1_000, "{error}");
        }
    }
    let error = refused(&long).remove(0).to_string();
    assert!(error.contains(&format!("10240 bytes, the limit is {ID_BYTES_MAX}")), "{error}");
}

/// Ids that are allowed and look like something else.
fn odd_ids() -> Vec<String> {
    let mut ids: Vec<String> = [
        "x.tmp",
        "x.jsonl",
        "x.npz",
        "x-wal",
        "index.sqlite",
        "store.json",
        "session_session_x",
        "emergency_x",
        "x",
        "X",
        "_",
        "2026-01-05T09:30:00+01:00",
        "a:b",
        "a@b=c+d",
        "null",
        "NaN",
        "1",
    ]
    .map(str::to_owned)
    .to_vec();
    ids.push("x".repeat(ID_BYTES_MAX));
    ids.push(format!("x{}", ":".repeat(66)));
    ids
}

#[test]
fn every_id_that_is_allowed_comes_back_and_stays_in_the_store() {
    let store = TestStore::new();
    for id in odd_ids() {
        let session = store.store().start_session(SessionId::new(&*id).unwrap()).unwrap();
        session.record_telemetry(1, &telemetry(0.5)).unwrap();
        let event = Emergency::new(EventId::new(&*id).unwrap(), "collapse", "high");
        session.record_emergency(event).unwrap();
        let mut new = NewCheckpoint::new(Value::from(&*id), 0.5);
        new.checkpoint_id = Some(CheckpointId::new(&*id).unwrap());
        session.save_checkpoint(new).unwrap();
        session.end(Outcome::Completed).unwrap();
    }
    for id in odd_ids() {
        let stats = store.store().get_session_stats(&SessionId::new(&*id).unwrap()).unwrap();
        assert_eq!((stats.total_steps, stats.emergency_count), (1, 1), "{id}");
        let loaded = store.store().load_checkpoint(&CheckpointId::new(&*id).unwrap()).unwrap();
        assert_eq!(loaded.state_dict, Value::from(&*id));
    }
    assert_eq!(verify(&store.root()).findings, []);
    assert_eq!(fs::read_dir(store.root().parent().unwrap()).unwrap().count(), 1);
}

/// A disk that ignores case has the files of `Run` under the names of `run`.
#[test]
fn ids_that_a_disk_takes_for_one_name_replace_nothing_of_each_other() {
    let store = TestStore::new();
    let save = |id: &str| {
        let session = store.store().start_session(SessionId::new(id).unwrap()).unwrap();
        session.record_emergency(Emergency::new(EventId::new(id).unwrap(), id, "high")).unwrap();
        let mut new = NewCheckpoint::new(Value::from(id), 0.5);
        new.checkpoint_id = Some(CheckpointId::new(id).unwrap());
        let saved = session.save_checkpoint(new);
        session.end(Outcome::Completed).unwrap();
        saved
    };
    save("Run").unwrap();
    for (folder, before, after) in [
        ("logs/telemetry", "session_Run.jsonl", "session_run.jsonl"),
        ("logs/emergency", "emergency_Run.json", "emergency_run.json"),
        ("checkpoints", "Run.npz", "run.npz"),
    ] {
        let folder = store.root().join(folder);
        fs::rename(folder.join(before), folder.join(after)).unwrap();
    }
    let checkpoint = fs::read(store.root().join("checkpoints/run.npz")).unwrap();
    let error = save("run").unwrap_err();
    assert!(matches!(error, tidelog::Error::CheckpointExists { .. }), "{error}");
    assert_eq!(fs::read(store.root().join("checkpoints/run.npz")).unwrap(), checkpoint);
    for id in ["Run", "run"] {
        let stats = store.store().get_session_stats(&SessionId::new(id).unwrap()).unwrap();
        assert_eq!(stats.emergency_count, 1, "{id}");
    }
    assert_eq!(fs::read_dir(store.root().join("logs/emergency")).unwrap().count(), 2);
}

#[cfg(unix)]
#[test]
fn an_id_that_is_no_text_is_wrong_usage() {
    use std::os::unix::ffi::OsStrExt;
    let store = TestStore::new();
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_tidelog"));
    program.arg("--store").arg(store.root());
    let id = std::ffi::OsStr::from_bytes(b"run-\xff");
    let output = program.arg("show").arg(id).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn an_event_that_was_recorded_twice_keeps_both_copies() {
    let store = TestStore::new();
    let session = store.store().start_session(SessionId::new("run-7").unwrap()).unwrap();
    for reason in ["first", "second"] {
        let event = Emergency::new(EventId::new("e").unwrap(), reason, "high");
        session.record_emergency(event).unwrap();
    }
    assert_eq!(fs::read_dir(store.root().join("logs/emergency")).unwrap().count(), 2);
}
