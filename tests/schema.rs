//! The specification's schema in Postgres, and the same tables and views in the SQLite index.

use std::process::Command;
use std::thread;

use postgres::{Client, Row};
use rusqlite::Connection;
use tidelog_sync::schema::{self, SchemaError};

use crate::support::postgres::TestDatabase;

const SQLITE_SCHEMA: &str = include_str!("../src/index/schema.sql");
const TELEMETRY_FILE: &str = "migrations/002_telemetry_checkpoints_schema.sql";
const REPLICA_FILE: &str = "migrations/003_replica.sql";

/// "Direct SQL Queries", word for word.
const DIRECT_QUERIES: [&str; 7] = [
    "SELECT * FROM latest_telemetry WHERE session_id = 'session_20251218_001';",
    "SELECT * FROM best_checkpoints LIMIT 5;",
    "SELECT * FROM emergency_summary ORDER BY emergency_count DESC LIMIT 10;",
    "SELECT * FROM session_stats WHERE session_id = 'session_20251218_001';",
    "SELECT session_id, timestamp, phi, kappa_eff, regime
FROM telemetry_records
WHERE phi > 0.80
ORDER BY phi DESC
LIMIT 20;",
    "SELECT checkpoint_id, phi, kappa, regime
FROM checkpoints
WHERE kappa BETWEEN 63.0 AND 65.0
ORDER BY phi DESC;",
    "SELECT timestamp, reason, severity, metric, value
FROM emergency_events
WHERE session_id = 'session_20251218_001'
ORDER BY timestamp;",
];

const ACTIVE_SESSIONS: &str = "SELECT 
    session_id,
    started_at,
    total_steps,
    avg_phi,
    emergency_count,
    status
FROM telemetry_sessions
WHERE status = 'active'
ORDER BY started_at DESC;";

const RECENT_EMERGENCIES: &str = "SELECT 
    event_id,
    timestamp,
    reason,
    severity,
    metric,
    value
FROM emergency_events
WHERE timestamp > NOW() - INTERVAL '1 hour'
ORDER BY timestamp DESC;";

const DATABASE_SIZE: &str = "SELECT 
    schemaname,
    tablename,
    pg_size_pretty(pg_total_relation_size(schemaname||'.'||tablename))
FROM pg_tables
WHERE schemaname = 'public'
ORDER BY pg_total_relation_size(schemaname||'.'||tablename) DESC;";

const VERIFY_TABLES: &str = "SELECT table_name 
FROM information_schema.tables 
WHERE table_schema = 'public' 
AND table_name IN (
    'telemetry_sessions',
    'telemetry_records',
    'emergency_events',
    'checkpoints',
    'checkpoint_history',
    'basin_history'
);";

const VERIFY_VECTOR: &str = "SELECT * FROM pg_extension WHERE extname = 'vector';";

const TABLES: [&str; 6] = [
    "telemetry_sessions",
    "telemetry_records",
    "emergency_events",
    "checkpoints",
    "checkpoint_history",
    "basin_history",
];

/// One row of everything, inserted as a user of the specification would, keys left out.
const SAMPLE: &str = "
    INSERT INTO telemetry_sessions (session_id) VALUES ('session_20251218_001');
    INSERT INTO telemetry_records (session_id, timestamp, step, phi, kappa_eff, regime) VALUES
        ('session_20251218_001', '2026-01-05 09:30:01Z', 41, 0.72, 64.2, 'geometric'),
        ('session_20251218_001', '2026-01-05 09:30:02Z', 42, 0.84, 64.4, 'geometric');
    INSERT INTO emergency_events (event_id, session_id, reason, severity, metric, value, threshold)
        VALUES ('emergency_1734489600', 'session_20251218_001', 'consciousness_collapse', 'high',
                'phi', 0.45, 0.50);
    INSERT INTO checkpoints (checkpoint_id, session_id, phi, kappa, regime, state_dict)
        VALUES ('checkpoint_20251218_143022_0.723', 'session_20251218_001', 0.723, 64.2,
                'geometric', '{}');
    INSERT INTO checkpoint_history (checkpoint_id, action)
        VALUES ('checkpoint_20251218_143022_0.723', 'created');";

