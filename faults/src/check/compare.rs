//! Compares what is owed with what is there, and says each difference in words.

use std::collections::BTreeMap;
use std::fmt::Debug;

use tidelog::{Action, CheckpointId, FindingKind, SqlValue, Store};

use super::journal::Journal;
use super::promise::{Owed, Promises, Saved, Steps};
use crate::Result;
use crate::scenario;

/// Everything owed is in the journal, whole, once and in order; nothing else is.
pub(super) fn journal(promises: &Promises, journal: &Journal, violations: &mut Vec<String>) {
    let mut found = Found { violations };
    let records = journal.records.iter().map(|(session, record)| {
        let as_asked = |seed| record.telemetry == scenario::telemetry(seed, record.step);
        (session, Some(record.step), as_asked)
    });
    found.steps("record", &promises.records, records);
    let basins = journal.basins.iter().map(|(session, point)| {
        let as_asked =
            |seed| point.step.is_some_and(|step| *point == scenario::basin_point(seed, step));
        (session, point.step, as_asked)
    });
    found.steps("basin point", &promises.basins, basins);
    found.starts(promises, journal);
    found.emergencies(promises, journal);
    found.checkpoints(promises, journal);
    found.gaps(promises, journal);
    found.all("contradiction:", &promises.contradictions);
    found.all("steps out of order in", &journal.out_of_order);
    // what a power cut took from lines that nobody was promised is damage, and no broken promise:
    // what is owed is looked for one by one
    if !promises.power_cut {
        found.all("invalid line", &journal.invalid);
        found.all("refused file", &journal.refused);
    }
}

struct Found<'a> {
    violations: &'a mut Vec<String>,
}

impl Found<'_> {
    fn say(&mut self, text: String) {
        self.violations.push(text);
    }

    fn all<T: Debug>(&mut self, what: &str, things: &[T]) {
        things.iter().for_each(|thing| self.say(format!("{what} {thing:?}")));
    }

    fn steps<'j>(
        &mut self,
        what: &str,
        asked: &Steps,
        there: impl Iterator<Item = (&'j String, Option<i64>, impl Fn(u64) -> bool)>,
    ) {
        let mut counts: BTreeMap<(String, i64), usize> = BTreeMap::new();
        for (session, step, is_as_asked) in there.filter(|(session, ..)| *session != super::MORE) {
            let key = (session.clone(), step.unwrap_or_default());
            match asked.get(&key) {
                None => self.say(format!("{what} {key:?} was never asked for, or was missed")),
                Some((seed, _)) if !is_as_asked(*seed) => {
                    self.say(format!("{what} {key:?} is not as it was given"));
                }
                Some(_) => *counts.entry(key).or_default() += 1,
            }
        }
        for (key, (_, owed)) in asked {
            self.count(what, key, *owed, counts.get(key).copied().unwrap_or_default());
        }
    }

    fn count(&mut self, what: &str, key: &impl Debug, owed: Owed, count: usize) {
        match (owed, count) {
            (Owed::Must, 0) => self.say(format!("{what} {key:?} is missing")),
            (_, 0 | 1) => {}
            (_, count) => self.say(format!("{what} {key:?} is there {count} times")),
        }
    }

    fn starts(&mut self, promises: &Promises, journal: &Journal) {
        for start in promises.starts.iter().filter(|start| !journal.starts.contains(start)) {
            self.say(format!("the start {start:?} is missing"));
        }
    }

    fn emergencies(&mut self, promises: &Promises, journal: &Journal) {
        for (id, (seed, owed)) in &promises.emergencies {
            let mut there =
                journal.emergencies.iter().filter(|event| event.event_id.as_str() == id).peekable();
            if let (Some(event), Ok(asked)) = (there.peek(), scenario::emergency(*seed, id))
                && event.value != asked.value
            {
                self.say(format!("emergency {id} is not as it was given"));
            }
            self.count("emergency", id, *owed, there.count());
        }
    }

    fn checkpoints(&mut self, promises: &Promises, journal: &Journal) {
        for (id, saved) in &promises.checkpoints {
            let there =
                journal.created.iter().filter(|created| created.checkpoint_id.as_str() == id);
            let hashes: Vec<&str> = there.map(|created| created.sha256.as_str()).collect();
            self.count("checkpoint", id, saved.owed, hashes.len());
            if let (Some(told), Some(hash)) = (&saved.sha256, hashes.first())
                && told != hash
            {
                self.say(format!("checkpoint {id} was told with hash {told} and has {hash}"));
            }
            let loaded = (id.clone(), Action::Loaded);
            let loads = journal.actions.iter().filter(|action| **action == loaded).count();
            if loads < saved.loads.0 || loads > saved.loads.1 {
                let (returned, asked) = saved.loads;
                self.say(format!(
                    "{loads} loads of {id}, {returned} returned of {asked} asked for"
                ));
            }
        }
    }

    /// A gap is journaled with the next thing that is kept, and never with too many records.
    fn gaps(&mut self, promises: &Promises, journal: &Journal) {
        let counted: u64 = journal.gaps.iter().map(|gap| gap.records).sum();
        let missed = promises.missed.len() as u64;
        if counted < promises.journaled_missed || counted > missed + promises.failed {
            let owed = promises.journaled_missed;
            self.say(format!("gaps of {counted} records; {missed} were missed, {owed} told of"));
        }
    }
}

