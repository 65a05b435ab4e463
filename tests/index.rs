//! The index: what it holds follows from the files alone.

mod order;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::types::Value as SqlValue;
use tidelog::{
    BasinCoords, BasinPoint, CheckpointId, Emergency, EventId, NewCheckpoint, Outcome, Session,
    SessionOptions, Store, Telemetry, Value,
};

use crate::support::{TestStore, session_id, telemetry};

/// Every row of every table, apart from what an index says of itself.
type Dump = BTreeMap<String, Vec<Vec<SqlValue>>>;

fn dump(root: &Path) -> Dump {
    let db = Connection::open(root.join("index.sqlite")).unwrap();
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'index_meta'";
    let mut tables = db.prepare(tables).unwrap();
    let names = tables.query_map([], |row| row.get::<_, String>(0)).unwrap();
    names.map(|name| name.unwrap()).map(|name| (name.clone(), rows(&db, &name))).collect()
}

fn rows(db: &Connection, table: &str) -> Vec<Vec<SqlValue>> {
    let mut query = db.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2")).unwrap();
    let columns = query.column_count();
    let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
    query.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
}

/// Another one after each time that the index began anew.
fn generation(root: &Path) -> String {
    let db = Connection::open(root.join("index.sqlite")).unwrap();
    let query = "SELECT value FROM index_meta WHERE key = 'generation'";
    db.query_row(query, [], |row| row.get(0)).unwrap()
}

fn count(store: &TestStore, table: &str) -> usize {
    store.store().refresh_index(&mut |_| {}).unwrap();
    dump(&store.root())[table].len()
}

fn remove_index(root: &Path) {
    for ending in ["", "-wal", "-shm"] {
        fs::remove_file(root.join(format!("index.sqlite{ending}"))).ok();
    }
}

/// What the index holds after it was made anew.
fn rebuilt(store: &TestStore) -> Dump {
    remove_index(&store.root());
    store.store().refresh_index(&mut |_| {}).unwrap();
    dump(&store.root())
}

fn recorded(records: i64) -> (TestStore, Session) {
    let store = TestStore::new();
    let session = store.store().start_session(session_id("run-7")).unwrap();
    for step in 0..records {
        session.record_telemetry(step, &telemetry(0.5)).unwrap();
    }
    (store, session)
}

const RECORD: &str = r#"{"timestamp":"2026-01-05T09:30:30Z","step":1,"telemetry":{"phi":0.5}}"#;
const HEADER: &str = r#"{"tidelog":1,"segment":"SEGMENT","store":"STORE","session":SESSION,"attempt":1,"writer":{"pid":1,"host":"h","program":"p"},"created_at":"2026-01-05T09:30:00Z"}"#;

/// Puts a segment of these lines into the store; the session is JSON.
fn add_segment(root: &Path, number: u32, session: &str, lines: &[&str]) {
    let folder = root.join("logs").join(if session == "null" { "store" } else { "telemetry" });
    fs::create_dir_all(&folder).unwrap();
    let id = format!("6f2a3b1c-0000-4000-8000-{number:012}");
    let store = Store::open_read_only(root).unwrap().id().to_string();
    let header =
        HEADER.replace("SEGMENT", &id).replace("SESSION", session).replace("STORE", &store);
    let text = format!("{header}\n{}\n", lines.join("\n"));
    fs::write(folder.join(format!("s{number}.jsonl")), text).unwrap();
}

#[derive(Debug, Clone)]
enum Action {
    Start(usize),
    Write(usize, Writing),
    Prune,
    Garbage,
    End(usize, Outcome),
    CatchUp,
}

#[derive(Debug, Clone)]
enum Writing {
    Record(f64),
    Emergency,
    Basin,
    Checkpoint(f64),
}

fn phi() -> impl Strategy<Value = f64> {
    let ugly = prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e300]);
    prop_oneof![4 => 0.0..1.0, 1 => ugly]
}

