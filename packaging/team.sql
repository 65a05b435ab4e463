-- A team that sees the rows of its own stores only. Needs roles.sql. Run it as the owner:
--
--     psql "$DATABASE_URL" -v team=vision -v stores='{6f2a3b1c-…,0d9e44aa-…}' -f packaging/team.sql
--
-- It makes the role tidelog_vision and a schema of that name, with views named as the tables and
-- views that a user reads. A member (CREATE ROLE anna LOGIN IN ROLE tidelog_vision) asks the same
-- questions as everybody, with `SET search_path = tidelog_vision` or
-- `ALTER ROLE anna SET search_path = tidelog_vision`; the search path is a convenience, the role is
-- what keeps the teams apart, so no setting of a session opens anything. Applying again with other
-- stores changes which stores are the team's.
--
-- A session that several stores write is one row, and is seen by each of their teams; of its records,
-- each team sees its own. The statistics in that row are those of all.
--
-- Views and not row security: on a table with that, COPY is refused to the agent.

\set ON_ERROR_STOP on
\if :{?team}
\else
    \warn 'name the team: -v team=vision'
    \quit
\endif

BEGIN;

SELECT format('tidelog_%s', :'team') AS role, current_schema() AS main \gset

CREATE TABLE IF NOT EXISTS tidelog_team_stores (
    role     text NOT NULL,
    store_id uuid NOT NULL,
    PRIMARY KEY (role, store_id)
);
DELETE FROM tidelog_team_stores WHERE role = :'role';
INSERT INTO tidelog_team_stores SELECT :'role', id FROM unnest(:'stores'::uuid[]) AS id;

SELECT format('CREATE ROLE %I NOLOGIN', :'role')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \gexec
SELECT format('CREATE SCHEMA IF NOT EXISTS %I', :'role'),
       format('GRANT USAGE ON SCHEMA %I TO %I', :'role', :'role') \gexec

-- Tables with a segment; the others know their store or their session.
SELECT format(
    'CREATE OR REPLACE VIEW %I.%I WITH (security_barrier) AS SELECT t.* FROM %I.%I t WHERE ',
    :'role', name, :'main', name) || CASE rule
    WHEN 'segment' THEN format(
        't.segment_no IN (SELECT g.segment_no FROM %1$I.sync_segments g
                          JOIN %1$I.sync_stores USING (store_no)
                          JOIN %1$I.tidelog_team_stores s USING (store_id) WHERE s.role = %2$L)',
        :'main', :'role')
    WHEN 'store' THEN format(
        't.store_no IN (SELECT o.store_no FROM %1$I.sync_stores o
                        JOIN %1$I.tidelog_team_stores s USING (store_id) WHERE s.role = %2$L)',
        :'main', :'role')
    ELSE format(
        'EXISTS (SELECT FROM %1$I.sync_segments g
                 JOIN %1$I.sync_stores USING (store_no)
                 JOIN %1$I.tidelog_team_stores s USING (store_id)
                 WHERE s.role = %2$L AND g.session_id = t.session_id)',
        :'main', :'role')
    END
FROM (VALUES
    ('telemetry_records', 'segment'), ('emergency_events', 'segment'),
    ('checkpoint_history', 'segment'), ('basin_history', 'segment'),
    ('telemetry_gaps', 'segment'), ('checkpoints', 'store'), ('telemetry_sessions', 'session')
) AS rule_of (name, rule) \gexec

-- The views of the schema once more, over the views above: their text names tables without a schema
-- as long as these are in the search path.
SELECT pg_get_viewdef('latest_telemetry'::regclass) AS latest,
       pg_get_viewdef('best_checkpoints'::regclass) AS best,
       pg_get_viewdef('emergency_summary'::regclass) AS emergencies,
       pg_get_viewdef('session_stats'::regclass) AS stats \gset
SELECT format('SET LOCAL search_path = %I, %I', :'role', :'main') \gexec
SELECT format('CREATE OR REPLACE VIEW %I.%I WITH (security_barrier) AS %s', :'role', name, text)
FROM (VALUES ('latest_telemetry', :'latest'), ('best_checkpoints', :'best'),
             ('emergency_summary', :'emergencies'), ('session_stats', :'stats')
) AS view_of (name, text) \gexec

SELECT format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO %I', :'role', :'role') \gexec

COMMIT;
