//! What may a power cut leave? A model of the disk under the real program.
//!
//! The program under test runs once, under `strace`. Its calls become a `history`: which bytes
//! were written, which names given, what was persisted, what was told. From it follows, for every
//! point of the run, everything that may lie on the disk if power fails there: what was persisted,
//! and of the rest any part, in any order, torn anywhere (`crash`). All of these states are
//! visited, or a seeded sample of them where they are too many (`choose`): each is put on a real
//! disk, opened by the real library, and looked at by the oracle (`visit`).
//!
//! SQLite's files are derived. In each state they are either as they were last written, so that
//! the index may know more than the journal after the crash, or gone.
//!
//! [`run_deaf`] asks whether all of this would notice a mistake.

mod choose;
mod crash;
mod deaf;
mod history;
mod player;
mod produce;
mod scenes;
mod trace;
mod tree;
mod visit;

use crate::scenario::Scenario;
use crate::{Options, RUNS_DEFAULT, Report, Result};
use history::History;
use scenes::Scene;

/// Visits the crash states of every scene; `runs` is how many of each at most. A long run that
/// leaves out a crash point is a violation: nobody would see that the scene outgrew it.
///
/// # Errors
/// The program under test cannot be run, or a state cannot be written.
pub fn run(options: &Options) -> Result<Report> {
    each_scene(options, |scene, history| {
        let mut counts = produce::Counts::default();
        let mut report = visit::visit(|states| {
            counts = produce::produce(options, scene, history, states)?;
            Ok(())
        })?;
        if options.runs >= RUNS_DEFAULT && counts.visited < counts.points {
            let produce::Counts { visited, points, .. } = counts;
            let left_out = format!("{}: {visited} of {points} crash points visited", scene.name);
            report.violations.push(left_out);
        }
        for (what, count) in counts.by_name() {
            report.count(&format!("{what} of {}", scene.name), count);
        }
        Ok(report)
    })
}

/// As [`run`], with one persist ignored at a time: now a violation is expected, and none is one.
/// `runs` is how many states for each persist at most, and four times as many as persists of one
/// path in one scene.
///
/// # Errors
/// As [`run`].
pub fn run_deaf(options: &Options) -> Result<Report> {
    each_scene(options, |scene, history| match scene.task.scenario {
        // what a background thread persists is promised by the clock, not by a word
        Scenario::Background => Ok(Report::default()),
        _ => deaf::ignore_each(options, scene, history),
    })
}

fn each_scene(
    options: &Options,
    visit: impl Fn(&Scene, &History) -> Result<Report>,
) -> Result<Report> {
    if !trace::is_possible() {
        return Ok(Report::skipped("crash states: strace is missing or may not trace here"));
    }
    let mut report = Report::default();
    for scene in scenes::scenes(options.seed) {
        report.merge(visit(&scene, &scene.trace(options)?)?);
    }
    Ok(report)
}