fn action() -> impl Strategy<Value = Action> {
    let slot = 0..4_usize;
    let outcome = prop::sample::select(vec![Outcome::Completed, Outcome::Failed, Outcome::Aborted]);
    let write = prop_oneof![
        9 => phi().prop_map(Writing::Record),
        1 => Just(Writing::Emergency),
        1 => Just(Writing::Basin),
        2 => phi().prop_map(Writing::Checkpoint),
    ];
    prop_oneof![
        2 => slot.clone().prop_map(Action::Start),
        13 => (slot.clone(), write).prop_map(|(slot, write)| Action::Write(slot, write)),
        1 => Just(Action::Prune),
        1 => Just(Action::Garbage),
        1 => (slot, outcome).prop_map(|(slot, outcome)| Action::End(slot, outcome)),
        2 => Just(Action::CatchUp),
    ]
}

/// Four writers of two sessions.
fn play(store: &Store, actions: Vec<Action>) {
    let mut writers: [Option<Session>; 4] = Default::default();
    // so small that sessions go on in other segments
    let segment_bytes_max = 4096;
    let metadata = Some(Value::Int(1));
    let options = SessionOptions { metadata, segment_bytes_max, ..SessionOptions::default() };
    for action in actions {
        match action {
            Action::Start(slot) => {
                let id = session_id(["run-a", "run-b"][slot % 2]);
                writers[slot] = Some(store.start_session_with(id, options.clone()).unwrap());
            }
            Action::Write(slot, write) => writers[slot].iter().for_each(|to| write.to(to)),
            Action::Prune => {
                for best in store.list_checkpoints(1).unwrap() {
                    store.prune_checkpoint(&best.checkpoint_id).unwrap();
                }
            }
            Action::Garbage => append_garbage(store.root()),
            Action::End(slot, outcome) => {
                writers[slot].take().into_iter().for_each(|session| session.end(outcome).unwrap());
            }
            Action::CatchUp => store.refresh_index(&mut |_| {}).unwrap(),
        }
    }
}

impl Writing {
    fn to(&self, session: &Session) {
        match *self {
            Writing::Record(phi) => {
                let telemetry = Telemetry { kappa_eff: Some(-phi), ..telemetry(phi) };
                session.record_telemetry(7, &telemetry.with("x", phi)).unwrap();
            }
            Writing::Emergency => {
                let event = Emergency::new(EventId::generate(), "collapse", "high");
                session.record_emergency(event).unwrap();
            }
            Writing::Basin => {
                let basin_coords = BasinCoords::from([f64::NAN; 64]);
                let point = BasinPoint { step: None, basin_coords, phi: None, kappa: Some(64.0) };
                session.record_basin(point).unwrap();
            }
            Writing::Checkpoint(phi) => {
                let id = CheckpointId::new(EventId::generate().as_str()).unwrap();
                let new = NewCheckpoint::new(Value::Int(1), phi);
                let new = NewCheckpoint { checkpoint_id: Some(id), ..new };
                session.save_checkpoint(new).unwrap();
            }
        }
    }
}

fn append_garbage(root: &Path) {
    let Ok(folder) = fs::read_dir(root.join("logs/telemetry")) else { return };
    let paths: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    let path = paths.iter().min().unwrap();
    OpenOptions::new().append(true).open(path).unwrap().write_all(b"no entry\n").unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_rebuild_gives_the_same_rows(actions in prop::collection::vec(action(), 1..60)) {
        let store = TestStore::new();
        play(store.store(), actions);
        store.store().refresh_index(&mut |_| {}).unwrap();
        let followed = dump(&store.root());
        prop_assert_eq!(&followed, &rebuilt(&store));
        store.store().rebuild_index(&mut |_| {}).unwrap();
        prop_assert_eq!(&followed, &dump(&store.root()));
    }
}

#[test]
fn a_changed_line_is_found_when_the_file_grows() {
    let (store, session) = recorded(3);
    assert_eq!(store.store().sessions().unwrap()[0].max_phi, Some(0.5));
    let path = store.root().join("logs/telemetry/session_run-7.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let changed: Vec<&str> = text.lines().map(|l| l.rsplit_once(",\"crc\"").unwrap().0).collect();
    let changed = changed.join("}\n").replace("0.5", "0.9") + "}\n";
    fs::write(&path, changed).unwrap();
    session.record_telemetry(3, &telemetry(0.5)).unwrap();
    assert_eq!(store.store().sessions().unwrap()[0].max_phi, Some(0.9));
}

