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
    /// The steps of records and points that returned, in order, by session and start; none of a
    /// crash that keeps no order.
    pub(super) parts: Vec<(String, Vec<i64>)>,
    /// Session and attempt of each start that returned.
    pub(super) starts: BTreeSet<(String, u32)>,
    /// Sessions that were asked for; whether the last thing known of it is that its end returned.
    pub(super) sessions: BTreeMap<String, bool>,
    pub(super) emergencies: BTreeMap<String, (u64, Owed)>,
    pub(super) checkpoints: BTreeMap<String, Saved>,
    /// Records that the store counted as missed, by session and step.
    pub(super) missed: BTreeSet<(String, i64)>,
    /// Records that were missed before something else of their session was kept, which tells of them.
    pub(super) journaled_missed: u64,
    /// Records whose call failed; they may be counted as missed.
    pub(super) failed: u64,
    /// Where what was told contradicts itself.
    pub(super) contradictions: Vec<String>,
    /// The store's id, once it was told.
    pub(super) store: Option<String>,
    /// Whether an import returned.
    pub(super) imported: bool,
    /// Whether a failed persist was told: its segment was left as the failing disk has it.
    pub(super) given_up: bool,
    /// Whether a power cut took part: damage in what nobody was promised is the disk's.
    pub(super) power_cut: bool,
}

impl Promises {
    pub(super) fn of(runs: &[Run]) -> Self {
        let mut promises = Self::default();
        for run in runs {
            promises.power_cut |= run.crash != Crash::Application;
            Reader {
                run,
                promises: &mut promises,
                session: String::new(),
                unpersisted: Vec::new(),
                missed: 0,
                unjournaled: 0,
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
    /// Records that this session missed, and those of them that the journal may not tell of yet.
    missed: u64,
    unjournaled: u64,
}

/// How a call came back.
enum Told<'a> {
    Ok(&'a str),
    /// It is written, and not persisted as its durability says.
    Unpersisted,
    Missed,
    Failed,
    /// It never came back.
    Unknown,
}

impl Reader<'_> {
    fn read(mut self) {
        let run = self.run;
        // the call after the last that was told may have been under way
        for (number, operation) in run.plan.iter().take(run.told.len() + 1).enumerate() {
            let line = run.told.get(number).map_or("", String::as_str);
            let told = match line.strip_prefix(&plan_line("ok", operation)) {
                Some(more) => Told::Ok(more.trim()),
                None if line.starts_with("unpersisted ") => Told::Unpersisted,
                None if line.starts_with("missed ") => Told::Missed,
                None if line.starts_with("err ") => Told::Failed,
                None => Told::Unknown,
            };
            self.operation(operation, &told);
            if number + 1 == run.durable {
                self.persisted();
            }
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
            // a later persist does not know what this one lost
            Operation::Persist if matches!(told, Told::Failed) => self.give_up(),
            Operation::Missed => self.missed(told),
            Operation::Checkpoint(id) => self.checkpoint(id, told),
            Operation::Emergency(id) => self.emergency(id, returned),
            Operation::Import => self.promises.imported |= returned,
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
            Operation::Open => self.open(told),
            Operation::Close | Operation::Persist | Operation::Query => {}
        }
    }

    fn open(&mut self, told: &Told<'_>) {
        if let Told::Ok(id) = told
            && !id.is_empty()
        {
            self.promises.store = Some((*id).to_owned());
        }
    }

    fn start(&mut self, id: &str, told: &Told<'_>) {
        self.session = id.to_owned();
        self.unpersisted.clear();
        (self.missed, self.unjournaled) = (0, 0);
        self.promises.parts.push((id.to_owned(), Vec::new()));
        self.promises.sessions.insert(id.to_owned(), false);
        if let Told::Ok(attempt) = told {
            let attempt = attempt.parse().unwrap_or_default();
            self.promises.starts.insert((id.to_owned(), attempt));
        }
    }

    fn step(&mut self, step: i64, is_basin: bool, told: &Told<'_>) {
        let key = (self.session.clone(), step);
        let keeps = self.run.keeps_what_returned();
        let owed = match told {
            Told::Missed => return self.miss(key),
            Told::Ok(_) if keeps => Owed::Must,
            Told::Unpersisted if self.run.crash == Crash::Application => Owed::Must,
            _ => Owed::May,
        };
        match told {
            Told::Ok(_) => self.returned(key.clone()),
            Told::Failed => self.promises.failed += 1,
            _ => {}
        }
        if owed == Owed::Must {
            self.journaled();
        }
        let steps = if is_basin { &mut self.promises.basins } else { &mut self.promises.records };
        steps.insert(key, (self.run.task.seed, owed));
    }

    fn returned(&mut self, key: (String, i64)) {
        if self.run.crash != Crash::PowerInAnyOrder
            && let Some((_, steps)) = self.promises.parts.last_mut()
        {
            steps.push(key.1);
        }
        self.unpersisted.push(key);
    }

    fn miss(&mut self, key: (String, i64)) {
        self.promises.missed.insert(key);
        self.missed += 1;
        self.unjournaled += 1;
    }

    /// What was told to be lost is neither owed nor a hole.
    fn give_up(&mut self) {
        if self.run.crash != Crash::Application {
            self.unpersisted.clear();
            self.promises.given_up = true;
            self.promises.parts.push((self.session.clone(), Vec::new()));
        }
    }

    /// Something was kept, and the journal tells of what was missed before it.
    fn journaled(&mut self) {
        self.promises.journaled_missed += std::mem::take(&mut self.unjournaled);
    }

    /// What the session itself says of them.
    fn missed(&mut self, told: &Told<'_>) {
        if let Told::Ok(count) = told
            && *count != self.missed.to_string()
        {
            let text = format!("{count} records missed, says the session; {} were", self.missed);
            self.promises.contradictions.push(text);
        }
    }

    /// An entry that is persisted on return, after everything before it.
    fn kept(&mut self) {
        self.journaled();
        self.persisted();
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
            _ => (Owed::May, None),
        };
        let seed = self.run.task.seed;
        let saved = Saved { seed, owed, sha256, pruned: None, loads: (0, 0) };
        self.promises.checkpoints.insert(id.to_owned(), saved);
        if owed == Owed::Must {
            self.kept();
        }
    }

    fn emergency(&mut self, id: &str, returned: bool) {
        let owed = if returned { Owed::Must } else { Owed::May };
        self.promises.emergencies.insert(id.to_owned(), (self.run.task.seed, owed));
        if returned {
            self.kept();
        }
    }

    fn end(&mut self, returned: bool) {
        if returned {
            self.kept();
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
    fn a_record_that_is_old_enough_is_owed_and_no_later_one() {
        let task = Task {
            scenario: Scenario::Records,
            seed: 7,
            durability: Durability::Written,
            records: 2,
        };
        let told = format!("{TOLD}ok persist\nok record 2\n").replace("ok persist", "err persist");
        let run = Run { durable: 3, ..Run::new(task, &told, Crash::Power) };
        let owed: Vec<Owed> =
            Promises::of(&[run]).records.into_values().map(|(_, owed)| owed).collect();
        assert_eq!(owed, [Owed::Must, Owed::May]);
    }

    #[test]
    fn half_a_word_is_none() {
        let told = format!("{TOLD}ok pers");
        assert_eq!(owed(&told, Durability::Written, Crash::Power), [Owed::May]);
    }
}
