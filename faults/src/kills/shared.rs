//! The process is killed while several threads record to one session.
//!
//! Each thread counts its own steps up, so that whatever way the threads' lines are mixed, those of
//! one thread must be there from its first on, each once and in order.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fastrand::Rng;
use tidelog::{BUFFER_BYTES, SessionId, SessionOptions, SqlValue, Store, Telemetry};

use crate::scenario::Durability;
use crate::victim::{Said, Victim};
use crate::{Options, Report, Result};

/// The steps of one thread lie so far from those of the next.
const STRIDE: i64 = 1 << 32;
/// The lines told before a kill.
const LINES_MAX: usize = 2000;
/// The line of a record without a value is longer than this.
const LINE_BYTES_MIN: usize = 85;

/// What the program does that is killed.
#[derive(Debug, Clone, clap::Args)]
pub struct Sharers {
    /// How many threads
    #[arg(long)]
    pub threads: i64,
    /// What a returned call promises
    #[arg(long)]
    pub durability: Durability,
}

impl Sharers {
    /// Records until the process is killed; a line is a thread and how many it has recorded.
    ///
    /// # Errors
    /// The store refused a call, or the words cannot be written.
    pub fn write(&self, store: &Path) -> Result<()> {
        let options = SessionOptions { durability: self.durability, ..SessionOptions::default() };
        let session = Store::open(store)?.start_session_with(SessionId::new("shared")?, options)?;
        let record = |thread: i64| -> Result<()> {
            for number in 0.. {
                session.record_telemetry(thread * STRIDE + number, &Telemetry::default())?;
                let said = format!("{thread} {}\n", number + 1);
                std::io::stdout().lock().write_all(said.as_bytes())?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..self.threads).map(|thread| scope.spawn(move || record(thread))).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
        })
    }

    fn draw(rng: &mut Rng) -> Self {
        Self { threads: rng.i64(2..=8), durability: super::any_durability(rng) }
    }

    fn command(&self, options: &Options, store: &Path) -> Command {
        let Self { threads, durability } = self;
        let mut command = Command::new(&options.program);
        let words = format!("share --threads {threads} --durability {durability} --store");
        command.args(words.split(' ')).arg(store);
        command
    }

    /// What was told and is not there as it should be.
    fn check(&self, said: &[Said], store: &Path) -> Result<Vec<String>> {
        let mut there = vec![0; usize::try_from(self.threads)?];
        let mut violations = Vec::new();
        for step in steps(store)? {
            match there.get_mut(usize::try_from(step / STRIDE)?) {
                Some(next) if *next == step % STRIDE => *next += 1,
                _ => violations.push(format!("step {step} is missing, doubled or out of order")),
            }
        }
        let gone: i64 = there
            .iter()
            .zip(told(said, there.len()))
            .map(|(there, told)| (told - there).max(0))
            .sum();
        let allowed = match self.durability {
            Durability::Buffered => BUFFER_BYTES / LINE_BYTES_MIN,
            Durability::Written | Durability::Persisted => 0,
        };
        if usize::try_from(gone)? > allowed {
            violations.push(format!("{gone} records that were told are gone, {allowed} may be"));
        }
        Ok(violations)
    }
}

/// Kills so many programs whose threads share a session.
pub(super) fn run(kills: usize, options: &Options, rng: &mut Rng) -> Result<Report> {
    let mut report = Report::default();
    for _ in 0..kills {
        let sharers = Sharers::draw(rng);
        let folder = super::folder()?;
        let store = folder.path().join("store");
        let mut victim = Victim::start(sharers.command(options, &store))?;
        victim.wait_for(rng.usize(1..LINES_MAX))?;
        std::thread::sleep(Duration::from_micros(rng.u64(0..2000)));
        let said = victim.kill()?.said;
        report.executed += 1;
        report.count("kills of threads that share a session", 1);
        let found = sharers.check(&said, &store)?;
        report.violations.extend(found.into_iter().map(|text| format!("{sharers:?}: {text}")));
    }
    Ok(report)
}

/// How many records each thread told.
fn told(said: &[Said], threads: usize) -> Vec<i64> {
    let mut told = vec![0; threads];
    for Said { text, .. } in said {
        if let Some((thread, count)) = text.split_once(' ')
            && let (Ok(thread), Ok(count)) = (thread.parse::<usize>(), count.parse())
            && let Some(told) = told.get_mut(thread)
        {
            *told = count;
        }
    }
    told
}

/// Every step in the store, in the order of the journal.
fn steps(store: &Path) -> Result<Vec<i64>> {
    let mut steps = Vec::new();
    let on_row = |row: &[SqlValue]| {
        if let Some(SqlValue::Integer(step)) = row.first() {
            steps.push(*step);
        }
        ControlFlow::Continue(())
    };
    let query = "SELECT step FROM telemetry_records ORDER BY segment_no, line_no";
    Store::open(store)?.sql(query, |_| (), on_row)?;
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// What is found when the journal holds these steps and two threads told so many records.
    fn found(steps: &[i64], told: [i64; 2], durability: Durability) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let session =
            Store::open(folder.path()).unwrap().start_session(SessionId::new("s").unwrap());
        let session = session.unwrap();
        for step in steps {
            session.record_telemetry(*step, &Telemetry::default()).unwrap();
        }
        let said = [0, 1]
            .map(|thread| Said { at: Instant::now(), text: format!("{thread} {}", told[thread]) });
        Sharers { threads: 2, durability }.check(&said, folder.path()).unwrap()
    }

    #[test]
    fn each_threads_records_are_there_from_the_first_on_however_they_are_mixed() {
        let mixed = [STRIDE, 0, 1, STRIDE + 1, 2];
        assert_eq!(found(&mixed, [3, 1], Durability::Written), [""; 0]);
    }

    #[test]
    fn a_record_of_a_thread_that_is_missing_doubled_or_moved_is_noticed() {
        for steps in [[0, 2, 3], [0, 0, 1], [1, 0, 2]] {
            assert!(!found(&steps, [0, 0], Durability::Buffered).is_empty(), "{steps:?}");
        }
    }

    #[test]
    fn a_record_at_the_end_may_be_gone_in_the_buffered_mode_alone() {
        assert_eq!(found(&[0, 1], [3, 0], Durability::Written).len(), 1);
        assert_eq!(found(&[0, 1], [3, 0], Durability::Buffered), [""; 0]);
        assert_eq!(found(&[], [i64::MAX / 2, 0], Durability::Buffered).len(), 1);
    }
}
