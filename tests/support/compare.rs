//! The same answers from the index and from PostgreSQL, whatever each calls a value.

use std::ops::ControlFlow;

use postgres::{Client, SimpleQueryMessage};
use tidelog::{SqlValue, Store, Timestamp};

/// A value as both databases' texts are brought to: `None` is NULL.
type Cell = Option<String>;

/// How exactly numbers must agree.
#[derive(Clone, Copy)]
pub(crate) enum Numbers {
    /// Bit for bit.
    Exact,
    /// In twelve digits: sums may be added up in another order.
    Twelve,
}

/// Column names and rows of a query on the index; rows in an order of their own.
pub(crate) fn index_rows(
    store: &Store,
    sql: &str,
    numbers: Numbers,
) -> (Vec<String>, Vec<Vec<Cell>>) {
    let (mut columns, mut rows) = (Vec::new(), Vec::new());
    store
        .sql(
            sql,
            |names| columns = names.to_vec(),
            |row| {
                rows.push(row.iter().map(|value| index_cell(value, numbers)).collect());
                ControlFlow::Continue(())
            },
        )
        .unwrap_or_else(|error| panic!("{error}: {sql}"));
    rows.sort();
    (columns, rows)
}

/// The same of PostgreSQL.
pub(crate) fn replica_rows(
    client: &mut Client,
    sql: &str,
    numbers: Numbers,
) -> (Vec<String>, Vec<Vec<Cell>>) {
    let (mut columns, mut rows) = (Vec::new(), Vec::new());
    client.batch_execute("SET TIME ZONE 'UTC'").unwrap();
    for message in client.simple_query(sql).unwrap_or_else(|error| panic!("{error}: {sql}")) {
        match message {
            SimpleQueryMessage::RowDescription(names) => {
                columns = names.iter().map(|column| column.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                let cells = (0..row.len()).map(|i| row.get(i).map(|text| cell(text, numbers)));
                rows.push(cells.collect());
            }
            _ => {}
        }
    }
    rows.sort();
    (columns, rows)
}

fn index_cell(value: &SqlValue, numbers: Numbers) -> Cell {
    match value {
        SqlValue::Null => None,
        SqlValue::Integer(integer) => Some(cell(&integer.to_string(), numbers)),
        SqlValue::Real(number) => Some(number_text(*number, numbers)),
        // PostgreSQL has no U+0000.
        SqlValue::Text(text) => Some(cell(&text.replace('\0', "\u{fffd}"), numbers)),
        SqlValue::Blob(_) => Some("blob".into()),
    }
}

fn cell(text: &str, numbers: Numbers) -> String {
    match text {
        "t" => "1".into(),
        "f" => "0".into(),
        // How PostgreSQL writes it; as an integer it would lose its sign.
        "-0" => number_text(-0.0, numbers),
        text if text.starts_with(['{', '[']) => json_text(text),
        text => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(integer), _) => integer.to_string(),
            (_, Ok(number)) => number_text(number, numbers),
            _ => time_text(text).unwrap_or_else(|| text.to_owned()),
        },
    }
}

/// Whole numbers read alike, whether a column of floats or of integers holds them.
fn number_text(number: f64, numbers: Numbers) -> String {
    let is_whole = number.fract() == 0.0 && number.abs() < 1e15 && number.to_bits() != 1 << 63;
    match numbers {
        _ if is_whole => format!("{number:.0}"),
        Numbers::Exact => format!("{number:?} {:x}", number.to_bits()),
        Numbers::Twelve => format!("{number:.11e}"),
    }
}

/// Keys in one order, as jsonb forgets the one that was written.
fn json_text(text: &str) -> String {
    let json: Result<serde_json::Value, _> = serde_json::from_str(text);
    json.map_or_else(|_| text.to_owned(), |json| json.to_string())
}

/// `2026-01-05 09:30:00.5+00` and `2026-01-05T09:30:00.500000Z` are one moment.
fn time_text(text: &str) -> Option<String> {
    let text = match text.strip_suffix("+00") {
        Some(local) => format!("{}Z", local.replacen(' ', "T", 1)),
        None => text.to_owned(),
    };
    text.parse().ok().map(|time: Timestamp| time.to_string())
}

/// A query gives the same columns and rows on both.
pub(crate) fn check_same(store: &Store, client: &mut Client, sql: &str, numbers: Numbers) {
    let (index_columns, index) = index_rows(store, sql, numbers);
    let (replica_columns, replica) = replica_rows(client, sql, numbers);
    assert_eq!(index_columns, replica_columns, "{sql}");
    assert_same_rows(&index, &replica, sql);
}

fn assert_same_rows(index: &[Vec<Cell>], replica: &[Vec<Cell>], sql: &str) {
    for (ours, theirs) in index.iter().zip(replica) {
        assert_eq!(ours, theirs, "index, then replica: {sql}");
    }
    assert_eq!(index.len(), replica.len(), "rows in index and replica: {sql}");
}

/// Columns of each table that both databases have, apart from the numbers of segments and stores.
const TABLES: [(&str, &str); 5] = [
    (
        "telemetry_records",
        "session_id, timestamp, step, phi, kappa_eff, regime, basin_distance, recursion_depth,
         geodesic_distance, curvature, fisher_metric_trace, breakdown_pct, coherence_drift,
         emergency, meta_awareness, generativity, grounding, temporal_coherence,
         external_coupling, extra",
    ),
    (
        "emergency_events",
        "event_id, session_id, timestamp, step, reason, severity, metric, value, threshold,
         telemetry, metadata",
    ),
    ("checkpoint_history", "checkpoint_id, action, timestamp, details"),
    ("basin_history", "session_id, timestamp, step, phi, kappa"),
    ("telemetry_gaps", "session_id, timestamp, records, first_step, last_step, since, reason"),
];

/// The replica holds exactly the index's rows: none missing, none twice, every bit equal.
pub(crate) fn check_replica(store: &Store, client: &mut Client) {
    for (table, columns) in TABLES {
        let sql = |segments: &str| {
            format!(
                "SELECT g.segment_id, t.line_no, {columns} FROM {table} t
                 JOIN {segments} g ON g.segment_no = t.segment_no"
            )
            .replace("session_id,", "t.session_id,")
        };
        let (_, index) = index_rows(store, &sql("index_segments"), Numbers::Exact);
        let (_, replica) = replica_rows(client, &sql("sync_segments"), Numbers::Exact);
        assert_same_rows(&index, &replica, table);
    }
    let checkpoints = "SELECT checkpoint_id, session_id, step, created_at, phi, kappa, regime,
        metadata, file, size_bytes, sha256, state, rank, is_best FROM checkpoints";
    check_same(store, client, checkpoints, Numbers::Exact);
    for table in [
        "SELECT * FROM telemetry_sessions",
        "SELECT * FROM latest_telemetry",
        "SELECT * FROM best_checkpoints",
        "SELECT * FROM emergency_summary",
        "SELECT * FROM session_stats",
    ] {
        check_same(store, client, table, Numbers::Twelve);
    }
}
