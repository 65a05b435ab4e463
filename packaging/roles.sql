-- Roles with the least rights that the work needs. No role here can log in and none has a password:
-- people and agents get a role of their own that is a member of one of these.
--
--     psql "$DATABASE_URL" -f packaging/roles.sql
--     psql "$DATABASE_URL" -c 'CREATE ROLE trainer1 LOGIN IN ROLE tidelog_agent' -c '\password trainer1'
--
-- Other names: -v agent=my_agent -v analyst=my_analyst. Run it as the owner of the tables, who may
-- create roles or finds them created; again after each `tidelog-sync migrate`, which the owner runs,
-- too. Applying again brings the rights of both roles to exactly what stands here, in one
-- transaction: agents at work notice nothing. It acts on the first schema of the search path.
--
-- The agent writes rows that never change and may neither change nor delete them; those of a session
-- that was deleted it may delete, once the tombstone is written. It reads all that `verify` and
-- `restore` compare. The analyst reads everything but raw bytes: a quarantined line may hold what
-- its session's rows were deleted for, and model state is no telemetry.

\set ON_ERROR_STOP on
\if :{?agent}
\else
    \set agent tidelog_agent
\endif
\if :{?analyst}
\else
    \set analyst tidelog_analyst
\endif

BEGIN;

SELECT format('CREATE ROLE %I NOLOGIN', name)
FROM unnest(ARRAY[:'agent', :'analyst']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

-- Before PostgreSQL 15 everybody may create tables beside these, also one that a function then finds.
SELECT format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', current_schema()),
       format('GRANT USAGE ON SCHEMA %I TO %I, %I', current_schema(), :'agent', :'analyst'),
       format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM %I, %I',
              current_schema(), :'agent', :'analyst') \gexec

-- Each table of the schema: rights of the agent, and of the analyst. A table that this database does
-- not have yet is passed over.
SELECT format('GRANT %s ON %I TO %I', rights, name, role)
FROM (VALUES
    -- rows that never change
    ('telemetry_records',     'SELECT, INSERT, DELETE',         'SELECT'),
    ('emergency_events',      'SELECT, INSERT, DELETE',         'SELECT'),
    ('basin_history',         'SELECT, INSERT, DELETE',         'SELECT'),
    ('telemetry_gaps',        'SELECT, INSERT, DELETE',         'SELECT'),
    ('checkpoint_history',    'SELECT, INSERT',                 'SELECT'),
    -- rows that follow what the journal says
    ('telemetry_sessions',    'SELECT, INSERT, UPDATE, DELETE', 'SELECT'),
    ('checkpoints',           'SELECT, INSERT, UPDATE, DELETE', 'SELECT'),
    ('session_parts',         'SELECT, INSERT, UPDATE, DELETE', 'SELECT'),
    ('tombstones',            'SELECT, INSERT, UPDATE',         'SELECT'),
    ('retention_floor',       'SELECT',                         'SELECT'),
    -- the agent's own books
    ('sync_stores',           'SELECT, INSERT, UPDATE',         'SELECT'),
    ('sync_segments',         'SELECT, INSERT, UPDATE',         'SELECT'),
    ('sync_batches',          'SELECT, INSERT, UPDATE, DELETE', 'SELECT'),
    ('sync_session_stats',    'SELECT, INSERT, UPDATE, DELETE', 'SELECT'),
    ('sync_quarantine',       'SELECT, INSERT, UPDATE, DELETE', ''),
    ('sync_unknown',          'SELECT, INSERT, DELETE',         ''),
    ('sync_lines',            'SELECT, INSERT, DELETE',         ''),
    ('sync_gaps',             'SELECT, INSERT, UPDATE, DELETE', 'SELECT'),
    ('checkpoint_blobs',      'SELECT, INSERT, UPDATE, DELETE', 'SELECT'),
    ('checkpoint_chunks',     'SELECT, INSERT, DELETE',         ''),
    ('tidelog_meta',          'SELECT',                         'SELECT'),
    ('tidelog_migrations',    'SELECT',                         'SELECT'),
    -- views
    ('latest_telemetry',      'SELECT',                         'SELECT'),
    ('best_checkpoints',      'SELECT',                         'SELECT'),
    ('emergency_summary',     'SELECT',                         'SELECT'),
    ('session_stats',         'SELECT',                         'SELECT')
) AS rights_of (name, agent_rights, analyst_rights)
CROSS JOIN LATERAL (VALUES
    (:'agent', agent_rights), (:'analyst', analyst_rights)
) AS r (role, rights)
WHERE to_regclass(quote_ident(name)) IS NOT NULL AND rights <> '' \gexec

-- Of what is kept raw, the analyst reads all but the bytes.
SELECT format('GRANT SELECT (%s) ON %s TO %I',
              string_agg(quote_ident(attname), ', '), attrelid::regclass, :'analyst')
FROM pg_attribute
WHERE attrelid IN (to_regclass('sync_quarantine'), to_regclass('sync_unknown'),
                   to_regclass('sync_lines'), to_regclass('checkpoint_chunks'))
  AND attnum > 0 AND NOT attisdropped AND attname NOT IN ('raw', 'bytes')
GROUP BY attrelid \gexec

-- Functions run with the rights of their caller; only the agent has a use for them.
SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f.oid::regprocedure),
       format('GRANT EXECUTE ON FUNCTION %s TO %I', f.oid::regprocedure, :'agent')
FROM pg_proc f
WHERE f.pronamespace = current_schema()::regnamespace
  AND f.proname IN ('update_session_stats', 'update_checkpoint_rankings', 'fold_sessions',
                    'merge_batches') \gexec

-- Rows that never change go only with a deleted session. A privilege cannot say that, and row
-- security would forbid COPY. Members of the owner are not asked.
CREATE OR REPLACE FUNCTION refuse_unburied_delete() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    alive text;
BEGIN
    IF (SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c WHERE c.oid = TG_RELID) THEN
        RETURN NULL;
    END IF;
    SELECT g.session_id INTO alive
    FROM (SELECT DISTINCT session_id FROM gone) g
    WHERE NOT EXISTS (SELECT FROM tombstones t
                      WHERE t.kind = 'session' AND t.key = g.session_id)
    LIMIT 1;
    IF FOUND THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('session %L is not deleted, so its rows in %I stay',
                             alive, TG_TABLE_NAME),
            HINT = 'A session is deleted with `tidelog delete` in its store.';
    END IF;
    RETURN NULL;
END
$$;

SELECT format('DROP TRIGGER IF EXISTS refuse_unburied_delete ON %I', name),
       format('CREATE TRIGGER refuse_unburied_delete AFTER DELETE ON %I
               REFERENCING OLD TABLE AS gone
               FOR EACH STATEMENT EXECUTE FUNCTION refuse_unburied_delete()', name)
FROM unnest(ARRAY['telemetry_records', 'emergency_events', 'basin_history', 'telemetry_gaps'])
    AS name \gexec

COMMIT;
