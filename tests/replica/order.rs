//! Whichever segment comes first, the rows are the same, and the same as in the index.

use postgres::Transaction;

use super::*;
use crate::support::compare::check_replica;

/// Ends part 1, which its writer continues in part 2.
const CONTINUED: &str = r#"{"timestamp":"2026-01-05T09:40:00Z","event":"session_ended","status":"continued","session_id":"run-1","segment":"6f2a3b1c-0000-4000-8000-000000000001"}"#;
const GAP: &str = r#"{"timestamp":"2026-01-05T09:41:00Z","event":"gap","gap":{"records":3,"first_step":7,"last_step":9,"since":"2026-01-05T09:40:30Z"},"reason":"no space left on device"}"#;

/// A segment: its number, its session, its lines after the header.
type Part<'a> = (u32, Option<&'a str>, &'a [&'a str]);

const START: &str = r#"{"timestamp":"2026-01-05T09:30:00Z","event":"session_started","attempt":1}"#;
const DELETED: &str =
    r#"{"timestamp":"2026-01-05T09:50:00Z","event":"session_deleted","session_id":"gone"}"#;

fn write_part(files: &Files, (number, session, lines): Part<'_>) {
    let folder = files.store.root().join("logs/telemetry");
    fs::create_dir_all(&folder).unwrap();
    let session = session.map_or("null".to_owned(), |session| format!("\"{session}\""));
    let header = format!(
        "{{\"tidelog\":1,\"segment\":\"6f2a3b1c-0000-4000-8000-{number:012}\",\"store\":\"{}\",\
         \"session\":{session},\"writer\":{{\"pid\":1,\"host\":\"h\",\"program\":\"t\"}},\
         \"created_at\":\"2026-01-05T09:30:00Z\"}}",
        files.store.id()
    );
    let text = format!("{header}\n{}\n", lines.join("\n"));
    fs::write(folder.join(format!("part-{number}.jsonl")), text).unwrap();
}

/// Sends the segments one after the other, in every order, and gives the last replica.
fn in_any_order(parts: &[Part<'_>]) -> TestDatabase {
    let replicas: Vec<TestDatabase> = orders(parts).into_iter().map(sent).collect();
    for pair in replicas.windows(2) {
        assert_eq!(rows(&pair[0]), rows(&pair[1]));
    }
    replicas.into_iter().last().unwrap()
}

fn sent(parts: Vec<Part<'_>>) -> TestDatabase {
    let (files, database) = (Files::new(), TestDatabase::create());
    for part in parts {
        write_part(&files, part);
        once(&files, &database).unwrap();
    }
    check_replica(&files.store, &mut database.client());
    database
}

fn orders<'a>(parts: &[Part<'a>]) -> Vec<Vec<Part<'a>>> {
    let begin_with = |index: usize| {
        let mut rest = parts.to_vec();
        let first = rest.remove(index);
        orders(&rest).into_iter().map(move |rest| [vec![first], rest].concat())
    };
    match parts {
        [] => vec![Vec::new()],
        _ => (0..parts.len()).flat_map(begin_with).collect(),
    }
}

/// Rows as text, without the numbers that a database gives its segments.
fn rows(database: &TestDatabase) -> Vec<String> {
    let mut client = database.client();
    let mut rows = Vec::new();
    const TABLES: [&str; 5] = [
        "telemetry_sessions",
        "telemetry_gaps",
        "session_parts",
        "checkpoints",
        "checkpoint_history",
    ];
    for table in TABLES {
        let sql = format!("SELECT concat('{table} ', to_jsonb(t) - 'segment_no') FROM {table} t");
        rows.extend(client.query(&sql, &[]).unwrap().iter().map(|row| row.get::<_, String>(0)));
    }
    rows.sort();
    rows
}

#[test]
fn the_header_of_a_part_tells_its_session_whatever_an_end_says() {
    let end = r#"{"timestamp":"2026-01-05T10:00:00Z","event":"session_ended","status":"aborted","session_id":"other","segment":"6f2a3b1c-0000-4000-8000-000000000007"}"#;
    let database = in_any_order(&[(7, Some("run-7"), &[START]), (1, None, &[end])]);
    let mut client = database.client();
    assert_eq!(count(&mut client, "telemetry_sessions"), 1);
    let ended = "telemetry_sessions WHERE session_id = 'run-7' AND status = 'aborted'";
    assert_eq!(count(&mut client, ended), 1);
}

