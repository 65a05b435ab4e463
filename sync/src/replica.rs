//! The database as the agent sees it: stores, segments and their cursors, and calls with an end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::types::Type;
use postgres::{Client, Row, Transaction};
use tidelog::journal::{ChainHash, Cursor, Segment};
use tidelog::{SegmentId, StoreId};
use uuid::Uuid;

use crate::apply::{self, Outcome};
use crate::connect::Target;
use crate::database::{Database, DatabaseError, Limits, transaction};
use crate::error::SyncError;
use crate::insert::Method;
use crate::memory::Identity;
use crate::rows::BatchRows;
use crate::schema;

/// What the server allows itself.
const LIMITS: Limits = Limits {
    statement: Duration::from_secs(60),
    lock: Duration::from_secs(10),
    idle: Duration::from_secs(60),
};
/// How long a short call may take.
const SHORT: Duration = Duration::from_secs(30);
/// How long a batch may take: one statement at its limit, and then some.
const BATCH: Duration = Duration::from_secs(75);
/// Deleting every row of a session.
const LONG_LIMITS: Limits = Limits { statement: Duration::from_secs(600), ..LIMITS };
const LONG: Duration = Duration::from_secs(620);
/// What a transaction may take beyond the limit of its one long statement.
const MARGIN: Duration = Duration::from_secs(15);

/// The number that no store has.
const NO_STORE: i32 = 0;

/// A connection to the replica of one store.
pub(crate) struct Replica {
    database: Database,
    store_no: i32,
    /// No call lasts longer than until then.
    until: Option<Instant>,
}

/// A segment's row in `sync_segments`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SegmentRow {
    pub(crate) segment: SegmentId,
    pub(crate) segment_no: i32,
    pub(crate) store_no: i32,
    pub(crate) file_name: String,
    pub(crate) cursor: Cursor,
    /// The state that an agent wrote down last.
    pub(crate) state: String,
    /// Everything is here and nothing will follow.
    pub(crate) sealed: bool,
    /// The segment and line at which it parted from another one.
    pub(crate) parent: Option<(SegmentId, u32)>,
}

/// The end of a batch that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) first_line: u32,
    pub(crate) next_line: u32,
    pub(crate) chain: ChainHash,
}

/// A session whose statistics are out of date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StaleSession {
    session: String,
    /// Lines of all its segments that are here.
    lines: i64,
}

impl Replica {
    /// Which database this is, and whether it has lines of the store. Writes nothing.
    pub(crate) fn identify(&mut self, store: StoreId) -> Result<Identity, DatabaseError> {
        let store = store.as_uuid();
        self.run(SHORT, "asking which database this is", move |client| {
            let row = client.query_typed_one(
                "SELECT database_id,
                        EXISTS (SELECT FROM sync_segments JOIN sync_stores USING (store_no)
                                WHERE store_id = $1 AND next_line > 0)
                 FROM tidelog_meta",
                &[(&store, Type::UUID)],
            )?;
            Ok(Identity { database: row.try_get(0)?, has_store: row.try_get(1)? })
        })
    }

    /// Makes the store known.
    pub(crate) fn register_store(&mut self, store: StoreId) -> Result<(), DatabaseError> {
        let store = store.as_uuid();
        let store_no = self.run(SHORT, "registering the store", move |client| {
            let agent = [(&store as _, Type::UUID), (&env!("CARGO_PKG_VERSION") as _, Type::TEXT)];
            client.execute_typed(
                "INSERT INTO sync_stores (store_id, agent_version) SELECT $1, $2
                 WHERE NOT EXISTS (SELECT FROM sync_stores WHERE store_id = $1)
                 ON CONFLICT DO NOTHING",
                &agent,
            )?;
            client.execute_typed(
                "UPDATE sync_stores SET last_seen = now(), agent_version = $2
                 WHERE store_id = $1 AND (last_seen < now() - interval '1 hour'
                                          OR agent_version IS DISTINCT FROM $2)",
                &agent,
            )?;
            find_store(client, store)
        })?;
        let what = "registering the store".to_owned();
        self.store_no = store_no.ok_or(DatabaseError::Closed { what })?;
        Ok(())
    }

