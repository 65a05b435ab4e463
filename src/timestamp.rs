//! Time as the journal keeps it: UTC, whole microseconds, rounded once when a line is written.
//!
//! Microseconds are what PostgreSQL keeps, so file and replica compare equal.

use std::fmt;
use std::str::FromStr;

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
        Self::from_jiff(jiff::Timestamp::now()).unwrap_or(Self(0))
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

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.to_jiff())
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
        serializer.collect_str(self)
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
