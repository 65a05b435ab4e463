//! `fold_sessions`: many parts, one session, in any order and from several agents at once.

use std::thread;

use postgres::{Client, Transaction};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::postgres::TestDatabase;

const FIRST: &str = "('00000000-0000-0000-0000-000000000001', 's', 1,
    '2026-01-05 09:00Z', '2026-01-05 10:00Z', 'failed', NULL, '{\"run\": 1}')";
const RESUMED: &str = "('00000000-0000-0000-0000-000000000002', 's', 2,
    '2026-01-05 11:00Z', '2026-01-05 12:00Z', 'completed', NULL, '{\"run\": 2}')";
const OTHER_RANK: &str = "('00000000-0000-0000-0000-000000000003', 's', 2,
    '2026-01-05 11:00Z', NULL, NULL, NULL, NULL)";

/// What a writer leaves that goes on in another segment, here in one whose start gave no metadata.
const CONTINUED: &str = "('00000000-0000-0000-0000-000000000004', 's', 2,
    '2026-01-05 11:30Z', '2026-01-05 13:00Z', 'continued', NULL, NULL)";

const FOLD: &str = "SELECT fold_sessions(ARRAY['s'])";

fn insert(part: &str) -> String {
    format!("INSERT INTO session_parts VALUES {part}")
}

fn fold_part(client: &mut Client, part: &str) {
    change_and_fold(client, &insert(part)).commit().unwrap();
}

fn change_and_fold<'a>(client: &'a mut Client, change: &str) -> Transaction<'a> {
    let mut transaction = client.transaction().unwrap();
    transaction.batch_execute(change).unwrap();
    transaction.batch_execute(FOLD).unwrap();
    transaction
}

/// Two agents, of which the second begins and waits before the first commits.
fn fold_at_once(database: &TestDatabase, first: &str, second: &str) {
    let mut client = database.client();
    let first = change_and_fold(&mut client, first);
    thread::scope(|scope| {
        let second =
            scope.spawn(|| change_and_fold(&mut database.client(), second).commit().unwrap());
        database.await_lock_wait();
        first.commit().unwrap();
        second.join().unwrap();
    });
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
            fold_part(&mut client, part);
        }
        assert_eq!(session(&mut client).0, r#"09:00 12:00 completed 2 {"run": 1}"#);
    }
}

/// A part as the property needs it: attempt, minutes of start and end, status.
type Part = (u32, u32, Option<(u32, &'static str)>);

fn part() -> impl Strategy<Value = Part> {
    let statuses = vec!["completed", "failed", "aborted", "continued", "continued"];
    let end = (0..5_u32, prop::sample::select(statuses));
    (1..3_u32, 0..5_u32, prop::option::weighted(0.9, end))
}

/// The rule in other words than those of the databases.
fn expected_status(parts: &[Part]) -> &'static str {
    let ends: Option<Vec<_>> = parts
        .iter()
        .enumerate()
        .map(|(no, part)| part.2.map(|end| (end.0, part.0, no, end.1)))
        .collect();
    let Some(ends) = ends else { return "active" };
    let last = ends.into_iter().filter(|end| end.3 != "continued").max();
    last.map_or("aborted", |end| end.3)
}

fn status_of(client: &mut Client, parts: &[Part], first: usize) -> String {
    client.batch_execute("TRUNCATE session_parts, telemetry_sessions").unwrap();
    for no in (first..parts.len()).chain(0..first) {
        let (attempt, start, end) = parts[no];
        let end = end.map_or("NULL, NULL".into(), |(minute, status)| {
            format!("'2026-01-05 11:0{minute}Z', '{status}'")
        });
        let part = format!(
            "('00000000-0000-0000-0000-{no:012}', 's', {attempt}, '2026-01-05 10:0{start}Z', {end},
              NULL, NULL)"
        );
        fold_part(client, &part);
    }
    client.query_one("SELECT status FROM telemetry_sessions", &[]).unwrap().get(0)
}

#[test]
fn a_continued_part_is_over_and_never_tells_how_the_session_ended() {
    let database = TestDatabase::create();
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let cases = (prop::collection::vec(part(), 1..5), any::<prop::sample::Index>());
    let checked = TestRunner::new(config).run(&cases, |(parts, first)| {
        let found = status_of(&mut database.client(), &parts, first.index(parts.len()));
        prop_assert_eq!(found, expected_status(&parts));
        Ok(())
    });
    checked.unwrap();
}

#[test]
fn metadata_is_that_of_the_first_start_although_a_continuation_gives_none() {
    for parts in [[FIRST, CONTINUED], [CONTINUED, FIRST]] {
        let database = TestDatabase::create();
        let mut client = database.client();
        for part in parts {
            fold_part(&mut client, part);
        }
        assert_eq!(session(&mut client).0, r#"09:00 13:00 failed 2 {"run": 1}"#);
    }
}

#[test]
fn session_is_active_while_any_part_is() {
    let database = TestDatabase::create();
    let mut client = database.client();
    for part in [FIRST, RESUMED, OTHER_RANK] {
        fold_part(&mut client, part);
    }
    assert_eq!(session(&mut client).0, r#"09:00 active 2 {"run": 1}"#);
}

#[test]
fn folding_again_writes_nothing() {
    let database = TestDatabase::create();
    let mut client = database.client();
    fold_part(&mut client, FIRST);
    let before = session(&mut client);
    client.batch_execute(FOLD).unwrap();
    assert_eq!(session(&mut client), before);
}

#[test]
fn session_that_lost_its_only_part_to_another_is_gone() {
    let database = TestDatabase::create();
    let mut client = database.client();
    fold_part(&mut client, FIRST);
    client.batch_execute("UPDATE session_parts SET session_id = 't'").unwrap();
    client.batch_execute("SELECT fold_sessions(ARRAY['s', 't'])").unwrap();
    let sessions = client.query("SELECT session_id FROM telemetry_sessions", &[]).unwrap();
    let sessions: Vec<&str> = sessions.iter().map(|row| row.get(0)).collect();
    assert_eq!(sessions, ["t"]);
}

#[test]
fn agent_that_waited_for_another_folds_the_parts_of_both() {
    let database = TestDatabase::create();
    fold_at_once(&database, &insert(FIRST), &insert(RESUMED));
    assert_eq!(session(&mut database.client()).0, r#"09:00 12:00 completed 2 {"run": 1}"#);
}

/// The first agent's part leaves the session's row as it was, so only the lock makes the second,
/// which ends the other part, wait for it.
#[test]
fn session_stays_active_when_one_rank_joins_while_another_ends() {
    let database = TestDatabase::create();
    fold_part(&mut database.client(), OTHER_RANK);
    let joins = insert(&OTHER_RANK.replace("0003'", "0004'"));
    let ends = "UPDATE session_parts SET ended_at = '2026-01-05 13:00Z', status = 'completed'
                WHERE segment_id = '00000000-0000-0000-0000-000000000003'";
    fold_at_once(&database, &joins, ends);
    assert_eq!(session(&mut database.client()).0, "11:00 active 2");
}

#[test]
fn opposite_orders_do_not_deadlock() {
    let database = TestDatabase::create();
    let mut client = database.client();
    for session in ["a", "b", "c"] {
        let part = FIRST.replace("'s'", &format!("'{session}'"));
        let id = uuid::Uuid::new_v4().to_string();
        let part = part.replace("00000000-0000-0000-0000-000000000001", &id);
        client.batch_execute(&insert(&part)).unwrap();
    }
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