    /// Connects to look only, also if the database does not know the store.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn look(target: &Target, store: StoreId) -> Result<Self, SyncError> {
        let mut replica = Self::open(target, None)?;
        let store = store.as_uuid();
        let found =
            replica.run(SHORT, "looking for the store", move |client| find_store(client, store))?;
        replica.store_no = found.unwrap_or(NO_STORE);
        Ok(replica)
    }

    /// Connects and checks the schema, all before `until` if given. Writes nothing.
    ///
    /// # Errors
    /// The database is not reached, or its schema is another one; both have a remedy in the text.
    pub(crate) fn open(target: &Target, until: Option<Instant>) -> Result<Self, SyncError> {
        let mut target = target.clone();
        if let Some(until) = until {
            let hosts = u32::try_from(target.endpoints.len()).unwrap_or(u32::MAX).max(1);
            let left = until.saturating_duration_since(Instant::now());
            target.connect_timeout = target.connect_timeout.min(left / hosts);
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let database = schema::connect(&target, left.map_or(SHORT, |left| left.min(SHORT)))?;
        Ok(Self { database, store_no: NO_STORE, until })
    }

    /// The store's number in this database; 0 if it is not known there.
    pub(crate) fn store_no(&self) -> i32 {
        self.store_no
    }

    /// Ends every later call by then.
    pub(crate) fn give_up_at(&mut self, until: Option<Instant>) {
        self.until = until;
    }

    fn run<T, E, F>(&mut self, limit: Duration, what: &str, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
        F: FnOnce(&mut Client) -> Result<T, E> + Send + 'static,
    {
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        self.database.run(left.map_or(limit, |left| limit.min(left)), what, work)
    }

    /// Makes segments known, each with a cursor at its start, and returns the rows of all segments
    /// of the store. Segments that are known already stay as they are.
    pub(crate) fn register(
        &mut self,
        segments: &[&Segment],
    ) -> Result<Vec<SegmentRow>, DatabaseError> {
        let store_no = self.store_no;
        let ids: Vec<Uuid> = segments.iter().map(|s| s.header.segment.as_uuid()).collect();
        let sessions: Vec<Option<String>> =
            segments.iter().map(|s| s.header.session.as_ref().map(ToString::to_string)).collect();
        let names: Vec<String> = segments.iter().map(|s| file_name(s)).collect();
        let attempts: Vec<Option<i32>> = segments.iter().map(|s| attempt(s)).collect();
        self.run(SHORT, "registering segments", move |client| {
            if !ids.is_empty() {
                client.execute_typed(
                    "INSERT INTO sync_segments
                         (segment_id, store_no, session_id, file_name, attempt, chain_hash)
                     SELECT id, $1, session, name, attempt, $2
                     FROM unnest($3, $4, $5, $6) AS s (id, session, name, attempt)
                     WHERE NOT EXISTS (SELECT FROM sync_segments WHERE segment_id = id) ORDER BY id
                     ON CONFLICT DO NOTHING",
                    &[
                        (&store_no, Type::INT4),
                        (&Cursor::START.chain.as_bytes().as_slice(), Type::BYTEA),
                        (&ids, Type::UUID_ARRAY),
                        (&sessions, Type::TEXT_ARRAY),
                        (&names, Type::TEXT_ARRAY),
                        (&attempts, Type::INT4_ARRAY),
                    ],
                )?;
            }
            read_segments(client, store_no, &ids)
        })
    }

    /// The rows of these segments and of all others of the store. Writes nothing.
    pub(crate) fn segments(
        &mut self,
        segments: &[Segment],
    ) -> Result<Vec<SegmentRow>, DatabaseError> {
        let store_no = self.store_no;
        let ids: Vec<Uuid> = segments.iter().map(|s| s.header.segment.as_uuid()).collect();
        self.run(SHORT, "reading cursors", move |client| read_segments(client, store_no, &ids))
    }

    /// A segment's cursor as it is now.
    pub(crate) fn cursor(&mut self, segment_no: i32) -> Result<Cursor, DatabaseError> {
        self.run(SHORT, "reading a cursor", move |client| {
            let row = client.query_typed_one(
                "SELECT next_line, next_byte, chain_hash FROM sync_segments WHERE segment_no = $1",
                &[(&segment_no, Type::INT4)],
            )?;
            Ok(read_cursor(&row, 0)?)
        })
    }

    /// Applies a batch in one transaction: all of it or nothing.
    ///
    /// # Errors
    /// After a broken connection it is unknown whether the batch took effect; the cursor tells.
    pub(crate) fn apply(
        &mut self,
        batch: &Arc<BatchRows>,
        method: Method,
    ) -> Result<Outcome, DatabaseError> {
        let batch = Arc::clone(batch);
        let (limits, deadline) = match batch.deletions.is_empty() {
            true => (LIMITS, BATCH),
            false => (LONG_LIMITS, LONG),
        };
        self.run(deadline, "writing a batch", move |client| {
            transaction(client, &limits, |transaction| apply::apply(transaction, &batch, method))
        })
    }

    /// Writes down that segments are complete; those whose cursor is elsewhere stay as they are.
    /// What was gone of them is there after all.
    pub(crate) fn seal(&mut self, segments: &[(i32, Cursor)]) -> Result<(), DatabaseError> {
        let numbers: Vec<i32> = segments.iter().map(|(number, _)| *number).collect();
        let hashes: Vec<Vec<u8>> =
            segments.iter().map(|(_, cursor)| cursor.chain.as_bytes().to_vec()).collect();
        self.run(SHORT, "sealing segments", move |client| {
            client.execute_typed(
                "UPDATE sync_segments s SET sealed = true, state = 'sealed', updated_at = now()
                 FROM unnest($1, $2) AS done (segment_no, chain_hash)
                 WHERE s.segment_no = done.segment_no AND s.chain_hash = done.chain_hash
                   AND NOT s.sealed",
                &[(&numbers, Type::INT4_ARRAY), (&hashes, Type::BYTEA_ARRAY)],
            )?;
            client.execute_typed(
                "DELETE FROM sync_gaps g USING sync_segments s
                 WHERE s.segment_no = ANY ($1) AND s.sealed AND g.segment_id = s.segment_id
                   AND COALESCE(g.next_line, 0) <= s.next_line",
                &[(&numbers, Type::INT4_ARRAY)],
            )?;
            Ok(())
        })
    }

    /// Writes down a state that stops a segment, for whoever looks at the database.
    pub(crate) fn note_state(
        &mut self,
        segment_no: i32,
        state: &'static str,
    ) -> Result<(), DatabaseError> {
        self.run(SHORT, "noting a state", move |client| {
            client.execute_typed(
                "UPDATE sync_segments SET state = $2 WHERE segment_no = $1 AND state <> $2",
                &[(&segment_no, Type::INT4), (&state, Type::TEXT)],
            )?;
            Ok(())
        })
    }

    /// The ends of a segment's batches, in order.
    pub(crate) fn digests(&mut self, segment_no: i32) -> Result<Vec<Digest>, DatabaseError> {
        self.run(SHORT, "reading digests", move |client| {
            let rows = client.query_typed(
                "SELECT first_line, next_line, digest FROM sync_batches
                 WHERE segment_no = $1 ORDER BY next_line",
                &[(&segment_no, Type::INT4)],
            )?;
            rows.iter().map(Digest::read).collect()
        })
    }

    /// Sessions of this store whose statistics were calculated from fewer or other rows than are
    /// here, those with few lines first; `only` of these, if given. Computed from the database
    /// alone, so that it outlives a crash of the agent.
    pub(crate) fn stale_sessions(
        &mut self,
        only: Option<Vec<String>>,
        limit: Duration,
    ) -> Result<Vec<StaleSession>, DatabaseError> {
        let store_no = self.store_no;
        self.within(limit, "looking for stale statistics", move |transaction| {
            let rows = transaction.query_typed(
                "SELECT s.session_id, l.lines
                 FROM (SELECT session_id, sum(next_line)::bigint AS lines,
                              bool_or(store_no = $1) AS is_ours
                       FROM sync_segments
                       WHERE session_id IS NOT NULL AND ($2 IS NULL OR session_id = ANY ($2))
                       GROUP BY session_id) l
                 JOIN telemetry_sessions s USING (session_id)
                 LEFT JOIN sync_session_stats t USING (session_id)
                 WHERE l.is_ours
                   AND (t.lines IS DISTINCT FROM l.lines
                        OR s.emergency_count <> (SELECT count(*) FROM emergency_events e
                                                 WHERE e.session_id = s.session_id))
                 ORDER BY l.lines",
                &[(&store_no, Type::INT4), (&only, Type::TEXT_ARRAY)],
            )?;
            rows.iter()
                .map(|row| Ok(StaleSession { session: row.try_get(0)?, lines: row.try_get(1)? }))
                .collect()
        })
    }

    /// Calculates the statistics of one session anew. It reads every record of it.
    pub(crate) fn refresh_session(
        &mut self,
        stale: StaleSession,
        limit: Duration,
    ) -> Result<(), DatabaseError> {
        self.within(limit, "calculating the statistics of a session", move |transaction| {
            // The number of lines was read before: rows that came since make it stale again.
            transaction.execute_typed(
                "SELECT update_session_stats($1)",
                &[(&stale.session, Type::TEXT)],
            )?;
            transaction.execute_typed(
                "INSERT INTO sync_session_stats AS old (session_id, lines) VALUES ($1, $2)
                 ON CONFLICT (session_id) DO UPDATE SET lines = excluded.lines
                 WHERE old.lines <> excluded.lines",
                &[(&stale.session, Type::TEXT), (&stale.lines, Type::INT8)],
            )?;
            Ok(())
        })
    }

    /// Ranks the checkpoints anew; writes only ranks that change.
    pub(crate) fn refresh_rankings(&mut self, limit: Duration) -> Result<(), DatabaseError> {
        self.within(limit, "ranking checkpoints", |transaction| {
            transaction.execute_typed("SELECT update_checkpoint_rankings()", &[])?;
            Ok(())
        })
    }

    /// Merges the records of a segment's oldest batches, so that no segment has very many.
    pub(crate) fn merge_batches(&mut self, limit: Duration) -> Result<(), DatabaseError> {
        let store_no = self.store_no;
        self.within(limit, "merging records of batches", move |transaction| {
            transaction.execute_typed("SELECT merge_batches($1)", &[(&store_no, Type::INT4)])?;
            Ok(())
        })
    }

    /// Runs a transaction whose statements may each take so long.
    pub(crate) fn within<T: Send + 'static>(
        &mut self,
        limit: Duration,
        what: &str,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, DatabaseError> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let limits = Limits { statement: limit, ..LIMITS };
        self.run(limit + MARGIN, what, move |client| transaction(client, &limits, work))
    }

    /// Runs anything else with the short limit.
    pub(crate) fn query<T: Send + 'static>(
        &mut self,
        what: &str,
        work: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        self.run(SHORT, what, move |client| Ok(work(client)?))
    }
}

