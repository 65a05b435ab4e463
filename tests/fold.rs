//! `fold_sessions`: many parts, one session, in any order and from several agents at once.

use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;

use crate::support::postgres::TestDatabase;

const FIRST: &str = "('00000000-0000-0000-0000-000000000001', 's', 1,
    '2026-01-05 09:00Z', '2026-01-05 10:00Z', 'failed', NULL, '{\"run\": 1}')";
const RESUMED: &str = "('00000000-0000-0000-0000-000000000002', 's', 2,
    '2026-01-05 11:00Z', '2026-01-05 12:00Z', 'completed', NULL, '{\"run\": 2}')";
const OTHER_RANK: &str = "('00000000-0000-0000-0000-000000000003', 's', 2,
    '2026-01-05 11:00Z', NULL, NULL, NULL, NULL)";

const FOLD: &str = "SELECT fold_sessions(ARRAY['s'])";

fn insert_part(client: &mut impl postgres::GenericClient, part: &str) {
    client.batch_execute(&format!("INSERT INTO session_parts VALUES {part}")).unwrap();
}

/// The folded row and the transaction that wrote it.
fn session(client: &mut Client) -> (String, String) {
    let sql = "SELECT concat_ws(' ', to_char(started_at AT TIME ZONE 'UTC', 'HH24:MI'),
                      to_char(ended_at AT TIME ZONE 'UTC', 'HH24:MI'), status, attempts, metadata),
                      xmin::text
               FROM telemetry_sessions WHERE session_id = 's'";
    let row = client.query_one(sql, &[]).unwrap();
    (row.get(0), row.get(1))
}

#[test]
fn parts_fold_into_the_same_session_in_any_order() {
    for parts in [[FIRST, RESUMED], [RESUMED, FIRST]] {
        let database = TestDatabase::create();
        let mut client = database.client();
        for part in parts {
            insert_part(&mut client, part);
            client.batch_execute(FOLD).unwrap();
        }
        assert_eq!(session(&mut client).0, r#"09:00 12:00 completed 2 {"run": 1}"#);
    }
}

#[test]
fn session_is_active_while_any_part_is() {
    let database = TestDatabase::create();
    let mut client = database.client();
    for part in [FIRST, RESUMED, OTHER_RANK] {
        insert_part(&mut client, part);
    }
    client.batch_execute(FOLD).unwrap();
    assert_eq!(session(&mut client).0, r#"09:00 active 2 {"run": 1}"#);
}

#[test]
fn folding_again_writes_nothing() {
    let database = TestDatabase::create();
    let mut client = database.client();
    insert_part(&mut client, FIRST);
    client.batch_execute(FOLD).unwrap();
    let before = session(&mut client);
    client.batch_execute(FOLD).unwrap();
    assert_eq!(session(&mut client), before);
}

#[test]
fn session_without_parts_is_created_active() {
    let database = TestDatabase::create();
    let mut client = database.client();
    client.batch_execute(FOLD).unwrap();
    assert_eq!(session(&mut client).0, "active 1");
}

#[test]
fn agent_that_waited_for_another_folds_the_parts_of_both() {
    let database = TestDatabase::create();
    let mut client = database.client();
    let mut first = database.client();
    let mut transaction = first.transaction().unwrap();
    insert_part(&mut transaction, FIRST);
    transaction.batch_execute(FOLD).unwrap();

    thread::scope(|scope| {
        let second = scope.spawn(|| {
            let mut second = database.client();
            let mut transaction = second.transaction().unwrap();
            insert_part(&mut transaction, RESUMED);
            transaction.batch_execute(FOLD).unwrap();
            transaction.commit().unwrap();
        });
        wait_until_one_waits_for_a_lock(&mut client);
        transaction.commit().unwrap();
        second.join().unwrap();
    });

    assert_eq!(session(&mut client).0, r#"09:00 12:00 completed 2 {"run": 1}"#);
}

#[test]
fn opposite_orders_do_not_deadlock() {
    let database = TestDatabase::create();
    thread::scope(|scope| {
        for ids in ["'a', 'b', 'c'", "'c', 'b', 'a'"] {
            let mut client = database.client();
            scope.spawn(move || {
                for _ in 0..200 {
                    client.batch_execute(&format!("SELECT fold_sessions(ARRAY[{ids}])")).unwrap();
                }
            });
        }
    });
}

fn wait_until_one_waits_for_a_lock(client: &mut Client) {
    let sql = "SELECT FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let deadline = Instant::now() + Duration::from_secs(20);
    while client.query(sql, &[]).unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the second agent never waited");
        thread::sleep(Duration::from_millis(5));
    }
}
