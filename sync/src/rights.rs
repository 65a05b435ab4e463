//! May this login do what the agent does?

use postgres::Client;
use postgres::types::Type;

use crate::table;

/// Rows of these are inserted and never changed.
const INSERTED: [&str; 4] = ["sync_batches", "session_parts", "telemetry_sessions", "tombstones"];
/// Of these, rows are read and changed, too.
const CHANGED: [&str; 6] = [
    "sync_segments",
    "sync_stores",
    "sync_session_stats",
    "session_parts",
    "telemetry_sessions",
    "checkpoints",
];

/// What the login may not do, as `INSERT on telemetry_records`; empty if it may do everything that
/// sending lines takes. The tables must be there.
///
/// # Errors
/// The server refused the question.
pub fn missing(client: &mut Client) -> Result<Vec<String>, postgres::Error> {
    let (tables, privileges): (Vec<&str>, Vec<&str>) = needed().into_iter().unzip();
    let rows = client.query_typed(
        "SELECT privilege || ' on ' || name FROM unnest($1, $2) AS n (name, privilege)
         WHERE NOT has_table_privilege(name, privilege) ORDER BY name, privilege",
        &[(&tables, Type::TEXT_ARRAY), (&privileges, Type::TEXT_ARRAY)],
    )?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

fn needed() -> Vec<(&'static str, &'static str)> {
    let immutable = [
        &table::TELEMETRY_RECORDS,
        &table::EMERGENCY_EVENTS,
        &table::CHECKPOINT_HISTORY,
        &table::BASIN_HISTORY,
        &table::TELEMETRY_GAPS,
        &table::SYNC_QUARANTINE,
        &table::SYNC_UNKNOWN,
        &table::CHECKPOINTS,
    ];
    let immutable = immutable.into_iter().map(|table| (table.name, "INSERT"));
    let inserted = INSERTED.into_iter().map(|name| (name, "INSERT"));
    let changed = CHANGED
        .into_iter()
        .flat_map(|name| ["SELECT", "INSERT", "UPDATE"].map(|privilege| (name, privilege)));
    let mut needed: Vec<_> = immutable.chain(inserted).chain(changed).collect();
    needed.sort_unstable();
    needed.dedup();
    needed
}