pub(crate) fn find_store(client: &mut Client, store: Uuid) -> Result<Option<i32>, DatabaseError> {
    let sql = "SELECT store_no FROM sync_stores WHERE store_id = $1";
    let rows = client.query_typed(sql, &[(&store, Type::UUID)])?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
}

/// The rows of these segments and of all others of the store.
pub(crate) fn read_segments(
    client: &mut Client,
    store_no: i32,
    ids: &[Uuid],
) -> Result<Vec<SegmentRow>, DatabaseError> {
    let sql = format!(
        "{SELECT_SEGMENTS}
         WHERE store_no = $1 OR segment_id = ANY ($2) OR parent_segment_id = ANY ($2)"
    );
    let rows = client.query_typed(&sql, &[(&store_no, Type::INT4), (&ids, Type::UUID_ARRAY)])?;
    rows.iter().map(SegmentRow::read).collect()
}

/// What [`SegmentRow`] reads.
pub(crate) const SELECT_SEGMENTS: &str =
    "SELECT segment_id, segment_no, store_no, file_name, next_line, next_byte, chain_hash, state,
            sealed, parent_segment_id, parent_line
     FROM sync_segments";

impl SegmentRow {
    pub(crate) fn read(row: &Row) -> Result<Self, DatabaseError> {
        let parent: Option<Uuid> = row.try_get(9)?;
        let line: Option<i32> = row.try_get(10)?;
        Ok(Self {
            segment: SegmentId::from(row.try_get::<_, Uuid>(0)?),
            segment_no: row.try_get(1)?,
            store_no: row.try_get(2)?,
            file_name: row.try_get(3)?,
            cursor: read_cursor(row, 4)?,
            state: row.try_get(7)?,
            sealed: row.try_get(8)?,
            parent: parent.map(SegmentId::from).zip(line.map(unsigned)),
        })
    }
}

