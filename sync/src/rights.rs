//! May this login do what the agent does?

use postgres::Client;
use postgres::types::Type;

/// Tables, and the privileges that sending lines and following deletions takes.
const NEEDED: [(&str, &str); 22] = [
    ("telemetry_records", "SELECT INSERT DELETE"),
    ("emergency_events", "SELECT INSERT DELETE"),
    ("basin_history", "SELECT INSERT DELETE"),
    ("telemetry_gaps", "SELECT INSERT DELETE"),
    ("checkpoint_history", "SELECT INSERT"),
    ("telemetry_sessions", "SELECT INSERT UPDATE DELETE"),
    ("checkpoints", "SELECT INSERT UPDATE DELETE"),
    ("session_parts", "SELECT INSERT UPDATE DELETE"),
    ("tombstones", "SELECT INSERT UPDATE"),
    ("sync_stores", "SELECT INSERT UPDATE"),
    ("sync_segments", "SELECT INSERT UPDATE"),
    ("sync_batches", "SELECT INSERT UPDATE DELETE"),
    ("sync_session_stats", "SELECT INSERT UPDATE DELETE"),
    ("sync_quarantine", "SELECT INSERT UPDATE DELETE"),
    ("sync_unknown", "SELECT INSERT DELETE"),
    ("sync_lines", "SELECT INSERT DELETE"),
    ("sync_gaps", "SELECT INSERT UPDATE DELETE"),
    ("retention_floor", "SELECT"),
    ("checkpoint_blobs", "SELECT INSERT UPDATE DELETE"),
    ("checkpoint_chunks", "SELECT INSERT DELETE"),
    ("tidelog_meta", "SELECT"),
    ("tidelog_migrations", "SELECT"),
];

/// What the login may not do, as `INSERT on telemetry_records`; empty if it may do everything. A
/// table that is not there lacks nothing.
///
/// # Errors
/// The server refused the question.
pub fn missing(client: &mut Client) -> Result<Vec<String>, postgres::Error> {
    let needed = NEEDED.iter().flat_map(|(table, privileges)| {
        privileges.split(' ').map(move |privilege| (*table, privilege))
    });
    let (tables, privileges): (Vec<&str>, Vec<&str>) = needed.unzip();
    let rows = client.query_typed(
        "SELECT privilege || ' on ' || name FROM unnest($1, $2) AS n (name, privilege)
         WHERE NOT has_table_privilege(to_regclass(quote_ident(name)), privilege)
         ORDER BY name, privilege",
        &[(&tables, Type::TEXT_ARRAY), (&privileges, Type::TEXT_ARRAY)],
    )?;
    rows.iter().map(|row| row.try_get(0)).collect()
}
