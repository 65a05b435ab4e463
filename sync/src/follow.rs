//! One segment on its way: what its file holds, compared with what the replica has of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use tidelog::journal::{BatchLimits, Cursor, Segment, SegmentReader};

use crate::error::SyncError;
use crate::place::Place;
use crate::quarantine::Refusal;
use crate::replica::{self, Digest, SegmentRow};
use crate::rows::{self, BatchRows};
use crate::state::SegmentState;

/// Size of a batch. Memory holds two: one being read, one being written.
pub(crate) const LIMITS: BatchLimits = BatchLimits { lines_max: 5_000, bytes_max: 4 << 20 };

/// A segment of the store.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) segment: Segment,
    pub(crate) state: SegmentState,
    /// What the replica has; none before the first connection.
    pub(crate) known: Option<Known>,
    /// Another segment lies at the path now, and this one nowhere.
    pub(crate) is_displaced: bool,
    /// What is known of the file itself, whatever becomes of the connection; none until it was
    /// compared with the cursor.
    compared: Option<Compared>,
    /// When a file that could not be read is tried again.
    pub(crate) retry_at: Option<Instant>,
    /// Tails that parted from it, as this connection found them.
    pub(crate) tails: Vec<SegmentRow>,
    /// Most lines of it that were in a replica.
    pub(crate) lines_sent: u32,
    /// The file's length when it was longest.
    pub(crate) bytes_seen: u64,
    /// Largest next batch: halved when the server refuses one, doubled with each that passes.
    lines_max: usize,
}

/// A segment's place in the replica of the current connection.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) place: Place,
    /// Everything before it is in the replica.
    pub(crate) cursor: Cursor,
    /// The replica knows that nothing will follow.
    pub(crate) sealed: bool,
    /// Whether it is known that the file is what was sent, if it has the same length.
    pub(crate) is_proven: bool,
    /// Length of the file, and lines that were sent, when it was last found not to be what was sent.
    pub(crate) parted_at: Option<(u64, u32)>,
    /// Another agent was seen to send this segment.
    pub(crate) is_shared: bool,
    /// This file is not what was sent: on this connection it is not read again.
    pub(crate) stopped: Option<FileId>,
}

impl Known {
    /// Whether there is nothing to do any more as long as the file keeps its length.
    pub(crate) fn is_complete(&self) -> bool {
        self.sealed && self.is_proven
    }
}

/// A file that was found to hold what was sent.
#[derive(Debug, Clone, Copy)]
struct Compared {
    file: FileId,
    /// A place in it before the last line that was sent. Reading on from here shows whether the
    /// last lines still are those, also when another file was written over this one.
    from: Cursor,
}

/// Tells a file from another one that took its name: device and inode.
#[cfg(unix)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId(u64, u64);

/// Tells a file from another one that took its name: when it was created.
#[cfg(not(unix))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId(Option<std::time::SystemTime>);

impl FileId {
    /// The file at this path now.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        #[cfg(unix)]
        let id = {
            use std::os::unix::fs::MetadataExt;
            Self(metadata.dev(), metadata.ino())
        };
        #[cfg(not(unix))]
        let id = Self(metadata.created().ok());
        Ok(id)
    }
}

/// What a look at the file tells about the next step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Every byte is in the replica. `is_active`: a writer may add more.
    CaughtUp { is_active: bool },
    /// There are bytes to send, up to this length of the file as seen now.
    Behind { length: u64 },
    /// The file is shorter than the cursor says.
    Short { length: u64 },
    /// There is no file.
    Gone,
}

impl Follower {
    pub(crate) fn new(segment: Segment) -> Self {
        Self {
            segment,
            state: SegmentState::Discovered,
            known: None,
            is_displaced: false,
            compared: None,
            retry_at: None,
            tails: Vec::new(),
            lines_sent: 0,
            bytes_seen: 0,
            lines_max: LIMITS.lines_max,
        }
    }

    /// Takes over what a new connection says; the line to which the replica went back, if it did.
    pub(crate) fn connect(&mut self, row: &SegmentRow) -> Option<(u32, u32)> {
        self.retry_at = None;
        self.tails.clear();
        let known = self.known_as(row);
        if row.sealed && self.state == SegmentState::Discovered {
            self.state = SegmentState::Sealed;
        }
        let before = self.known.replace(known).map_or(0, |known| known.cursor.next_line);
        let now = row.cursor.next_line;
        self.lines_sent = self.lines_sent.max(before).max(now);
        (now < before).then_some((before, now))
    }