impl Digest {
    pub(crate) fn read(row: &Row) -> Result<Self, DatabaseError> {
        Ok(Self {
            first_line: unsigned(row.try_get(0)?),
            next_line: unsigned(row.try_get(1)?),
            chain: chain(row.try_get(2)?),
        })
    }
}

/// Reads next_line, next_byte and chain_hash from three columns.
pub(crate) fn read_cursor(row: &Row, first_column: usize) -> Result<Cursor, postgres::Error> {
    let next_byte: i64 = row.try_get(first_column + 1)?;
    Ok(Cursor {
        next_line: unsigned(row.try_get(first_column)?),
        next_byte: u64::try_from(next_byte).unwrap_or(u64::MAX),
        chain: chain(row.try_get(first_column + 2)?),
    })
}

/// Somebody's negative number matches no file, so the segment is not written.
fn unsigned(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Anything but 32 bytes matches no file either, except at the start, where nothing lies before.
fn chain(bytes: &[u8]) -> ChainHash {
    ChainHash::from_slice(bytes).unwrap_or_default()
}

/// The segment's file name, without folders.
pub(crate) fn file_name(segment: &Segment) -> String {
    segment.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

pub(crate) fn attempt(segment: &Segment) -> Option<i32> {
    segment.header.attempt.map(|attempt| i32::try_from(attempt).unwrap_or(i32::MAX))
}
