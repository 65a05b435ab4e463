//! A store made again from the database alone: the same files, and the agent goes on with them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fastrand::Rng;
use tidelog::FLOAT_FIELDS;
use tidelog_sync::{BlobPolicy, Restored, restore};

use super::*;
use crate::support::compare::check_replica;

fn target(database: &TestDatabase) -> Target {
    Target::parse(Some(&database.url()), &|_| None).unwrap()
}

/// A new machine: an empty folder, and a place in it for the store.
fn new_machine() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    (folder, root)
}

fn restore_to(root: &Path, database: &TestDatabase) -> Result<Restored, SyncError> {
    restore(root, &target(database), None, &mut |_| {})
}

/// Every file that a restore makes, by its path in the store.
fn contents_of(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for folder in ["logs/telemetry", "logs/store", "logs/emergency", "checkpoints"] {
        let Ok(entries) = fs::read_dir(root.join(folder)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = Path::new(folder).join(path.file_name().unwrap());
            files.insert(name, fs::read(path).unwrap());
        }
    }
    files
}

fn assert_same_files(restored: &Path, original: &Path) {
    let (found, expected) = (contents_of(restored), contents_of(original));
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    for (name, bytes) in expected {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(text(&found[&name]), text(&bytes), "{}", name.display());
    }
}

/// A number of any kind, many of them odd.
fn number(rng: &mut Rng) -> f64 {
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0, 5e-324, 1e16, -1e300, 0.1];
    match rng.bool() {
        true => f64::from_bits(rng.u64(..)),
        false => rng.choice(odd).unwrap(),
    }
}

fn text(rng: &mut Rng) -> String {
    let texts = ["", "a", "\0", "\u{1F30A} é", "\"\\\n\u{7f}", "\\u0000", "$float", "NaN"];
    rng.choice(texts).unwrap().to_owned()
}

/// A free-form value of any kind, nested at most so deep.
fn value(rng: &mut Rng, depth: u32) -> Value {
    let kinds = if depth == 0 { 6 } else { 10 };
    let values = |rng: &mut Rng| (0..rng.usize(..4)).map(|_| value(rng, depth - 1)).collect();
    match rng.u32(..kinds) {
        0 => Value::Null,
        1 => Value::Int(rng.i64(..)),
        2 => Value::Float(number(rng)),
        3 => Value::Text(text(rng)),
        4 => Value::Bytes(vec![rng.u8(..); 3]),
        5 => Value::Complex(number(rng), number(rng)),
        6 => Value::List(values(rng)),
        7 => Value::Tuple(values(rng)),
        8 => Value::Dict(vec![(Value::Int(1), value(rng, depth - 1))]),
        _ => {
            let mut keys = vec!["bb", "a", "", "zzz", "\u{e9}"];
            rng.shuffle(&mut keys);
            keys.truncate(rng.usize(..5));
            Value::Dict(keys.iter().map(|key| ((*key).into(), value(rng, depth - 1))).collect())
        }
    }
}

fn telemetry(rng: &mut Rng) -> Telemetry {
    let mut telemetry = Telemetry {
        phi: rng.bool().then(|| number(rng)),
        grounding: rng.bool().then(|| number(rng)),
        external_coupling: rng.bool().then(|| number(rng)),
        recursion_depth: rng.bool().then(|| rng.i64(..)),
        emergency: rng.bool().then(|| rng.bool()),
        regime: rng.bool().then(|| text(rng)),
        ..Telemetry::default()
    };
    for name in ["loss", "lr", "\u{e9}\0", "a b", "nested"].iter().take(rng.usize(..6)) {
        telemetry.extra.insert((*name).to_owned(), value(rng, 3));
    }
    assert!(FLOAT_FIELDS.contains(&"phi"));
    telemetry
}

/// A session with hostile values of every kind.
fn hostile_session(files: &Files, id: &str, rng: &mut Rng) {
    let metadata = Some(value(rng, 3));
    let options = SessionOptions { metadata, ..SessionOptions::default() };
    let session = files.store.start_session_with(SessionId::new(id).unwrap(), options).unwrap();
    for _ in 0..rng.usize(5..60) {
        session.record_telemetry(rng.i64(..), &telemetry(rng)).unwrap();
        let mut coords = [0.5; 64];
        coords[rng.usize(..64)] = number(rng);
        let (step, phi) = (rng.bool().then(|| rng.i64(..)), rng.bool().then(|| number(rng)));
        let basin_coords = BasinCoords::from(coords);
        session.record_basin(BasinPoint { step, basin_coords, phi, kappa: None }).unwrap();
    }
    let mut emergency = Emergency::new(EventId::new(id).unwrap(), &text(rng), "high");
    emergency.telemetry = Some(telemetry(rng));
    // A null alone reads as no metadata, so the copy made from the line would leave it out.
    emergency.metadata = Some(Value::List(vec![value(rng, 2)]));
    emergency.value = Some(number(rng));
    session.record_emergency(emergency).unwrap();
    let state = Value::Dict(vec![("b".into(), value(rng, 2)), ("a".into(), value(rng, 2))]);
    session.save_checkpoint(NewCheckpoint::new(state, rng.f64())).unwrap();
    session.end_because(Outcome::Failed, &text(rng)).unwrap();
}