    /// The file as the segment of this row, which may be a tail of it.
    pub(crate) fn known_as(&self, row: &SegmentRow) -> Known {
        let place = Place {
            store_no: row.store_no,
            segment_no: row.segment_no,
            segment: row.segment,
            session: self.segment.header.session.clone(),
            attempt: replica::attempt(&self.segment),
            first_line: row.parent.map_or(0, |(_, line)| line),
        };
        let (cursor, sealed) = (row.cursor, row.sealed);
        Known {
            place,
            cursor,
            sealed,
            is_proven: true,
            stopped: None,
            parted_at: None,
            is_shared: false,
        }
    }

    /// Compares the file with the cursor by its length alone.
    pub(crate) fn look(&self, root: &Path, known: &Known) -> Result<Look, SyncError> {
        if self.is_displaced {
            return Ok(Look::Gone);
        }
        // The marker first: what was appended before it vanished is then in the length.
        let is_active = !known.sealed && is_active(root, &self.segment);
        let length = match fs::metadata(&self.segment.path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Look::Gone),
            Err(source) => return Err(self.io("inspect", source)),
        };
        Ok(match length.cmp(&next_entry_byte(&self.segment.path, &known.cursor)?) {
            std::cmp::Ordering::Equal => Look::CaughtUp { is_active },
            std::cmp::Ordering::Greater => Look::Behind { length },
            std::cmp::Ordering::Less => Look::Short { length },
        })
    }

    /// Whether nothing is known of the file yet, so that comparing it reads all of it.
    pub(crate) fn is_unread(&self) -> bool {
        self.compared.is_none()
    }

    /// As [`compare`](Self::compare), from the first line on, whatever was compared before.
    pub(crate) fn compare_all(&mut self, cursor: &Cursor) -> Result<Option<bool>, SyncError> {
        self.compared = None;
        self.compare(cursor)
    }

    /// Whether the file before `cursor` is what was sent; `None` if it has fewer complete lines.
    /// Of a file that was compared before only the last lines are read, and the new ones.
    pub(crate) fn compare(&mut self, cursor: &Cursor) -> Result<Option<bool>, SyncError> {
        let path = &self.segment.path;
        let file = FileId::of(path).map_err(|source| self.io("inspect", source))?;
        let from = match self.compared.take() {
            Some(known) if known.file == file && known.from.next_line <= cursor.next_line => {
                known.from
            }
            _ => Cursor::START,
        };
        let last_line = cursor.next_line.saturating_sub(1).max(from.next_line);
        let Some(from) = SegmentReader::chain_from(path, from, last_line)? else {
            return Ok(None);
        };
        let found = SegmentReader::chain_from(path, from, cursor.next_line)?;
        let is_same = found.map(|found| found == *cursor);
        self.compared = (is_same == Some(true)).then_some(Compared { file, from });
        Ok(is_same)
    }

    /// The file in which the place to read on from was found.
    pub(crate) fn file(&self) -> Option<FileId> {
        self.compared.map(|compared| compared.file)
    }

    /// How much the next batch may hold.
    pub(crate) fn limits(&self) -> BatchLimits {
        BatchLimits { lines_max: self.lines_max, ..LIMITS }
    }

    /// The server refused a batch of `lines` lines: the next one holds half of them.
    pub(crate) fn halve(&mut self, lines: usize) {
        self.lines_max = (lines / 2).max(1);
    }

    /// A batch of `lines` lines from `from` on passed.
    pub(crate) fn passed(&mut self, from: Cursor, lines: usize) {
        if let Some(compared) = &mut self.compared {
            compared.from = from;
        }
        self.lines_max = self.lines_max.max(lines.saturating_mul(2)).min(LIMITS.lines_max);
    }

    fn io(&self, action: &'static str, source: io::Error) -> SyncError {
        tidelog::Error::Io { action, path: self.segment.path.clone(), source }.into()
    }
}

