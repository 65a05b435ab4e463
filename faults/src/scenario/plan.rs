//! Which calls, in which order? From a scenario's name, a seed and a number of records.

use std::fmt;
use std::str::FromStr;

use fastrand::Rng;

use super::Scenario;
use crate::{Error, Result};

/// One call of the store's API, named as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Opens the store for writing.
    Open,
    /// Lets the store go.
    Close,
    /// Starts or resumes the session of this id.
    Start(String),
    /// Records this step.
    Record(i64),
    /// Records a point of the basin.
    Basin(i64),
    /// Persists the session.
    Persist,
    /// Asks how many records were missed.
    Missed,
    /// Saves a checkpoint under this id.
    Checkpoint(String),
    /// Records an emergency under this id.
    Emergency(String),
    /// Ends the session as completed.
    End,
    /// Removes a checkpoint's file.
    Prune(String),
    /// Loads a checkpoint, which is journaled.
    Load(String),
    /// Lets the index read what is new.
    Query,
    /// Imports the predecessor's folder.
    Import,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
            Self::Close => f.write_str("close"),
            Self::Start(id) => write!(f, "start {id}"),
            Self::Record(step) => write!(f, "record {step}"),
            Self::Basin(step) => write!(f, "basin {step}"),
            Self::Persist => f.write_str("persist"),
            Self::Missed => f.write_str("missed"),
            Self::Checkpoint(id) => write!(f, "checkpoint {id}"),
            Self::Emergency(id) => write!(f, "emergency {id}"),
            Self::End => f.write_str("end"),
            Self::Prune(id) => write!(f, "prune {id}"),
            Self::Load(id) => write!(f, "load {id}"),
            Self::Query => f.write_str("query"),
            Self::Import => f.write_str("import"),
        }
    }
}

impl FromStr for Operation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (word, more) = text.split_once(' ').unwrap_or((text, ""));
        Ok(match word {
            "open" => Self::Open,
            "close" => Self::Close,
            "start" => Self::Start(more.to_owned()),
            "record" => Self::Record(more.parse()?),
            "basin" => Self::Basin(more.parse()?),
            "persist" => Self::Persist,
            "missed" => Self::Missed,
            "checkpoint" => Self::Checkpoint(more.to_owned()),
            "emergency" => Self::Emergency(more.to_owned()),
            "end" => Self::End,
            "prune" => Self::Prune(more.to_owned()),
            "load" => Self::Load(more.to_owned()),
            "query" => Self::Query,
            "import" => Self::Import,
            _ => return Err(format!("{text} is no operation").into()),
        })
    }
}

/// The calls of a scenario. Steps count up and none is used twice.
pub fn plan(scenario: Scenario, seed: u64, records: usize) -> Vec<Operation> {
    let mut plan = Plan { operations: vec![Operation::Open], seed, last_step: 0, last_id: 0 };
    match scenario {
        Scenario::Records => plan.records_of_one_session(records),
        Scenario::Checkpoints => plan.checkpoints(records),
        Scenario::Prune => plan.prune(records),
        Scenario::Import => plan.add(Operation::Import),
        Scenario::Resume => plan.resume(records),
        Scenario::Store => plan.store(records),
        Scenario::Rotate => plan.rotate(records),
        Scenario::Background => plan.background(records),
        Scenario::Mixed => plan.mixed(records),
    }
    plan.add(Operation::Close);
    plan.operations
}

struct Plan {
    operations: Vec<Operation>,
    seed: u64,
    last_step: i64,
    last_id: u32,
}