/// A segment of lines that no tidelog of this version writes.
fn strange_segment(files: &Files) {
    let header = format!(
        "{{\"tidelog\": 1, \"store\": \"{}\", \"segment\": \"{}\", \"session\": \"strange\",\
         \"more\": 1, \"attempt\": 1,\"writer\":{{\"pid\":1,\"host\":\"h\",\"program\":\"t\"}},\
         \"created_at\":\"2026-01-05T09:30:00Z\"}}",
        files.store.id(),
        tidelog::SegmentId::random()
    );
    let time = "\"timestamp\":\"2026-01-05T09:30:00.5Z\"";
    let gap = "\"gap\":{\"records\":3,\"since\":\"2026-01-05T09:29:00Z\"},\"reason\":\"full\"";
    let lines = [
        header,
        format!("{{{time},\"step\":1,\"telemetry\":{{\"phi\":1}}}}"),
        format!("{{\"step\":2, {time},\"telemetry\":{{\"z\":1.50,\"a\":1e2}},\"more\":[]}}\r"),
        format!("{{{time},\"step\":3,\"telemetry\":{{}},\"step\":4}}"),
        format!("{{{time},\"event\":\"from_the_future\",\"x\":1}}"),
        format!("{{{time},\"event\":\"gap\",{gap}}}"),
        format!("{{{time},\"event\":\"session_ended\",\"status\":\"completed\"}}"),
        "\0\0 no json".to_owned(),
        String::new(),
        format!("{{{time},\"step\":5,\"telemetry\":{{\"phi\":\"1\"}},\"crc\":\"00000000\"}}"),
        format!("{{{time},\"step\":6,\"telemetry\":{{\"loss\":{{\"$float\":\"0.5\"}}}}}}\n"),
    ];
    fs::write(files.segment("session_strange.jsonl"), lines.join("\n")).unwrap();
}

/// A store with everything in it, sent to a database.
fn everything(seed: u64) -> (Files, TestDatabase) {
    let (files, database) = (Files::new(), TestDatabase::create());
    let mut rng = Rng::with_seed(seed);
    for id in ["run-a", "run-b", "run-a"] {
        hostile_session(&files, &format!("{id}-{}", rng.u8(..)), &mut rng);
    }
    // Two attempts of one session, and what is in the store's own journal.
    files.records("twice", 10);
    files.records("twice", 20);
    let pruned = every_kind(&files);
    files.store.get_best_checkpoint().unwrap();
    files.store.prune_checkpoint(&pruned).unwrap();
    strange_segment(&files);
    let Files { folder, store } = files;
    drop(store);
    let store = Store::open(folder.path().join("store")).unwrap();
    let files = Files { folder, store };
    once(&files, &database).unwrap();
    (files, database)
}

#[test]
fn a_store_comes_back_byte_for_byte_and_the_agent_goes_on() {
    for seed in 0..4 {
        let (files, database) = everything(seed);
        let (folder, root) = new_machine();
        let restored = restore_to(&root, &database).unwrap();
        assert!(restored.is_whole(), "seed {seed}: {restored:?}");
        assert_same_files(&root, files.store.root());
        let restored = Files { store: Store::open(&root).unwrap(), folder };
        assert_eq!(restored.store.id(), files.store.id());
        goes_on(&restored, &database);
        let best = |files: &Files| files.store.get_best_checkpoint().unwrap();
        assert_eq!(best(&restored), best(&files), "seed {seed}");
    }
}

/// The agent has nothing to send but what is new.
fn goes_on(files: &Files, database: &TestDatabase) {
    let mut client = database.client();
    let report = once(files, database).unwrap();
    assert_eq!((report.lines, report.checkpoint_files, report.forked.len()), (0, 0, 0));
    assert_eq!(count(&mut client, "sync_segments WHERE NOT sealed"), 0);
    let before = count(&mut client, "telemetry_records");
    files.records("on-the-new-machine", 7);
    once(files, database).unwrap();
    assert_eq!(count(&mut client, "telemetry_records"), before + 7);
}

