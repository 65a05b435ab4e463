//! What does the database have of a store? Reads only.

use std::collections::BTreeMap;

use postgres::types::Type;
use postgres::{Client, Row};
use tidelog::journal::Cursor;
use tidelog::restore::SegmentPlace;
use tidelog::{SegmentId, SessionId, StoreId, Timestamp};
use uuid::Uuid;

use super::MissingFile;
use super::lines;
use crate::connect::Target;
use crate::database::DatabaseError;
use crate::error::{SyncError, listed};
use crate::replica::{self, Replica};

/// Lines that are read at once, and their bytes as long as all of a segment are equally long.
const PAGE_LINES: u64 = 5_000;
const PAGE_BYTES: u64 = 4 << 20;

/// The replica of one store.
pub(super) struct Source {
    replica: Replica,
    store: StoreId,
    store_no: i32,
}

/// A segment that can be made again.
#[derive(Debug)]
pub(super) struct KeptSegment {
    pub(super) place: SegmentPlace,
    segment_no: i32,
    /// Its session was deleted.
    pub(super) is_deleted: bool,
    /// Its writer was done with it, and every line is there.
    pub(super) is_sealed: bool,
    /// Lines to read at once.
    page_lines: u32,
}

/// A checkpoint file that a store had.
#[derive(Debug)]
pub(super) struct KeptFile {
    checkpoint_id: String,
    pub(super) file: String,
    pub(super) size_bytes: u64,
    pub(super) sha256: String,
    /// Where its bytes are; none if they are not.
    pub(super) blob_no: Option<i64>,
    pub(super) problem: Option<String>,
}

impl KeptFile {
    pub(super) fn missing(&self, reason: String) -> MissingFile {
        MissingFile { checkpoint_id: self.checkpoint_id.clone(), file: self.file.clone(), reason }
    }
}

/// A line without its newline.
#[derive(Debug, PartialEq)]
pub(super) enum Kept {
    /// As it was.
    Whole(Vec<u8>),
    /// Made of its row.
    Made(Vec<u8>),
}

/// Some lines of a segment, by number.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) lines: BTreeMap<u32, Kept>,
    /// Those before this one were asked for.
    pub(super) until: u32,
    /// Of its last record.
    pub(super) last_time: Option<Timestamp>,
}

impl Source {
    /// Finds a store by its id, or the only one.
    pub(super) fn open(target: &Target, named: Option<StoreId>) -> Result<Self, SyncError> {
        let mut replica = Replica::open(target, None)?;
        let stores = replica.query("listing stores", |client| {
            let sql =
                "SELECT store_id, store_no FROM sync_stores ORDER BY last_seen DESC, store_no";
            let rows = client.query_typed(sql, &[])?;
            rows.iter()
                .map(|row| Ok((StoreId::from(row.try_get::<_, Uuid>(0)?), row.try_get(1)?)))
                .collect::<Result<Vec<(StoreId, i32)>, postgres::Error>>()
        })?;
        let (store, store_no) = choose(&stores, named)?;
        Ok(Self { replica, store, store_no })
    }

    pub(super) fn store(&self) -> StoreId {
        self.store
    }

    /// Segments with at least one entry.
    pub(super) fn segments(&mut self) -> Result<Vec<KeptSegment>, DatabaseError> {
        let store_no = self.store_no;
        self.replica.query("listing segments", move |client| {
            let rows = client.query_typed(
                "SELECT s.segment_id, s.segment_no, s.session_id, s.file_name,
                        s.next_line, s.next_byte, s.chain_hash,
                        EXISTS (SELECT FROM tombstones t
                                WHERE t.kind = 'session' AND t.key = s.session_id),
                        s.sealed
                 FROM sync_segments s
                 WHERE s.store_no = $1 AND s.next_line > 0
                 ORDER BY s.segment_no",
                &[(&store_no, Type::INT4)],
            )?;
            rows.iter().map(KeptSegment::read).collect()
        })
    }

    /// The lines of a segment from this one on.
    pub(super) fn lines(&mut self, segment: &KeptSegment, from: u32) -> Result<Page, SyncError> {
        let until = from.saturating_add(segment.page_lines).min(segment.place.end.next_line);
        let segment_no = segment.segment_no;
        let what = "reading lines";
        let rows = self.replica.query(what, move |client| {
            let between = Between { segment_no, from: signed(from), until: signed(until) };
            Ok([lines::RECORDS, lines::POINTS, lines::WHOLE].map(|sql| between.query(client, sql)))
        })?;
        let [records, points, whole] = rows;
        let mut page = Page { lines: BTreeMap::new(), until, last_time: None };
        for row in &records.map_err(DatabaseError::Server)? {
            let (number, entry) = lines::record(row)?;
            page.last_time = Some(entry.timestamp);
            page.lines.insert(number, Kept::Made(lines::bytes(&entry)?));
        }
        for row in &points.map_err(DatabaseError::Server)? {
            if let Some((number, entry)) = lines::point(row)? {
                page.lines.insert(number, Kept::Made(lines::bytes(&entry)?));
            }
        }
        // Last, as they count before what rows tell.
        for row in &whole.map_err(DatabaseError::Server)? {
            let (number, line) = lines::whole(row)?;
            page.lines.insert(number, Kept::Whole(line));
        }
        Ok(page)
    }

