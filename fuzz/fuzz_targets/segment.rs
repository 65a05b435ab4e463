//! Any bytes between two good lines, and as a whole file. Damage hides no neighbour, and it does
//! not matter in what portions or from where a segment is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidelog::journal::{Cursor, SegmentReader, discover};
use tidelog_fuzz::{HEADER, Row, Segment, within};

const FIRST: &[u8] = b"{\"timestamp\":\"2026-01-05T09:30:00Z\",\"step\":1,\"telemetry\":{}}\n";
const LAST: &[u8] = b"{\"timestamp\":\"2026-01-05T09:30:00Z\",\"step\":2,\"telemetry\":{}}\n";

thread_local! {
    static SEGMENT: Segment = Segment::default();
    static ALONE: Segment = Segment::default();
}

fn shown(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|row| row.shown.as_str()).collect()
}

/// How many lines are read alone as well; each takes a file of its own.
const ALONE_MAX: usize = 8;

/// Every line between the good ones is what it would be alone; the good ones are there.
fn check_neighbours(rows: &[Row], data: &[u8]) {
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let [first, middle @ .., last] = rows else { panic!("{} lines", rows.len()) };
    assert!(first.read.is_ok() && last.read.is_ok());
    assert_eq!(middle.len(), lines.len());
    for (row, line) in middle.iter().zip(lines).take(ALONE_MAX) {
        let alone = ALONE.with(|alone| alone.read_one(line));
        assert_eq!(format!("{:?}", row.read), format!("{alone:?}"));
    }
}

/// Reading goes on from any cursor as if it had never stopped, and a cursor's hash can be had
/// from the file.
fn check_cursors(segment: &Segment, rows: &[Row], data: &[u8]) {
    let single = segment.rows(Cursor::START, 1);
    assert_eq!(shown(&single), shown(rows));
    let at = data.len() % single.len();
    let cursor = single[at].end;
    assert_eq!(shown(&segment.rows(cursor, 2)), shown(&rows[at + 1..]));
    let hashed = SegmentReader::chain_at(&segment.path(), cursor.next_line).expect("a file");
    assert_eq!(hashed, Some(cursor));
}

/// A line without its newline is none.
fn check_torn_tail(segment: &Segment, rows: &[Row], data: &[u8]) {
    segment.write(&[HEADER, FIRST, data, b"\n", LAST.trim_ascii_end()]);
    assert_eq!(shown(&segment.rows(Cursor::START, 9)), shown(&rows[..rows.len() - 1]));
}

/// The whole file is the input: it is listed with its header, or refused with a reason, unless its
/// first line has no end yet.
fn check_whole(segment: &Segment, data: &[u8]) {
    segment.write(&[data]);
    let listing = discover(segment.root()).expect("a readable folder");
    let has_a_line = data.contains(&b'\n');
    assert_eq!(listing.segments.len() + listing.refused.len(), usize::from(has_a_line));
    if let Ok(mut reader) = SegmentReader::open(&segment.path(), Cursor::START) {
        let limits = tidelog::journal::BatchLimits { lines_max: 2, bytes_max: 100 };
        while reader.next_batch(limits).expect("a readable file").is_some() {}
        let newlines = data.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(reader.cursor().next_line as usize, newlines);
    }
}

fuzz_target!(|data: &[u8]| {
    SEGMENT.with(|segment| {
        segment.write(&[HEADER, FIRST, data, b"\n", LAST]);
        let bytes_max = (2 << 20) + 600 * data.len();
        let rows = within(bytes_max, || segment.rows(Cursor::START, 100));
        check_neighbours(&rows, data);
        check_cursors(segment, &rows, data);
        check_torn_tail(segment, &rows, data);
        check_whole(segment, data);
    });
});