#[test]
fn lines_that_left_the_file_leave_the_index() {
    let (store, session) = recorded(3);
    drop(session);
    assert_eq!(count(&store, "telemetry_records"), 3);
    let path = store.root().join("logs/telemetry/session_run-7.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let kept: Vec<&str> = text.lines().take(3).collect();
    fs::write(&path, kept.join("\n") + "\n").unwrap();
    assert_eq!(count(&store, "telemetry_records"), 1);
}

#[test]
fn an_older_copy_of_a_segment_is_the_same_segment() {
    let (store, session) = recorded(3);
    let folder = store.root().join("logs/telemetry");
    for copy in ["session_a.jsonl", "session_z.jsonl"] {
        fs::copy(folder.join("session_run-7.jsonl"), folder.join(copy)).unwrap();
    }
    session.record_telemetry(3, &telemetry(0.5)).unwrap();
    assert_eq!(count(&store, "telemetry_records"), 4);
    let before = generation(&store.root());
    assert_eq!(count(&store, "telemetry_records"), 4);
    assert_eq!(generation(&store.root()), before, "no copy makes the index begin again");
}

#[test]
fn the_longest_copy_of_a_segment_counts() {
    let (store, session) = recorded(3);
    let path = store.root().join("logs/telemetry/session_run-7.jsonl");
    let shorter = fs::read(&path).unwrap();
    session.record_telemetry(3, &telemetry(0.5)).unwrap();
    assert_eq!(count(&store, "telemetry_records"), 4);
    session.record_telemetry(4, &telemetry(0.5)).unwrap();
    fs::copy(&path, path.with_file_name("longer.jsonl")).unwrap();
    fs::write(&path, shorter).unwrap();
    let before = generation(&store.root());
    assert_eq!(count(&store, "telemetry_records"), 5);
    assert_eq!(generation(&store.root()), before);
}

#[test]
fn a_torn_tail_is_no_row_until_its_newline_comes() {
    let (store, session) = recorded(1);
    drop(session);
    let path = store.root().join("logs/telemetry/session_run-7.jsonl");
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(br#"{"timestamp":"2026-01-05T09:30:00Z","step":9,"#).unwrap();
    assert_eq!(count(&store, "telemetry_records"), 1);
    file.write_all(b"\"telemetry\":{}}\n").unwrap();
    assert_eq!(count(&store, "telemetry_records"), 2);
}

#[test]
fn a_file_that_is_no_database_is_replaced() {
    let (store, _session) = recorded(3);
    let path = store.root().join("index.sqlite");
    for bytes in [b"no database, ".repeat(1000), b"x".to_vec()] {
        remove_index(&store.root());
        fs::write(&path, bytes).unwrap();
        assert_eq!(count(&store, "telemetry_records"), 3);
    }
}

#[test]
fn damage_inside_the_index_is_repaired_by_reading_again() {
    let (store, session) = recorded(2000);
    let followed = {
        store.store().refresh_index(&mut |_| {}).unwrap();
        dump(&store.root())
    };
    let path = store.root().join("index.sqlite");
    let mut bytes = fs::read(&path).unwrap();
    let start = bytes.len() / 4;
    bytes[start..].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    session.record_telemetry(2000, &telemetry(0.5)).unwrap();
    assert_eq!(count(&store, "telemetry_records"), followed["telemetry_records"].len() + 1);
}

#[test]
fn the_index_of_another_version_is_rebuilt() {
    let (store, _session) = recorded(3);
    store.store().refresh_index(&mut |_| {}).unwrap();
    let db = Connection::open(store.root().join("index.sqlite")).unwrap();
    db.execute_batch(
        "UPDATE index_meta SET value = 'old' WHERE key = 'version';
         CREATE TABLE \"of \"\" old\" (a); CREATE VIEW v AS SELECT * FROM telemetry_records;
         DELETE FROM telemetry_records",
    )
    .unwrap();
    assert_eq!(count(&store, "telemetry_records"), 3);
    assert!(!dump(&store.root()).contains_key("of \" old"));
}

#[test]
fn a_store_that_cannot_be_written_is_read_all_the_same() {
    let (store, _session) = recorded(3);
    fs::create_dir(store.root().join("index.sqlite")).unwrap();
    assert_eq!(store.store().sessions().unwrap()[0].total_steps, 3);
    assert!(store.store().sql("SELECT 1", |_| {}, |_| std::ops::ControlFlow::Break(())).is_ok());
}

#[cfg(unix)]
#[test]
fn the_index_belongs_to_its_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (store, _session) = recorded(1);
    store.store().refresh_index(&mut |_| {}).unwrap();
    let db = Connection::open(store.root().join("index.sqlite")).unwrap();
    db.execute_batch("PRAGMA user_version = 1").unwrap();
    for file in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
        let mode = fs::metadata(store.root().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn many_catch_ups_at_once_apply_every_line_once() {
    let (store, session) = recorded(5000);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                Store::open_read_only(store.root()).unwrap().refresh_index(&mut |_| {}).unwrap()
            });
        }
        scope.spawn(|| {
            for step in 0..500 {
                session.record_telemetry(step, &telemetry(1.0)).unwrap();
            }
        });
    });
    assert_eq!(count(&store, "telemetry_records"), 5500);
    let followed = dump(&store.root());
    assert_eq!(followed, rebuilt(&store));
}

