//! SQL of the specification, word for word.

/// "Direct SQL Queries", word for word.
pub(crate) const DIRECT_QUERIES: [&str; 7] = [
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

/// "Active Sessions".
pub(crate) const ACTIVE_SESSIONS: &str = "SELECT 
    session_id,
    started_at,
    total_steps,
    avg_phi,
    emergency_count,
    status
FROM telemetry_sessions
WHERE status = 'active'
ORDER BY started_at DESC;";

/// "Recent Emergencies".
pub(crate) const RECENT_EMERGENCIES: &str = "SELECT 
    event_id,
    timestamp,
    reason,
    severity,
    metric,
    value
FROM emergency_events
WHERE timestamp > NOW() - INTERVAL '1 hour'
ORDER BY timestamp DESC;";

/// "Check Database Size".
pub(crate) const DATABASE_SIZE: &str = "SELECT 
    schemaname,
    tablename,
    pg_size_pretty(pg_total_relation_size(schemaname||'.'||tablename))
FROM pg_tables
WHERE schemaname = 'public'
ORDER BY pg_total_relation_size(schemaname||'.'||tablename) DESC;";

/// "Check tables exist".
pub(crate) const VERIFY_TABLES: &str = "SELECT table_name 
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

/// "Check pgvector extension".
pub(crate) const VERIFY_VECTOR: &str = "SELECT * FROM pg_extension WHERE extname = 'vector';";

/// "Delete old telemetry".
pub(crate) const DELETE_OLD_RECORDS: &str = "DELETE FROM telemetry_records 
WHERE timestamp < NOW() - INTERVAL '30 days';";

/// "Keep only top 100 checkpoints".
pub(crate) const DELETE_LOW_RANKS: &str = "DELETE FROM checkpoints 
WHERE rank > 100;";

/// The six tables.
pub(crate) const TABLES: [&str; 6] = [
    "telemetry_sessions",
    "telemetry_records",
    "emergency_events",
    "checkpoints",
    "checkpoint_history",
    "basin_history",
];

/// One row of everything, inserted as a user of the specification would, keys left out.
pub(crate) const SAMPLE: &str = "
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
