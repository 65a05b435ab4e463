//! What may a power cut leave? A model of the disk under the real program.
//!
//! The program under test runs once, under `strace`. Its calls become a [`history`]: which bytes
//! were written, which names given, what was persisted, what was told. From it follows, for every
//! point of the run, everything that may lie on the disk if power fails there: what was persisted,
//! and of the rest any part, in any order, torn anywhere ([`crash`]). All of these states are
//! visited, or a seeded sample of them where they are too many ([`choose`]): each is put on a real
//! disk, opened by the real library, and looked at by the oracle ([`visit`]).
//!
//! SQLite's files are derived. In each state they are either as they were last written, so that
//! the index may know more than the journal after the crash, or gone.
//!
//! [`run_deaf`] asks whether all of this would notice a mistake.

mod choose;
mod crash;
mod deaf;
mod history;
mod scenes;
mod trace;
mod tree;
mod visit;

use std::collections::HashSet;
use std::sync::mpsc::SyncSender;

use fastrand::Rng;

use crate::check::{Crash, Run};
use crate::scenario::Scenario;
use crate::{Options, Report, Result};
use choose::Fates;
use crash::Disk;
use history::Event;
use scenes::{Scene, Traced};
use visit::State;

/// Visits the crash states of every scene; `runs` is how many of each at most.
///
/// # Errors
/// The program under test cannot be run, or a state cannot be written.
pub fn run(options: &Options) -> Result<Report> {
    each_scene(options, |scene, traced| {
        let mut producer = Producer::new(options, scene, traced);
        let mut report = visit::visit(|states| producer.produce(states))?;
        for (what, count) in producer.counts() {
            report.count(&format!("{what} of {}", scene.name), count);
        }
        Ok(report)
    })
}

/// As [`run`], with one persist ignored at a time; a violation is expected, none is counted as
/// unnoticed. `runs` is how many states for each persist at most.
///
/// # Errors
/// As [`run`].
pub fn run_deaf(options: &Options) -> Result<Report> {
    each_scene(options, |scene, traced| match scene.task.scenario {
        // what a background thread persists is promised by the clock, not by a word
        Scenario::Background => Ok(Report::default()),
        _ => deaf::ignore_each(options, scene, traced),
    })
}

fn each_scene(
    options: &Options,
    visit: impl Fn(&Scene, &Traced) -> Result<Report>,
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

/// A point is worth at least the death of the process, and power that takes all or nothing.
const STATES_MIN: usize = 3;

/// Makes the states of one scene.
struct Producer<'a> {
    options: &'a Options,
    scene: &'a Scene,
    traced: &'a Traced,
    rng: Rng,
    seen: HashSet<(u64, usize)>,
    points: usize,
    visited_points: usize,
    exhaustive_points: usize,
}

impl<'a> Producer<'a> {
    fn new(options: &'a Options, scene: &'a Scene, traced: &'a Traced) -> Self {
        let rng = Rng::with_seed(options.seed);
        let seen = HashSet::new();
        let (points, visited_points, exhaustive_points) = (0, 0, 0);
        Self { options, scene, traced, rng, seen, points, visited_points, exhaustive_points }
    }

    fn counts(&self) -> [(&'static str, usize); 4] {
        [
            ("crash points", self.points),
            ("crash points visited", self.visited_points),
            ("crash points visited exhaustively", self.exhaustive_points),
            ("states", self.seen.len()),
        ]
    }

    /// Points that the number of states does not suffice for are left out, drawn from the seed.
    fn produce(&mut self, states: &SyncSender<State>) -> Result<()> {
        let history = &self.traced.history;
        let disk = Disk::new(history, None);
        let all =
            (history.initial..=history.events.len()).filter(|point| is_crash_point(&disk, *point));
        let mut points: Vec<usize> = all.collect();
        self.points = points.len();
        while points.len() > (self.options.runs / STATES_MIN).max(1) {
            points.remove(self.rng.usize(..points.len()));
        }
        self.visited_points = points.len();
        let mut left = self.options.runs;
        for (number, point) in points.iter().enumerate() {
            let limit = left / (points.len() - number);
            let before = self.seen.len();
            self.point(&disk, *point, limit.saturating_sub(1), states)?;
            left = left.saturating_sub(self.seen.len() - before);
        }
        Ok(())
    }

    /// The states of one point: the process dies, or power fails.
    fn point(
        &mut self,
        disk: &Disk<'_>,
        point: usize,
        limit: usize,
        states: &SyncSender<State>,
    ) -> Result<()> {
        self.send(disk, point, &Fates::new(), Crash::Application, states)?;
        let chosen = choose::choose(disk.history, &disk.pending(point), limit, &mut self.rng);
        self.exhaustive_points += usize::from(chosen.is_exhaustive);
        for fates in &chosen.fates {
            self.send(disk, point, fates, Crash::Power, states)?;
        }
        Ok(())
    }

    fn send(
        &mut self,
        disk: &Disk<'_>,
        point: usize,
        fates: &Fates,
        crash: Crash,
        states: &SyncSender<State>,
    ) -> Result<()> {
        let tree = disk.tree(point, fates, self.rng.bool());
        let runs = runs(self.scene, self.traced, point, crash);
        let told = runs.last().map_or(0, |run| run.told.len());
        if self.seen.insert((tree.fingerprint(), told)) {
            let name = name(self.scene, point, crash);
            states
                .send(State { name, tree, runs })
                .map_err(|_| "no thread checks states any more")?;
        }
        Ok(())
    }
}

/// After each change and each word; a persist only takes states away, and SQLite's own writes are
/// not what is asked about.
fn is_crash_point(disk: &Disk<'_>, point: usize) -> bool {
    let Some(last) = point.checked_sub(1).filter(|_| point > disk.history.initial) else {
        return true;
    };
    let is_persist = matches!(disk.history.event(last), Some(Event::Persist { .. }));
    !is_persist && !disk.is_derived(last)
}

/// What was to be done and had been told by this point, runs before included.
fn runs(scene: &Scene, traced: &Traced, point: usize, crash: Crash) -> Vec<Run> {
    let run = traced.history.run(&scene.task, point, crash);
    traced.before.iter().cloned().chain([run]).collect()
}

fn name(scene: &Scene, point: usize, crash: Crash) -> String {
    format!("{}, event {point}, {crash:?} crash", scene.name)
}
