//! What is in the replica, at one moment.

use std::collections::BTreeMap;

use postgres::{Client, IsolationLevel, Transaction};
use serde_json::Value;

use super::content::{Content, row_text};
use crate::Result;

/// Columns of the tables whose rows belong to one line, all but the key.
const TABLES: [(&str, &str); 7] = [
    ("telemetry_records", "to_jsonb(t.*)"),
    ("emergency_events", "to_jsonb(t.*)"),
    ("checkpoint_history", "to_jsonb(t.*)"),
    ("basin_history", "to_jsonb(t.*)"),
    ("telemetry_gaps", "to_jsonb(t.*)"),
    (
        "sync_unknown",
        "jsonb_build_object('event', event, 'session_id', t.session_id, 'raw', encode(raw, 'hex'))",
    ),
    ("sync_quarantine", "jsonb_build_object('raw', encode(raw, 'hex'))"),
];

const FOLDED: &str = "
    SELECT 'session ' || session_id,
           jsonb_build_object('started_at', started_at, 'ended_at', ended_at, 'status', status)::text
    FROM telemetry_sessions
    UNION ALL
    SELECT format('checkpoint %s of %s', checkpoint_id, store_id),
           jsonb_build_object('session_id', session_id, 'created_at', created_at, 'phi', phi,
               'file', file, 'size_bytes', size_bytes, 'sha256', sha256,
               'state_dict', state_dict, 'state', state)::text
    FROM checkpoints JOIN sync_stores USING (store_no)";

const CURSORS: &str =
    "SELECT segment_id::text, next_line::bigint FROM sync_segments WHERE next_line > 1";

/// All that a replica holds, seen at one moment.
///
/// # Errors
/// The server does not answer.
pub(crate) fn content(client: &mut Client) -> Result<Content> {
    let level = IsolationLevel::RepeatableRead;
    let mut snapshot = client.build_transaction().isolation_level(level).read_only(true).start()?;
    snapshot.batch_execute("SET LOCAL timezone TO 'UTC'")?;
    let mut content = Content { cursors: cursors(&mut snapshot)?, ..Content::default() };
    for row in snapshot.query(FOLDED, &[])? {
        content.folded.insert(row.try_get(0)?, text(row.try_get(1)?)?);
    }
    for (table, columns) in TABLES {
        let sql = format!(
            "SELECT g.segment_id::text, t.line_no::bigint, ({columns})::text
             FROM {table} t LEFT JOIN sync_segments g USING (segment_no)"
        );
        for row in snapshot.query(&sql, &[])? {
            let segment: Option<String> = row.try_get(0)?;
            let place = (segment.unwrap_or("no segment".into()), row.try_get(1)?);
            content.rows.insert((place, table), text(row.try_get(2)?)?);
        }
    }
    Ok(content)
}

fn cursors(snapshot: &mut Transaction<'_>) -> Result<BTreeMap<String, i64>> {
    let rows = snapshot.query(CURSORS, &[])?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Rows without their keys, and points in one column.
fn text(json: &str) -> Result<String> {
    let mut row: Value = serde_json::from_str(json)?;
    if let Some(row) = row.as_object_mut() {
        row.remove("segment_no");
        row.remove("line_no");
        let exact = row.remove("basin_coords_exact").unwrap_or_default();
        if let Some(coords) = row.get_mut("basin_coords") {
            *coords = if exact.is_null() { rounded(coords)? } else { exact };
        }
    }
    Ok(row_text(&row))
}

/// The numbers of `[0.5,1]`, each of 32 bits.
fn rounded(coords: &Value) -> Result<Value> {
    let Some(text) = coords.as_str() else { return Ok(Value::Null) };
    let numbers = text.trim_matches(['[', ']']).split(',');
    let parse = |number: &str| Ok(Value::from(f64::from(number.parse::<f32>()?)));
    numbers.map(parse).collect()
}
