use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use postgres::Client;

use super::{DELETE_RUN_1, Files, count, psql, record_at, rewind};
use crate::support::compare::check_replica;
use crate::support::postgres::TestDatabase;

const START: &str = r#"{"timestamp":"2026-01-05T09:30:00Z","event":"session_started","attempt":1}"#;

fn partition(database: &TestDatabase) -> Result<(), String> {
    psql(database, "packaging/partitions.sql", &[])?;
    psql(database, "packaging/partition_records.sql", &[])
}

fn partitioned() -> TestDatabase {
    let database = TestDatabase::create();
    partition(&database).unwrap();
    database
}

/// This moment and that of so many months later, as a line of a journal has them.
fn in_months(client: &mut Client, months: i32) -> String {
    let sql =
        "SELECT to_char(month_start(now(), $1) + interval '1 day', 'YYYY-MM-DD\"T\"00:00:00\"Z\"')";
    client.query_one(sql, &[&months]).unwrap().get(0)
}

fn partitions(client: &mut Client) -> Vec<String> {
    let sql = "SELECT partition::text FROM record_partitions()";
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn agent_fills_partitions_as_it_fills_a_table_and_a_replay_changes_nothing() {
    let (files, database) = (Files::new(), partitioned());
    let mut client = database.client();
    let lines: Vec<String> =
        (0..4).map(|month| record_at(&in_months(&mut client, month), i64::from(month))).collect();
    files.every_kind("run-1", 1500);
    files.segment(Some("run-2"), &[vec![record_at("2024-02-29T00:00:00Z", 9)], lines].concat());
    for _ in 0..3 {
        let report = files.send(&database.url()).unwrap();
        assert_eq!(report.quarantined, 0);
        check_replica(&files.store, &mut client);
        rewind(&mut client);
    }
    assert!(count(&mut client, "telemetry_records_first") > 1500);
    assert!(partitions(&mut client).len() >= 4);
}

#[test]
fn a_table_with_rows_keeps_them_and_everything_that_hung_on_it() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let mut client = database.client();
    files.every_kind("run-1", 20);
    files.send(&database.url()).unwrap();
    client
        .batch_execute(
            "INSERT INTO telemetry_records (session_id, step) VALUES ('by hand', 1);
             CREATE VIEW mine AS SELECT count(*) FROM telemetry_records;
             GRANT SELECT ON telemetry_records TO PUBLIC",
        )
        .unwrap();
    partition(&database).unwrap();
    files.every_kind("run-2", 20);
    files.send(&database.url()).unwrap();
    client
        .batch_execute("INSERT INTO telemetry_records (session_id, step) VALUES ('by hand', 2)")
        .unwrap();
    assert_eq!(client.query_one("SELECT * FROM mine", &[]).unwrap().get::<_, i64>(0), 42);
    let public = "SELECT FROM pg_class, aclexplode(relacl) a
                  WHERE oid = 'telemetry_records'::regclass AND a.grantee = 0";
    assert_eq!(client.query(public, &[]).unwrap().len(), 1);
    client.batch_execute("DELETE FROM telemetry_records WHERE session_id = 'by hand'").unwrap();
    check_replica(&files.store, &mut client);
}

#[test]
fn a_deleted_session_leaves_every_partition() {
    let (files, database) = (Files::new(), partitioned());
    let mut client = database.client();
    let later = in_months(&mut client, 2);
    files.segment(Some("run-1"), &[record_at("2026-01-05T09:30:00Z", 1), record_at(&later, 2)]);
    files.send(&database.url()).unwrap();
    assert_eq!(count(&mut client, "telemetry_records"), 2);
    files.segment(None, &[DELETE_RUN_1.into()]);
    files.send(&database.url()).unwrap();
    assert_eq!(count(&mut client, "telemetry_records"), 0);
}

#[test]
fn a_record_after_the_last_partition_is_kept_in_quarantine_and_its_neighbours_pass() {
    let (files, database) = (Files::new(), partitioned());
    let lines: Vec<String> = (0..60)
        .map(|step| match step {
            30 => record_at("2199-01-01T00:00:00Z", step),
            _ => record_at("2026-01-05T09:30:00Z", step),
        })
        .collect();
    files.segment(Some("run-1"), &lines);
    let report = files.send(&database.url()).unwrap();
    assert_eq!(report.quarantined, 1);
    let mut client = database.client();
    assert_eq!(count(&mut client, "telemetry_records"), 59);
    assert_eq!(
        count(&mut client, "sync_quarantine WHERE sqlstate = '23514' AND raw LIKE '%2199%'"),
        1
    );
}

