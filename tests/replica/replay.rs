//! Sending what is there changes no row and writes nothing to the log of the data.

use super::*;

/// Tables that hold what the files say, apart from cursors.
const DATA: [&str; 12] = [
    "telemetry_sessions",
    "telemetry_records",
    "emergency_events",
    "checkpoints",
    "checkpoint_history",
    "basin_history",
    "telemetry_gaps",
    "session_parts",
    "sync_quarantine",
    "sync_unknown",
    "tombstones",
    "sync_session_stats",
];

/// Everything goes back to the first line, as after a restored backup of the cursors alone.
const REWIND: &str = "UPDATE sync_segments
    SET next_line = 0, next_byte = 0, sealed = false, chain_hash = decode(repeat('00', 32), 'hex')";

/// Where each row lies and which transactions wrote or locked it.
fn row_versions(client: &mut Client) -> Vec<String> {
    let versions = |table: &str| {
        let sql = format!(
            "SELECT concat('{table} ', count(*), ' ',
                           string_agg(concat(ctid, ' ', xmin, ' ', xmax), ',' ORDER BY ctid))
             FROM {table}"
        );
        client.query_one(&sql, &[]).unwrap().get(0)
    };
    DATA.map(versions).to_vec()
}

/// Sets every hint bit and prunes every page now: both are logged when they happen first, whoever reads.
fn calm(client: &mut Client) {
    for table in DATA {
        client.batch_execute(&format!("VACUUM (FREEZE) {table}")).unwrap();
    }
    client.batch_execute("CHECKPOINT").unwrap();
    for table in DATA {
        client.query(&format!("SELECT count(*) FROM {table}"), &[]).unwrap();
    }
}

fn wal_place(client: &mut Client) -> String {
    client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).unwrap().get(0)
}

/// Bytes that the log holds since then of the data's tables, their indexes and their long values, table
/// by table.
fn data_wal(client: &mut Client, since: &str) -> Vec<(String, i64)> {
    let sql = "
        WITH data AS (
            SELECT oid, reltoastrelid, relname FROM pg_class WHERE oid = ANY ($2::text[]::regclass[])
        ), files AS (
            SELECT relname, oid AS part FROM data
            UNION ALL SELECT relname, reltoastrelid FROM data WHERE reltoastrelid <> 0
            UNION ALL SELECT d.relname, i.indexrelid FROM data d
                      JOIN pg_index i ON i.indrelid IN (d.oid, d.reltoastrelid)
        )
        SELECT f.relname::text,
               sum(COALESCE(w.block_data_length, 0) + COALESCE(w.block_fpi_length, 0)
                   + COALESCE(w.main_data_length, 0))::bigint
        FROM pg_get_wal_block_info($1::text::pg_lsn, pg_current_wal_insert_lsn()) w
        JOIN pg_database b ON b.oid = w.reldatabase AND b.datname = current_database()
        JOIN files f ON pg_relation_filenode(f.part) = w.relfilenode
        GROUP BY 1 ORDER BY 1";
    let rows = client.query(sql, &[&since, &DATA.as_slice()]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Many records, which go by COPY, and lines of every other kind.
fn everything() -> Files {
    let files = Files::new();
    every_kind(&files);
    files.records("many", 12_000);
    let gone = files.session("gone");
    record(&gone, 0..2000);
    gone.save_checkpoint(NewCheckpoint::new(Value::Dict(Vec::new()), 0.1)).unwrap();
    gone.end(Outcome::Failed).unwrap();
    let lines = "no json\n{\"timestamp\":\"2026-01-05T09:30:00Z\",\"event\":\"new\"}\n\
        {\"timestamp\":\"2026-01-05T09:30:00Z\",\"event\":\"session_deleted\",\"session_id\":\"gone\"}\n";
    let path = files.segment("session_run-1.jsonl");
    OpenOptions::new().append(true).open(path).unwrap().write_all(lines.as_bytes()).unwrap();
    files
}

#[test]
fn replaying_everything_changes_no_row_and_logs_no_byte_of_data() {
    for more in ["", "?pgbouncer=true"] {
        let (files, database) = (everything(), TestDatabase::create());
        let once = || agent_with(&files, &database, more, |_| {}).once(Duration::ZERO).unwrap();
        let sent = once();
        let mut client = database.client();
        client.batch_execute("CREATE EXTENSION pg_walinspect").unwrap();
        calm(&mut client);
        let (before, since) = (row_versions(&mut client), wal_place(&mut client));
        client.batch_execute(REWIND).unwrap();
        let again = once();
        assert_eq!((again.lines, again.segments), (sent.lines, sent.segments));
        assert_eq!(data_wal(&mut client, &since), []);
        assert_eq!(row_versions(&mut client), before);
    }
}

#[test]
fn the_measure_of_the_log_sees_one_changed_row() {
    let (files, database) = (Files::new(), TestDatabase::create());
    files.records("run-1", 10);
    once(&files, &database).unwrap();
    let mut client = database.client();
    client.batch_execute("CREATE EXTENSION pg_walinspect").unwrap();
    calm(&mut client);
    let since = wal_place(&mut client);
    client.batch_execute("UPDATE telemetry_records SET phi = 0.5 WHERE step = 3").unwrap();
    let logged = data_wal(&mut client, &since);
    assert!(
        matches!(logged.as_slice(), [(table, 1..)] if table == "telemetry_records"),
        "{logged:?}"
    );
}
