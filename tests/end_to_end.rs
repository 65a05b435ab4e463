//! From old files to the same answers in both databases.

use std::path::Path;
use std::process::{Command, Output};

use tidelog::Store;

use crate::support::TestStore;
use crate::support::compare::{Numbers, check_replica, check_same};
use crate::support::postgres::TestDatabase;
use crate::support::program;
use crate::support::specification::{ACTIVE_SESSIONS, DIRECT_QUERIES, TABLES};

fn run(name: &str, arguments: &[&str], store: &Path, database: &TestDatabase) -> Output {
    let output = Command::new(program(name))
        .args(arguments)
        .env("TIDELOG_STORE", store)
        .env("DATABASE_URL", database.url())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {errors}");
    output
}

/// The fixture, and one more folder of the kind where a machine has one.
fn predecessors() -> Vec<String> {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/predecessor").to_owned();
    std::iter::once(fixture).chain(std::env::var("TIDELOG_TEST_PREDECESSOR")).collect()
}

/// The specification's queries name one session: these ask for one that is there.
fn queries(session: &str) -> Vec<String> {
    DIRECT_QUERIES.iter().map(|sql| sql.replace("session_20251218_001", session)).collect()
}

fn check_queries(store: &Store, database: &TestDatabase) {
    let mut client = database.client();
    for sql in DIRECT_QUERIES.iter().chain([&ACTIVE_SESSIONS]) {
        check_same(store, &mut client, sql, Numbers::Twelve);
    }
    for session in store.sessions().unwrap() {
        for sql in queries(session.session_id.as_str()) {
            check_same(store, &mut client, &sql, Numbers::Twelve);
        }
    }
    check_replica(store, &mut client);
}

/// Everything that a row can change in: a second import and copy must leave it alone.
fn row_versions(database: &TestDatabase) -> Vec<String> {
    let mut client = database.client();
    let versions = |table: &&str| {
        let sql = format!(
            "SELECT coalesce(string_agg(ctid::text || xmin, ' ' ORDER BY ctid), '') FROM {table}"
        );
        client.query_one(&sql, &[]).unwrap().get(0)
    };
    TABLES.iter().chain(&["session_parts", "sync_segments", "sync_batches"]).map(versions).collect()
}

#[test]
fn imported_files_give_the_same_answers_in_index_and_replica() {
    for predecessor in predecessors() {
        let (folder, database) = (tempfile::tempdir().unwrap(), TestDatabase::empty());
        let store = folder.path().join("store");
        run("tidelog", &["import", &predecessor], &store, &database);
        run("tidelog-sync", &["migrate"], &store, &database);
        run("tidelog-sync", &["once"], &store, &database);
        let store = Store::open_read_only(store).unwrap();
        assert!(store.sessions().unwrap().len() >= 3);
        check_queries(&store, &database);
    }
}

#[test]
fn a_second_import_and_copy_change_no_row() {
    for predecessor in predecessors() {
        let (folder, database) = (tempfile::tempdir().unwrap(), TestDatabase::create());
        let store = folder.path().join("store");
        run("tidelog", &["import", &predecessor], &store, &database);
        run("tidelog-sync", &["once"], &store, &database);
        let before = row_versions(&database);
        run("tidelog", &["import", &predecessor], &store, &database);
        run("tidelog-sync", &["once"], &store, &database);
        assert_eq!(row_versions(&database), before);
    }
}

#[test]
fn a_demonstration_gives_the_same_answers_in_index_and_replica() {
    let (store, database) = (TestStore::new(), TestDatabase::create());
    run("tidelog", &["demo"], &store.root(), &database);
    run("tidelog-sync", &["once"], &store.root(), &database);
    check_queries(store.store(), &database);
}

#[test]
fn tidelog_sync_is_a_command_of_tidelog() {
    let (store, database) = (TestStore::new(), TestDatabase::create());
    run("tidelog", &["demo"], &store.root(), &database);
    run("tidelog", &["sync", "once"], &store.root(), &database);
    check_replica(store.store(), &mut database.client());
}