#[test]
fn the_first_start_of_a_part_counts_however_its_lines_are_cut() {
    let later = START.replace("09:30", "09:40");
    let (whole, cut) = (TestDatabase::create(), TestDatabase::create());
    let files = Files::new();
    write_part(&files, (1, Some("run-1"), &[START]));
    once(&files, &cut).unwrap();
    write_part(&files, (1, Some("run-1"), &[START, &later]));
    for database in [&whole, &cut] {
        once(&files, database).unwrap();
        check_replica(&files.store, &mut database.client());
    }
    assert_eq!(rows(&whole), rows(&cut));
}

#[test]
fn a_part_whose_lines_are_all_damaged_is_a_part() {
    let (files, database) = (Files::new(), TestDatabase::create());
    write_part(&files, (1, Some("run-1"), &["no entry"]));
    once(&files, &database).unwrap();
    check_replica(&files.store, &mut database.client());
    assert_eq!(count(&mut database.client(), "telemetry_sessions WHERE status = 'active'"), 1);
}

#[test]
fn a_part_that_is_continued_does_not_end_its_session_in_any_order() {
    let end = r#"{"timestamp":"2026-01-05T09:50:00Z","event":"session_ended","status":"failed"}"#;
    // somebody takes the first part's writer for a dead one, after the session ended
    let aborted = CONTINUED.replace("continued", "aborted").replace("09:40", "09:55");
    let database = in_any_order(&[
        (1, Some("run-1"), &[START]),
        (2, Some("run-1"), &[START, CONTINUED, GAP, end]),
        (3, None, &[&aborted]),
    ]);
    let mut client = database.client();
    assert_eq!(count(&mut client, "telemetry_sessions WHERE status = 'failed'"), 1);
    assert_eq!(count(&mut client, "telemetry_gaps WHERE records = 3 AND last_step = 9"), 1);
}

#[test]
fn a_session_whose_continuation_was_lost_is_aborted() {
    let database = in_any_order(&[(1, Some("run-1"), &[START]), (3, None, &[CONTINUED])]);
    let ended = "telemetry_sessions WHERE status = 'aborted' AND ended_at IS NOT NULL";
    assert_eq!(count(&mut database.client(), ended), 1);
}

