-- The index of a store: the same tables and views as the replica in Postgres, and below them what
-- the follower itself needs. Everything here is derived from the journal. Another version of this
-- file means that the index is rebuilt; it is never migrated.
--
-- Numbers are in columns without affinity (ANY), so that -0.0 stays -0.0; NaN, which SQLite cannot
-- hold, is the text 'NaN' and compares greater than every number. Times are text as in the journal,
-- always UTC with six digits, so that they sort as they are. JSON is text. Flags are 0 and 1.

CREATE TABLE IF NOT EXISTS telemetry_sessions (
    session_id      TEXT NOT NULL PRIMARY KEY,
    started_at      TEXT,
    ended_at        TEXT,
    status          TEXT NOT NULL DEFAULT 'active',
    attempts        INTEGER NOT NULL DEFAULT 1,
    total_steps     INTEGER NOT NULL DEFAULT 0,  -- number of telemetry records
    avg_phi         ANY,
    max_phi         ANY,
    min_phi         ANY,
    avg_kappa       ANY,
    emergency_count INTEGER NOT NULL DEFAULT 0,
    metadata        TEXT
) STRICT;

-- "What is running, newest first."
CREATE INDEX IF NOT EXISTS telemetry_sessions_status ON telemetry_sessions (status, started_at);

CREATE TABLE IF NOT EXISTS telemetry_records (
    segment_no          INTEGER NOT NULL,
    line_no             INTEGER NOT NULL,
    session_id          TEXT NOT NULL,
    timestamp           TEXT NOT NULL,
    step                INTEGER NOT NULL,
    phi                 ANY,
    kappa_eff           ANY,
    regime              TEXT,
    basin_distance      ANY,
    recursion_depth     INTEGER,
    geodesic_distance   ANY,
    curvature           ANY,
    fisher_metric_trace ANY,
    breakdown_pct       ANY,
    coherence_drift     ANY,
    emergency           INTEGER,
    meta_awareness      ANY,
    generativity        ANY,
    grounding           ANY,
    temporal_coherence  ANY,
    external_coupling   ANY,
    extra               TEXT,  -- fields that have no column
    PRIMARY KEY (segment_no, line_no)
) STRICT;

-- A session's records, and its latest one in exactly the order of `latest_telemetry`.
CREATE INDEX IF NOT EXISTS telemetry_records_session
    ON telemetry_records (session_id, timestamp, step, line_no, segment_no);
-- "Highest phi." Random order makes it dearer on insert than everything else together: a long
-- catch-up is twice as fast if it drops this index first and creates it again at the end.
CREATE INDEX IF NOT EXISTS telemetry_records_phi ON telemetry_records (phi);

CREATE TABLE IF NOT EXISTS emergency_events (
    segment_no INTEGER NOT NULL,
    line_no    INTEGER NOT NULL,
    event_id   TEXT NOT NULL,
    session_id TEXT,  -- NULL: no session is known
    timestamp  TEXT NOT NULL,
    step       INTEGER,
    reason     TEXT,
    severity   TEXT,
    metric     TEXT,
    value      ANY,
    threshold  ANY,
    telemetry  TEXT,  -- the record at that moment
    metadata   TEXT,
    PRIMARY KEY (segment_no, line_no)
) STRICT;

-- Timeline of a session, and the groups of `emergency_summary`.
CREATE INDEX IF NOT EXISTS emergency_events_session ON emergency_events (session_id, timestamp);
-- "Recent emergencies."
CREATE INDEX IF NOT EXISTS emergency_events_timestamp ON emergency_events (timestamp);

CREATE TABLE IF NOT EXISTS checkpoints (
    checkpoint_id TEXT NOT NULL PRIMARY KEY,
    segment_no    INTEGER NOT NULL,
    line_no       INTEGER NOT NULL,
    session_id    TEXT,
    step          INTEGER,
    created_at    TEXT NOT NULL,
    phi           ANY,
    kappa         ANY,
    regime        TEXT,
    basin_coords  TEXT,
    metadata      TEXT,
    file          TEXT,
    size_bytes    INTEGER,
    sha256        TEXT,
    state         TEXT NOT NULL DEFAULT 'present',
    rank          INTEGER,  -- 1 is best; NULL if pruned
    is_best       INTEGER NOT NULL DEFAULT 0,
    state_dict    TEXT  -- last: it may be long, and SQLite reads past it to what follows
) STRICT;

