//! Lengths of time as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// The longest that is taken, so that sums of times never overflow: 30 days.
const SECONDS_MAX: u64 = 30 * 24 * 3600;
const EXPECTED: &str = "a time such as 500ms, 25s, 5m or 1h, at most 30 days";

/// A length of time: `500ms`, `25s`, `5m`, `1h`; a bare number is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

impl Period {
    /// So many seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is not {EXPECTED}");
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let number: u64 = digits.parse().map_err(|_| refused())?;
        let milliseconds = match unit {
            "ms" => Some(number),
            "s" | "" => number.checked_mul(1000),
            "m" => number.checked_mul(60_000),
            "h" => number.checked_mul(3_600_000),
            _ => None,
        };
        let period = milliseconds.map(Duration::from_millis);
        let short = period.filter(|period| period.as_secs() <= SECONDS_MAX);
        short.map(Self).ok_or_else(refused)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.subsec_millis() {
            0 => write!(f, "{}s", self.0.as_secs()),
            _ => write!(f, "{}ms", self.0.as_millis()),
        }
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Period;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Period, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: Error>(self, seconds: i64) -> Result<Period, E> {
                seconds.to_string().parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        for (text, milliseconds) in
            [("500ms", 500), ("25s", 25_000), ("7", 7000), ("5m", 300_000), ("1h", 3_600_000)]
        {
            assert_eq!(text.parse(), Ok(Period(Duration::from_millis(milliseconds))), "{text}");
        }
        assert_eq!((Period::seconds(90).to_string(), "1500ms"), ("90s".to_owned(), "1500ms"));
    }

    #[test]
    fn what_is_no_time_is_named() {
        for text in ["", "s", "-1s", "1.5s", "5 s", "5x", "99999999999999999999", "9999999h"] {
            let error = text.parse::<Period>().unwrap_err();
            assert!(error.contains(&format!("`{text}`")) && error.contains("25s"), "{error}");
        }
    }
}
