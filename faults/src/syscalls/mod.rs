//! Every system call that the store makes fails: once, from then on, or the process dies at it.
//!
//! How a fault is aimed: strace counts the calls of each name and thread, and its restriction to
//! paths knows no files that come later. So each scenario first runs untouched, and those numbers
//! are kept whose call names a file of the store (`trace`). Then it runs again once for each of
//! these numbers and each error that the call can return (`fault`). Neither the loader's calls
//! nor the words on standard output, which are told with a call of their own, are ever hit.
//!
//! Afterwards the store is opened without faults and the oracle compares. A panic, an abort and
//! more than `inject::TIME_MAX` are violations, too.

mod fault;
mod inject;
mod short;
mod trace;

use std::process::Command;

use fastrand::Rng;

use crate::check::{self, Crash, Run};
use crate::scenario::{Durability, Scenario, Task};
use crate::{Options, Report, Result, pool};
use fault::Fault;

/// What is broken, and about how many records each has: few, so that every number can be tried.
const SCENARIOS: [(Scenario, Durability, usize); 8] = [
    (Scenario::Rotate, Durability::Written, 12),
    (Scenario::Rotate, Durability::Persisted, 6),
    (Scenario::Checkpoints, Durability::Buffered, 5),
    (Scenario::Background, Durability::Written, 8),
    (Scenario::Mixed, Durability::Written, 12),
    (Scenario::Resume, Durability::Written, 4),
    (Scenario::Store, Durability::Written, 2),
    (Scenario::Import, Durability::Written, 0),
];

/// A fault whose call the second run did not make: threads interleave otherwise.
const NOT_REACHED: &str = "system calls: not reached again";
/// Of one in so many faults at most, usually of none: else the numbers of the calls are wrong, and
/// what was tried is not what was chosen.
const MISSED_PARTS: usize = 5;

/// Makes at most `options.runs` of all faults, drawn from the seed, and as many short writes as fit.
///
/// # Errors
/// A scenario does not even run untouched.
pub fn run(options: &Options) -> Result<Report> {
    let mut report = short::run(options)?;
    if !can_trace() {
        report.merge(Report::skipped("system calls: strace is missing or may not trace"));
        return Ok(report);
    }
    let mut faults = Vec::new();
    for (scenario, durability, records) in SCENARIOS {
        let task = Task { scenario, seed: options.seed, durability, records };
        let calls = trace::calls(options, &task)?;
        faults.extend(calls.iter().flat_map(fault::of).map(|fault| (task.clone(), fault)));
    }
    report.count("system calls: possible faults", faults.len());
    Rng::with_seed(options.seed).shuffle(&mut faults);
    faults.truncate(options.runs);
    report.merge(pool::each(&faults, |(task, fault)| make(options, task, fault))?);
    let missed = report.counts.get(NOT_REACHED).copied().unwrap_or_default();
    if missed * MISSED_PARTS > faults.len() {
        let chosen = faults.len();
        report.violations.push(format!("{missed} of {chosen} faults: {NOT_REACHED}"));
    }
    Ok(report)
}

fn can_trace() -> bool {
    let traced = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).status();
    traced.is_ok_and(|status| status.success())
}

fn make(options: &Options, task: &Task, fault: &Fault) -> Result<Report> {
    let folder = inject::folder()?;
    let store = folder.path().join("store");
    let death = inject::run(options, task, folder.path(), fault)?;
    let mut report = Report::default();
    if !death.was_hit {
        report.count(NOT_REACHED, 1);
        return Ok(report);
    }
    report.executed = 1;
    report.count(&format!("system calls: {}", fault.kind()), 1);
    let run = Run::new(task.clone(), &death.told, Crash::Application);
    let found = death.complaint.into_iter().chain(check::check(&store, &[run]));
    let Task { scenario, durability, .. } = task;
    report.violations =
        found.map(|text| format!("{scenario} {durability}, {fault}: {text}")).collect();
    Ok(report)
}