#[test]
fn partitions_are_made_once_while_rows_arrive() {
    let (files, database) = (Files::new(), partitioned());
    files.every_kind("run-1", 1);
    files.send(&database.url()).unwrap();
    let (mut writer, mut client) = (database.client(), database.client());
    let before = partitions(&mut client).len();
    let mut open = writer.transaction().unwrap();
    open.batch_execute("INSERT INTO telemetry_records (session_id, step) VALUES ('open', 1)")
        .unwrap();
    let made = "SELECT create_partitions(12)";
    assert_eq!(client.query_one(made, &[]).unwrap().get::<_, i32>(0), 9);
    assert_eq!(client.query_one(made, &[]).unwrap().get::<_, i32>(0), 0);
    open.commit().unwrap();
    assert_eq!(partitions(&mut client).len(), before + 9);
}

#[test]
fn a_table_becomes_partitioned_while_agents_write_to_it() {
    let (files, database) = (Files::new(), TestDatabase::create());
    psql(&database, "packaging/partitions.sql", &[]).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let agent = scope.spawn(|| {
            let mut run = 0;
            while !done.load(Ordering::Relaxed) || run < 3 {
                files.every_kind(&format!("run-{run}"), 200);
                files.send(&database.url()).unwrap();
                run += 1;
            }
        });
        let outcome = partition(&database);
        done.store(true, Ordering::Relaxed);
        agent.join().unwrap();
        outcome.unwrap();
    });
    let mut client = database.client();
    assert!(partitions(&mut client).len() >= 4);
    check_replica(&files.store, &mut client);
}

#[test]
fn applying_again_changes_nothing() {
    let database = partitioned();
    let mut client = database.client();
    let before = partitions(&mut client);
    partition(&database).unwrap();
    psql(&database, "migrations/002_telemetry_checkpoints_schema.sql", &[]).unwrap();
    assert_eq!(partitions(&mut client), before);
    let indexes = "pg_indexes WHERE tablename = 'telemetry_records'";
    assert_eq!(count(&mut client, indexes), 5);
}

#[test]
fn a_wrong_clock_stops_the_conversion_before_anything_changed() {
    let database = TestDatabase::create();
    let mut client = database.client();
    let sql =
        "INSERT INTO telemetry_records (session_id, step, timestamp) VALUES ('s', 1, '2199-01-01')";
    client.batch_execute(sql).unwrap();
    let error = partition(&database).unwrap_err();
    assert!(error.contains("timestamps are wrong"), "{error}");
    client.batch_execute(sql).unwrap();
}

#[test]
fn dropped_partitions_stay_away_when_everything_is_sent_again() {
    let (files, database) = (Files::new(), partitioned());
    let mut client = database.client();
    // As a year later: what was the first partition ends long ago.
    client
        .batch_execute(
            "ALTER TABLE telemetry_records DETACH PARTITION telemetry_records_first;
             ALTER TABLE telemetry_records ATTACH PARTITION telemetry_records_first
                 FOR VALUES FROM (MINVALUE) TO ('2026-02-01');
             CREATE TABLE telemetry_records_later (LIKE telemetry_records);
             ALTER TABLE telemetry_records ATTACH PARTITION telemetry_records_later
                 FOR VALUES FROM ('2026-02-01') TO (month_start(now(), 1))",
        )
        .unwrap();
    let now = in_months(&mut client, 0);
    // Of these the database keeps the exact lines, too.
    let odd = r#"{"timestamp":"2026-01-05T09:30:01Z","step":3,"telemetry":{"regime":"\u0000"}}"#;
    let emergency = r#"{"timestamp":"2026-01-05T09:30:02Z","event":"emergency","emergency":{"event_id":"e-1","reason":"r","severity":"low"}}"#;
    let lines = [
        START.to_owned(),
        record_at("2026-01-05T09:30:00Z", 1),
        odd.to_owned(),
        emergency.to_owned(),
        record_at(&now, 2),
    ];
    files.segment(Some("run-1"), &lines);
    files.send(&database.url()).unwrap();
    assert_eq!(count(&mut client, "sync_quarantine"), 1);

    client.batch_execute("CALL drop_partitions('20 days')").unwrap();
    for _ in 0..2 {
        assert_eq!(count(&mut client, "telemetry_records"), 1);
        assert_eq!(count(&mut client, "telemetry_sessions WHERE total_steps = 1"), 1);
        assert_eq!(count(&mut client, "retention_floor WHERE floor = '2026-02-01Z'"), 1);
        assert_eq!(count(&mut client, "sync_quarantine"), 0);
        assert_eq!(count(&mut client, "emergency_events"), 0);
        assert_eq!(count(&mut client, "sync_lines WHERE line_no IN (2, 3, 4)"), 0);
        assert_eq!(count(&mut client, "telemetry_sessions WHERE emergency_count = 0"), 1);
        rewind(&mut client);
        files.send(&database.url()).unwrap();
    }
}
