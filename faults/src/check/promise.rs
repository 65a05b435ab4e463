//! What is owed, and what may be there beside it? From what was asked for and what was told.

use std::collections::{BTreeMap, BTreeSet};

use super::{Crash, Run};
use crate::scenario::{Operation, plan_line};

/// Whether a thing has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owed {
    /// Its call returned, and it survives this crash.
    Must,
    /// Its call was under way, failed, or promised less than the crash took.
    May,
}

/// A checkpoint that was asked for.
#[derive(Debug, Clone)]
pub(super) struct Saved {
    pub(super) seed: u64,
    pub(super) owed: Owed,
    pub(super) sha256: Option<String>,
    /// Whether it was removed on purpose; none: nobody asked.
    pub(super) pruned: Option<Owed>,
    /// Loads whose call returned, and all that were asked for.
    pub(super) loads: (usize, usize),
}

/// A record or a point, by session and step.
pub(super) type Steps = BTreeMap<(String, i64), (u64, Owed)>;

/// What is owed, and what may be there beside it.
#[derive(Debug, Default)]
pub(super) struct Promises {
    pub(super) records: Steps,
    pub(super) basins: Steps,
    /// Session and attempt of each start that returned.
    pub(super) starts: BTreeSet<(String, u32)>,
    /// Sessions that were asked for; whether the last thing known of it is that its end returned.
    pub(super) sessions: BTreeMap<String, bool>,
    pub(super) emergencies: BTreeMap<String, (u64, Owed)>,
    pub(super) checkpoints: BTreeMap<String, Saved>,
    /// Records that the store counted as missed, by session and step.
    pub(super) missed: BTreeSet<(String, i64)>,
    /// Whether a power cut took part: damage in what nobody was promised is the disk's.
    pub(super) power_cut: bool,
}

impl Promises {
    pub(super) fn of(runs: &[Run]) -> Self {
        let mut promises = Self::default();
        for run in runs {
            promises.power_cut |= run.crash == Crash::Power;
            Reader {
                run,
                promises: &mut promises,
                session: String::new(),
                unpersisted: Vec::new(),
            }
            .read();
        }
        promises
    }
}

/// Follows one run.
struct Reader<'a> {
    run: &'a Run,
    promises: &'a mut Promises,
    session: String,
    /// Records and points that returned and are owed once the session was persisted.
    unpersisted: Vec<(String, i64)>,
}

/// How a call came back.
enum Told<'a> {
    Ok(&'a str),
    Missed,
    /// It failed, or never came back.
    Unknown,
}

