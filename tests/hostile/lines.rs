//! Lines of a segment that no writer of ours wrote.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tidelog::journal::{BatchLimits, Cursor, SegmentReader};
use tidelog::{Body, LINE_BYTES_MAX, Store};

use super::{SEGMENT, steps, store, verify};
use crate::support::{TestStore, entries};

const TIME: &str = "2026-01-05T09:30:00Z";

pub(super) fn append(store: &TestStore, bytes: &[u8]) {
    let path = store.root().join(SEGMENT);
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// A record without a checksum, as another program may write one.
pub(super) fn record(step: i64) -> String {
    format!("{{\"timestamp\":\"{TIME}\",\"step\":{step},\"telemetry\":{{}}}}\n")
}

/// A record with something in the place of a field of its telemetry.
pub(super) fn with_field(value: &str) -> String {
    format!("{{\"timestamp\":\"{TIME}\",\"step\":9,\"telemetry\":{{\"x\":{value}}}}}\n")
}

/// Puts a line between two records; whether it was taken. Reader, index and verify agree.
fn is_taken(line: &[u8]) -> bool {
    let store = store();
    append(&store, record(3).as_bytes());
    append(&store, line);
    append(&store, record(4).as_bytes());
    let found = steps(store.store(), "run-7");
    assert_eq!(found.iter().filter(|step| **step != 9).count(), 5, "the neighbours are there");
    let taken = found.contains(&9);
    let (all, invalid) = entries(&store.root());
    let records = all.iter().filter(|entry| matches!(entry.body, Body::Record(_))).count();
    assert_eq!((records, invalid), (found.len(), usize::from(!taken)));
    let report = verify(&store.root());
    assert_eq!(report.damage_count, u64::from(!taken), "{:?}", report.findings);
    if let Some(finding) = report.findings.first() {
        assert_eq!(finding.line, Some(7), "{finding:?}"); // header, start, three, end, one
        assert!(finding.reason.len() < 2_000);
    }
    taken
}

#[test]
fn nesting_without_end_is_refused_where_it_is_kept_and_passed_over_where_it_is_not() {
    let lists = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let dicts = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let tuples = format!("{}1{}", "{\"$tuple\":[".repeat(50_000), "]}".repeat(50_000));
    let open = "[".repeat(1_000_000);
    for value in [&lists, &dicts, &tuples, &open] {
        assert!(!is_taken(with_field(value).as_bytes()));
    }
    let ignored = record(9).replace("\"step\"", &format!("\"later\":{lists},\"step\""));
    assert!(is_taken(ignored.as_bytes()));
}

#[test]
fn numbers_come_back_exactly_or_not_at_all() {
    for (value, taken) in [
        ("1e308", true),
        ("5e-324", true),
        ("-0.0", true),
        ("1e400", false),
        ("-1e400", false),
        ("NaN", false),
        ("-Infinity", false),
        ("0x10", false),
        ("01", false),
        ("+1", false),
        (".5", false),
        ("1_000", false),
        ("{\"$float\":\"NaN\"}", true),
        ("{\"$int\":\"123456789012345678901234567890\"}", true),
        ("{\"$int\":\"1e5\"}", false),
        ("{\"$python\":\"os.system\"}", false),
        ("{\"$float\":\"NaN\",\"b\":1}", false),
        ("{\"a\":1,\"$float\":\"NaN\"}", false),
        ("{\"$array\":{\"dtype\":\"<f8\",\"shape\":[1152921504606846976],\"data\":\"\"}}", false),
        ("{\"$array\":{\"dtype\":\"|O\",\"shape\":[1],\"data\":\"\"}}", false),
        ("{\"$bytes\":\"not base64!\"}", false),
    ] {
        assert_eq!(is_taken(with_field(value).as_bytes()), taken, "{value}");
    }
    let digits = with_field(&format!("{{\"$int\":\"{}\"}}", "9".repeat(1_000_000)));
    assert!(!is_taken(digits.as_bytes()));
}

#[test]
fn text_is_utf_8_whole_and_may_hold_nul() {
    for (value, taken) in [
        (&b"\"\\u0000\""[..], true),
        (b"\"\\ud83e\\udd80\"", true),
        (b"\"\xf0\x9f\xa6\x80\"", true),
        (b"\"\\ud800\"", false),
        (b"\"\\udc00\\ud800\"", false),
        (b"\"\xff\"", false),
        (b"\"\xed\xa0\x80\"", false),
        (b"\"\xc0\xaf\"", false),
        (b"\"a\0b\"", false),
        (b"\"a\tb\"", false),
        (b"\"a", false),
    ] {
        let place = with_field("VALUE");
        let (before, after) = place.split_once("VALUE").unwrap();
        let line = [before.as_bytes(), value, after.as_bytes()].concat();
        assert_eq!(is_taken(&line), taken, "{value:?}");
    }
}

/// A key that nobody asks for is no place to hide.
#[test]
fn a_line_is_utf_8_also_where_it_is_passed_over() {
    for (value, taken) in [
        (&b"\"\xff\""[..], false),
        (b"\"\xed\xa0\x80\"", false),
        (b"{\"a\":\"\xc0\xaf\"}", false),
        (b"\"\xf0\x9f\xa6\x80\"", true),
        (b"1e400", true),
        (b"{\"$python\":1}", true),
    ] {
        let line = record(9).replace("\"step\"", "\"later\":VALUE,\"step\"");
        let (before, after) = line.split_once("VALUE").unwrap();
        let line = [before.as_bytes(), value, after.as_bytes()].concat();
        assert_eq!(is_taken(&line), taken, "{value:?}");
    }
}

#[test]
fn what_is_no_object_of_ours_is_refused() {
    let long_key = format!("{{\"{}\":1}}\n", "k".repeat(1 << 20));
    for line in [
        "\n",
        " \n",
        "null\n",
        "9\n",
        "\"text\"\n",
        "[\"2026-01-05T09:30:00Z\",9,{}]\n",
        "{}\n",
        "{}{}\n",
        "{\"step\":9}\n",
        "{\"timestamp\":1,\"step\":9,\"telemetry\":{}}\n",
        "{\"timestamp\":\"2026-01-05T09:30:00Z\",\"step\":9.0,\"telemetry\":{}}\n",
        "{\"timestamp\":\"2026-01-05T09:30:00Z\",\"step\":\"9\",\"telemetry\":{}}\n",
        "{\"timestamp\":\"2026-01-05T09:30:00Z\",\"step\":9,\"telemetry\":[]}\n",
        "{\"timestamp\":\"2026-01-05T09:30:00Z\",\"step\":9,\"telemetry\":{},}\n",
        "{\"timestamp\":\"2026-01-05T09:30:00Z\",\"step\":9,\"telemetry\":{}} x\n",
        "{\"timestamp\":\"2026-01-05T09:30:00\",\"step\":9,\"telemetry\":{}}\n",
        "\u{feff}{\"timestamp\":\"2026-01-05T09:30:00Z\",\"step\":9,\"telemetry\":{}}\n",
        long_key.as_str(),
    ] {
        assert!(!is_taken(line.as_bytes()), "{line:?}");
    }
    assert!(is_taken(record(9).replace('\n', "\r\n").as_bytes()));
}

#[test]
fn many_keys_take_no_more_than_their_share_of_time() {
    let keys: Vec<String> = (0..500_000).map(|key| format!("\"k{key}\":{key}")).collect();
    let start = Instant::now();
    assert!(is_taken(with_field(&format!("{{{}}}", keys.join(","))).as_bytes()));
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn a_line_may_have_the_limit_and_no_byte_more() {
    let padding = LINE_BYTES_MAX - with_field("\"\"").len();
    let of = |bytes: usize| with_field(&format!("\"{}\"", "x".repeat(bytes)));
    assert!(is_taken(of(padding).as_bytes()));
    assert!(!is_taken(of(padding + 1).as_bytes()));
}

/// A header that never ends.
#[test]
fn a_first_line_without_an_end_is_no_header() {
    let store = store();
    let file = File::create(store.root().join("logs/telemetry/session_x.jsonl")).unwrap();
    file.set_len(1 << 30).unwrap();
    assert_eq!(steps(store.store(), "run-7"), [0, 1, 2]);
    let report = verify(&store.root());
    assert_eq!(report.damage_count, 1);
    assert!(report.findings[0].reason.contains("a line holds at most"), "{:?}", report.findings);
}

/// Bytes of a valid line, bytes of none, and pieces that lines are made of.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(record(9).into_bytes()),
        proptest::collection::vec(any::<u8>(), 0..40),
        proptest::sample::select(vec![
            &b"\n"[..],
            b"\r\n",
            b"{\"timestamp\":\"2026-01-05T09:30:00Z\",",
            b"\"event\":\"session_ended\",\"status\":\"failed\"",
            b"\"step\":1,\"telemetry\":{\"phi\":\"NaN\"}",
            b"}\n",
            b",\"crc\":\"00000000\"}",
            b"\0\0\0\0",
        ])
        .prop_map(<[u8]>::to_vec),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_bytes_behind_a_segment_are_read_to_their_last_newline(
        pieces in proptest::collection::vec(piece(), 0..30)
    ) {
        let store = store();
        let path = store.root().join(SEGMENT);
        append(&store, &pieces.concat());
        let bytes = fs::read(&path).unwrap();
        let mut reader = SegmentReader::open(&path, Cursor::START).unwrap();
        let limits = BatchLimits { lines_max: 3, bytes_max: 1 << 20 };
        while reader.next_batch(limits).unwrap().is_some() {}
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        prop_assert_eq!(reader.cursor().next_line as usize, lines);
        let read_only = Store::open_read_only(store.root()).unwrap();
        prop_assert!(steps(&read_only, "run-7").starts_with(&[0, 1, 2]) || lines > 6);
        let report = verify(&store.root());
        prop_assert!(report.entries >= 5);
        prop_assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}
