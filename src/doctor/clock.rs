//! Does the clock tell the right time, and did it when the store was written?

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::{Finding, Level};
use crate::disk;
use crate::entry::line;
use crate::journal::discover;
use crate::timestamp::Timestamp;

/// This program was not there before.
const YEAR_MIN: i16 = 2025;
/// Clocks that ran over show such years.
const YEAR_MAX: i16 = 2100;
/// Clocks of several hosts differ by so much without harm.
const AHEAD_SECONDS: f64 = 60.0;
/// The last lines of so many segments, those made last, are looked at.
const SEGMENTS_MAX: usize = 100;
/// Of a segment so much is read to find its last line.
const TAIL_BYTES: u64 = 64 << 10;

pub(super) fn findings(root: &Path, is_store: bool) -> Vec<Finding> {
    let now = Timestamp::now();
    let mut findings = vec![year(now)];
    if is_store && let Some(newest) = newest(root) {
        findings.extend(future(newest, now));
    }
    findings
}

fn year(now: Timestamp) -> Finding {
    let shown = now.to_jiff().strftime("%Y-%m-%d %H:%M:%SZ").to_string();
    let year = now.to_jiff().to_zoned(jiff::tz::TimeZone::UTC).year();
    match (YEAR_MIN..YEAR_MAX).contains(&year) {
        true => Finding::new("clock", Level::Ok, shown),
        false => Finding::new("clock", Level::Warning, format!("{shown}, which cannot be right"))
            .meaning("entries are kept and stay in order, but their times are wrong")
            .remedy("set the clock, best by NTP"),
    }
}

fn future(newest: Timestamp, now: Timestamp) -> Option<Finding> {
    let ahead = newest.seconds_since(now);
    let text = format!("the newest entry is of {newest}, {ahead:.0} seconds ahead of the clock");
    let finding = Finding::new("clock", Level::Warning, text)
        .meaning("this clock is behind, or one that recorded was ahead; no entry is lost by it")
        .remedy("compare the clocks of the machines that record");
    (ahead > AHEAD_SECONDS).then_some(finding)
}

/// The latest time that stands in the journal's newest segments.
fn newest(root: &Path) -> Option<Timestamp> {
    let segments = discover(root).ok()?.segments;
    let created = segments.iter().map(|segment| segment.header.created_at);
    let last = segments.iter().rev().take(SEGMENTS_MAX);
    created.chain(last.filter_map(|segment| last_time(&segment.path))).max()
}

/// The time of the last whole line that is an entry.
fn last_time(path: &Path) -> Option<Timestamp> {
    let mut file = disk::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail).ok()?;
    let mut lines = tail.split(|byte| *byte == b'\n').rev();
    lines.find_map(|line| line::read(line).ok()).map(|entry| entry.timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_year_that_cannot_be_is_told() {
        let level = |text: &str| year(at(text)).level;
        assert_eq!(level("2026-11-23T00:00:00.000000Z"), Level::Ok);
        assert_eq!(level("1960-01-01T00:00:00.000000Z"), Level::Warning);
        assert_eq!(level("2106-02-07T00:00:00.000000Z"), Level::Warning);
    }

    #[test]
    fn an_entry_of_tomorrow_is_told_and_one_of_the_next_second_is_not() {
        let now = at("2026-11-23T00:00:00.000000Z");
        assert_eq!(future(at("2026-11-23T00:00:30.000000Z"), now), None);
        let found = future(at("2026-11-24T00:00:00.000000Z"), now).unwrap();
        assert!(found.found.contains("86400 seconds ahead"), "{}", found.found);
    }
}
