//! Processes are killed with SIGKILL, at any moment: those that write, and those that recover.
//!
//! A round, in order: one or two processes of several threads each begin to write one store. One
//! after another is killed, at a drawn line of its story and a little later; between the kills
//! another process opens the store while writers live. Then processes that open the store, and so
//! recover what the dead left, are killed at drawn moments, too. At last the oracle looks:
//! with [`Written`](Durability::Written) and [`Persisted`](Durability::Persisted) each record
//! whose call returned is there, once and in order; with [`Buffered`](Durability::Buffered) at
//! most the last 64 KiB of lines, or what is younger than the interval, are gone, and only from
//! the end. Each session is ended as aborted, and the index says what the files say.
//!
//! Then programs are killed whose threads [share a session](Sharers).
//!
//! The buffered mode is the **control**, too: a kill has to cost it something now and then, or
//! the moments are badly drawn.

mod shared;

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use tempfile::TempDir;
use tidelog::Store;

use crate::check::{self, Crash, Run};
use crate::crowd::{self, Crowd};
use crate::scenario::{Durability, Scenario, Task};
use crate::victim::{Death, Victim};
use crate::{Options, Report, Result};
pub use shared::Sharers;

/// So many kills of writers that have a session each, and one of threads that share one.
const KILLS_PER_SHARED: usize = 5;

/// The longest time between a drawn line and the kill.
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// A slow writer rests so long after each record, and is killed after so long at least.
const SLOW_PAUSE_US: u64 = 30_000;
const SLOW_TIME: Duration = Duration::from_millis(2200);
/// An open takes a few milliseconds.
const OPEN_MAX: Duration = Duration::from_millis(12);
/// Most processes that are killed while they open the store.
const OPENERS_MAX: usize = 4;

/// Kills until as many writers are dead as asked for.
///
/// # Errors
/// A process could not be started or killed.
pub fn run(options: &Options) -> Result<Report> {
    let mut report = Report::default();
    let mut rng = Rng::with_seed(options.seed);
    let mut number = 0;
    while report.executed < options.runs {
        let round = Round::draw(number, &mut rng);
        let found = round.make(options, &mut rng, &mut report)?;
        report.violations.extend(found.into_iter().map(|text| format!("{round}: {text}")));
        number += 1;
    }
    check_control(&mut report);
    report.merge(shared::run(options.runs / KILLS_PER_SHARED, options, &mut rng)?);
    Ok(report)
}

/// A kill that costs the buffered mode nothing shows nothing about the others.
fn check_control(report: &mut Report) {
    if report.counts.get(&gone(Durability::Buffered)) == Some(&0) {
        let text = "no kill cost the buffered mode a record: these kills show nothing";
        report.violations.push(text.into());
    }
}

/// The name of a count.
fn gone(durability: Durability) -> String {
    format!("records told and gone, {durability}")
}

/// Some writers of one store, all of which are killed.
#[derive(Debug)]
struct Round {
    crowds: Vec<Crowd>,
    /// The writers rest so long that the interval ends before their buffers are full.
    is_slow: bool,
}

impl Round {
    fn draw(number: usize, rng: &mut Rng) -> Self {
        let scenario = match number % 8 {
            0 | 1 | 4 | 5 => Scenario::Records,
            2 | 6 => Scenario::Mixed,
            3 => {
                if rng.bool() {
                    Scenario::Checkpoints
                } else {
                    Scenario::Rotate
                }
            }
            _ => crowd::brief(rng),
        };
        let durability = match number % 4 {
            0 => Durability::Buffered,
            1 => Durability::Written,
            _ => any_durability(rng),
        };
        let is_slow = number % 8 == 4;
        let pause_us = if is_slow { SLOW_PAUSE_US } else { 0 };
        // two imports at once are not what is looked at here
        let (processes, threads) = match scenario {
            Scenario::Import => (1, 1),
            _ if is_slow => (1, rng.u64(1..=3)),
            _ => (rng.u64(1..=2), rng.u64(1..=3)),
        };
        let seed = rng.u64(0..u64::from(u32::MAX)) << 8;
        let records = crowd::records(scenario);
        let crowd = |process| {
            let seed = seed + process * threads;
            Crowd { task: Task { scenario, seed, durability, records }, threads, pause_us }
        };
        Self { crowds: (0..processes).map(crowd).collect(), is_slow }
    }

