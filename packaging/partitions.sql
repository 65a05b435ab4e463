-- Monthly partitions of telemetry_records, for databases above some 50 million records. Optional: the
-- agent works the same with and without.
--
--     psql "$DATABASE_URL" -f packaging/partitions.sql              the functions; run as the owner
--     psql "$DATABASE_URL" -f packaging/partition_records.sql       once: makes the table partitioned
--     psql "$DATABASE_URL" -c 'SELECT create_partitions()'          every day, by cron or a timer
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