#[test]
fn a_restored_store_is_sound() {
    let (files, database) = (Files::new(), TestDatabase::create());
    every_kind(&files);
    files.records("run-2", 100);
    once(&files, &database).unwrap();
    let (_folder, root) = new_machine();
    restore_to(&root, &database).unwrap();
    let store = Store::open_read_only(&root).unwrap();
    let report = store.verify_thoroughly(&mut |_| {}).unwrap();
    assert!(report.findings.is_empty(), "{report:?}");
    check_replica(&store, &mut database.client());
}

#[cfg(unix)]
#[test]
fn restored_files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (files, database) = (Files::new(), TestDatabase::create());
    every_kind(&files);
    once(&files, &database).unwrap();
    let (_folder, root) = new_machine();
    restore_to(&root, &database).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for name in contents_of(&root).into_keys().chain(["store.json".into()]) {
        assert_eq!(mode(&root.join(&name)), 0o600, "{}", name.display());
        assert_eq!(mode(root.join(&name).parent().unwrap()), 0o700);
    }
}

#[test]
fn a_restore_that_was_interrupted_at_any_file_goes_on() {
    let (files, database) = everything(9);
    let target = target(&database);
    let (_folder, root) = new_machine();
    let mut notices = 0;
    for last in 1.. {
        let mut left = last;
        let interrupted = catch_unwind(AssertUnwindSafe(|| {
            restore(&root, &target, None, &mut |_| {
                left -= 1;
                assert!(left > 0, "interrupted on purpose");
            })
        }));
        match interrupted {
            Err(_) => assert!(!root.join("store.json").exists(), "a store after {last} files"),
            Ok(restored) => {
                notices = last - 1;
                assert!(restored.unwrap().is_whole());
                break;
            }
        }
    }
    assert!(notices > 8, "{notices}");
    assert_same_files(&root, files.store.root());
    let again = restore_to(&root, &database).unwrap();
    assert_eq!((again.segments, again.checkpoint_files), (0, 0), "{again:?}");
}

#[test]
fn a_file_in_the_way_is_named_and_stays() {
    let (files, database) = (Files::new(), TestDatabase::create());
    every_kind(&files);
    once(&files, &database).unwrap();
    for name in contents_of(files.store.root()).into_keys() {
        if name.starts_with("logs/emergency") {
            continue; // a copy, put beside
        }
        let (_folder, root) = new_machine();
        let path = root.join(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "mine\n").unwrap();
        let error = restore_to(&root, &database).unwrap_err().to_string();
        assert!(error.contains(&*path.to_string_lossy()), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"mine\n");
        assert!(!root.join("store.json").exists());
    }
}

#[test]
fn files_that_were_not_sent_are_named_and_everything_else_comes_back() {
    for (policy, reason) in [
        (BlobPolicy::Never, "it was not sent"),
        (BlobPolicy::UpTo { bytes_max: 100 }, "--blob-max-size is 100"),
    ] {
        let (files, database) = (Files::new(), TestDatabase::create());
        let id = every_kind(&files);
        let mut agent = agent_with(&files, &database, "", |_| {}).with_blobs(policy);
        agent.once(Duration::ZERO).unwrap();
        let (_folder, root) = new_machine();
        let restored = restore_to(&root, &database).unwrap();
        assert!(!restored.is_whole());
        assert_eq!(restored.checkpoints_missing[0].checkpoint_id, id.to_string());
        assert!(restored.checkpoints_missing[0].reason.contains(reason), "{restored:?}");
        let (mut found, mut expected) = (contents_of(&root), contents_of(files.store.root()));
        for files in [&mut found, &mut expected] {
            files.retain(|name, _| !name.starts_with("checkpoints"));
        }
        assert_eq!(found, expected);
    }
}

#[test]
fn a_damaged_file_in_the_database_is_not_restored() {
    let (files, database) = (Files::new(), TestDatabase::create());
    every_kind(&files);
    once(&files, &database).unwrap();
    let flip = "UPDATE checkpoint_chunks SET bytes = set_byte(bytes, 9, 255 - get_byte(bytes, 9))";
    database.client().batch_execute(flip).unwrap();
    let (_folder, root) = new_machine();
    let restored = restore_to(&root, &database).unwrap();
    assert!(restored.checkpoints_missing[0].reason.contains("SHA-256"), "{restored:?}");
    assert_eq!(fs::read_dir(root.join("checkpoints")).unwrap().count(), 0);
}

#[test]
fn lines_that_were_deleted_in_the_database_leave_a_place_each() {
    let (files, database) = (Files::new(), TestDatabase::create());
    files.records("run-1", 100);
    once(&files, &database).unwrap();
    let mut client = database.client();
    client.batch_execute("DELETE FROM telemetry_records WHERE step < 30").unwrap();
    let (folder, root) = new_machine();
    for _ in 0..2 {
        let restored = restore_to(&root, &database).unwrap();
        assert_eq!(restored.segments_inexact[0].lines_missing, 30, "{restored:?}");
    }
    let store = Store::open(&root).unwrap();
    let records = store.get_session_stats(&SessionId::new("run-1").unwrap()).unwrap().total_steps;
    assert_eq!(records, 70);
    // What is here is not what was sent: nothing of it is sent again.
    let report = once(&Files { folder, store }, &database);
    assert_eq!(report.map(|report| report.lines).unwrap_or_default(), 0);
    assert_eq!(count(&mut client, "telemetry_records"), 70);
}