    /// Files of the checkpoints that are present, newest first.
    pub(super) fn files(&mut self) -> Result<Vec<KeptFile>, DatabaseError> {
        let store_no = self.store_no;
        self.replica.query("listing checkpoint files", move |client| {
            let rows = client.query_typed(
                "SELECT c.checkpoint_id, COALESCE(c.file, ''), COALESCE(c.size_bytes, 0),
                        COALESCE(c.sha256, ''),
                        CASE WHEN b.complete_at IS NOT NULL THEN b.blob_no END, b.problem
                 FROM checkpoints c
                 LEFT JOIN checkpoint_blobs b ON b.store_no = c.store_no AND b.sha256 = c.sha256
                 WHERE c.store_no = $1 AND c.state = 'present'
                 ORDER BY c.created_at DESC, c.checkpoint_id",
                &[(&store_no, Type::INT4)],
            )?;
            rows.iter().map(KeptFile::read).collect()
        })
    }

    /// A piece of a file; `None` behind the last one.
    pub(super) fn chunk(
        &mut self,
        blob_no: i64,
        chunk_no: i32,
    ) -> Result<Option<Vec<u8>>, DatabaseError> {
        self.replica.query("reading a piece of a checkpoint file", move |client| {
            let rows = client.query_typed(
                "SELECT bytes FROM checkpoint_chunks WHERE blob_no = $1 AND chunk_no = $2",
                &[(&blob_no, Type::INT8), (&chunk_no, Type::INT4)],
            )?;
            rows.first().map(|row| row.try_get(0)).transpose()
        })
    }
}

fn choose(stores: &[(StoreId, i32)], named: Option<StoreId>) -> Result<(StoreId, i32), SyncError> {
    let found = match (named, stores) {
        (Some(named), _) => stores.iter().find(|(store, _)| *store == named),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    let known = stores.iter().map(|(store, _)| store);
    found.copied().ok_or_else(|| match named {
        Some(store) => SyncError::store_unknown(store, known),
        None => SyncError::StoreNotNamed { known: listed(known) },
    })
}

/// Lines of a segment.
struct Between {
    segment_no: i32,
    from: i32,
    until: i32,
}

impl Between {
    fn query(&self, client: &mut Client, sql: &str) -> Result<Vec<Row>, postgres::Error> {
        let Self { segment_no, from, until } = self;
        client
            .query_typed(sql, &[(segment_no, Type::INT4), (from, Type::INT4), (until, Type::INT4)])
    }
}

fn signed(line: u32) -> i32 {
    i32::try_from(line).unwrap_or(i32::MAX)
}

impl KeptSegment {
    fn read(row: &Row) -> Result<Self, postgres::Error> {
        let session: Option<String> = row.try_get(2)?;
        let end: Cursor = replica::read_cursor(row, 4)?;
        let line_bytes = (end.next_byte / u64::from(end.next_line.max(1))).max(1);
        let page_lines = (PAGE_BYTES / line_bytes).clamp(1, PAGE_LINES);
        let place = SegmentPlace {
            segment: SegmentId::from(row.try_get::<_, Uuid>(0)?),
            session: session.and_then(|id| SessionId::new(id).ok()),
            file_name: row.try_get(3)?,
            end,
        };
        Ok(Self {
            place,
            segment_no: row.try_get(1)?,
            is_deleted: row.try_get(7)?,
            is_sealed: row.try_get(8)?,
            page_lines: u32::try_from(page_lines).unwrap_or(1),
        })
    }
}

impl KeptFile {
    fn read(row: &Row) -> Result<Self, postgres::Error> {
        let size_bytes: i64 = row.try_get(2)?;
        Ok(Self {
            checkpoint_id: row.try_get(0)?,
            file: row.try_get(1)?,
            size_bytes: u64::try_from(size_bytes).unwrap_or_default(),
            sha256: row.try_get(3)?,
            blob_no: row.try_get(4)?,
            problem: row.try_get(5)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_chosen_only_where_there_is_no_doubt() {
        let stores = [(StoreId::random(), 1), (StoreId::random(), 2)];
        assert_eq!(choose(&stores, Some(stores[1].0)).unwrap(), stores[1]);
        assert_eq!(choose(&stores[..1], None).unwrap(), stores[0]);
        let doubt = choose(&stores, None).unwrap_err().to_string();
        assert!(doubt.contains(&stores[0].0.to_string()), "{doubt}");
        assert!(choose(&stores, Some(StoreId::random())).is_err());
        assert!(choose(&[], None).unwrap_err().to_string().contains("no store"));
    }
}
