//! How far is the replica behind, while an agent runs? Counted from the ends of the files, so that
//! a dead connection shows a growing lag.

use std::collections::BTreeMap;
use std::path::Path;

use tidelog::journal::Cursor;
use tidelog::{SegmentId, Timestamp};

use crate::progress::Standing;
use crate::status;

/// Bytes in which one look counts lines; beyond, the number is estimated.
const COUNTED_BYTES_MAX: u64 = 64 << 20;
/// Segments of which one look reads the first line that is not sent.
const AGED_MAX: usize = 64;
/// Bytes of a line, where nothing was counted to tell.
const LINE_BYTES: u64 = 300;

/// What is in the files and not in the replica.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Lag {
    /// Estimated where very much was never looked at.
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
    /// Time of the oldest entry of these.
    pub(crate) oldest: Option<Timestamp>,
}

/// Counts each byte of the files once.
#[derive(Debug, Default)]
pub(crate) struct LagCounter {
    counted: BTreeMap<SegmentId, Counted>,
}

/// Lines before a byte of a segment.
#[derive(Debug, Clone, Copy)]
struct Counted {
    byte: u64,
    lines: u64,
}

impl LagCounter {
    /// Looks at the files now. Segments that the replica was never asked about do not count.
    pub(crate) fn look(&mut self, standings: &BTreeMap<SegmentId, Standing>) -> Lag {
        self.counted.retain(|id, _| standings.contains_key(id));
        let (mut lag, mut budget, mut aged) = (Lag::default(), COUNTED_BYTES_MAX, 0);
        for (id, standing) in standings {
            let Some(cursor) = standing.cursor else { continue };
            let length = standing.path.metadata().map_or(0, |found| found.len());
            let sent = status::next_entry_byte(&standing.path, &cursor).unwrap_or(cursor.next_byte);
            if length <= sent {
                self.counted.remove(id);
                continue;
            }
            let before = self.counted.get(id).copied();
            let (counted, lines) =
                count(&standing.path, sent, &cursor, before, length, &mut budget);
            self.counted.insert(*id, counted);
            lag.lines += lines;
            lag.bytes += length - sent;
            if lines > 0 && aged < AGED_MAX {
                aged += 1;
                let first = status::first_time(&standing.path, cursor).ok().flatten();
                lag.oldest = [lag.oldest, first].into_iter().flatten().min();
            }
        }
        lag
    }
}

/// Lines from `sent` to `length`, counted from where they were counted before.
fn count(
    path: &Path,
    sent: u64,
    cursor: &Cursor,
    before: Option<Counted>,
    length: u64,
    budget: &mut u64,
) -> (Counted, u64) {
    let start = Counted { byte: sent, lines: u64::from(cursor.next_line.max(1)) };
    let from = before.filter(|at| (sent..=length).contains(&at.byte)).unwrap_or(start);
    let bytes = (length - from.byte).min(*budget);
    *budget -= bytes;
    // A file that cannot be read is a state of its segment, and told as such.
    let lines = from.lines + status::lines_in(path, from.byte, bytes).unwrap_or(0);
    let counted = Counted { byte: from.byte + bytes, lines };
    let seen = counted.lines.saturating_sub(start.lines);
    let line_bytes = (counted.byte - sent).checked_div(seen).unwrap_or(LINE_BYTES).max(1);
    (counted, seen + (length - counted.byte) / line_bytes)
}

#[cfg(test)]
mod tests {
    use tidelog::journal::SegmentReader;
    use tidelog::{SessionId, Store, Telemetry};

    use super::*;
    use crate::state::SegmentState;

    #[test]
    fn the_lag_is_what_lies_behind_the_cursor() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let session = store.start_session(SessionId::new("s").unwrap()).unwrap();
        let record = |steps: std::ops::Range<i64>| {
            steps.for_each(|step| {
                session.record_telemetry(step, &Telemetry::default()).unwrap();
            });
        };
        record(0..10);
        let segment = tidelog::journal::discover(folder.path()).unwrap().segments.remove(0);
        let standing = |cursor| {
            let (path, state) = (segment.path.clone(), SegmentState::Streaming);
            BTreeMap::from([(segment.header.segment, Standing { path, cursor, state })])
        };
        let at = |line| SegmentReader::chain_at(&segment.path, line).unwrap();
        let mut counter = LagCounter::default();
        assert_eq!(counter.look(&standing(None)), Lag::default());
        assert_eq!(counter.look(&standing(Some(Cursor::START))).lines, 11);
        record(10..15);
        assert_eq!(counter.look(&standing(Some(Cursor::START))).lines, 16);
        let lag = counter.look(&standing(at(5)));
        assert_eq!(lag.lines, 12);
        let end = at(17).unwrap();
        assert_eq!(lag.bytes, end.next_byte - at(5).unwrap().next_byte);
        assert!(lag.oldest.is_some());
        assert_eq!(counter.look(&standing(Some(end))), Lag::default());
    }

    #[test]
    fn what_is_too_much_to_count_is_estimated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "123456789\n".repeat(100)).unwrap();
        let (counted, lines) = count(&path, 0, &Cursor::START, None, 1000, &mut 500);
        assert_eq!((counted.byte, lines), (500, 100));
    }
}
