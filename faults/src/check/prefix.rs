//! What a crash takes of a session, it takes from the end.
//!
//! A record that is there has all before it beside it: a run that lost its last second is a
//! shorter run, one with a hole is a wrong one.

use std::collections::BTreeSet;

use super::journal::Journal;
use super::promise::Promises;

/// No record or point is missing that returned before one that is there, in one writer's part of
/// a session.
pub(super) fn check(promises: &Promises, journal: &Journal, violations: &mut Vec<String>) {
    let records = journal.records.iter().map(|(session, record)| (session, Some(record.step)));
    let basins = journal.basins.iter().map(|(session, point)| (session, point.step));
    let there: BTreeSet<(&String, i64)> = records
        .chain(basins)
        .filter_map(|(session, step)| step.map(|step| (session, step)))
        .collect();
    for (session, steps) in &promises.parts {
        let is_there = |step: &i64| there.contains(&(session, *step));
        let mut from_first_missing = steps.iter().skip_while(|step| is_there(step));
        let Some(missing) = from_first_missing.next() else { continue };
        if let Some(later) = from_first_missing.find(|step| is_there(step)) {
            violations.push(format!(
                "a hole in {session}: step {missing} is missing, {later} after it is there"
            ));
        }
    }
}
