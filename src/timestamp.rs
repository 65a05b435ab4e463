//! Time as the journal keeps it: UTC, whole microseconds, rounded once when a line is written.
//!
//! Microseconds are what PostgreSQL keeps, so file and replica compare equal.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use jiff::{SignedDuration, Unit};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment in UTC between the years 0001 and 9999, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// 0001-01-01T00:00:00Z
const MICROS_MIN: i64 = -62_135_596_800_000_000;
/// 9999-12-30T00:00:00Z, the last whole day that every time zone can show
const MICROS_MAX: i64 = 253_402_128_000_000_000;

/// Why a text or a number is not a timestamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("timestamp {shown:?} {reason}")]
pub struct InvalidTimestamp {
    shown: String,
    reason: String,
}

impl Timestamp {
    /// The wall clock's time now.
    pub fn now() -> Self {
        let Ok(since) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) else {
            return Self::from_jiff(jiff::Timestamp::now()).unwrap_or(Self(0)); // before 1970
        };
        let Ok(seconds) = i64::try_from(since.as_secs()) else { return Self(MICROS_MAX) };
        let micros = i64::from((since.subsec_nanos() + 500) / 1000);
        Self(seconds.saturating_mul(1_000_000).saturating_add(micros).min(MICROS_MAX))
    }

    /// From microseconds since 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    /// Outside the years 0001 to 9999.
    pub fn from_micros(micros: i64) -> Result<Self, InvalidTimestamp> {
        if (MICROS_MIN..=MICROS_MAX).contains(&micros) {
            return Ok(Self(micros));
        }
        Err(InvalidTimestamp {
            shown: micros.to_string(),
            reason: "is outside the years 0001 to 9999".into(),
        })
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// Seconds from `earlier` to this moment; negative if it is later.
    pub fn seconds_since(self, earlier: Timestamp) -> f64 {
        SignedDuration::from_micros(self.0.saturating_sub(earlier.0)).as_secs_f64()
    }

    /// Rounds to the nearest microsecond, halves away from zero.
    ///
    /// # Errors
    /// Outside the years 0001 to 9999.
    pub fn from_jiff(time: jiff::Timestamp) -> Result<Self, InvalidTimestamp> {
        let rounded = time.round(Unit::Microsecond).unwrap_or(time);
        Self::from_micros(rounded.as_microsecond())
    }

    /// The same moment for calendar arithmetic and PostgreSQL.
    pub fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

/// `2026-01-05T09:30:00.123456Z`
const TEXT_BYTES: usize = 27;
/// `2026-01-05T09:30:00.`
const SECOND_BYTES: usize = 20;

/// A timestamp as the journal writes it.
pub(crate) struct TimestampText([u8; TEXT_BYTES]);

impl TimestampText {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default() // it is ASCII
    }
}

/// The text of one second up to its digits: of many timestamps the next one shares it.
#[derive(Clone, Copy)]
struct SecondText {
    second: i64,
    text: [u8; SECOND_BYTES],
}

thread_local! {
    static LAST_SECOND: Cell<SecondText> =
        const { Cell::new(SecondText { second: 0, text: *b"1970-01-01T00:00:00." }) };
}

fn second_text(second: i64) -> [u8; SECOND_BYTES] {
    let last = LAST_SECOND.get();
    if last.second == second {
        return last.text;
    }
    let shown = Timestamp(second * 1_000_000).to_jiff().to_string();
    let mut text = *b"0000-00-00T00:00:00.";
    for (to, from) in text.iter_mut().zip(shown.bytes().take(SECOND_BYTES - 1)) {
        *to = from;
    }
    LAST_SECOND.set(SecondText { second, text });
    text
}

impl Timestamp {
    /// Always 27 bytes: a year has four digits.
    pub(crate) fn text(self) -> TimestampText {
        let mut text = [b'Z'; TEXT_BYTES];
        let (second, rest) = text.split_at_mut(SECOND_BYTES);
        second.copy_from_slice(&second_text(self.0.div_euclid(1_000_000)));
        let mut micros = self.0.rem_euclid(1_000_000);
        for digit in rest.iter_mut().take(6).rev() {
            *digit = b'0' + u8::try_from(micros % 10).unwrap_or(0);
            micros /= 10;
        }
        TimestampText(text)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text().as_str())
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    /// Reads RFC 3339 with an offset or `Z`.
    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let invalid =
            |reason: String| InvalidTimestamp { shown: text.chars().take(64).collect(), reason };
        let time: jiff::Timestamp = text.parse().map_err(|error| invalid(format!("{error}")))?;
        Self::from_jiff(time).map_err(|error| invalid(error.reason))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text().as_str())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a timestamp such as \"2026-01-05T09:30:00.123456Z\"")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_reads_back_as_written() {
        let text = "2026-01-05T09:30:00.123456Z";
        let time: Timestamp = text.parse().unwrap();
        assert_eq!(time.to_string(), text);
    }

    #[test]
    fn the_text_is_that_of_the_calendar() {
        let mut rng = fastrand::Rng::with_seed(7);
        let edges = [MICROS_MIN, MICROS_MAX, -1, 0, 1, 999_999, 1_000_000, -1_000_000];
        for micros in edges.into_iter().chain((0..10_000).map(|_| rng.i64(MICROS_MIN..MICROS_MAX)))
        {
            let time = Timestamp::from_micros(micros).unwrap();
            assert_eq!(time.to_string(), format!("{:.6}", time.to_jiff()));
        }
    }

    #[test]
    fn whole_seconds_keep_six_digits() {
        let time: Timestamp = "2026-01-05T10:30:00+01:00".parse().unwrap();
        assert_eq!(time.to_string(), "2026-01-05T09:30:00.000000Z");
    }

    #[test]
    fn nanoseconds_are_rounded_once() {
        let time: Timestamp = "2026-01-05T09:30:00.1234565Z".parse().unwrap();
        assert_eq!(time.to_string(), "2026-01-05T09:30:00.123457Z");
    }

    #[test]
    fn the_year_300000_is_an_error_that_names_the_value() {
        let error = "+300000-01-01T00:00:00Z".parse::<Timestamp>().unwrap_err();
        assert!(error.to_string().contains("+300000"), "{error}");
        assert!(Timestamp::from_micros(i64::MAX).is_err());
    }
}
