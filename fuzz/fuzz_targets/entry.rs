//! One line of a segment. What is read as an entry is written as a line that reads the same.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use tidelog_fuzz::{Segment, within};

/// The reader's buffer and what else does not grow with the line.
const BYTES: usize = 1 << 20;
/// A list of zeros, the worst: two bytes each, and a value in a vector that doubles.
const BYTES_PER_BYTE: usize = 100;

thread_local! {
    static SEGMENT: Segment = Segment::default();
}

fn check(segment: &Segment, line: &[u8]) {
    let bytes_max = BYTES + BYTES_PER_BYTE * line.len();
    let Ok(entry) = within(bytes_max, || segment.read_one(line)) else { return };
    let written = serde_json::to_vec(&entry).expect("what was read can be written");
    let again = segment.read_one(&written).expect("what was written can be read");
    assert_eq!(format!("{entry:?}"), format!("{again:?}"));
    assert_eq!(serde_json::to_vec(&again).expect("as before"), written);
}

fuzz_target!(|line: &[u8]| -> Corpus {
    if line.contains(&b'\n') {
        return Corpus::Reject;
    }
    SEGMENT.with(|segment| check(segment, line));
    Corpus::Keep
});
