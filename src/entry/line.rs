//! Lines: `{…,"crc":"9f1c2a77"}` and a newline.
//!
//! `crc` is the CRC-32 of zlib over the line's bytes before `,"crc":`, so that any language's
//! standard library can check it. Lines without one (written by other programs) are accepted.

use serde::Serialize;

use super::Entry;
use super::read::{Envelope, Wire};
use crate::error::Error;
use crate::telemetry::Telemetry;
use crate::timestamp::Timestamp;

/// Longest line, its newline included. A reader never holds more of one line than this.
pub const LINE_BYTES_MAX: usize = 16 << 20;

/// Most values of one line, each key of an object among them. A value in memory takes many times the
/// two bytes that it may have in a line.
pub const LINE_VALUES_MAX: usize = 1 << 20;

const CRC_KEY: &[u8] = b",\"crc\":\"";
/// `,"crc":"` + eight digits + `"}`
const CRC_BYTES: usize = CRC_KEY.len() + 8 + 2;

/// Why a line is not an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The bytes changed after they were written.
    #[error("checksum {found} does not match the line, which has {expected}")]
    Checksum {
        /// What the bytes give.
        expected: String,
        /// What the line says.
        found: String,
    },
    /// Not UTF-8.
    #[error("is not UTF-8 at byte {valid_up_to} of the line")]
    NotUtf8 {
        /// Where the line stops being UTF-8.
        valid_up_to: usize,
    },
    /// Not JSON, or not the JSON of an entry.
    #[error("is not an entry: {reason}")]
    NotAnEntry {
        /// What is wrong and where in the line.
        reason: String,
    },
    /// Longer than a line may be.
    #[error("has {bytes} bytes, a line holds at most {LINE_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: u64,
    },
    /// More values than a line may hold.
    #[error("holds {values} values, a line holds at most {LINE_VALUES_MAX}")]
    TooManyValues {
        /// How many it holds.
        values: usize,
    },
}

/// Appends the line of an entry, its checksum and its newline.
pub(crate) fn write(value: &impl Serialize, buffer: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let start = buffer.len();
    serde_json::to_writer(&mut *buffer, value)?;
    close(buffer, start);
    Ok(())
}

/// Ends the line of the object that begins at `start`: its checksum and its newline.
fn close(buffer: &mut Vec<u8>, start: usize) {
    buffer.pop(); // the closing brace: the checksum comes before it
    let crc = crc32fast::hash(buffer.get(start..).unwrap_or_default());
    buffer.extend_from_slice(CRC_KEY);
    buffer.extend_from_slice(&hex8(crc));
    buffer.extend_from_slice(b"\"}\n");
}

/// Appends a line as [`write()`] does, or tells why there is none; what the buffer holds then is
/// of no use.
pub(crate) fn write_checked(value: &impl Serialize, buffer: &mut Vec<u8>) -> Result<(), Error> {
    let start = buffer.len();
    write(value, buffer).map_err(not_json)?;
    check_limits(buffer, start)
}

/// As [`write_checked`], of a record.
pub(crate) fn write_record(
    timestamp: Timestamp,
    step: i64,
    telemetry: &Telemetry,
    buffer: &mut Vec<u8>,
) -> Result<(), Error> {
    let start = buffer.len();
    super::write_record(timestamp, step, telemetry, buffer).map_err(not_json)?;
    close(buffer, start);
    check_limits(buffer, start)
}

fn not_json(error: serde_json::Error) -> Error {
    Error::InvalidValue { what: "entry", reason: format!("cannot be written as JSON: {error}") }
}

fn check_limits(buffer: &[u8], start: usize) -> Result<(), Error> {
    let bytes = buffer.len() - start;
    if bytes > LINE_BYTES_MAX {
        return Err(Error::LineTooLong { bytes, limit: LINE_BYTES_MAX });
    }
    check_values(buffer.get(start..).unwrap_or_default())
        .map_err(|error| Error::InvalidValue { what: "entry", reason: error.to_string() })
}

/// Whether an entry can be written, as a line that is not too long.
pub(crate) fn check(entry: &Entry) -> Result<(), Error> {
    write_checked(entry, &mut Vec::new())
}

fn hex8(number: u32) -> [u8; 8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|i| {
        let nibble = (number >> (28 - 4 * i)) & 0xf;
        DIGITS.get(nibble as usize).copied().unwrap_or(b'0')
    })
}

/// Reads a line, given without its newline.
pub(crate) fn read(line: &[u8]) -> Result<Entry, LineError> {
    let wire: Wire<'_> = match read_json(line) {
        Err(error) => return read_newer(line).ok_or(error),
        Ok(wire) => wire,
    };
    wire.into_entry()
        .map_err(|missing| LineError::NotAnEntry { reason: format!("{:?} is missing", missing.0) })
}

/// Reads an event of a newer version, whose keys may hold what this version's do not.
fn read_newer(line: &[u8]) -> Option<Entry> {
    read_json::<Envelope<'_>>(line).ok()?.into_unknown()
}