/// Whether a writer holds the segment, or died and left it to the next opening of the store.
fn is_active(root: &Path, segment: &Segment) -> bool {
    root.join("active").join(format!("{}.json", segment.header.segment)).exists()
}

/// What to read of a segment, for a thread of its own.
pub(crate) struct Reading {
    pub(crate) path: PathBuf,
    /// The file that was compared; another one of the same name is not read.
    pub(crate) file: Option<FileId>,
    pub(crate) place: Place,
    pub(crate) from: Cursor,
    /// Batches begin before this byte.
    pub(crate) until_byte: u64,
    pub(crate) limits: BatchLimits,
    pub(crate) batches_max: usize,
}

impl Reading {
    /// Reads batches and turns them into rows until the end is reached or nobody takes them. Each
    /// batch may hold twice as many lines as the one before, up to the usual limit.
    pub(crate) fn send_to(mut self, batches: &SyncSender<Result<Arc<BatchRows>, SyncError>>) {
        let mut reader = match SegmentReader::open(&self.path, self.from) {
            Ok(reader) => reader,
            // Nobody listens any more when the agent stopped meanwhile.
            Err(error) => return batches.send(Err(error.into())).unwrap_or_default(),
        };
        if FileId::of(&self.path).ok() != self.file {
            return;
        }
        for _ in 0..self.batches_max {
            let Some(next) = self.next(&mut reader).transpose() else { return };
            let has_failed = next.is_err();
            if batches.send(next).is_err() || has_failed {
                return;
            }
            let doubled = self.limits.lines_max.saturating_mul(2);
            self.limits.lines_max = doubled.min(LIMITS.lines_max);
        }
    }

    fn next(&mut self, reader: &mut SegmentReader) -> Result<Option<Arc<BatchRows>>, SyncError> {
        if self.from.next_byte >= self.until_byte {
            return Ok(None);
        }
        let Some(batch) = reader.next_batch(self.limits)? else { return Ok(None) };
        let rows = rows::from_batch(&self.place, self.from, &batch)
            .map_err(|_| SyncError::TooManyLines { path: self.path.clone() })?;
        self.from = rows.to;
        Ok(Some(Arc::new(rows)))
    }
}

/// Where the next entry begins or will begin. The header is sent with the first entry, never alone.
pub(crate) fn next_entry_byte(path: &Path, cursor: &Cursor) -> Result<u64, SyncError> {
    if cursor.next_line > 0 {
        return Ok(cursor.next_byte);
    }
    Ok(SegmentReader::chain_at(path, 1)?.map_or(0, |after_header| after_header.next_byte))
}

/// Reads one line again, to put it into quarantine. Its segment's part of a session begins even so.
pub(crate) fn quarantined_line(
    path: &Path,
    place: &Place,
    from: Cursor,
    refusal: &Refusal,
) -> Result<Option<Arc<BatchRows>>, SyncError> {
    let one = BatchLimits { lines_max: 1, bytes_max: 1 };
    let Some(batch) = SegmentReader::open(path, from)?.next_batch(one)? else { return Ok(None) };
    rows::refused_by_server(place, from, &batch, refusal)
        .map(|rows| Some(Arc::new(rows)))
        .map_err(|_| SyncError::TooManyLines { path: path.to_owned() })
}

