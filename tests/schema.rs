//! What the specification's schema does in Postgres.

use postgres::{Client, Row};

use crate::support::postgres::TestDatabase;
use crate::support::specification::{
    ACTIVE_SESSIONS, DATABASE_SIZE, DELETE_LOW_RANKS, DELETE_OLD_RECORDS, DIRECT_QUERIES,
    RECENT_EMERGENCIES, SAMPLE, VERIFY_TABLES, VERIFY_VECTOR,
};

fn ids(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|row| row.get(0)).collect()
}

fn insert_checkpoint(client: &mut Client, id: &str, phi: &str, created_at: &str) {
    client
        .batch_execute(&format!(
            "INSERT INTO checkpoints (checkpoint_id, phi, created_at)
             VALUES ('{id}', {phi}, '{created_at}')"
        ))
        .unwrap();
}

#[test]
fn verification_queries_find_tables_and_vector() {
    let database = TestDatabase::create();
    let mut client = database.client();
    assert_eq!(client.query(VERIFY_TABLES, &[]).unwrap().len(), 6);
    assert_eq!(client.query(VERIFY_VECTOR, &[]).unwrap().len(), 1);
}

#[test]
fn queries_of_the_specification_find_rows_inserted_by_hand() {
    let database = TestDatabase::create();
    let mut client = database.client();
    client.batch_execute(SAMPLE).unwrap();
    for query in DIRECT_QUERIES.iter().chain([&ACTIVE_SESSIONS, &RECENT_EMERGENCIES]) {
        assert_eq!(client.query(*query, &[]).unwrap().len(), 1, "{query}");
    }
    assert!(client.query(DATABASE_SIZE, &[]).unwrap().len() > 6);
}

#[test]
fn no_query_of_the_specification_needs_to_scan_all_records() {
    let database = TestDatabase::create();
    let mut client = database.client();
    client.batch_execute("SET enable_seqscan = off").unwrap();
    for query in DIRECT_QUERIES {
        for line in client.query(&format!("EXPLAIN {query}"), &[]).unwrap() {
            let line: String = line.get(0);
            assert!(!line.contains("Seq Scan on telemetry_records"), "{query}: {line}");
        }
    }
}

#[test]
fn retention_of_the_specification_deletes_what_it_names() {
    let database = TestDatabase::create();
    let mut client = database.client();
    client.batch_execute(SAMPLE).unwrap();
    client.batch_execute("UPDATE checkpoints SET rank = 101").unwrap();

    assert_eq!(client.execute(DELETE_OLD_RECORDS, &[]).unwrap(), 2);
    assert_eq!(client.execute(DELETE_LOW_RANKS, &[]).unwrap(), 1);
}

#[test]
fn audit_trail_outlives_the_checkpoint() {
    let database = TestDatabase::create();
    let mut client = database.client();
    client.batch_execute(SAMPLE).unwrap();
    client.batch_execute("DELETE FROM checkpoints").unwrap();
    assert_eq!(client.query("SELECT FROM checkpoint_history", &[]).unwrap().len(), 1);
}

#[test]
fn nan_phi_is_never_best_and_equal_phi_prefers_the_newest() {
    let database = TestDatabase::create();
    let mut client = database.client();
    insert_checkpoint(&mut client, "collapsed", "'NaN'", "2026-01-09");
    insert_checkpoint(&mut client, "unknown", "NULL", "2026-01-08");
    insert_checkpoint(&mut client, "older", "0.7", "2026-01-01");
    insert_checkpoint(&mut client, "newer-b", "0.7", "2026-01-02");
    insert_checkpoint(&mut client, "newer-a", "0.7", "2026-01-02");
    let expected = ["newer-a", "newer-b", "older", "collapsed", "unknown"];

    let best = client.query("SELECT checkpoint_id FROM best_checkpoints", &[]).unwrap();
    assert_eq!(ids(&best), expected);

    client.batch_execute("SELECT update_checkpoint_rankings()").unwrap();
    let ranked = client.query("SELECT checkpoint_id FROM checkpoints ORDER BY rank", &[]).unwrap();
    assert_eq!(ids(&ranked), expected);
    let flagged = client.query("SELECT checkpoint_id FROM checkpoints WHERE is_best", &[]).unwrap();
    assert_eq!(ids(&flagged), ["newer-a"]);
}

#[test]
fn ranking_touches_only_rows_whose_rank_changes() {
    let database = TestDatabase::create();
    let mut client = database.client();
    let touched = "SELECT checkpoint_id, xmin::text FROM checkpoints ORDER BY checkpoint_id";
    let versions = |client: &mut Client| -> Vec<(String, String)> {
        client.batch_execute("SELECT update_checkpoint_rankings()").unwrap();
        client.query(touched, &[]).unwrap().iter().map(|r| (r.get(0), r.get(1))).collect()
    };
    insert_checkpoint(&mut client, "a", "0.9", "2026-01-01");
    insert_checkpoint(&mut client, "b", "0.5", "2026-01-01");
    let before = versions(&mut client);

    insert_checkpoint(&mut client, "c", "0.7", "2026-01-01");
    let after = versions(&mut client);

    assert_eq!(before[0], after[0], "a stays first");
    assert_ne!(before[1], after[1], "b falls to third");
    assert_eq!(after, versions(&mut client), "nothing is left to do");
}