#[test]
fn records_follow_the_journal_and_not_the_clock() {
    let record = |minute: u32, step: u32| {
        let line = RECORD.replace("\"step\":1", &format!("\"step\":{step}"));
        line.replace(":30:30Z", &format!(":{minute:02}:30Z"))
    };
    let lines = [record(30, 1), record(31, 2), record(10, 3), record(11, 4)];
    let store = TestStore::new();
    add_segment(&store.root(), 1, "\"run-7\"", &lines.each_ref().map(String::as_str));
    let steps = |limit| -> Vec<i64> {
        let id = session_id("run-7");
        let points = store.store().get_telemetry_trajectory(&id, limit).unwrap();
        points.iter().map(|point| point.step).collect()
    };
    assert_eq!(steps(2), [3, 4]);
    assert_eq!(steps(9), [1, 2, 3, 4]);
    add_segment(&store.root(), 2, "\"run-7\"", &[&record(5, 5)]);
    assert_eq!(steps(3), [3, 4, 5]);
}

#[test]
fn a_record_outside_a_session_is_an_invalid_line() {
    let store = TestStore::new();
    add_segment(&store.root(), 1, "null", &[RECORD, "{}"]);
    assert_eq!(count(&store, "invalid_lines"), 2);
    assert_eq!(count(&store, "telemetry_records"), 0);
}

/// A long catch-up makes some indexes at its end, and may be killed before.
#[test]
fn a_catch_up_that_was_killed_half_way_leaves_an_index_that_heals() {
    let (store, session) = recorded(3);
    store.store().refresh_index(&mut |_| {}).unwrap();
    let db = Connection::open(store.root().join("index.sqlite")).unwrap();
    let indexes = "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL";
    let count = || db.query_row(indexes, [], |row| row.get::<_, i64>(0)).unwrap();
    let before = count();
    db.execute_batch("DROP INDEX telemetry_records_phi; DROP INDEX telemetry_records_session")
        .unwrap();
    drop(store.store().sessions().unwrap());
    assert_eq!(count(), before);
    drop(session);
}

#[test]
fn progress_ends_at_the_whole() {
    let (store, _session) = recorded(3000);
    let mut last = tidelog::Progress::default();
    store.store().rebuild_index(&mut |progress| last = progress).unwrap();
    assert_eq!((last.lines_done, last.bytes_done), (3001, last.bytes_total));
}