impl Plan {
    fn add(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    fn start(&mut self, number: u32) {
        self.add(Operation::Start(format!("run-{}-{number}", self.seed)));
    }

    fn record(&mut self) {
        self.last_step += 1;
        self.add(Operation::Record(self.last_step));
    }

    fn records(&mut self, count: usize) {
        (0..count).for_each(|_| self.record());
    }

    fn basin(&mut self) {
        self.last_step += 1;
        self.add(Operation::Basin(self.last_step));
    }

    /// A new id of a kind of thing.
    fn id(&mut self, kind: char) -> String {
        self.last_id += 1;
        format!("{kind}-{}-{}", self.seed, self.last_id)
    }

    fn checkpoint(&mut self) -> String {
        let id = self.id('c');
        self.add(Operation::Checkpoint(id.clone()));
        id
    }

    fn emergency(&mut self) {
        let id = self.id('e');
        self.add(Operation::Emergency(id));
    }

    fn records_of_one_session(&mut self, records: usize) {
        self.start(1);
        for number in 1..=records {
            self.record();
            if number % 7 == 0 {
                self.basin();
            }
            if number == records / 2 {
                self.add(Operation::Persist);
            }
        }
        self.add(Operation::End);
    }

    fn checkpoints(&mut self, records: usize) {
        self.start(1);
        for _ in 0..records.div_ceil(5) {
            self.records(2);
            self.checkpoint();
            self.records(2);
            self.emergency();
            self.records(1);
            self.add(Operation::Persist);
        }
        self.add(Operation::End);
    }

    fn prune(&mut self, records: usize) {
        self.start(1);
        let first = self.checkpoint();
        self.records(records.min(3));
        let second = self.checkpoint();
        self.checkpoint();
        self.add(Operation::Prune(first));
        self.add(Operation::End);
        self.add(Operation::Prune(second));
    }

    fn resume(&mut self, records: usize) {
        let each = records.div_ceil(4);
        for number in [1, 2, 1] {
            self.start(number);
            self.records(each);
            self.add(Operation::End);
        }
        self.add(Operation::Close);
        self.add(Operation::Open);
        self.start(1);
        self.records(each);
        self.add(Operation::End);
    }

    fn store(&mut self, records: usize) {
        self.start(1);
        self.records(records.min(2));
        let first = self.checkpoint();
        let second = self.checkpoint();
        self.add(Operation::Load(first.clone()));
        self.add(Operation::End);
        self.add(Operation::Load(second.clone()));
        self.add(Operation::Prune(first));
        self.add(Operation::Close);
        self.add(Operation::Open);
        self.add(Operation::Load(second));
    }

    fn rotate(&mut self, records: usize) {
        self.start(1);
        self.records(records.div_ceil(2));
        self.emergency();
        self.checkpoint();
        self.records(records.div_ceil(2));
        self.add(Operation::Missed);
        self.add(Operation::End);
    }

    fn background(&mut self, records: usize) {
        self.start(1);
        for _ in 0..records {
            self.record();
            self.basin();
        }
        self.add(Operation::Persist);
        self.record();
        self.add(Operation::Missed);
        self.add(Operation::End);
    }

    fn mixed(&mut self, records: usize) {
        let mut rng = Rng::with_seed(self.seed);
        let mut present = Vec::new();
        let mut session = 1;
        self.start(session);
        for _ in 0..records {
            self.record();
            match rng.u8(0..40) {
                0 => session = self.next_session(&mut rng, session),
                1 | 2 => self.emergency(),
                3 | 4 => present.push(self.checkpoint()),
                5 | 6 => self.add(Operation::Persist),
                7 if !present.is_empty() => {
                    let id = present.swap_remove(rng.usize(..present.len()));
                    self.add(Operation::Prune(id));
                }
                8 => self.operations.extend(rng.choice(&present).cloned().map(Operation::Load)),
                9 | 10 => self.add(Operation::Query),
                11..=14 => self.basin(),
                _ => {}
            }
        }
        self.add(Operation::End);
    }

    /// Ends this session and starts another one or an earlier one again, perhaps in a store that
    /// was closed and opened between.
    fn next_session(&mut self, rng: &mut Rng, last: u32) -> u32 {
        self.add(Operation::End);
        if rng.bool() {
            self.add(Operation::Close);
            self.add(Operation::Open);
        }
        let next = rng.u32(1..=last + 1);
        self.start(next);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_plans_the_same_calls() {
        let mixed = |seed| plan(Scenario::Mixed, seed, 200);
        assert_eq!(mixed(1), mixed(1));
        assert_ne!(mixed(1), mixed(2));
    }

    #[test]
    fn every_operation_is_read_as_it_is_told() {
        let all = plan(Scenario::Mixed, 1, 500).into_iter();
        for operation in all.chain([Operation::Missed, Operation::Import]) {
            assert_eq!(operation.to_string().parse::<Operation>().unwrap(), operation);
        }
        assert!("dance".parse::<Operation>().is_err());
    }

    #[test]
    fn no_step_is_used_twice() {
        let steps: Vec<i64> = plan(Scenario::Mixed, 3, 500)
            .into_iter()
            .filter_map(|operation| match operation {
                Operation::Record(step) | Operation::Basin(step) => Some(step),
                _ => None,
            })
            .collect();
        assert!(steps.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
