//! One segment: what its lines mean, compared with its rows, range by range.

use std::borrow::Cow;
use std::path::Path;
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use tidelog::StoreId;
use tidelog::journal::{BatchLimits, Cursor, Segment, SegmentReader};

use super::fold::Fold;
use super::narrow::{self, row_number};
use super::report::{Difference, DifferenceKind, Findings, Verdict};
use super::snapshot::Snapshot;
use crate::database::DatabaseError;
use crate::error::SyncError;
use crate::field::Field;
use crate::follow;
use crate::place::Place;
use crate::quarantine::{self, Refusal};
use crate::replica::{SegmentRow, attempt, file_name};
use crate::rows::{self, BatchRows};
use crate::status;

/// Lines that one digest covers. Memory holds three such ranges.
const RANGE: BatchLimits = BatchLimits { lines_max: 4096, bytes_max: 4 << 20 };

/// What was compared of a segment so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Compared {
    /// Everything before was.
    pub(super) at: Cursor,
    pub(super) rows: u64,
    /// Line and row are not the same somewhere.
    is_different: bool,
    first_line: Option<u32>,
}

impl Compared {
    fn differs(&mut self, line: Option<i32>) {
        self.is_different = true;
        let line = line.and_then(|line| u32::try_from(line).ok());
        self.first_line = self.first_line.into_iter().chain(line).min();
    }

    /// Lines, the header left out.
    pub(super) fn lines(&self) -> u64 {
        u64::from(self.at.next_line.saturating_sub(1))
    }
}

/// What one look at a segment works with.
pub(super) struct Look<'a> {
    pub(super) snapshot: &'a mut Snapshot,
    pub(super) findings: &'a mut Findings,
    pub(super) fold: &'a mut Fold,
    pub(super) segment: &'a Segment,
    pub(super) row: &'a SegmentRow,
    pub(super) compared: &'a mut Compared,
}

