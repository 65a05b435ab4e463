//! Writes that take a part only, at random: libfiu cuts every second one short.

use std::process::Command;

use super::inject;
use crate::check::{self, Crash, Run};
use crate::scenario::{Durability, Scenario, Task};
use crate::{Options, Report, Result, pool};

/// One run of short writes a so many faults of the other kind.
const SHARE: usize = 20;
const RUNS_MAX: usize = 100;

/// Short writes.
///
/// # Errors
/// The program under test cannot be run.
pub(super) fn run(options: &Options) -> Result<Report> {
    if Command::new("fiu-run").arg("-h").output().is_err() {
        return Ok(Report::skipped("short writes: fiu-run is missing (package fiu-utils)"));
    }
    let numbers: Vec<u64> = (0..(options.runs / SHARE).clamp(1, RUNS_MAX) as u64).collect();
    pool::each(&numbers, |number| {
        let scenario = if number % 2 == 0 { Scenario::Mixed } else { Scenario::Rotate };
        let (seed, durability) = (options.seed + number, Durability::Written);
        cut_short(options, &Task { scenario, seed, durability, records: 100 })
    })
}

fn cut_short(options: &Options, task: &Task) -> Result<Report> {
    let folder = inject::folder()?;
    let point = "enable_random name=posix/io/rw/write/reduce,probability=0.5";
    let fiu = ["fiu-run", "-x", "-c", point].map(str::to_owned);
    let (end, told) = inject::watched(options, task, folder.path(), &fiu, None)?;
    let mut violations = Vec::new();
    if !end.is_some_and(|status| status.success()) {
        violations.push(inject::complaint(folder.path(), end)?);
    }
    let failed = told.lines().filter(|line| !line.starts_with("ok "));
    violations.extend(failed.map(str::to_owned));
    let run = Run::new(task.clone(), &told, Crash::Application);
    violations.extend(check::check(&folder.path().join("store"), &[run]));
    let mut report = Report { executed: 1, ..Report::default() };
    report.count("system calls: runs of short writes", 1);
    let seed = task.seed;
    report.violations =
        violations.into_iter().map(|text| format!("short writes, seed {seed}: {text}")).collect();
    Ok(report)
}