/// Checks a line's checksum and reads it as `T`.
pub(crate) fn read_json<'a, T: serde::Deserialize<'a>>(line: &'a [u8]) -> Result<T, LineError> {
    check_crc(line)?;
    let text = std::str::from_utf8(line)
        .map_err(|error| LineError::NotUtf8 { valid_up_to: error.valid_up_to() })?;
    let not_an_entry = |reason: String| LineError::NotAnEntry { reason };
    check_values(line)?;
    if !text.starts_with('{') {
        return Err(not_an_entry("it does not begin with {".into()));
    }
    serde_json::from_str(text).map_err(|error| not_an_entry(error.to_string()))
}

/// Refuses a line that would be tens of times its size in memory. Only long lines can hold so
/// many values, and only they are looked through.
fn check_values(line: &[u8]) -> Result<(), LineError> {
    if line.len() <= LINE_VALUES_MAX {
        return Ok(());
    }
    match count_values(line) {
        values if values > LINE_VALUES_MAX => Err(LineError::TooManyValues { values }),
        _ => Ok(()),
    }
}

/// Keys and values: before each of them stands one of four marks.
pub(crate) fn count_values(line: &[u8]) -> usize {
    let (mut values, mut in_text, mut escaped) = (0, false, false);
    for byte in line {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b',' | b':' | b'[' | b'{' if !in_text => values += 1,
            _ => {}
        }
    }
    values
}

