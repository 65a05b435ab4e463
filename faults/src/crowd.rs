//! Several of the programs under test at once: threads of one process that write one store.
//!
//! Each thread has its own seed, the first one's and those after it, and its own sessions. What
//! it tells begins with its seed, so that the stories can be taken apart again.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::check::{Crash, Run};
use crate::scenario::{self, Manner, Scenario, Task};
use crate::victim::Said;
use crate::{Options, Result, window};

/// So many records are never done before the crash.
const ENDLESS: usize = 100_000;
/// Between two persists in the background: what a session does that is told nothing else.
const INTERVAL_MS: u64 = 1000;

/// One process of several writers.
#[derive(Debug, Clone, clap::Args)]
pub struct Crowd {
    /// What the first thread does; the others do the same with the next seeds.
    #[command(flatten)]
    pub task: Task,
    /// How many threads
    #[arg(long, default_value_t = 1)]
    pub threads: u64,
    /// How long each thread rests after a call, in microseconds
    #[arg(long, default_value_t = 0)]
    pub pause_us: u64,
}

impl Crowd {
    /// Runs the task in as many threads; returns when all are done.
    ///
    /// # Errors
    /// The words of a thread cannot be written.
    pub fn write(&self, store: &Path) -> Result<()> {
        thread::scope(|scope| {
            let writers: Vec<_> = self
                .tasks()
                .map(|task| {
                    let pause = Duration::from_micros(self.pause_us);
                    let told = Prefixed { seed: task.seed, pause };
                    let manner = Manner { persist_interval_ms: INTERVAL_MS, ..Manner::of(&task) };
                    let write = move || scenario::write_as(manner, &task, store.to_owned(), told);
                    scope.spawn(write)
                })
                .collect();
            writers.into_iter().try_for_each(join)
        })
    }

    /// The process that does it.
    pub(crate) fn command(&self, options: &Options, store: &Path) -> Command {
        let mut command = Command::new(&options.program);
        let task = self.task.arguments(store).into_iter().skip(1);
        command.arg("writers").args(["--threads", &self.threads.to_string()]);
        command.args(["--pause-us", &self.pause_us.to_string()]).args(task);
        command
    }

    /// What the oracle needs to know of a process that went away at that moment.
    pub(crate) fn runs(&self, said: Vec<Said>, crash: Crash, moment: Instant) -> Vec<Run> {
        let mut stories = by_seed(said);
        let run = |task: Task| {
            let story = stories.remove(&task.seed).unwrap_or_default();
            let durable = window::durable(&story, &task, crash, moment);
            let told = story.into_iter().map(|said| told(said, crash, moment)).collect();
            let plan = task.plan();
            Run { task, plan, told, crash, durable }
        };
        self.tasks().map(run).collect()
    }

    pub(crate) fn tasks(&self) -> impl Iterator<Item = Task> {
        let seeds = self.task.seed..self.task.seed.saturating_add(self.threads);
        seeds.map(|seed| Task { seed, ..self.task.clone() })
    }
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task: Task { scenario, seed, durability, .. }, threads, .. } = self;
        write!(f, "{scenario} {durability} in {threads} threads of seed {seed}")
    }
}

/// A number of records with which the scenario goes on for longer than a crash lets it, if it can.
pub(crate) fn records(scenario: Scenario) -> usize {
    match scenario {
        Scenario::Records
        | Scenario::Mixed
        | Scenario::Checkpoints
        | Scenario::Rotate
        | Scenario::Background => ENDLESS,
        Scenario::Prune | Scenario::Import | Scenario::Resume | Scenario::Store => 40,
    }
}

/// A scenario that soon comes to its end.
pub(crate) fn brief(rng: &mut Rng) -> Scenario {
    let brief = [Scenario::Prune, Scenario::Store, Scenario::Resume, Scenario::Import];
    rng.choice(brief).unwrap_or(Scenario::Prune)
}

fn join(writer: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    writer.join().map_err(|_| "a writer panicked")?
}

/// Standard output of one thread.
struct Prefixed {
    seed: u64,
    pause: Duration,
}

impl Write for Prefixed {
    /// One line, which the scenario writes at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let said = [self.seed.to_string().as_bytes(), b" ", line].concat();
        let mut stdout = io::stdout().lock();
        stdout.write_all(&said)?;
        stdout.flush()?;
        drop(stdout);
        thread::sleep(self.pause);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What came after a power cut was not told: nobody is there to hear it. And it may be a lie: the
/// file system that is shut down under an fsync drops what that waits for, and lets some return as
/// if all were well (ext4: `jbd2_complete_transaction` of a journal that was aborted meanwhile).
fn told(said: Said, crash: Crash, moment: Instant) -> String {
    match crash {
        Crash::Power if said.at > moment => format!("too late: {}", said.text),
        _ => said.text,
    }
}

/// Takes the stories of the threads apart.
fn by_seed(said: Vec<Said>) -> BTreeMap<u64, Vec<Said>> {
    let mut stories: BTreeMap<u64, Vec<Said>> = BTreeMap::new();
    for Said { at, text } in said {
        if let Some((seed, text)) = text.split_once(' ')
            && let Ok(seed) = seed.parse()
        {
            stories.entry(seed).or_default().push(Said { at, text: text.to_owned() });
        }
    }
    stories
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Durability;

    const TASK: Task = Task {
        scenario: Scenario::Records,
        seed: 7,
        durability: Durability::Persisted,
        records: 2,
    };

    fn told(crash: Crash) -> Vec<Vec<String>> {
        let crowd = Crowd { task: TASK, threads: 2, pause_us: 0 };
        let moment = Instant::now();
        let late = moment + Duration::from_millis(1);
        let said = [(moment, "7 ok open"), (moment, "8 ok open"), (late, "7 ok start run-7-1 1")];
        let said = said.map(|(at, text)| Said { at, text: text.to_owned() });
        crowd.runs(said.into(), crash, moment).into_iter().map(|run| run.told).collect()
    }

    #[test]
    fn each_thread_has_a_story_of_its_own() {
        let stories = told(Crash::Application);
        assert_eq!(stories, [vec!["ok open", "ok start run-7-1 1"], vec!["ok open"]]);
    }

    #[test]
    fn what_is_said_after_a_power_cut_is_not_told() {
        let stories = told(Crash::Power);
        assert_eq!(stories[0], ["ok open", "too late: ok start run-7-1 1"]);
    }
}
