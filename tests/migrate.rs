//! Applying the migrations, with `psql` and as the agent does.

use std::process::Command;
use std::thread;

use tidelog_sync::schema::{self, SchemaError};

use crate::support::postgres::TestDatabase;
use crate::support::specification::SAMPLE;

const TELEMETRY_FILE: &str = "migrations/002_telemetry_checkpoints_schema.sql";
const REPLICA_FILE: &str = "migrations/003_replica.sql";

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
    assert_eq!(database.client().query_one(sql, &[]).unwrap().get::<_, i64>(0), 7);
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
