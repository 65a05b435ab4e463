//! Lines that the replica wants and that are gone: their file was there, and is not any more.
//!
//! A file that is gone before its end was sent is *missing*: it may come back, and whether it had
//! more lines nobody here knows. It is a *gap* once there is a reason to know: the agent saw bytes
//! of it that are not in the replica, or remembers that it had sent more lines than a database that
//! went back has. A gap lies in `sync_gaps` until its lines come after all, and in `tidelog-sync
//! status` until somebody calls `acknowledge_gap()`.

use std::fmt;
use std::path::PathBuf;

use postgres::types::Type;
use tidelog::SegmentId;
use uuid::Uuid;

use crate::error::SyncError;
use crate::follow::Follower;
use crate::memory::{Memory, Sent};
use crate::replica::{Replica, SegmentRow};
use crate::state::{Notice, SegmentState};

/// A range of lines that is gone with its file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Gap {
    /// Segment.
    pub segment_id: SegmentId,
    /// Name that its file had.
    pub file: String,
    /// The first line that is not in the replica; the header is line 0.
    pub first_line: u32,
    /// The line after the last one; null if nobody knows where the file ended.
    pub next_line: Option<u32>,
}

impl Gap {
    /// The lines after `next_line` of a segment that once was sent to its end.
    fn after(segment_id: SegmentId, next_line: u32, sent: &Sent) -> Option<Self> {
        let gap = Self {
            segment_id,
            file: sent.file_name.clone(),
            first_line: next_line.max(1),
            next_line: Some(sent.lines),
        };
        (gap.first_line < sent.lines).then_some(gap)
    }

    /// What is gone with the file of this segment; `None` if nothing of it is known to be.
    pub(crate) fn of(follower: &Follower, next_line: u32, next_byte: u64) -> Option<Self> {
        let segment = &follower.segment;
        let file_name = crate::replica::file_name(segment);
        let lines = follower.lines_sent;
        let sent = Sent { lines, file_name };
        let known = Self::after(segment.header.segment, next_line, &sent);
        let is_longer = follower.bytes_seen > next_byte && next_line.max(1) >= lines;
        let unknown_end = is_longer.then(|| Self {
            segment_id: segment.header.segment,
            file: sent.file_name,
            first_line: next_line.max(1),
            next_line: None,
        });
        known.or(unknown_end)
    }

