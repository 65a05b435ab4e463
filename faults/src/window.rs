//! How much may a crash take of what had returned, and what must it leave?

use std::time::{Duration, Instant};

use tidelog::{BUFFER_BYTES, PERSIST_INTERVAL, Value};

use crate::check::Crash;
use crate::scenario::{self, Durability, Operation, Task};
use crate::victim::Said;

/// The longest time that a persist may take on a busy machine.
const DISK_PATIENCE: Duration = Duration::from_secs(1);
/// So old an entry survives in any mode: the interval, and the time that the disk takes. That is
/// the README's "about a second": what a disk takes is milliseconds, if nobody else keeps it busy.
const DURABLE_AFTER: Duration = PERSIST_INTERVAL.saturating_add(DISK_PATIENCE);
/// The line of a record without its note, and of a point of the basin; a little less than the mean
/// of those that the scenarios write, so that a hundred lines are never estimated too long.
const RECORD_BYTES: usize = 155;
const BASIN_BYTES: usize = 1150;

/// How many of the lines are owed because of what came after them, whatever they promised by
/// themselves.
pub(crate) fn durable(story: &[Said], task: &Task, crash: Crash, moment: Instant) -> usize {
    let old = older_than(story, DURABLE_AFTER, moment);
    match (crash, task.durability) {
        (Crash::Application, Durability::Buffered) => old.max(before_the_buffer(story, task)),
        _ => old,
    }
}

fn older_than(story: &[Said], age: Duration, moment: Instant) -> usize {
    story.iter().take_while(|said| moment.saturating_duration_since(said.at) > age).count()
}

/// How many lines lie before the last 64 KiB, or a few more of them.
fn before_the_buffer(story: &[Said], task: &Task) -> usize {
    let plan = task.plan();
    let told = plan.get(..story.len()).unwrap_or(&plan);
    let mut bytes = 0;
    for (number, operation) in told.iter().enumerate().rev() {
        bytes += line_bytes(task.seed, operation);
        if bytes > BUFFER_BYTES {
            return number;
        }
    }
    0
}

fn line_bytes(seed: u64, operation: &Operation) -> usize {
    match operation {
        Operation::Record(step) => RECORD_BYTES + note_bytes(seed, *step),
        Operation::Basin(_) => BASIN_BYTES,
        _ => 0,
    }
}

fn note_bytes(seed: u64, step: i64) -> usize {
    match scenario::telemetry(seed, step).extra.get("note") {
        Some(Value::Text(note)) => note.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    const TASK: Task = Task {
        scenario: Scenario::Records,
        seed: 7,
        durability: Durability::Buffered,
        records: 2000,
    };

    fn story(lines: usize, age: Duration) -> (Vec<Said>, Instant) {
        let at = Instant::now();
        (vec![Said { at, text: String::new() }; lines], at + age)
    }

    /// What the lines that may be gone take on disk, at most.
    fn bytes_at_risk(lines: usize) -> u64 {
        let (story, moment) = story(lines, Duration::ZERO);
        let durable = durable(&story, &TASK, Crash::Application, moment);
        let folder = tempfile::tempdir().unwrap();
        scenario::write(&TASK, folder.path().to_owned(), std::io::sink()).unwrap();
        let segment = folder.path().join("logs/telemetry/session_run-7-1.jsonl");
        let text = std::fs::read_to_string(segment).unwrap();
        // the header and the start; what is told begins with the open and the start
        let lines: Vec<&str> = text.lines().take(lines).skip(durable).collect();
        lines.iter().map(|line| line.len() as u64 + 1).sum()
    }

    #[test]
    fn what_may_be_gone_of_the_buffer_is_little_more_than_the_buffer() {
        let buffer = BUFFER_BYTES as u64;
        for lines in [500, 900] {
            let bytes = bytes_at_risk(lines);
            assert!((buffer..buffer * 5 / 4).contains(&bytes), "{bytes}");
        }
    }

    #[test]
    fn what_is_old_enough_is_owed_and_what_is_younger_is_not() {
        for (age, owed) in [(DURABLE_AFTER, 0), (DURABLE_AFTER + Duration::from_millis(1), 3)] {
            let (story, moment) = story(3, age);
            assert_eq!(durable(&story, &TASK, Crash::Power, moment), owed);
        }
    }
}
