//! An `index.sqlite` that somebody broke. The files are the truth: each query still answers.

use std::fs;

use super::{SEGMENT, steps, store, verify};
use crate::support::TestStore;

fn with_index() -> TestStore {
    let store = store();
    store.store().refresh_index(&mut |_| {}).unwrap();
    store
}

#[test]
fn an_index_cut_anywhere_is_made_anew() {
    let store = with_index();
    let path = store.root().join("index.sqlite");
    let whole = fs::read(&path).unwrap();
    for bytes in [0, 1, 15, 16, 99, 100, 4095, 4096, 4097, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..bytes.min(whole.len())]).unwrap();
        assert_eq!(steps(store.store(), "run-7"), [0, 1, 2], "{bytes}");
    }
    assert_eq!(verify(&store.root()).findings, []);
}

/// Not every change can be seen in a page; none may end in an error or a panic.
#[test]
fn no_overwritten_block_keeps_a_query_from_answering() {
    let store = with_index();
    let path = store.root().join("index.sqlite");
    let whole = fs::read(&path).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..60 {
        let mut damaged = whole.clone();
        let at = random.usize(0..damaged.len() - 64);
        for byte in &mut damaged[at..at + 64] {
            *byte = if round % 2 == 0 { random.u8(..) } else { 0 };
        }
        fs::write(&path, &damaged).unwrap();
        let id = crate::support::session_id("run-7");
        let answer = store.store().get_telemetry_trajectory(&id, 10).map(|_| ());
        let report = verify(&store.root());
        assert!(report.records == 3, "{at}");
        if let Err(error) = answer {
            let text = error.to_string();
            assert!(text.contains("`tidelog rebuild`"), "{at}: {text}");
        }
        store.store().rebuild_index(&mut |_| {}).unwrap();
        assert_eq!(steps(store.store(), "run-7"), [0, 1, 2], "{at}");
    }
}

#[test]
fn a_journal_of_another_database_beside_the_index_is_not_taken_for_its_own() {
    let (store, other) = (with_index(), with_index());
    let name = |ending: &str| format!("index.sqlite{ending}");
    let open = rusqlite::Connection::open(other.root().join("index.sqlite")).unwrap();
    open.execute_batch("CREATE TABLE stale (a); INSERT INTO stale VALUES (1)").unwrap();
    for ending in ["-wal", "-shm"] {
        fs::copy(other.root().join(name(ending)), store.root().join(name(ending))).unwrap();
    }
    assert_eq!(steps(store.store(), "run-7"), [0, 1, 2]);
    store.store().rebuild_index(&mut |_| {}).unwrap();
    assert_eq!(verify(&store.root()).findings, []);
}

/// What lies there is no index of this store: it is made anew, and nothing of it is believed.
#[test]
fn whatever_lies_in_the_place_of_the_index_is_replaced() {
    let (store, other) = (with_index(), with_index());
    let path = store.root().join("index.sqlite");
    let whole = fs::read(&path).unwrap();
    let foreign = {
        let path = other.root().join("foreign.sqlite");
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch("CREATE TABLE telemetry_records (a); PRAGMA user_version = 1").unwrap();
        drop(db);
        fs::read(path).unwrap()
    };
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let contents = [
        ("text", b"not a database".repeat(1_000)),
        ("zeros", vec![0; whole.len()]),
        ("header", with(0, &[0; 16])),
        ("page size", with(16, &[0xff, 0xff])),
        ("write version", with(18, &[9, 9])),
        ("page count", with(28, &[0xff; 4])),
        ("first page", with(100, &[0; 1_000])),
        ("schema version", with(44, &[0xff; 4])),
        ("text encoding", with(56, &[0, 0, 0, 3])),
        ("of another program", foreign),
        ("of another store", fs::read(other.root().join("index.sqlite")).unwrap()),
        ("appended", [whole.as_slice(), &[0xff; 10_000]].concat()),
    ];
    for (what, bytes) in contents {
        for ending in ["-wal", "-shm"] {
            fs::remove_file(store.root().join(format!("index.sqlite{ending}"))).ok();
        }
        fs::write(&path, bytes).unwrap();
        assert_eq!(steps(store.store(), "run-7"), [0, 1, 2], "{what}");
        assert_eq!(verify(&store.root()).findings, [], "{what}");
    }
}

/// A page of zeros is an answer, an error with a remedy, or a rebuild; never another answer.
#[test]
fn no_zeroed_page_gives_another_answer() {
    let store = with_index();
    let path = store.root().join("index.sqlite");
    let whole = fs::read(&path).unwrap();
    let pages = whole.len() / 4096;
    assert!(pages > 10);
    for page in 0..pages {
        let mut damaged = whole.clone();
        damaged[page * 4096..(page + 1) * 4096].fill(0);
        fs::write(&path, &damaged).unwrap();
        let id = crate::support::session_id("run-7");
        match store.store().get_telemetry_trajectory(&id, 10) {
            Ok(points) => assert_eq!(points.len(), 3, "page {page}"),
            Err(error) => assert!(error.to_string().contains("tidelog rebuild"), "{error}"),
        }
        store.store().rebuild_index(&mut |_| {}).unwrap();
        assert_eq!(steps(store.store(), "run-7"), [0, 1, 2], "page {page}");
    }
}

#[test]
fn an_index_that_another_process_holds_keeps_no_reader_out() {
    let store = with_index();
    let other = rusqlite::Connection::open(store.root().join("index.sqlite")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let before = std::time::Instant::now();
    // A reader of WAL is not kept out; only catching up is.
    assert_eq!(steps(store.store(), "run-7"), [0, 1, 2]);
    assert!(before.elapsed() < std::time::Duration::from_secs(30));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(steps(store.store(), "run-7"), [0, 1, 2]);
}

#[test]
fn a_folder_in_the_place_of_the_index_is_passed_over() {
    let store = store();
    fs::create_dir(store.root().join("index.sqlite")).unwrap();
    assert_eq!(steps(store.store(), "run-7"), [0, 1, 2]);
}

#[test]
fn an_index_deleted_between_two_queries_comes_back() {
    let store = with_index();
    fs::remove_file(store.root().join("index.sqlite")).unwrap();
    assert_eq!(steps(store.store(), "run-7"), [0, 1, 2]);
    assert!(store.root().join(SEGMENT).exists() && store.root().join("index.sqlite").exists());
}