impl Reader<'_> {
    fn read(mut self) {
        let run = self.run;
        let plan = run.task.plan();
        // the call after the last that was told may have been under way
        for (number, operation) in plan.iter().take(run.told.len() + 1).enumerate() {
            let line = run.told.get(number).map_or("", String::as_str);
            let told = match line.strip_prefix(&plan_line("ok", operation)) {
                Some(more) => Told::Ok(more.trim()),
                None if line.starts_with("missed ") => Told::Missed,
                None => Told::Unknown,
            };
            self.operation(operation, &told);
        }
    }

    fn operation(&mut self, operation: &Operation, told: &Told<'_>) {
        let returned = matches!(told, Told::Ok(_));
        match operation {
            Operation::Start(id) => self.start(id, told),
            Operation::Record(step) | Operation::Basin(step) => {
                self.step(*step, matches!(operation, Operation::Basin(_)), told);
            }
            Operation::Persist if returned => self.persisted(),
            Operation::Checkpoint(id) => self.checkpoint(id, told),
            Operation::Emergency(id) => self.emergency(id, returned),
            Operation::End => self.end(returned),
            Operation::Prune(id) => {
                let owed = if returned { Owed::Must } else { Owed::May };
                self.promises
                    .checkpoints
                    .entry(id.clone())
                    .and_modify(|saved| saved.pruned = Some(owed));
            }
            Operation::Load(id) => {
                self.promises.checkpoints.entry(id.clone()).and_modify(|saved| {
                    saved.loads.0 += usize::from(returned);
                    saved.loads.1 += 1;
                });
            }
            Operation::Open
            | Operation::Close
            | Operation::Persist
            | Operation::Query
            | Operation::Import => {}
        }
    }

    fn start(&mut self, id: &str, told: &Told<'_>) {
        self.session = id.to_owned();
        self.unpersisted.clear();
        self.promises.sessions.insert(id.to_owned(), false);
        if let Told::Ok(attempt) = told {
            let attempt = attempt.parse().unwrap_or_default();
            self.promises.starts.insert((id.to_owned(), attempt));
        }
    }

    fn step(&mut self, step: i64, is_basin: bool, told: &Told<'_>) {
        let key = (self.session.clone(), step);
        if matches!(told, Told::Missed) {
            self.promises.missed.insert(key);
            return;
        }
        let returned = matches!(told, Told::Ok(_));
        let owed = match returned && self.run.keeps_what_returned() {
            true => Owed::Must,
            false => Owed::May,
        };
        if returned {
            self.unpersisted.push(key.clone());
        }
        let steps = if is_basin { &mut self.promises.basins } else { &mut self.promises.records };
        steps.insert(key, (self.run.task.seed, owed));
    }

    /// Everything that returned before is owed now.
    fn persisted(&mut self) {
        for key in self.unpersisted.drain(..) {
            for steps in [&mut self.promises.records, &mut self.promises.basins] {
                steps.entry(key.clone()).and_modify(|(_, owed)| *owed = Owed::Must);
            }
        }
    }

    fn checkpoint(&mut self, id: &str, told: &Told<'_>) {
        let (owed, sha256) = match told {
            Told::Ok(hash) => (Owed::Must, Some((*hash).to_owned())),
            Told::Missed | Told::Unknown => (Owed::May, None),
        };
        let seed = self.run.task.seed;
        let saved = Saved { seed, owed, sha256, pruned: None, loads: (0, 0) };
        self.promises.checkpoints.insert(id.to_owned(), saved);
        if owed == Owed::Must {
            self.persisted();
        }
    }

    fn emergency(&mut self, id: &str, returned: bool) {
        let owed = if returned { Owed::Must } else { Owed::May };
        self.promises.emergencies.insert(id.to_owned(), (self.run.task.seed, owed));
        if returned {
            self.persisted();
        }
    }

    fn end(&mut self, returned: bool) {
        if returned {
            self.persisted();
            self.promises.sessions.insert(self.session.clone(), true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Durability, Scenario, Task};

    fn owed(told: &str, durability: Durability, crash: Crash) -> Vec<Owed> {
        let task = Task { scenario: Scenario::Records, seed: 7, durability, records: 2 };
        let promises = Promises::of(&[Run::new(task, told, crash)]);
        promises.records.into_values().map(|(_, owed)| owed).collect()
    }

    const TOLD: &str = "ok open\nok start run-7-1 1\nok record 1\n";

    #[test]
    fn what_a_returned_record_survives_is_its_durability() {
        let all = [Durability::Buffered, Durability::Written, Durability::Persisted];
        let of = |crash| all.map(|durability| owed(TOLD, durability, crash)[0]);
        assert_eq!(of(Crash::Application), [Owed::May, Owed::Must, Owed::Must]);
        assert_eq!(of(Crash::Power), [Owed::May, Owed::May, Owed::Must]);
    }

    #[test]
    fn a_persist_makes_earlier_records_owed_and_no_later_ones() {
        let told = format!("{TOLD}ok persist\n");
        assert_eq!(owed(&told, Durability::Buffered, Crash::Power), [Owed::Must, Owed::May]);
    }

    #[test]
    fn half_a_word_is_none() {
        let told = format!("{TOLD}ok pers");
        assert_eq!(owed(&told, Durability::Written, Crash::Power), [Owed::May]);
    }
}