/// The index answers as the journal does, and every checkpoint that it calls present loads.
pub(super) fn index(
    promises: &Promises,
    store: &Store,
    violations: &mut Vec<String>,
) -> Result<()> {
    let store = store.snapshot(&mut |_| {})?;
    let mut found = Found { violations };
    let journal = super::journal::read(store.root())?;
    let indexed =
        count(&store, "SELECT count(*) FROM telemetry_records WHERE session_id LIKE 'run-%'")?;
    let journaled = journal.records.len();
    if indexed != i64::try_from(journaled).ok() {
        found.say(format!("the index has {indexed:?} records, the journal {journaled}"));
    }
    found.sessions(promises, &store)?;
    found.indexed_emergencies(promises, &store)?;
    found.loads(promises, &store)
}

fn count(store: &Store, query: &str) -> Result<Option<i64>> {
    let mut count = None;
    let on_row = |row: &[SqlValue]| {
        if let Some(SqlValue::Integer(number)) = row.first() {
            count = Some(*number);
        }
        std::ops::ControlFlow::Break(())
    };
    store.sql(query, |_| (), on_row)?;
    Ok(count)
}

impl Found<'_> {
    fn sessions(&mut self, promises: &Promises, store: &Store) -> Result<()> {
        let rows = store.sessions()?;
        for (id, attempt) in &promises.starts {
            match rows.iter().find(|row| row.session_id.as_str() == id) {
                None => self.say(format!("session {id} is not in the index")),
                Some(row) if row.attempts < *attempt => {
                    self.say(format!("session {id} has {} attempts, not {attempt}", row.attempts));
                }
                Some(_) => {}
            }
        }
        for row in rows {
            let ended = promises.sessions.get(row.session_id.as_str());
            match (ended, row.status.as_str()) {
                (_, "active") => {
                    self.say(format!("session {} is active, its writer is gone", row.session_id));
                }
                (Some(true), status) if status != "completed" => {
                    self.say(format!("session {} was ended and is {status}", row.session_id));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn indexed_emergencies(&mut self, promises: &Promises, store: &Store) -> Result<()> {
        let rows = store.emergencies(None)?;
        for (id, (_, owed)) in &promises.emergencies {
            let there = rows.iter().filter(|row| row.event_id.as_str() == id).count();
            self.count("row of emergency", id, *owed, there);
        }
        Ok(())
    }

    fn loads(&mut self, promises: &Promises, store: &Store) -> Result<()> {
        for row in store.list_checkpoints(usize::MAX)? {
            let saved = promises.checkpoints.get(row.checkpoint_id.as_str());
            match (row.is_pruned(), saved.and_then(|saved| saved.pruned)) {
                (true, None) => self.say(format!("{} is pruned, nobody asked", row.checkpoint_id)),
                (false, Some(Owed::Must)) => {
                    self.say(format!("{} was pruned and is present", row.checkpoint_id));
                }
                (true, _) => {}
                (false, _) => self.load(store, &row.checkpoint_id, saved),
            }
        }
        Ok(())
    }

    fn load(&mut self, store: &Store, id: &CheckpointId, saved: Option<&Saved>) {
        let loaded = match store.load_checkpoint(id) {
            Ok(loaded) => loaded,
            Err(error) => return self.say(format!("checkpoint {id} is half: {error}")),
        };
        let Some(saved) = saved else { return }; // imported
        match scenario::state_dict(saved.seed, id.as_str()) {
            Ok(asked) if asked == loaded.state_dict => {}
            _ => self.say(format!("checkpoint {id} does not hold the state that was saved")),
        }
    }
}

/// `verify` finds no damage, but for lines that a power cut took and nobody was promised.
pub(super) fn verify(
    promises: &Promises,
    store: &Store,
    violations: &mut Vec<String>,
) -> Result<()> {
    store.refresh_index(&mut |_| {})?;
    let report = store.verify(&mut |_| {})?;
    for finding in report.findings {
        let path = finding.path.to_string_lossy().into_owned();
        let is_excused = match finding.kind {
            // what is owed was looked for one by one
            FindingKind::LineInvalid | FindingKind::FileRefused => promises.power_cut,
            FindingKind::TailTorn => promises.power_cut && promises.given_up,
            FindingKind::EmergencyCopyMissing => {
                let owed = |(id, (_, owed)): (&String, &(u64, Owed))| {
                    *owed == Owed::Must && path.ends_with(&format!("emergency_{id}.json"))
                };
                !promises.imported && !promises.emergencies.iter().any(owed)
            }
            FindingKind::CheckpointUnremoved => {
                let owed = |(id, saved): (&String, &Saved)| {
                    saved.pruned == Some(Owed::Must) && path.ends_with(&format!("/{id}.npz"))
                };
                !promises.checkpoints.iter().any(owed)
            }
            kind => !kind.is_damage(),
        };
        if !is_excused {
            violations.push(format!("verify: {path}: {}", finding.reason));
        }
    }
    Ok(())
}