impl Look<'_> {
    /// Compares the lines between those that were compared before and the replica's cursor. `tell`
    /// hears of every range.
    pub(super) fn walk(&mut self, tell: &mut dyn FnMut(&Compared)) -> Result<(), SyncError> {
        if self.compared.at.next_line > self.row.cursor.next_line {
            return Err(SyncError::WentBack { path: self.segment.path.clone() });
        }
        let place = place(self.segment, self.row);
        let (from, until) = (self.compared.at, self.row.cursor.next_line);
        let path = self.segment.path.clone();
        let (sender, ranges) = mpsc::sync_channel(1);
        thread::scope(|scope| {
            let reading = move || read(&path, &place, from, until, &sender);
            let reader = thread::Builder::new()
                .name("tidelog-verify".to_owned())
                .spawn_scoped(scope, reading)
                .map_err(DatabaseError::Thread)?;
            let outcome = ranges.into_iter().try_for_each(|range| {
                self.compare(range?)?;
                tell(self.compared);
                Ok(())
            });
            match reader.join() {
                Ok(()) => outcome,
                Err(_) => Err(SyncError::Reader { path: self.segment.path.clone() }),
            }
        })
    }

    /// Compares the rows of a range of lines, by one digest a table; if one differs, line by line.
    fn compare(&mut self, range: BatchRows) -> Result<(), SyncError> {
        let from = if range.from.next_line <= 1 { i32::MIN } else { row_number(&range.from) };
        let lines = (from, row_number(&range.to));
        let expected = self.expected(&range, lines)?;
        if self.is_same(&expected, lines)? {
            self.count(&range, &expected);
            return Ok(());
        }
        // Only the replica knows which lines the server refused.
        let range = self.read_again(&range, lines)?;
        let expected = self.expected(&range, lines)?;
        for rows in expected.immutable() {
            let (file, segment_no) = (file_name(self.segment), self.row.segment_no);
            let found =
                narrow::find(self.snapshot, self.findings, &file, rows, (segment_no, lines))?;
            if found.is_some() {
                self.compared.differs(found);
            }
        }
        self.count(&range, &expected);
        Ok(())
    }

    fn count(&mut self, range: &BatchRows, expected: &BatchRows) {
        self.fold.add(range);
        self.compared.rows +=
            expected.immutable().iter().map(|rows| rows.len() as u64).sum::<u64>();
        self.compared.at = range.to;
    }

    /// What the replica should hold of these lines: nothing of deleted sessions, of measurements below
    /// the store's floor, and of lines that were dropped from quarantine.
    fn expected<'r>(
        &mut self,
        range: &'r BatchRows,
        lines: (i32, i32),
    ) -> Result<Cow<'r, BatchRows>, SyncError> {
        let mut expected = Cow::Borrowed(range);
        let mut deleted = self.snapshot.deleted(&range.sessions)?;
        deleted.extend(range.deletions.keys().cloned());
        if !deleted.is_empty() {
            expected = Cow::Owned(expected.into_owned().without(&deleted));
        }
        let floor = self.snapshot.floor(self.row.store_no)?;
        if let Some(floor) = floor.filter(|floor| range.has_measurements_before(*floor)) {
            expected.to_mut().leave_out_before(floor);
        }
        if range.quarantine.len() > 0 {
            let dropped = self.snapshot.dropped(self.row.segment_no, lines)?;
            if !dropped.is_empty() {
                let expected = expected.to_mut();
                expected.quarantine.leave_out_lines(&dropped);
                expected.kept.leave_out_lines(&dropped);
            }
        }
        Ok(expected)
    }

    fn is_same(&mut self, range: &BatchRows, lines: (i32, i32)) -> Result<bool, SyncError> {
        let tables = range.immutable();
        let names: Vec<_> = tables.iter().map(|rows| rows.table).collect();
        let found = self.snapshot.digests(&names, self.row.segment_no, lines)?;
        let canonical = self.snapshot.canonical;
        Ok(std::iter::zip(tables, found)
            .all(|(rows, found)| canonical.digest_of_all(rows) == found))
    }

    /// The same range, with the lines in quarantine that the server refused. A line that the file
    /// alone puts there is none of them, whatever the replica says.
    fn read_again(&mut self, range: &BatchRows, lines: (i32, i32)) -> Result<BatchRows, SyncError> {
        let mut refused = self.snapshot.refused(self.row.segment_no, lines)?;
        let only_shown =
            quarantine::row(&range.place, 0, Field::Null, b"", Refusal::changed_text());
        for row in range.quarantine.iter() {
            if let (Some(Field::Int4(line)), reason) = (row.get(1), row.get(4))
                && reason != only_shown.get(4)
            {
                refused.remove(line);
            }
        }
        let path = &self.segment.path;
        let limits = BatchLimits { lines_max: range.lines, bytes_max: usize::MAX };
        let changed = || SyncError::WentBack { path: path.clone() };
        // the header, too, is kept
        let is_first = range.from.next_line <= 1;
        let from = if is_first { Cursor::START } else { range.from };
        let batch = SegmentReader::open(path, from)?.next_batch(limits)?;
        let batch = batch.ok_or_else(changed)?;
        rows::from_batch_but(&range.place, range.from, &batch, &refused)
            .map_err(|_| SyncError::TooManyLines { path: path.clone() })
    }

    /// What file and cursor are to each other, after [`walk`](Self::walk).
    pub(super) fn judge(&mut self, store: StoreId, own: Option<i32>) -> Result<Verdict, SyncError> {
        self.compare_header(store, own)?;
        let beyond = self.row.cursor.next_line.max(self.compared.at.next_line);
        self.find_beyond(i32::try_from(beyond).unwrap_or(i32::MAX))?;
        let (at, cursor) = (self.compared.at, self.row.cursor);
        let missing = cursor.next_line.saturating_sub(at.next_line);
        let fork = if missing == 0 { self.compare_cursor(at, cursor)? } else { None };
        if let Some((first_line, last_line)) = fork {
            return Ok(Verdict::Forked { first_line, last_line });
        }
        if self.compared.is_different {
            return Ok(Verdict::Different { line: self.compared.first_line });
        }
        if missing > 0 {
            return Ok(Verdict::Ahead { lines_ahead: u64::from(missing) });
        }
        let sent = follow::next_entry_byte(&self.segment.path, &cursor)?;
        match status::lines_in(&self.segment.path, sent, u64::MAX)? {
            0 => Ok(Verdict::Equal),
            lines_behind => Ok(Verdict::Behind { lines_behind }),
        }
    }

    /// Where the bytes differ from those that were sent. A cursor or a digest that somebody changed is
    /// told as such.
    fn compare_cursor(
        &mut self,
        at: Cursor,
        cursor: Cursor,
    ) -> Result<Option<(u32, u32)>, SyncError> {
        let batches = self.snapshot.batches(self.row.segment_no)?;
        if let Some(changed) = follow::first_changed(&self.segment.path, &batches)? {
            let found = SegmentReader::chain_at(&self.segment.path, changed.next_line)?;
            let expected = found.map(|found| found.chain.to_string());
            let key = Some(format!("the lines before {}", changed.next_line));
            let table = ("sync_batches", key);
            self.told(table, "digest", Some(changed.chain.to_string()), expected);
        }
        if cursor.next_line > 0 && at.next_byte != cursor.next_byte {
            let (replica, file) = (cursor.next_byte.to_string(), at.next_byte.to_string());
            self.told(("sync_segments", None), "next_byte", Some(replica), Some(file));
        }
        if at.chain == cursor.chain {
            return Ok(None);
        }
        let (replica, file) = (cursor.chain.to_string(), at.chain.to_string());
        self.told(("sync_segments", None), "chain_hash", Some(replica), Some(file));
        let changed = follow::first_changed(&self.segment.path, &batches)?;
        let (first, next) = changed.map_or((0, cursor.next_line), |d| (d.first_line, d.next_line));
        Ok(Some((first, next.saturating_sub(1))))
    }

    fn compare_header(&mut self, store: StoreId, own: Option<i32>) -> Result<(), SyncError> {
        let found = self.snapshot.header(self.row.segment_no)?;
        let session = self.segment.header.session.as_ref().map(ToString::to_string);
        if found.session != session {
            self.differs("session_id", found.session, session);
        }
        let attempt = attempt(self.segment).map(|attempt| attempt.to_string());
        let found = found.attempt.map(|attempt| attempt.to_string());
        if found != attempt {
            self.differs("attempt", found, attempt);
        }
        if let Some(own) = own
            && self.segment.header.store == store
            && self.row.store_no != own
        {
            self.differs("store_no", Some(self.row.store_no.to_string()), Some(own.to_string()));
        }
        Ok(())
    }

    /// A difference of the segment as a whole.
    fn differs(&mut self, column: &str, replica: Option<String>, expected: Option<String>) {
        self.compared.differs(None);
        self.told(("sync_segments", None), column, replica, expected);
    }

    fn told(
        &mut self,
        (table, key): (&str, Option<String>),
        column: &str,
        replica: Option<String>,
        expected: Option<String>,
    ) {
        self.findings.add(Difference {
            table: table.to_owned(),
            file: Some(file_name(self.segment)),
            key,
            column: Some(column.to_owned()),
            replica,
            expected,
            ..Difference::default()
        });
    }

    /// Rows of lines that were not sent yet, or that the file never had.
    fn find_beyond(&mut self, line: i32) -> Result<(), SyncError> {
        for (table, line_no) in self.snapshot.rows_from(self.row.segment_no, line)? {
            self.compared.differs(Some(line_no));
            self.findings.add(Difference {
                table,
                file: Some(file_name(self.segment)),
                line: u32::try_from(line_no).ok(),
                kind: DifferenceKind::Extra,
                ..Difference::default()
            });
        }
        Ok(())
    }
}