    /// The range in words.
    pub(crate) fn words(&self) -> String {
        let first = self.first_line;
        match self.next_line {
            Some(next) => format!("lines {first} to {} are gone", next.saturating_sub(1)),
            None => format!("lines from {first} on are gone, to an unknown end"),
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (segment {})", self.file, self.words(), self.segment_id)
    }
}

/// Looks for segments without a file: those that the replica does not have whole, and those that
/// were sent whole to another database, or to this one before it went back.
pub(crate) fn tell_of_absent(
    replica: &mut Replica,
    absent: &[&SegmentRow],
    is_there: impl Fn(&SegmentId) -> bool,
    memory: &Memory,
    unreadable: &[PathBuf],
    tell: &mut dyn FnMut(&Notice),
) -> Result<(), SyncError> {
    for row in absent {
        let sent = memory.sent().get(&row.segment);
        match sent.and_then(|sent| Gap::after(row.segment, row.cursor.next_line, sent)) {
            Some(gap) => tell_of_gap(replica, &gap, tell)?,
            None => tell_of_missing(replica, row, unreadable, tell)?,
        }
    }
    for (segment, sent) in memory.sent() {
        let is_known = is_there(segment) || absent.iter().any(|row| row.segment == *segment);
        if let (false, Some(gap)) = (is_known, Gap::after(*segment, 0, sent)) {
            tell_of_gap(replica, &gap, tell)?;
        }
    }
    Ok(())
}

fn tell_of_gap(
    replica: &mut Replica,
    gap: &Gap,
    tell: &mut dyn FnMut(&Notice),
) -> Result<(), SyncError> {
    if replica.note_gap(gap)? {
        let (path, from) = (gap.file.clone().into(), SegmentState::Discovered);
        tell(&Notice::Segment { path, from, to: SegmentState::Gap, detail: gap.words() });
    }
    Ok(())
}

/// A segment whose end never came, and whose file is gone or tells nothing.
fn tell_of_missing(
    replica: &mut Replica,
    row: &SegmentRow,
    unreadable: &[PathBuf],
    tell: &mut dyn FnMut(&Notice),
) -> Result<(), SyncError> {
    let to = match unreadable.iter().any(|path| path.ends_with(&row.file_name)) {
        true => SegmentState::Unreadable,
        false => SegmentState::Missing,
    };
    // A gap is more than a missing file, and stays one.
    if row.sealed || row.state == to.as_str() || row.state == SegmentState::Gap.as_str() {
        return Ok(());
    }
    let detail = format!("{} lines were sent", row.cursor.next_line);
    let (path, from) = (row.file_name.clone().into(), SegmentState::Discovered);
    tell(&Notice::Segment { path, from, to, detail });
    Ok(replica.note_state(row.segment_no, to.as_str())?)
}

impl Replica {
    /// Writes a gap down; whether it was not known yet.
    pub(crate) fn note_gap(&mut self, gap: &Gap) -> Result<bool, SyncError> {
        let (gap, store_no) = (gap.clone(), self.store_no());
        let noted = self.query("noting a gap", move |client| {
            let segment = gap.segment_id.as_uuid();
            let noted = client.execute_typed(
                "INSERT INTO sync_gaps AS old (segment_id, first_line, next_line, store_no, file_name)
                 VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (segment_id, first_line) DO UPDATE
                 SET next_line = excluded.next_line, acknowledged_at = NULL
                 WHERE COALESCE(old.next_line, 0) < excluded.next_line",
                &[
                    (&segment, Type::UUID),
                    (&i64::from(gap.first_line), Type::INT8),
                    (&gap.next_line.map(i64::from), Type::INT8),
                    (&store_no, Type::INT4),
                    (&gap.file, Type::TEXT),
                ],
            )?;
            client.execute_typed(
                "UPDATE sync_segments SET state = 'gap' WHERE segment_id = $1 AND state <> 'gap'",
                &[(&segment, Type::UUID)],
            )?;
            Ok(noted == 1)
        })?;
        Ok(noted)
    }

    /// Gaps of the store that nobody acknowledged, in the order of their segments.
    pub(crate) fn open_gaps(&mut self) -> Result<Vec<Gap>, SyncError> {
        let store_no = self.store_no();
        let gaps = self.query("reading gaps", move |client| {
            let rows = client.query_typed(
                "SELECT segment_id, file_name, first_line, next_line FROM sync_gaps
                 WHERE store_no = $1 AND acknowledged_at IS NULL ORDER BY segment_id, first_line",
                &[(&store_no, Type::INT4)],
            )?;
            let unsigned = |line: i32| u32::try_from(line).unwrap_or_default();
            rows.iter()
                .map(|row| {
                    Ok(Gap {
                        segment_id: SegmentId::from(row.try_get::<_, Uuid>(0)?),
                        file: row.try_get(1)?,
                        first_line: unsigned(row.try_get(2)?),
                        next_line: row.try_get::<_, Option<i32>>(3)?.map(unsigned),
                    })
                })
                .collect()
        })?;
        Ok(gaps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_named_by_the_lines_that_were_sent_before() {
        let sent = Sent { lines: 9, file_name: "a.jsonl".into() };
        let gap = |next_line| Gap::after(SegmentId::random(), next_line, &sent);
        assert_eq!(gap(4).unwrap().words(), "lines 4 to 8 are gone");
        assert_eq!(gap(0).unwrap().words(), "lines 1 to 8 are gone");
        assert_eq!(gap(9), None);
    }
}
