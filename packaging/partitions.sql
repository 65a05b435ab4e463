-- Monthly partitions of telemetry_records, for databases above some 50 million records. Optional: the
-- agent works the same with and without.
--
--     psql "$DATABASE_URL" -f packaging/partitions.sql              the functions; run as the owner
--     psql "$DATABASE_URL" -f packaging/partition_records.sql       once: makes the table partitioned
--     psql "$DATABASE_URL" -c 'SELECT create_partitions()'          every day, by cron or a timer
--     psql "$DATABASE_URL" -c "CALL drop_partitions('90 days')"     where old records are to go
--
-- Applying again changes nothing. PostgreSQL 12 or newer.
--
-- There is no DEFAULT partition: with one, attaching a partition would wait for every writer, and rows
-- that lie in it keep their month from getting a partition. A record from later than the last
-- partition is refused by the server, so the agent puts it into quarantine, whole, and goes on.

-- First moment of the month that a moment lies in, and of months after it, in UTC: months must not
-- depend on a session's time zone.
CREATE OR REPLACE FUNCTION month_start(moment timestamptz, months_later integer DEFAULT 0)
RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT (date_trunc('month', moment AT TIME ZONE 'UTC') + make_interval(months => months_later))
           AT TIME ZONE 'UTC'
$$;

-- Partitions of telemetry_records with their bounds, oldest first; -infinity if there is no lower one.
CREATE OR REPLACE FUNCTION record_partitions()
RETURNS TABLE (partition regclass, lower_bound timestamptz, upper_bound timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT i.inhrelid::regclass,
           COALESCE(substring(b.text FROM $re$FROM \('([^']*)'\)$re$), '-infinity')::timestamptz,
           substring(b.text FROM $re$TO \('([^']*)'\)$re$)::timestamptz
    FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid
    CROSS JOIN LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid)) AS b (text)
    WHERE i.inhparent = 'telemetry_records'::regclass
    ORDER BY 3
$$;

-- Makes the partitions that are missing up to so many months after the current one, and returns how
-- many. Ingest goes on meanwhile: a table is made by itself and attached, which locks out nobody who
-- reads or writes. Waits at most lock_timeout for others who change the table; call it again then.
CREATE OR REPLACE FUNCTION create_partitions(ahead_months integer DEFAULT 3) RETURNS integer
LANGUAGE plpgsql VOLATILE SET lock_timeout = '2s' AS $$
DECLARE
    low    timestamptz;
    high   timestamptz;
    name   text;
    made   integer := 0;
BEGIN
    IF ahead_months NOT BETWEEN 0 AND 120 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'ahead_months is from 0 to 120';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('tidelog create_partitions'));
    SELECT max(upper_bound) INTO low FROM record_partitions();
    IF low IS NULL THEN
        RAISE wrong_object_type USING
            MESSAGE = 'telemetry_records has no partitions',
            HINT = 'Run packaging/partition_records.sql once.';
    END IF;
    WHILE low < month_start(now(), ahead_months + 1) LOOP
        high := month_start(low, 1);
        name := 'telemetry_records_' || to_char(low AT TIME ZONE 'UTC', 'YYYY_MM');
        EXECUTE format('CREATE TABLE %I (LIKE telemetry_records INCLUDING DEFAULTS
                                         INCLUDING CONSTRAINTS INCLUDING INDEXES)', name);
        EXECUTE format('ALTER TABLE telemetry_records ATTACH PARTITION %I
                        FOR VALUES FROM (%L) TO (%L)', name, low, high);
        made := made + 1;
        low := high;
    END LOOP;
    RETURN made;
END
$$;

-- Drops the partitions all of whose records are older, for good: the floor of every store moves to
-- their end in the same transaction, so nothing below it is ever written again, also when everything is
-- sent once more. Emergencies, points of basins and gaps below it go, too. The part of a month
-- `tidelog-sync retention` deletes.
--
-- Everybody waits while a partition is dropped, for a moment; the procedure itself waits at most two
-- seconds for others, such as a long query, and fails then with nothing half done: call it again.
-- Sessions stay, with statistics of what is left.
CREATE OR REPLACE PROCEDURE drop_partitions(older_than interval)
LANGUAGE plpgsql AS $$
DECLARE
    old      record;
    sessions text[];
    more     text[];
    name     text;
    touched  text;
BEGIN
    IF older_than < interval '1 hour' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'older_than is at least an hour';
    END IF;
    FOR old IN
        SELECT partition, upper_bound FROM record_partitions()
        WHERE upper_bound <= now() - older_than
    LOOP
        PERFORM set_config('lock_timeout', '2s', true);
        -- Who writes a batch holds its segment's row before it looks at the floor.
        PERFORM FROM sync_segments ORDER BY segment_no FOR SHARE;
        INSERT INTO retention_floor AS before (store_no, floor)
        SELECT store_no, old.upper_bound FROM sync_stores ORDER BY store_no
        ON CONFLICT (store_no) DO UPDATE SET floor = excluded.floor, moved_at = now()
        WHERE before.floor < excluded.floor;

        EXECUTE format('SELECT array_agg(DISTINCT session_id) FROM %s', old.partition) INTO sessions;
        FOREACH name IN ARRAY ARRAY['sync_quarantine', 'sync_lines'] LOOP
            EXECUTE format('DELETE FROM %I k USING %s t
                            WHERE t.segment_no = k.segment_no AND t.line_no = k.line_no',
                           name, old.partition);
        END LOOP;
        -- The floor is that of all measurements.
        FOREACH name IN ARRAY ARRAY['emergency_events', 'basin_history', 'telemetry_gaps'] LOOP
            EXECUTE format('WITH gone AS (
                                DELETE FROM %I WHERE timestamp < %L
                                RETURNING segment_no, line_no, session_id
                            ), beside AS (
                                DELETE FROM sync_quarantine k USING gone g
                                WHERE g.segment_no = k.segment_no AND g.line_no = k.line_no
                            ), whole AS (
                                DELETE FROM sync_lines k USING gone g
                                WHERE g.segment_no = k.segment_no AND g.line_no = k.line_no
                            )
                            SELECT array_agg(DISTINCT session_id) FROM gone', name, old.upper_bound)
            INTO more;
            sessions := sessions || more;
        END LOOP;
        EXECUTE format('DROP TABLE %s', old.partition);
        DELETE FROM sync_session_stats WHERE session_id = ANY (sessions);
        COMMIT;

        FOREACH touched IN ARRAY COALESCE(sessions, '{}') LOOP
            PERFORM update_session_stats(touched);
            COMMIT;
        END LOOP;
    END LOOP;
END
$$;