#[test]
fn a_changed_row_is_told() {
    let (files, database) = (Files::new(), TestDatabase::create());
    files.records("run-1", 10);
    once(&files, &database).unwrap();
    let change = "UPDATE telemetry_records SET phi = 0.5 WHERE step = 3";
    database.client().batch_execute(change).unwrap();
    let (_folder, root) = new_machine();
    let restored = restore_to(&root, &database).unwrap();
    assert!(restored.segments_inexact[0].reason.contains("changed"), "{restored:?}");
}

#[test]
fn a_deleted_session_is_not_restored() {
    let (files, database) = (Files::new(), TestDatabase::create());
    every_kind(&files);
    files.records("run-2", 3);
    let deletion = format!(
        "{{\"tidelog\":1,\"segment\":\"{}\",\"store\":\"{}\",\"session\":null,\
         \"writer\":{{\"pid\":1,\"host\":\"h\",\"program\":\"t\"}},\
         \"created_at\":\"2026-01-05T09:30:00Z\"}}\n\
         {{\"timestamp\":\"2026-01-05T09:30:00Z\",\"event\":\"session_deleted\",\
         \"session_id\":\"run-1\"}}\n",
        tidelog::SegmentId::random(),
        files.store.id()
    );
    fs::create_dir_all(files.store.root().join("logs/store")).unwrap();
    once(&files, &database).unwrap();
    fs::write(files.store.root().join("logs/store/d.jsonl"), deletion).unwrap();
    once(&files, &database).unwrap();
    let (_folder, root) = new_machine();
    let restored = restore_to(&root, &database).unwrap();
    assert_eq!((restored.segments_deleted, restored.is_whole()), (1, true));
    let names: Vec<PathBuf> = contents_of(&root).into_keys().collect();
    let expected = ["logs/store/d.jsonl", "logs/telemetry/session_run-2.jsonl"];
    assert_eq!(names, expected.map(PathBuf::from));
    assert_eq!(count(&mut database.client(), "checkpoint_chunks"), 0);
}

#[test]
fn of_several_stores_one_must_be_named() {
    let (first, second, database) = (Files::new(), Files::new(), TestDatabase::create());
    for files in [&first, &second] {
        files.records("shared", 5);
        once(files, &database).unwrap();
    }
    let (_folder, root) = new_machine();
    let error = restore_to(&root, &database).unwrap_err().to_string();
    assert!(error.contains(&second.store.id().to_string()), "{error}");
    restore(&root, &target(&database), Some(second.store.id()), &mut |_| {}).unwrap();
    assert_same_files(&root, second.store.root());
    // The folder says which store it is.
    assert_eq!(restore_to(&root, &database).unwrap().segments_there, 1);
    let other = restore(&root, &target(&database), Some(first.store.id()), &mut |_| {});
    assert!(other.unwrap_err().to_string().contains("says that this is store"));
}

#[test]
fn a_session_whose_machine_is_gone_is_aborted_by_the_next_opening() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    record(&session, 0..10);
    once(&files, &database).unwrap();
    let (folder, root) = new_machine();
    restore_to(&root, &database).unwrap();
    let restored = Files { store: Store::open(&root).unwrap(), folder };
    once(&restored, &database).unwrap();
    let mut client = database.client();
    assert_eq!(count(&mut client, "telemetry_sessions WHERE status = 'aborted'"), 1);
    assert_eq!(count(&mut client, "telemetry_records"), 10);
    drop(session);
}

#[test]
fn restore_is_a_command_that_tells_what_it_did() {
    let (files, database) = (Files::new(), TestDatabase::create());
    every_kind(&files);
    once(&files, &database).unwrap();
    let (_folder, root) = new_machine();
    let run = || {
        let program = crate::support::program("tidelog-sync");
        let mut command = std::process::Command::new(program);
        command
            .args(["restore", "--json", "--store"])
            .arg(&root)
            .env("DATABASE_URL", database.url());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let (first, second) = (run(), run());
    assert_eq!((&first["segments"], &first["checkpoint_files"]), (&1.into(), &1.into()));
    assert_eq!((&second["segments"], &second["segments_there"]), (&0.into(), &1.into()));
    assert_eq!(first["lines"], second["lines"]);
    assert_same_files(&root, files.store.root());
}