/// Line ends that another program changed, `\r\n`, are no reason to look away.
fn check_crc(line: &[u8]) -> Result<(), LineError> {
    let line = line.trim_ascii_end();
    let Some((before, tail)) =
        line.len().checked_sub(CRC_BYTES).and_then(|at| line.split_at_checked(at))
    else {
        return Ok(());
    };
    let Some(digits) = tail.strip_prefix(CRC_KEY).and_then(|tail| tail.strip_suffix(b"\"}")) else {
        return Ok(());
    };
    let expected = hex8(crc32fast::hash(before));
    if digits == expected {
        return Ok(());
    }
    Err(LineError::Checksum {
        expected: String::from_utf8_lossy(&expected).into_owned(),
        found: String::from_utf8_lossy(digits).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::*;
    use crate::{BasinCoords, CheckpointId, EventId, SegmentId, SessionId, Telemetry, Value};

    fn line_of(body: Body) -> (Entry, Vec<u8>) {
        let timestamp = "2026-01-05T09:30:00.123456Z".parse().unwrap();
        let entry = Entry { timestamp, body };
        let mut line = Vec::new();
        write(&entry, &mut line).unwrap();
        (entry, line)
    }

    fn check(body: Body) {
        let (entry, line) = line_of(body);
        assert_eq!(read(line.strip_suffix(b"\n").unwrap()).unwrap(), entry);
    }

    fn record() -> Body {
        let telemetry = Telemetry { phi: Some(0.72), ..Telemetry::default() };
        Body::Record(Record { step: 42, telemetry })
    }

    #[test]
    fn a_record_has_the_documented_shape() {
        let (_, line) = line_of(record());
        let text = String::from_utf8(line).unwrap();
        let shape = r#"{"timestamp":"2026-01-05T09:30:00.123456Z","step":42,"telemetry":{"phi":0.72},"crc":"#;
        assert!(text.starts_with(shape), "{text}");
    }

    #[test]
    fn every_kind_of_entry_reads_back_as_written() {
        let session_id = SessionId::new("run-7").unwrap();
        let checkpoint_id = CheckpointId::new("c-1").unwrap();
        let metadata = Some(Value::Text("m".into()));
        check(record());
        check(Body::SessionStarted(SessionStarted { attempt: 2, metadata: metadata.clone() }));
        let of = EndedPart { segment: SegmentId::random(), session_id: session_id.clone() };
        for of in [None, Some(of)] {
            let outcome = Outcome::Failed;
            check(Body::SessionEnded(SessionEnded { outcome, reason: Some("why".into()), of }));
        }
        check(Body::Emergency(Box::new(Emergency {
            event_id: EventId::new("e-1").unwrap(),
            session_id: Some(session_id.clone()),
            step: Some(-1),
            reason: "collapse".into(),
            severity: "high".into(),
            metric: Some("phi".into()),
            value: Some(f64::NEG_INFINITY),
            threshold: None,
            telemetry: Some(Telemetry::default()),
            metadata: metadata.clone(),
        })));
        let basin_coords = BasinCoords::from([0.1; 64]);
        check(Body::Basin(BasinPoint {
            step: None,
            basin_coords: basin_coords.clone(),
            phi: Some(0.5),
            kappa: None,
        }));
        check(Body::CheckpointCreated(Box::new(CheckpointCreated {
            checkpoint_id: checkpoint_id.clone(),
            session_id: None,
            step: Some(7),
            phi: Some(0.7),
            kappa: Some(64.2),
            regime: Some("geometric".into()),
            basin_coords: Some(basin_coords),
            state_dict: Value::Dict(vec![(Value::Text("a".into()), Value::Int(1))]),
            metadata,
            file: "c-1.npz".into(),
            size_bytes: 10,
            sha256: "00".repeat(32),
        })));
        for action in [Action::Loaded, Action::Pruned, Action::Ranked] {
            let checkpoint_id = checkpoint_id.clone();
            check(Body::Checkpoint(CheckpointAction { checkpoint_id, action, details: None }));
        }
        check(Body::Gap(Gap {
            records: 3,
            first_step: Some(7),
            last_step: Some(9),
            since: Timestamp::now(),
            reason: "no space left on device".into(),
        }));
        check(Body::SessionDeleted { session_id });
        check(Body::Unknown { event: "from_the_future".into() });
    }

    #[test]
    fn a_flipped_digit_is_found() {
        let (_, mut line) = line_of(record());
        let digit = line.iter().position(|byte| *byte == b'7').unwrap();
        line[digit] = b'8';
        let error = read(line.strip_suffix(b"\n").unwrap()).unwrap_err();
        assert!(matches!(error, LineError::Checksum { .. }), "{error}");
    }

    /// Where only the name of the key `crc` changes, the line reads as one without a checksum.
    #[test]
    fn no_flipped_bit_changes_an_entry_unseen() {
        let (entry, line) = line_of(record());
        let line = line.strip_suffix(b"\n").unwrap();
        for (at, bit) in (0..line.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut damaged = line.to_vec();
            damaged[at] ^= 1 << bit;
            assert!(read(&damaged).is_err() || read(&damaged).unwrap() == entry, "{at} {bit}");
        }
    }

    #[test]
    fn a_line_end_of_another_program_hides_no_damage() {
        let (entry, mut line) = line_of(record());
        line.pop();
        line.push(b'\r');
        assert_eq!(read(&line).unwrap(), entry);
        let digit = line.iter().position(|byte| *byte == b'7').unwrap();
        line[digit] = b'8';
        assert!(matches!(read(&line), Err(LineError::Checksum { .. })));
    }

    #[test]
    fn the_checksum_is_zlibs() {
        let (_, line) = line_of(record());
        let text = String::from_utf8(line).unwrap();
        assert!(text.ends_with(",\"crc\":\"37542e1a\"}\n"), "{text}");
    }

    #[test]
    fn a_line_without_a_checksum_is_accepted() {
        let line = br#"{"timestamp":"2026-01-05T09:30:00Z","step":1,"telemetry":{}}"#;
        assert!(read(line).is_ok());
    }

    #[test]
    fn an_event_of_a_newer_version_may_have_our_keys_with_other_values() {
        let line = |event: &str| {
            format!(
                r#"{{"timestamp":"2026-01-05T09:30:00Z","event":"{event}","status":"paused","checkpoint_id":7}}"#
            )
        };
        let entry = read(line("session_paused").as_bytes()).unwrap();
        assert_eq!(entry.body, Body::Unknown { event: "session_paused".into() });
        for event in ["session_started", "session_ended", "session_deleted", "emergency", "basin"] {
            assert!(read(line(event).as_bytes()).is_err(), "{event}");
        }
        for action in ["created", "loaded", "pruned", "ranked"] {
            assert!(read(line(&format!("checkpoint_{action}")).as_bytes()).is_err(), "{action}");
        }
    }

    fn record_with(value: Value) -> Entry {
        let telemetry = Telemetry::default().with("x", value);
        let body = Body::Record(Record { step: 1, telemetry });
        Entry { timestamp: Timestamp::now(), body }
    }

    #[test]
    fn a_line_of_too_many_values_is_neither_written_nor_read() {
        let zeros = |count| record_with(Value::List(vec![Value::Int(0); count]));
        let mut buffer = Vec::new();
        write_checked(&zeros(LINE_VALUES_MAX - 100), &mut buffer).unwrap();
        read(buffer.trim_ascii_end()).unwrap();
        let entry = zeros(LINE_VALUES_MAX);
        let error = write_checked(&entry, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("a line holds at most 1048576"), "{error}");
        buffer.clear();
        write(&entry, &mut buffer).unwrap();
        let error = read(buffer.trim_ascii_end()).unwrap_err();
        assert!(matches!(error, LineError::TooManyValues { .. }), "{error}");
    }

    #[test]
    fn marks_inside_of_texts_are_no_values() {
        assert_eq!(count_values(br#"{"a,\"[":[1,",[\\",{}]}"#), 6);
        let text = record_with(Value::from(",:[{\"\\".repeat(1 << 20)));
        let mut buffer = Vec::new();
        write_checked(&text, &mut buffer).unwrap();
        assert_eq!(read(buffer.trim_ascii_end()).unwrap(), text);
    }

    #[test]
    fn lines_that_are_no_entries_say_why() {
        for (line, part) in [
            (&b"[]"[..], "does not begin with {"),
            (b"", "does not begin with {"),
            (b"{\"step\":1}", "timestamp"),
            (b"{\"timestamp\":\"2026-01-05T09:30:00Z\",\"step\":1}", "\"telemetry\" is missing"),
            (b"{\"timestamp\":\"2026-01-05T09:30:00Z\",\"step\":1,\"step\":2}", "duplicate field"),
            (b"{\"timestamp\":\"yesterday\"}", "yesterday"),
            (b"{\"timestamp\":\"\xff\"}", "not UTF-8"),
        ] {
            let error = read(line).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
