//! The SQLite index has the tables, views and answers of the replica.

use postgres::Column;
use rusqlite::Connection;

use crate::support::postgres::TestDatabase;
use crate::support::specification::{ACTIVE_SESSIONS, DIRECT_QUERIES, TABLES};

const SQLITE_SCHEMA: &str = include_str!("../src/index/schema.sql");

/// A session with known words, one with an odd one, and an event of no session.
const SEVERITIES: &str = "
    INSERT INTO emergency_events (segment_no, line_no, event_id, session_id, timestamp, severity)
    VALUES (1, 1, 'a', 'known', '2026-01-05T09:30:00.000000Z', 'medium'),
           (1, 2, 'b', 'known', '2026-01-05T09:30:00.000001Z', 'critical'),
           (1, 3, 'c', 'known', '2026-01-05T09:30:00.000002Z', 'warning'),
           (1, 4, 'd', 'odd', '2026-01-05T09:30:00.000003Z', 'zealous'),
           (1, 5, 'e', 'odd', '2026-01-05T09:30:00.000004Z', 'info'),
           (1, 6, 'f', NULL, '2026-01-05T09:30:00.000005Z', NULL)";

fn sqlite_index() -> Connection {
    let index = Connection::open_in_memory().unwrap();
    index.execute_batch(SQLITE_SCHEMA).unwrap();
    index
}

#[test]
fn max_severity_follows_meaning_in_both_databases() {
    let sql = "SELECT session_id, emergency_count, max_severity FROM emergency_summary
               ORDER BY emergency_count DESC";
    type Summary = (Option<String>, i64, Option<String>);
    let database = TestDatabase::create();
    let mut client = database.client();
    client.batch_execute(SEVERITIES).unwrap();
    let rows = client.query(sql, &[]).unwrap();
    let replica: Vec<Summary> = rows.iter().map(|r| (r.get(0), r.get(1), r.get(2))).collect();

    let index = sqlite_index();
    index.execute_batch(SEVERITIES).unwrap();
    let mut statement = index.prepare(sql).unwrap();
    let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).unwrap();
    let indexed: Vec<Summary> = rows.map(Result::unwrap).collect();

    let text = |word: &str| Some(word.to_owned());
    let expected =
        [(text("known"), 3, text("critical")), (text("odd"), 2, text("info")), (None, 1, None)];
    assert_eq!(replica, expected);
    assert_eq!(indexed, expected);
}

#[test]
fn duration_is_exact_to_the_microsecond_in_both_databases() {
    let insert = "INSERT INTO telemetry_sessions (session_id, started_at, ended_at) VALUES
        ('s', '2025-12-31T23:59:59.999999Z', '2026-01-01T01:00:00.000001Z')";
    let select = "SELECT duration_seconds FROM session_stats";
    let database = TestDatabase::create();
    let mut client = database.client();
    client.batch_execute(insert).unwrap();
    let index = sqlite_index();
    index.execute_batch(insert).unwrap();

    let replica: f64 = client.query_one(select, &[]).unwrap().get(0);
    let indexed: f64 = index.query_row(select, [], |row| row.get(0)).unwrap();
    assert_eq!((replica, indexed), (3_600.000_002, 3_600.000_002));
}

#[test]
fn nan_phi_is_never_best_in_the_index() {
    let index = sqlite_index();
    let insert =
        "INSERT INTO checkpoints (checkpoint_id, segment_no, line_no, created_at, phi, session_id)
        VALUES ('collapsed', 1, 1, '2026-01-09T00:00:00.000000Z', 'NaN', 's'),
               ('unknown', 1, 2, '2026-01-08T00:00:00.000000Z', NULL, 's'),
               ('older', 1, 3, '2026-01-01T00:00:00.000000Z', 0.7, 's'),
               ('newer', 1, 4, '2026-01-02T00:00:00.000000Z', 0.7, 's')";
    index.execute_batch(insert).unwrap();
    index.execute_batch("INSERT INTO telemetry_sessions (session_id) VALUES ('s')").unwrap();

    let mut statement = index.prepare("SELECT checkpoint_id FROM best_checkpoints").unwrap();
    let best: Vec<String> =
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let stats = "SELECT checkpoint_count, best_checkpoint_phi FROM session_stats";
    let stats: (i64, f64) = index.query_row(stats, [], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();

    assert_eq!(best, ["newer", "older", "collapsed", "unknown"]);
    assert_eq!(stats, (4, 0.7));
}

#[test]
fn queries_of_the_specification_have_the_same_columns_in_both_databases() {
    let database = TestDatabase::create();
    let mut client = database.client();
    let index = sqlite_index();
    for query in DIRECT_QUERIES.iter().chain([&ACTIVE_SESSIONS]) {
        let replica = client.prepare(query).unwrap();
        let replica: Vec<_> = replica.columns().iter().map(Column::name).collect();
        let statement = index.prepare(query).unwrap();
        assert_eq!(statement.column_names().collect::<Vec<_>>(), replica, "{query}");
    }
}

#[test]
fn queries_of_the_specification_run_on_the_index() {
    let index = sqlite_index();
    for query in DIRECT_QUERIES.iter().chain([&ACTIVE_SESSIONS]) {
        index.prepare(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    }
}

#[test]
fn no_query_of_the_specification_scans_all_records_of_the_index() {
    let index = sqlite_index();
    for query in DIRECT_QUERIES {
        let mut statement = index.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
        let steps = statement.query_map([], |row| row.get::<_, String>(3)).unwrap();
        for step in steps.map(Result::unwrap) {
            let scanned = ["SCAN telemetry_records", "SCAN r", "SCAN t"].contains(&step.as_str());
            assert!(!scanned, "{query}: {step}");
        }
    }
}

#[test]
fn index_schema_applies_twice() {
    sqlite_index().execute_batch(SQLITE_SCHEMA).unwrap();
}

#[test]
fn tables_have_the_same_columns_in_both_databases() {
    let only_in_postgres = ["store_no", "basin_coords_exact"];
    let database = TestDatabase::create();
    let mut client = database.client();
    let index = sqlite_index();
    for table in TABLES.into_iter().chain(["telemetry_gaps"]) {
        let query = format!("SELECT * FROM {table}");
        let replica = client.prepare(&query).unwrap();
        let mut replica: Vec<_> = replica.columns().iter().map(Column::name).collect();
        replica.retain(|column| !only_in_postgres.contains(column));
        replica.sort_unstable();
        let statement = index.prepare(&query).unwrap();
        let mut indexed: Vec<_> = statement.column_names().collect();
        indexed.sort_unstable();
        assert_eq!(indexed, replica, "{table}");
    }
}

#[test]
fn negative_zero_survives_in_the_index() {
    let index = sqlite_index();
    index
        .execute("INSERT INTO basin_history VALUES (1, 1, 's', 't', 1, '[]', ?1, ?1)", [-0.0])
        .unwrap();
    let phi: f64 = index.query_row("SELECT phi FROM basin_history", [], |row| row.get(0)).unwrap();
    assert_eq!(phi.to_bits(), (-0.0f64).to_bits());
}