fn psql(database: &TestDatabase, arguments: &[&str]) -> String {
    let output = Command::new("psql")
        .arg(database.url())
        .args(["--no-psqlrc", "--set=ON_ERROR_STOP=1"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("psql is not in PATH; run: eval \"$(scripts/postgres start)\"");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "psql failed: {errors}");
    errors
}

fn sqlite_index() -> Connection {
    let index = Connection::open_in_memory().unwrap();
    index.execute_batch(SQLITE_SCHEMA).unwrap();
    index
}

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
fn schema_applies_twice_with_psql() {
    let database = TestDatabase::empty();
    for _ in 0..2 {
        let messages = psql(&database, &["-f", TELEMETRY_FILE, "-f", REPLICA_FILE]);
        assert!(!messages.contains("ERROR"), "{messages}");
    }
}

#[test]
fn schema_applies_into_the_first_schema_of_the_search_path() {
    let database = TestDatabase::empty();
    let path = "SET search_path = lab, public";
    psql(&database, &["-c", "CREATE SCHEMA lab", "-c", path, "-f", TELEMETRY_FILE]);
    let sql = "SELECT count(*) FROM pg_tables WHERE schemaname = 'lab'";
    assert_eq!(database.client().query_one(sql, &[]).unwrap().get::<_, i64>(0), 6);
}

#[test]
fn files_applied_with_psql_are_recorded_by_migrate() {
    let database = TestDatabase::empty();
    psql(&database, &["-f", TELEMETRY_FILE]);
    let mut client = database.client();
    client.batch_execute(SAMPLE).unwrap();

    assert!(matches!(schema::check(&mut client), Err(SchemaError::Missing)));
    let versions: Vec<_> =
        schema::migrate(&mut client).unwrap().iter().map(|a| a.version).collect();

    assert_eq!(versions, [2, 3]);
    schema::check(&mut client).unwrap();
    let rows = client.query("SELECT 1 FROM telemetry_records", &[]).unwrap();
    assert_eq!(rows.len(), 2);
}

#[test]
fn second_migrate_applies_nothing() {
    let database = TestDatabase::create();
    assert!(schema::migrate(&mut database.client()).unwrap().is_empty());
    schema::check(&mut database.client()).unwrap();
}

#[test]
fn two_agents_migrating_at_once_apply_each_file_once() {
    let database = TestDatabase::empty();
    let applied: usize = thread::scope(|scope| {
        let agents = [(); 2]
            .map(|()| scope.spawn(|| schema::migrate(&mut database.client()).unwrap().len()));
        agents.into_iter().map(|agent| agent.join().unwrap()).sum()
    });
    assert_eq!(applied, 2);
}

#[test]
fn newer_schema_stops_the_agent() {
    let database = TestDatabase::create();
    let mut client = database.client();
    client.batch_execute("INSERT INTO tidelog_migrations VALUES (99, 'later.sql', '')").unwrap();
    assert!(matches!(schema::check(&mut client), Err(SchemaError::Newer { found: 99 })));
    assert!(matches!(schema::migrate(&mut client), Err(SchemaError::Newer { found: 99 })));
}

#[test]
fn role_that_may_not_enable_pgvector_is_told_so() {
    let database = TestDatabase::empty();
    let role = format!("tidelog_role_{}", uuid::Uuid::new_v4().simple());
    let mut client = database.client();
    client.batch_execute(&format!("CREATE ROLE {role}; SET ROLE {role}")).unwrap();

    let error = schema::migrate(&mut client).unwrap_err();

    client.batch_execute(&format!("RESET ROLE; DROP ROLE {role}")).unwrap();
    assert!(error.to_string().contains("CREATE EXTENSION vector"), "{error}");
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
    for (query, rows) in DIRECT_QUERIES.iter().zip([1, 1, 1, 1, 1, 1, 1]) {
        assert_eq!(client.query(*query, &[]).unwrap().len(), rows, "{query}");
    }
    assert_eq!(client.query(ACTIVE_SESSIONS, &[]).unwrap().len(), 1);
    assert_eq!(client.query(RECENT_EMERGENCIES, &[]).unwrap().len(), 1);
    assert!(client.query(DATABASE_SIZE, &[]).unwrap().len() > 6);
}

#[test]
fn retention_of_the_specification_deletes_what_it_names() {
    let database = TestDatabase::create();
    let mut client = database.client();
    client.batch_execute(SAMPLE).unwrap();
    client.batch_execute("UPDATE checkpoints SET rank = 101").unwrap();

    let records = "DELETE FROM telemetry_records
                   WHERE timestamp < NOW() - INTERVAL '30 days';";
    assert_eq!(client.execute(records, &[]).unwrap(), 2);
    assert_eq!(client.execute("DELETE FROM checkpoints WHERE rank > 100;", &[]).unwrap(), 1);
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
    assert_eq!(row.get::<_, f64>("avg_phi"), 0.375);
    assert_eq!(row.get::<_, f64>("max_phi"), f64::INFINITY);
    assert_eq!(row.get::<_, f64>("min_phi"), 0.25);
    assert_eq!(row.get::<_, Option<f64>>("avg_kappa"), None);
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

/// In both databases: (id of the session, its events' severities, the most severe).
const SEVERITIES: &str = "
    INSERT INTO emergency_events (segment_no, line_no, event_id, session_id, timestamp, severity)
    VALUES (1, 1, 'a', 'known', '2026-01-05T09:30:00.000000Z', 'medium'),
           (1, 2, 'b', 'known', '2026-01-05T09:30:00.000001Z', 'critical'),
           (1, 3, 'c', 'known', '2026-01-05T09:30:00.000002Z', 'warning'),
           (1, 4, 'd', 'odd', '2026-01-05T09:30:00.000003Z', 'zealous'),
           (1, 5, 'e', 'odd', '2026-01-05T09:30:00.000004Z', 'info'),
           (1, 6, 'f', NULL, '2026-01-05T09:30:00.000005Z', NULL)";

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
    assert_eq!((replica, indexed), (3600.000_002, 3600.000_002));
}

#[test]
fn nan_phi_is_never_best_in_the_index_either() {
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
fn queries_of_the_specification_run_on_the_index() {
    let index = sqlite_index();
    for query in DIRECT_QUERIES.iter().chain([&ACTIVE_SESSIONS]) {
        index.prepare(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    }
}

#[test]
fn index_schema_applies_twice() {
    sqlite_index().execute_batch(SQLITE_SCHEMA).unwrap();
}

#[test]
fn queries_of_the_specification_have_the_same_columns_in_both_databases() {
    let database = TestDatabase::create();
    let mut client = database.client();
    let index = sqlite_index();
    for query in DIRECT_QUERIES.iter().chain([&ACTIVE_SESSIONS]) {
        let replica = client.prepare(query).unwrap();
        let replica: Vec<_> = replica.columns().iter().map(postgres::Column::name).collect();
        let statement = index.prepare(query).unwrap();
        assert_eq!(statement.column_names().collect::<Vec<_>>(), replica, "{query}");
    }
}

#[test]
fn tables_have_the_same_columns_in_both_databases() {
    let only_in_postgres = ["store_no", "basin_coords_exact"];
    let database = TestDatabase::create();
    let mut client = database.client();
    let index = sqlite_index();
    for table in TABLES {
        let query = format!("SELECT * FROM {table}");
        let replica = client.prepare(&query).unwrap();
        let mut replica: Vec<_> = replica.columns().iter().map(postgres::Column::name).collect();
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