#[test]
fn a_session_is_active_until_the_last_of_its_continued_parts_ends() {
    let parts: [Part<'_>; 2] =
        [(1, Some("run-1"), &[START]), (2, Some("run-1"), &[START, CONTINUED])];
    let database = in_any_order(&parts);
    let active = "telemetry_sessions WHERE status = 'active' AND ended_at IS NULL";
    assert_eq!(count(&mut database.client(), active), 1);
}

#[test]
fn the_gaps_of_a_deleted_session_go_with_it_in_any_order() {
    let gone: [Part<'_>; 3] =
        [(1, Some("gone"), &[START, GAP]), (2, Some("kept"), &[START, GAP]), (3, None, &[DELETED])];
    let database = in_any_order(&gone);
    assert_eq!(count(&mut database.client(), "telemetry_gaps WHERE session_id = 'kept'"), 1);
    assert_eq!(count(&mut database.client(), "telemetry_gaps"), 1);
}

#[test]
fn gaps_are_the_same_by_copy_and_by_unnest() {
    let files = Files::new();
    let (copied, unnested) = (TestDatabase::create(), TestDatabase::create());
    let vague = GAP.replace("3,\"first_step\":7,\"last_step\":9", "18446744073709551615");
    let lines: Vec<&str> = (0..1200).map(|n| if n % 2 == 0 { GAP } else { &vague }).collect();
    write_part(&files, (1, Some("run-1"), &lines));
    once(&files, &copied).unwrap();
    agent_with(&files, &unnested, "?pgbouncer=true", |_| {}).once(Duration::ZERO).unwrap();
    assert_eq!(count(&mut copied.client(), "telemetry_gaps"), 1200);
    for database in [&copied, &unnested] {
        check_replica(&files.store, &mut database.client());
    }
    assert_eq!(contents(&mut copied.client()), contents(&mut unnested.client()));
}

#[test]
fn a_gap_outside_a_session_or_with_a_text_of_nul_is_kept_whole() {
    let nul = GAP.replace("no space", "no\\u0000space");
    let (files, database) = (Files::new(), TestDatabase::create());
    write_part(&files, (1, Some("run-1"), &[&nul]));
    write_part(&files, (2, None, &[GAP]));
    assert_eq!(once(&files, &database).unwrap().quarantined, 2);
    let mut client = database.client();
    assert_eq!(count(&mut client, "telemetry_gaps WHERE reason LIKE U&'no\\FFFDspace%'"), 1);
    assert_eq!(
        count(&mut client, "sync_quarantine WHERE position('gap' in encode(raw, 'escape')) > 0"),
        2
    );
}

fn created(id: &str, minute: u32) -> String {
    format!(
        "{{\"timestamp\":\"2026-01-05T09:{minute}:00Z\",\"event\":\"checkpoint_created\",\
         \"checkpoint\":{{\"checkpoint_id\":\"{id}\",\"phi\":0.7,\"file\":\"{id}.npz\",\
         \"size_bytes\":1,\"sha256\":\"00\",\"state_dict\":{{}}}}}}"
    )
}

#[test]
fn the_newest_creation_of_a_checkpoint_counts_even_if_its_session_is_deleted() {
    for (kept, gone, left) in [(31, 32, 0), (32, 31, 1)] {
        let database = in_any_order(&[
            (1, Some("kept"), &[&created("c", kept)]),
            (2, Some("gone"), &[&created("c", gone)]),
            (3, None, &[DELETED]),
        ]);
        assert_eq!(count(&mut database.client(), "checkpoints WHERE session_id = 'kept'"), left);
    }
}

/// Sends one more part while somebody locks checkpoints in the order of their ids, as
/// `update_checkpoint_rankings()` does.
fn check_lock_order(sent: Part<'_>, more: Part<'_>) {
    let (files, database) = (Files::new(), TestDatabase::create());
    write_part(&files, sent);
    once(&files, &database).unwrap();
    write_part(&files, more);
    let mut client = database.client();
    let mut ranking = client.transaction().unwrap();
    let lock = |ranking: &mut Transaction<'_>, id: &str| {
        let sql = "SELECT FROM checkpoints WHERE checkpoint_id = $1 FOR UPDATE";
        ranking.execute(sql, &[&id]).unwrap();
    };
    lock(&mut ranking, "a");
    thread::scope(|scope| {
        let agent = scope.spawn(|| once(&files, &database));
        database.await_lock_wait();
        lock(&mut ranking, "b");
        ranking.commit().unwrap();
        agent.join().unwrap().unwrap();
    });
}

#[test]
fn a_batch_locks_checkpoints_in_the_order_of_their_ids() {
    let pruned =
        r#"{"timestamp":"2026-01-05T09:40:00Z","event":"checkpoint_pruned","checkpoint_id":"a"}"#;
    check_lock_order(
        (1, Some("run-1"), &[&created("a", 31), &created("b", 31)]),
        (2, Some("run-1"), &[&created("b", 32), pruned]),
    );
}

#[test]
fn a_deletion_locks_checkpoints_in_the_order_of_their_ids() {
    check_lock_order(
        (1, Some("gone"), &[&created("b", 31), &created("a", 31)]),
        (2, None, &[DELETED]),
    );
}

#[test]
fn no_line_of_a_deleted_session_is_kept_raw() {
    let emergency = r#"{"timestamp":"2026-01-05T09:30:00Z","event":"emergency","session_id":"gone","emergency":{"event_id":"e","reason":"\u0000","severity":"high"}}"#;
    let unknown = r#"{"timestamp":"2026-01-05T09:30:00Z","event":"new"}"#;
    let database = in_any_order(&[
        (1, Some("gone"), &["no entry", unknown]),
        (2, None, &[emergency, "no entry", unknown]),
        (3, None, &[DELETED]),
    ]);
    let mut client = database.client();
    assert_eq!(count(&mut client, "sync_quarantine"), 1);
    assert_eq!(count(&mut client, "sync_unknown"), 1);
}