/// The first batch that the file does not agree with; `None` if the batches are not there to tell.
pub(crate) fn first_changed(path: &Path, digests: &[Digest]) -> Result<Option<Digest>, SyncError> {
    let mut at = Cursor::START;
    for digest in digests {
        match SegmentReader::chain_from(path, at, digest.next_line)? {
            Some(found) if found.chain == digest.chain => at = found,
            _ => return Ok(Some(*digest)),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    use tidelog::{Outcome, SessionId, Store, Telemetry};

    /// A store with a finished session, and its one segment.
    fn segment(records: i64) -> (tempfile::TempDir, Segment) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let session = store.start_session(SessionId::new("s").unwrap()).unwrap();
        for step in 0..records {
            session.record_telemetry(step, &Telemetry::default()).unwrap();
        }
        session.end(Outcome::Completed).unwrap();
        let mut segments = tidelog::journal::discover(folder.path()).unwrap().segments;
        (folder, segments.remove(0))
    }

    fn row(segment: &Segment, cursor: Cursor) -> SegmentRow {
        SegmentRow {
            segment: segment.header.segment,
            segment_no: 1,
            store_no: 1,
            file_name: String::new(),
            cursor,
            state: "streaming".into(),
            sealed: false,
            parent: None,
        }
    }

    #[test]
    fn the_length_of_the_file_tells_what_is_left() {
        let (folder, segment) = segment(1);
        let length = fs::metadata(&segment.path).unwrap().len();
        let mut follower = Follower::new(segment.clone());
        for (next_byte, expected) in [
            (0, Look::Behind { length }),
            (length, Look::CaughtUp { is_active: false }),
            (length + 1, Look::Short { length }),
        ] {
            let next_line = u32::from(next_byte > 0);
            follower.connect(&row(&segment, Cursor { next_line, next_byte, ..Cursor::START }));
            let known = follower.known.clone().unwrap();
            assert_eq!(follower.look(folder.path(), &known).unwrap(), expected);
        }
        fs::remove_file(&segment.path).unwrap();
        let known = follower.known.clone().unwrap();
        assert_eq!(follower.look(folder.path(), &known).unwrap(), Look::Gone);
    }

    #[test]
    fn a_compared_file_is_read_on_from_its_last_line_and_another_one_from_its_first() {
        let (_folder, segment) = segment(8);
        let path = segment.path.clone();
        let at = |line| SegmentReader::chain_at(&path, line).unwrap().unwrap();
        let (six, nine) = (at(6), at(9));
        let mut follower = Follower::new(segment);
        assert_eq!(follower.compare(&six).unwrap(), Some(true));
        let changed = fs::read_to_string(&path).unwrap().replace("\"step\":1", "\"step\":7");
        fs::write(&path, &changed).unwrap();
        assert_eq!(follower.compare(&nine).unwrap(), Some(true));
        let other = path.with_extension("new");
        fs::write(&other, &changed).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(follower.compare(&nine).unwrap(), Some(false));
    }

    #[test]
    fn a_file_whose_last_sent_line_was_overwritten_is_another_one() {
        let (_folder, segment) = segment(8);
        let path = segment.path.clone();
        let six = SegmentReader::chain_at(&path, 6).unwrap().unwrap();
        let mut follower = Follower::new(segment);
        assert_eq!(follower.compare(&six).unwrap(), Some(true));
        let changed = fs::read_to_string(&path).unwrap().replace("\"step\":3", "\"step\":7");
        fs::write(&path, changed).unwrap();
        assert_eq!(follower.compare(&six).unwrap(), Some(false));
    }

    #[test]
    fn a_cursor_that_went_back_is_told() {
        let (_folder, segment) = segment(1);
        let mut follower = Follower::new(segment.clone());
        let at = |next_line| row(&segment, Cursor { next_line, ..Cursor::START });
        assert_eq!(follower.connect(&at(9)), None);
        assert_eq!(follower.connect(&at(4)), Some((9, 4)));
    }

    #[test]
    fn a_refused_batch_is_halved_down_to_a_line_and_grows_again() {
        let (_folder, segment) = segment(0);
        let mut follower = Follower::new(segment);
        follower.halve(5000);
        assert_eq!(follower.limits().lines_max, 2500);
        follower.halve(1);
        assert_eq!(follower.limits().lines_max, 1);
        (0..20).for_each(|power| follower.passed(Cursor::START, 1 << power));
        assert_eq!(follower.limits(), LIMITS);
    }

    #[test]
    fn the_first_changed_batch_is_found() {
        let (_folder, segment) = segment(8);
        let end = |next_line| SegmentReader::chain_at(&segment.path, next_line).unwrap().unwrap();
        let digest =
            |first_line, next_line| Digest { first_line, next_line, chain: end(next_line).chain };
        let digests = [digest(0, 3), digest(3, 6), digest(6, 9)];
        assert_eq!(first_changed(&segment.path, &digests).unwrap(), None);
        let text = fs::read_to_string(&segment.path).unwrap();
        fs::write(&segment.path, text.replace("\"step\":2", "\"step\":7")).unwrap();
        assert_eq!(first_changed(&segment.path, &digests).unwrap(), Some(digests[1]));
    }
}