    /// What was promised and is not there.
    fn make(&self, options: &Options, rng: &mut Rng, report: &mut Report) -> Result<Vec<String>> {
        let folder = folder()?;
        let store = folder.path().join("store");
        let start = |crowd: &Crowd| Victim::start(crowd.command(options, &store));
        let victims: Result<Vec<Victim>> = self.crowds.iter().map(start).collect();
        let mut runs = Vec::new();
        for (crowd, victim) in self.crowds.iter().zip(victims?) {
            let death = self.kill(victim, rng)?;
            report.executed += usize::from(death.was_killed);
            runs.extend(crowd.runs(death.said, Crash::Application, death.at));
            kill_openers(options, &store, rng, report)?;
            if runs.len() < self.threads() {
                Store::open(&store)?;
            }
        }
        let found = check::check(&store, &runs);
        count_records(&store, &runs, report)?;
        Ok(found)
    }

    fn kill(&self, mut victim: Victim, rng: &mut Rng) -> Result<Death> {
        let (lines, pause) = match self.is_slow {
            true => (1, SLOW_TIME.mul_f64(1.0 + rng.f64())),
            false => (rng.usize(0..=self.lines_max()), PAUSE_MAX.mul_f64(rng.f64())),
        };
        victim.wait_for(lines)?;
        thread::sleep(pause);
        victim.kill()
    }

    /// The last line that a kill waits for: about as many as are told in a tenth of a second.
    fn lines_max(&self) -> usize {
        match self.crowds.first().map(|crowd| crowd.task.scenario) {
            Some(Scenario::Records) => 3000,
            Some(Scenario::Mixed | Scenario::Checkpoints | Scenario::Rotate) => 200,
            _ => 20,
        }
    }

    fn threads(&self) -> usize {
        self.crowds.iter().map(|crowd| crowd.tasks().count()).sum()
    }
}

/// In memory where that is possible: a kill takes nothing that the system holds, and a writer that
/// never waits for a disk is killed in more places than in its waits.
pub(crate) fn folder() -> Result<TempDir> {
    match tempfile::tempdir_in("/dev/shm") {
        Ok(folder) => Ok(folder),
        Err(_) => Ok(tempfile::tempdir()?),
    }
}

fn any_durability(rng: &mut Rng) -> Durability {
    rng.choice(&Durability::ALL).copied().unwrap_or(Durability::Written)
}

/// Kills some processes that open the store. One that was done before is no kill.
fn kill_openers(options: &Options, store: &Path, rng: &mut Rng, report: &mut Report) -> Result<()> {
    for _ in 0..rng.usize(0..=OPENERS_MAX) {
        let mut command = Command::new(&options.program);
        let mut opener = command.arg("open").arg("--store").arg(store).spawn()?;
        thread::sleep(OPEN_MAX.mul_f64(rng.f64()));
        let is_done = opener.try_wait()?.is_some();
        opener.kill()?;
        opener.wait()?;
        report.count("kills while opening", usize::from(!is_done));
    }
    Ok(())
}

/// How many records were told, and how many of them are gone, by mode.
fn count_records(store: &Path, runs: &[Run], report: &mut Report) -> Result<()> {
    let Some(durability) = runs.first().map(|run| run.task.durability) else { return Ok(()) };
    let lines = runs.iter().flat_map(|run| &run.told);
    let told = lines.filter(|line| line.starts_with("ok record ")).count();
    let there: u64 = Store::open_read_only(store)?
        .sessions()?
        .iter()
        .filter(|row| row.session_id.as_str().starts_with("run-"))
        .map(|row| row.total_steps)
        .sum();
    report.count(&format!("records told, {durability}"), told);
    report.count(&gone(durability), told.saturating_sub(usize::try_from(there)?));
    Ok(())
}

impl std::fmt::Display for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let crowds: Vec<String> = self.crowds.iter().map(ToString::to_string).collect();
        f.write_str(&crowds.join("; "))
    }
}
