-- Makes telemetry_records a table of monthly partitions, while agents write to it. Needs
-- partitions.sql; run it as the owner, outside of a transaction. The rows that are there become the
-- first partition, as they are: nothing is copied. If it stops, by a lock_timeout say, run it again:
-- it goes on where it was.
--
--     psql "$DATABASE_URL" -f packaging/partition_records.sql
--
-- What waits for what, and for how long:
--   1. a constraint, not checked yet            all wait, for a moment
--   2. the check                                nobody; reads the table once
--   3. a unique index that has the timestamp    nobody; reads the table twice
--   4. the old table is put under a new one     all wait, for a moment: the catalogue only
--
-- The key gets the column `timestamp`, as PostgreSQL wants it. A line's timestamp never changes, so it
-- stays as good a key: (segment_no, line_no) names one row.

\set ON_ERROR_STOP on
SET lock_timeout = '2s';

SELECT relkind = 'p' AS is_done FROM pg_class WHERE oid = 'telemetry_records'::regclass \gset
\if :is_done
    \echo 'telemetry_records has partitions already'
    \quit
\endif

-- 1. The old table ends where a month begins, at least a week from now: until then all of this is done.
SELECT month_start(now() + interval '7 days', 1) AS cutoff \gset
SELECT format('ALTER TABLE telemetry_records ADD CONSTRAINT telemetry_records_before
               CHECK (timestamp < %L) NOT VALID', :'cutoff')
WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'telemetry_records'::regclass
                  AND conname = 'telemetry_records_before') \gexec

-- 2. Records from after that were written by a clock that is wrong.
SELECT count(*) > 0 AS has_later,
       format('%s records have a timestamp from %s on', count(*), :'cutoff') AS message
FROM telemetry_records WHERE timestamp >= :'cutoff' \gset
\if :has_later
    ALTER TABLE telemetry_records DROP CONSTRAINT telemetry_records_before;
    DO $$ BEGIN RAISE 'records lie after the end of the first partition'
          USING HINT = 'Their timestamps are wrong. Move them to another table, then run this again.'; END $$;
\endif
ALTER TABLE telemetry_records VALIDATE CONSTRAINT telemetry_records_before;

-- 3. One that was interrupted is not valid, and made anew.
SELECT 'DROP INDEX telemetry_records_key'
WHERE EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('telemetry_records_key')
              AND NOT indisvalid) \gexec
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS telemetry_records_key
    ON telemetry_records (segment_no, line_no, timestamp);

-- 4. Views, indexes, rights and triggers go over to the new table by their text, under their names.
BEGIN;
DO $$
DECLARE
    old      regclass := 'telemetry_records';
    texts    text[];
    statement text;
    upper_end text;
    item     record;
BEGIN
    LOCK TABLE telemetry_records IN ACCESS EXCLUSIVE MODE;
    SELECT substring(pg_get_constraintdef(oid) FROM $re$'([^']*)'$re$) INTO upper_end
    FROM pg_constraint WHERE conrelid = old AND conname = 'telemetry_records_before';

    texts := ARRAY(
        SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = old
        AND NOT indisprimary AND indexrelid <> 'telemetry_records_key'::regclass
    ) || ARRAY(
        SELECT format('GRANT %s ON telemetry_records TO %s', string_agg(a.privilege_type, ', '),
                      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
        WHERE c.oid = old GROUP BY a.grantee
    ) || ARRAY(
        SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = old AND NOT tgisinternal
    ) || ARRAY(
        SELECT DISTINCT format('CREATE OR REPLACE VIEW %s %s AS %s', v.oid::regclass,
                               'WITH (' || array_to_string(v.reloptions, ', ') || ')',
                               pg_get_viewdef(v.oid))
        FROM pg_depend d
        JOIN pg_rewrite r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
        JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v'
        WHERE d.refobjid = old
    );

    FOR item IN
        SELECT indexrelid::regclass AS name FROM pg_index
        WHERE indrelid = old AND NOT indisprimary AND indexrelid <> 'telemetry_records_key'::regclass
    LOOP
        EXECUTE format('ALTER INDEX %s RENAME TO %I', item.name,
                       replace(item.name::text, 'telemetry_records', 'telemetry_records_first'));
    END LOOP;
    ALTER TABLE telemetry_records ALTER COLUMN line_no DROP IDENTITY;
    ALTER TABLE telemetry_records DROP CONSTRAINT telemetry_records_pkey;
    ALTER TABLE telemetry_records ADD CONSTRAINT telemetry_records_first_pkey
        PRIMARY KEY USING INDEX telemetry_records_key;
    ALTER TABLE telemetry_records RENAME TO telemetry_records_first;

    CREATE TABLE telemetry_records (LIKE telemetry_records_first INCLUDING DEFAULTS)
        PARTITION BY RANGE (timestamp);
    ALTER TABLE telemetry_records
        ADD PRIMARY KEY (segment_no, line_no, timestamp),
        ALTER COLUMN line_no ADD GENERATED BY DEFAULT AS IDENTITY;
    FOREACH statement IN ARRAY texts LOOP
        EXECUTE statement;
    END LOOP;
    EXECUTE format('ALTER TABLE telemetry_records ATTACH PARTITION telemetry_records_first
                    FOR VALUES FROM (MINVALUE) TO (%L)', upper_end);
    ALTER TABLE telemetry_records_first DROP CONSTRAINT telemetry_records_before;
    -- Rows inserted by hand are numbered on.
    PERFORM setval(pg_get_serial_sequence('telemetry_records', 'line_no'), GREATEST(1,
        (SELECT max(line_no) FROM telemetry_records_first WHERE segment_no = 0)));
END
$$;
COMMIT;

RESET lock_timeout;
SELECT create_partitions();