-- The ranking in exactly its order: phi descending with NaN and NULL last, newest, id.
CREATE INDEX IF NOT EXISTS checkpoints_ranking
    ON checkpoints (NULLIF(phi, 'NaN') DESC, created_at DESC, checkpoint_id) WHERE state = 'present';
-- Counts and best phi of `session_stats`, from this index alone.
CREATE INDEX IF NOT EXISTS checkpoints_session ON checkpoints (session_id, state, phi);

CREATE TABLE IF NOT EXISTS checkpoint_history (
    segment_no    INTEGER NOT NULL,
    line_no       INTEGER NOT NULL,
    checkpoint_id TEXT NOT NULL,
    action        TEXT NOT NULL,
    timestamp     TEXT NOT NULL,
    details       TEXT,
    PRIMARY KEY (segment_no, line_no)
) STRICT;

-- What happened to one checkpoint.
CREATE INDEX IF NOT EXISTS checkpoint_history_checkpoint
    ON checkpoint_history (checkpoint_id, timestamp);

CREATE TABLE IF NOT EXISTS basin_history (
    segment_no   INTEGER NOT NULL,
    line_no      INTEGER NOT NULL,
    session_id   TEXT NOT NULL,
    timestamp    TEXT NOT NULL,
    step         INTEGER,
    basin_coords TEXT,
    phi          ANY,
    kappa        ANY,
    PRIMARY KEY (segment_no, line_no)
) STRICT;

-- The trajectory of a session.
CREATE INDEX IF NOT EXISTS basin_history_session ON basin_history (session_id, timestamp);

-- Records that the disk refused: how many are missing at this place of the journal.
CREATE TABLE IF NOT EXISTS telemetry_gaps (
    segment_no INTEGER NOT NULL,
    line_no    INTEGER NOT NULL,
    session_id TEXT NOT NULL,
    timestamp  TEXT NOT NULL,  -- when writing went on
    records    INTEGER NOT NULL,
    first_step INTEGER,  -- least and greatest of those that had one
    last_step  INTEGER,
    since      TEXT NOT NULL,  -- when the first of them was to be written
    reason     TEXT NOT NULL,
    PRIMARY KEY (segment_no, line_no)
) STRICT;

-- What is missing of a session.
CREATE INDEX IF NOT EXISTS telemetry_gaps_session ON telemetry_gaps (session_id, timestamp);

-- Latest record of each session by the clock, as specified: where the clock went back, the last line
-- of the journal is another one. One index probe per session; GROUP BY would read every record.
CREATE VIEW IF NOT EXISTS latest_telemetry AS
SELECT s.session_id, r.timestamp, r.step, r.phi, r.kappa_eff, r.regime, r.basin_distance,
       r.recursion_depth, r.geodesic_distance, r.curvature, r.fisher_metric_trace,
       r.breakdown_pct, r.coherence_drift, r.emergency, r.meta_awareness, r.generativity,
       r.grounding, r.temporal_coherence, r.external_coupling, r.extra
FROM telemetry_sessions s
JOIN telemetry_records r ON r.rowid = (
    SELECT t.rowid
    FROM telemetry_records t
    WHERE t.session_id = s.session_id
    ORDER BY t.timestamp DESC, t.step DESC, t.line_no DESC, t.segment_no DESC
    LIMIT 1
);

-- Top 10 checkpoints that are present.
CREATE VIEW IF NOT EXISTS best_checkpoints AS
SELECT checkpoint_id, session_id, phi, kappa, regime, created_at,
       row_number() OVER (ORDER BY NULLIF(phi, 'NaN') DESC, created_at DESC, checkpoint_id) AS rank,
       row_number() OVER (ORDER BY NULLIF(phi, 'NaN') DESC, created_at DESC, checkpoint_id) = 1
           AS is_best,
       metadata
FROM (
    SELECT checkpoint_id, session_id, phi, kappa, regime, created_at, metadata
    FROM checkpoints
    WHERE state = 'present'
    ORDER BY NULLIF(phi, 'NaN') DESC, created_at DESC, checkpoint_id
    LIMIT 10
)
ORDER BY rank;

-- Emergencies per session; the row without a session counts those that belong to none. The most
-- severe word is the greatest of "<meaning><word>", without its digit.
CREATE VIEW IF NOT EXISTS emergency_summary AS
SELECT session_id,
       count(*) AS emergency_count,
       min(timestamp) AS first_emergency,
       max(timestamp) AS last_emergency,
       substr(max(CASE severity
                      WHEN 'critical' THEN '6'
                      WHEN 'high' THEN '5'
                      WHEN 'medium' THEN '4'
                      WHEN 'warning' THEN '3'
                      WHEN 'low' THEN '2'
                      WHEN 'info' THEN '1'
                      ELSE '0'
                  END || severity), 2) AS max_severity