pub(super) fn place(segment: &Segment, row: &SegmentRow) -> Place {
    Place {
        store_no: row.store_no,
        segment_no: row.segment_no,
        segment: segment.header.segment,
        session: segment.header.session.clone(),
        attempt: attempt(segment),
        first_line: 0,
    }
}

/// What lines up to the cursor mean, range by range, until the file or its reader ends.
fn read(
    path: &Path,
    place: &Place,
    from: Cursor,
    until: u32,
    ranges: &SyncSender<Result<BatchRows, SyncError>>,
) {
    if from.next_line >= until {
        return;
    }
    let mut reader = match SegmentReader::open(path, from) {
        Ok(reader) => reader,
        // Nobody listens any more when the comparison failed meanwhile.
        Err(error) => return ranges.send(Err(error.into())).unwrap_or_default(),
    };
    while let Some(range) = next(path, place, &mut reader, until).transpose() {
        let has_failed = range.is_err();
        if ranges.send(range).is_err() || has_failed {
            return;
        }
    }
}

fn next(
    path: &Path,
    place: &Place,
    reader: &mut SegmentReader,
    until: u32,
) -> Result<Option<BatchRows>, SyncError> {
    let from = *reader.cursor();
    let left = until.saturating_sub(from.next_line);
    if left == 0 {
        return Ok(None);
    }
    let lines_max = RANGE.lines_max.min(usize::try_from(left).unwrap_or(usize::MAX));
    let Some(batch) = reader.next_batch(BatchLimits { lines_max, ..RANGE })? else {
        return Ok(None);
    };
    let rows = rows::from_batch(place, from, &batch)
        .map_err(|_| SyncError::TooManyLines { path: path.to_owned() })?;
    Ok(Some(rows))
}

/// A segment that the replica does not know at all.
pub(super) fn unknown(segment: &Segment) -> Result<Verdict, SyncError> {
    let sent = follow::next_entry_byte(&segment.path, &Cursor::START)?;
    match status::lines_in(&segment.path, sent, u64::MAX)? {
        0 => Ok(Verdict::Equal),
        lines_behind => Ok(Verdict::Behind { lines_behind }),
    }
}
