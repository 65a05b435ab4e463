//! Times of older files: with an offset, or local to a time zone that the user names.

use jiff::civil::DateTime;
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::error::{Error, Result};
use crate::timestamp::Timestamp;

/// Finds a time zone by its name (`Europe/Berlin`), its offset (`+01:00`) or `UTC`.
///
/// # Errors
/// The name is unknown to the system and to the list that is built in.
pub fn time_zone(name: &str) -> Result<TimeZone> {
    if name.eq_ignore_ascii_case("utc") {
        return Ok(TimeZone::UTC);
    }
    DateTimeParser::new().parse_time_zone(name).map_err(|_| Error::InvalidValue {
        what: "time zone",
        reason: format!("{name:?} is unknown; give a name such as Europe/Berlin, +01:00 or UTC"),
    })
}

/// Reads times, and counts those that the time zone leaves open.
#[derive(Debug)]
pub(super) struct LocalTimes {
    zone: TimeZone,
    /// Local times that happened twice, when a clock was set back; read as the first of both.
    pub(super) ambiguous: u64,
    /// Local times that never happened, when a clock was set forward; read as if it was not.
    pub(super) nonexistent: u64,
}

impl LocalTimes {
    pub(super) fn new(zone: TimeZone) -> Self {
        Self { zone, ambiguous: 0, nonexistent: 0 }
    }

    /// Reads an ISO 8601 time; without an offset it is local.
    pub(super) fn read(&mut self, text: &str) -> Result<Timestamp, String> {
        if text.parse::<jiff::Timestamp>().is_ok() {
            return text.parse().map_err(|error: crate::InvalidTimestamp| error.to_string());
        }
        match text.parse::<DateTime>() {
            Ok(local) => self.resolve(local),
            Err(error) => {
                let shown: String = text.chars().take(64).collect();
                Err(format!("timestamp {shown:?} is not a time: {error}"))
            }
        }
    }

    /// The moment of a local time.
    pub(super) fn resolve(&mut self, local: DateTime) -> Result<Timestamp, String> {
        let found = self.zone.to_ambiguous_timestamp(local);
        match found.offset() {
            AmbiguousOffset::Unambiguous { .. } => {}
            AmbiguousOffset::Gap { .. } => self.nonexistent += 1,
            AmbiguousOffset::Fold { .. } => self.ambiguous += 1,
        }
        let moment = found.compatible().map_err(|error| format!("timestamp {local}: {error}"))?;
        Timestamp::from_jiff(moment).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(zone: &str, text: &str) -> String {
        LocalTimes::new(time_zone(zone).unwrap()).read(text).unwrap().to_string()
    }

    #[test]
    fn a_local_time_is_read_in_the_users_zone() {
        let text = "2025-12-18T06:10:40.230205";
        assert_eq!(read("UTC", text), "2025-12-18T06:10:40.230205Z");
        assert_eq!(read("Europe/Berlin", text), "2025-12-18T05:10:40.230205Z");
        assert_eq!(read("-03:30", "2025-12-18 06:10:40"), "2025-12-18T09:40:40.000000Z");
    }

    #[test]
    fn an_offset_in_the_text_wins() {
        assert_eq!(
            read("Europe/Berlin", "2025-12-18T06:00:00+00:00"),
            "2025-12-18T06:00:00.000000Z"
        );
        assert_eq!(read("Europe/Berlin", "2025-12-18T06:00:00Z"), "2025-12-18T06:00:00.000000Z");
    }

    #[test]
    fn times_that_a_clock_change_leaves_open_are_read_and_counted() {
        let mut times = LocalTimes::new(time_zone("Europe/Berlin").unwrap());
        let twice = times.read("2025-10-26T02:30:00").unwrap();
        let never = times.read("2025-03-30T02:30:00").unwrap();
        assert_eq!(twice.to_string(), "2025-10-26T00:30:00.000000Z");
        assert_eq!(never.to_string(), "2025-03-30T01:30:00.000000Z");
        assert_eq!((times.ambiguous, times.nonexistent), (1, 1));
    }

    #[test]
    fn what_is_no_time_or_zone_says_so() {
        let mut times = LocalTimes::new(TimeZone::UTC);
        for text in
            ["", "yesterday", "1734489600", "2025-13-01T00:00:00", "+300000-01-01T00:00:00Z"]
        {
            assert!(times.read(text).unwrap_err().contains("timestamp"), "{text}");
        }
        assert!(time_zone("Mars/Base").unwrap_err().to_string().contains("Mars/Base"));
    }
}