#[test]
fn pruned_checkpoint_has_no_rank() {
    let database = TestDatabase::create();
    let mut client = database.client();
    insert_checkpoint(&mut client, "a", "0.9", "2026-01-01");
    insert_checkpoint(&mut client, "b", "0.5", "2026-01-01");
    client.batch_execute("SELECT update_checkpoint_rankings()").unwrap();
    client.batch_execute("UPDATE checkpoints SET state = 'pruned' WHERE phi = 0.9").unwrap();
    client.batch_execute("SELECT update_checkpoint_rankings()").unwrap();

    let rows =
        client.query("SELECT rank, is_best FROM checkpoints ORDER BY checkpoint_id", &[]).unwrap();
    let rows: Vec<(Option<i32>, bool)> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
    assert_eq!(rows, [(None, false), (Some(1), true)]);
    let best = client.query("SELECT checkpoint_id FROM best_checkpoints", &[]).unwrap();
    assert_eq!(ids(&best), ["b"]);
}

#[test]
fn session_statistics_leave_out_nan_and_survive_huge_numbers() {
    let database = TestDatabase::create();
    let mut client = database.client();
    client.batch_execute("INSERT INTO telemetry_sessions (session_id) VALUES ('s')").unwrap();
    for phi in ["0.5", "0.25", "'NaN'", "NULL", "1.7e308", "1.7e308", "'Infinity'"] {
        let sql = "INSERT INTO telemetry_records (session_id, step, phi) VALUES ('s', 1,";
        client.batch_execute(&format!("{sql} {phi})")).unwrap();
    }
    client.batch_execute("SELECT update_session_stats('s')").unwrap();

    let row = client.query_one("SELECT * FROM session_stats", &[]).unwrap();
    assert_eq!(row.get::<_, i64>("total_steps"), 7);
    let figures: [Option<f64>; 4] =
        ["avg_phi", "max_phi", "min_phi", "avg_kappa"].map(|column| row.get(column));
    assert_eq!(figures, [Some(0.375), Some(f64::INFINITY), Some(0.25), None]);
}

#[test]
fn session_statistics_touch_a_row_only_if_it_changes() {
    let database = TestDatabase::create();
    let mut client = database.client();
    client.batch_execute(SAMPLE).unwrap();
    let mut version = || -> String {
        client.batch_execute("SELECT update_session_stats('session_20251218_001')").unwrap();
        client.query_one("SELECT xmin::text FROM telemetry_sessions", &[]).unwrap().get(0)
    };
    assert_eq!(version(), version());
}

#[test]
fn latest_telemetry_takes_the_greatest_timestamp_then_step_then_line() {
    let database = TestDatabase::create();
    let mut client = database.client();
    let sql = "INSERT INTO telemetry_sessions (session_id) VALUES ('s');
        INSERT INTO telemetry_records (session_id, timestamp, step, line_no, phi) VALUES
            ('s', '2026-01-02Z', 7, 1, 0.1), ('s', '2026-01-02Z', 8, 2, 0.2),
            ('s', '2026-01-02Z', 8, 3, 0.3), ('s', '2026-01-01Z', 9, 4, 0.4)";
    client.batch_execute(sql).unwrap();
    let row = client.query_one("SELECT * FROM latest_telemetry", &[]).unwrap();
    assert_eq!((row.get::<_, i64>("step"), row.get::<_, f64>("phi")), (8, 0.3));
}

#[test]
fn severity_may_be_any_text() {
    let database = TestDatabase::create();
    let sql = "INSERT INTO emergency_events (event_id, severity)
               SELECT 'e', string_agg(md5(n::text), '') FROM generate_series(1, 1000) AS n";
    assert_eq!(database.client().execute(sql, &[]).unwrap(), 1);
}

#[test]
fn latest_of_two_segments_with_equal_records_is_that_of_the_later_segment() {
    let database = TestDatabase::create();
    let mut client = database.client();
    client
        .batch_execute(
            "INSERT INTO telemetry_sessions (session_id) VALUES ('s');
             INSERT INTO telemetry_records (segment_no, line_no, session_id, timestamp, step, phi)
             SELECT segment_no, 2, 's', '2026-01-05', 1, segment_no
             FROM unnest('{2, 3, 1}'::integer[]) AS segment_no",
        )
        .unwrap();
    let phi: f64 = client.query_one("SELECT phi FROM latest_telemetry", &[]).unwrap().get(0);
    assert_eq!(phi.to_bits(), 3.0_f64.to_bits());
}

#[test]
fn old_batches_are_merged_without_a_gap() {
    let database = TestDatabase::create();
    let mut client = database.client();
    let add = "INSERT INTO sync_batches (segment_no, first_line, next_line, digest)
               SELECT 1, n, n + 1, '' FROM generate_series($1::integer, $2::integer) AS n";
    client
        .batch_execute(
            "INSERT INTO sync_stores (store_no, store_id)
             VALUES (1, '6f2a3b1c-0000-4000-8000-000000000000');
             INSERT INTO sync_segments (segment_no, segment_id, store_no, file_name)
             VALUES (1, '6f2a3b1c-0000-4000-8000-000000000001', 1, 's.jsonl')",
        )
        .unwrap();
    let mut from = 0;
    for (until, expected) in [(999, 1000), (1499, 1000), (1500, 1000)] {
        client.execute(add, &[&from, &until]).unwrap();
        client.execute("SELECT merge_batches(1)", &[]).unwrap();
        let sql = "SELECT count(*), min(first_line), max(next_line),
                          sum(next_line - first_line) FROM sync_batches";
        let row = client.query_one(sql, &[]).unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i32>(1)), (expected, 0));
        assert_eq!((row.get::<_, i32>(2), row.get::<_, i64>(3)), (until + 1, i64::from(until + 1)));
        from = until + 1;
    }
}