FROM emergency_events
GROUP BY session_id;

-- Statistics of a session and its checkpoints that are present, which are looked up, never joined.
-- The duration counts whole microseconds; SQLite's own date functions stop at milliseconds.
CREATE VIEW IF NOT EXISTS session_stats AS
SELECT session_id, started_at, ended_at, status,
       ((unixepoch(substr(ended_at, 1, 19)) - unixepoch(substr(started_at, 1, 19))) * 1000000
           + substr(ended_at, 21, 6) - substr(started_at, 21, 6)) / 1000000.0 AS duration_seconds,
       total_steps, avg_phi, max_phi, min_phi, avg_kappa, emergency_count,
       (SELECT count(*) FROM checkpoints c
        WHERE c.session_id = s.session_id AND c.state = 'present') AS checkpoint_count,
       (SELECT max(c.phi) FROM checkpoints c
        WHERE c.session_id = s.session_id AND c.state = 'present' AND c.phi < 'NaN')
           AS best_checkpoint_phi
FROM telemetry_sessions s;

-- What was deleted, so that a deletion read before the creation still wins.
CREATE TABLE IF NOT EXISTS tombstones (
    kind       TEXT NOT NULL,  -- 'session', 'checkpoint'
    key        TEXT NOT NULL,
    segment_no INTEGER NOT NULL,
    line_no    INTEGER NOT NULL,
    deleted_at TEXT NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;

-- A session's part in each of its segments, with sums over its records: the session's row is folded
-- from its parts and never from the records. Sums leave out what a mean leaves out: NaN, and numbers
-- beyond 1e290, infinities included.
CREATE TABLE IF NOT EXISTS session_parts (
    segment_id  TEXT NOT NULL PRIMARY KEY,
    session_id  TEXT NOT NULL,
    attempt     INTEGER,
    started_at  TEXT,
    ended_at    TEXT,
    status      TEXT,
    reason      TEXT,
    metadata    TEXT,
    records     INTEGER NOT NULL DEFAULT 0,
    phi_count   INTEGER NOT NULL DEFAULT 0,
    phi_sum     ANY NOT NULL DEFAULT 0.0,
    phi_max     ANY,
    phi_min     ANY,
    kappa_count INTEGER NOT NULL DEFAULT 0,
    kappa_sum   ANY NOT NULL DEFAULT 0.0
) STRICT, WITHOUT ROWID;

-- The fold.
CREATE INDEX IF NOT EXISTS session_parts_session ON session_parts (session_id);

-- Version of this schema, store id, and what else there is one of.
CREATE TABLE IF NOT EXISTS index_meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

-- Cursor of each segment: everything before next_line is in this index.
CREATE TABLE IF NOT EXISTS index_segments (
    segment_no INTEGER PRIMARY KEY,
    segment_id TEXT NOT NULL UNIQUE,
    store_id   TEXT NOT NULL,
    session_id TEXT,  -- NULL: the store's own journal
    attempt    INTEGER,
    path       TEXT NOT NULL,
    created_at TEXT NOT NULL,  -- from the header
    next_line  INTEGER NOT NULL DEFAULT 0,
    next_byte  INTEGER NOT NULL DEFAULT 0,
    chain_hash BLOB NOT NULL DEFAULT x'',
    crc        INTEGER NOT NULL DEFAULT 0  -- CRC-32 of all before, by which `verify` knows it again
) STRICT;

-- A session's records in the journal's order: its segments by attempt and time, each by line.
CREATE INDEX IF NOT EXISTS index_segments_session
    ON index_segments (session_id, attempt, created_at);

-- Where every 1,024th line begins and the hashes of all before it, so that a check of any cursor is
-- one seek.
CREATE TABLE IF NOT EXISTS index_marks (
    segment_no INTEGER NOT NULL,
    line_no    INTEGER NOT NULL,
    byte       INTEGER NOT NULL,
    chain_hash BLOB NOT NULL,
    crc        INTEGER NOT NULL,
    PRIMARY KEY (segment_no, line_no)
) STRICT, WITHOUT ROWID;

-- Lines that are no entries.
CREATE TABLE IF NOT EXISTS invalid_lines (
    segment_no INTEGER NOT NULL,
    line_no    INTEGER NOT NULL,
    byte       INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    PRIMARY KEY (segment_no, line_no)
) STRICT, WITHOUT ROWID;
