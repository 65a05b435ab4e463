//! The oracle: is what was told still there, whole, once and in order?
//!
//! It reopens the store as the next program would, twice, reads everything both from the journal
//! and through the index, records something more, and lets `verify` have the last word. What it
//! finds wrong it says in words. It repairs nothing and knows nothing of how the store works: only
//! what was asked for ([`Task::plan`]), what was told, and how the writer went away.

mod compare;
mod files;
mod journal;
mod prefix;
mod promise;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tidelog::{Gap, Outcome, SessionId, Store, Telemetry};

use crate::Result;
use crate::scenario::{Durability, Operation, Task};
use promise::Promises;

/// How a writer went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process died, or ended: what the system holds is there.
    Application,
    /// What was not persisted may be gone, from the end.
    Power,
    /// As a power cut, on a disk that writes what was not persisted in any order: an earlier record
    /// may be gone though a later one is there.
    PowerInAnyOrder,
}

/// One run of the program under test.
#[derive(Debug, Clone)]
pub struct Run {
    /// What it was to do.
    pub task: Task,
    /// The calls of that, in order.
    pub plan: Vec<Operation>,
    /// The lines that it told, of the calls that returned; a half line counts as none.
    pub told: Vec<String>,
    /// How it went away.
    pub crash: Crash,
    /// Of the lines, so many are old enough to be owed whatever they promised by themselves.
    pub durable: usize,
}

impl Run {
    /// Takes the whole lines of what was told.
    pub fn new(task: Task, told: &str, crash: Crash) -> Self {
        let whole = told.rfind('\n').map_or("", |end| told.get(..end).unwrap_or_default());
        let plan = task.plan();
        let told = whole.lines().map(str::to_owned).collect();
        Self { task, plan, told, crash, durable: 0 }
    }

    /// Whether a record survives because its call returned, and not only once it was persisted.
    fn keeps_what_returned(&self) -> bool {
        match (self.task.durability, self.crash) {
            (Durability::Persisted, _) | (Durability::Written, Crash::Application) => true,
            (Durability::Buffered | Durability::Written, _) => false,
        }
    }
}

/// Compares a store with what its writers told, all of which are gone, oldest first.
///
/// The store is opened and written. Empty: every promise was kept.
pub fn check(root: &Path, runs: &[Run]) -> Vec<String> {
    let mut violations = Vec::new();
    if let Err(error) = examine(root, runs, &mut violations) {
        violations.push(format!("a call failed: {error}"));
    }
    violations
}

/// Whether a violation says that something acknowledged is gone, and not only that something is
/// otherwise than it should be.
pub fn is_loss(violation: &str) -> bool {
    violation.contains(" missing")
}

/// Records, first and last step of each gap that the journal tells of, in order.
///
/// # Errors
/// The journal cannot be read.
pub fn gaps(root: &Path) -> Result<Vec<(u64, i64, i64)>> {
    let mut gaps = journal::read(root)?.gaps;
    gaps.sort_by_key(|gap| gap.since);
    let steps = |gap: Gap| Some((gap.records, gap.first_step?, gap.last_step?));
    gaps.into_iter().map(|gap| steps(gap).ok_or_else(|| "a gap without steps".into())).collect()
}

fn examine(root: &Path, runs: &[Run], violations: &mut Vec<String>) -> Result<()> {
    let promises = Promises::of(runs);
    Store::open(root)?;
    let after_first = tree(root)?;
    Store::open(root)?;
    compare_trees(&after_first, &tree(root)?, violations);
    let store = Store::open_read_only(root)?;
    if promises.store.as_ref().is_some_and(|id| *id != store.id().to_string()) {
        violations.push(format!("the store has another id, {}", store.id()));
    }
    let journal = journal::read(root)?;
    compare::journal(&promises, &journal, violations);
    prefix::check(&promises, &journal, violations);
    files::check(&promises, root, violations)?;
    // a segment whose header is damaged is nobody's to judge, and keeps its marker
    if journal.refused.is_empty() {
        let announced = files::announced(root)?.into_iter();
        violations.extend(announced.map(|path| format!("{} was left behind", path.display())));
    }
    compare::index(&promises, &store, violations)?;
    import_again(root, runs, violations)?;
    record_more(root)?;
    compare::journal(&promises, &journal::read(root)?, violations);
    compare::verify(&promises, &Store::open_read_only(root)?, violations)
}

/// Every file below a folder, but for those of the index, which is derived.
fn tree(root: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.to_string_lossy().contains("index.sqlite") {
                let bytes = std::fs::read(&path)?;
                found.insert(path, bytes);
            }
        }
    }
    Ok(found)
}

fn compare_trees(
    before: &BTreeMap<PathBuf, Vec<u8>>,
    after: &BTreeMap<PathBuf, Vec<u8>>,
    violations: &mut Vec<String>,
) {
    let paths = before.keys().chain(after.keys().filter(|path| !before.contains_key(*path)));
    for path in paths.filter(|path| before.get(*path) != after.get(*path)) {
        violations.push(format!("a second open changed {}", path.display()));
    }
}

/// An import that was cut short is started again and takes what is missing, and nothing twice.
fn import_again(root: &Path, runs: &[Run], violations: &mut Vec<String>) -> Result<()> {
    if !runs.iter().any(|run| run.plan.contains(&Operation::Import)) {
        return Ok(());
    }
    let fresh = tempfile::tempdir()?;
    // one that could not read a file says so, and tells fewer entries
    let complete = format!("ok import {}", import_into(fresh.path())?.taken());
    let acknowledged = runs.iter().flat_map(|run| &run.told).any(|line| *line == complete);
    let taken = import_into(root)?.taken();
    if acknowledged && taken > 0 {
        violations.push(format!("{taken} entries of an import that had returned were missing"));
    }
    let (expected, found) = (journal::imported(fresh.path())?, journal::imported(root)?);
    if expected != found {
        violations.push(format!("imported entries: {found:?}, expected {expected:?}"));
    }
    Ok(())
}

fn import_into(root: &Path) -> Result<tidelog::import::Report> {
    let (store, folder) = (Store::open(root)?, crate::scenario::predecessor());
    Ok(tidelog::import::import(&store, &folder, &Default::default(), &mut |_| {})?)
}

/// The session that the oracle itself records.
const MORE: &str = "after-the-crash";

fn record_more(root: &Path) -> Result<()> {
    let store = Store::open(root)?;
    let session = store.start_session(SessionId::new(MORE)?)?;
    session.record_telemetry(1, &Telemetry::default())?;
    session.end(Outcome::Completed)?;
    let row = store.get_session_stats(&SessionId::new(MORE)?)?;
    match (row.total_steps, row.status.as_str()) {
        (1, "completed") => Ok(()),
        (records, status) => {
            Err(format!("a new session has {records} records and is {status}").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Scenario, write};
    use clap::ValueEnum;

    fn written(scenario: Scenario) -> (tempfile::TempDir, Run) {
        let folder = tempfile::tempdir().unwrap();
        let task = Task { scenario, seed: 7, durability: Durability::Written, records: 40 };
        let mut told = Vec::new();
        write(&task, folder.path().join("store"), &mut told).unwrap();
        let run = Run::new(task, &String::from_utf8(told).unwrap(), Crash::Application);
        (folder, run)
    }

    fn violations(folder: &tempfile::TempDir, run: Run) -> Vec<String> {
        check(&folder.path().join("store"), &[run])
    }

    #[test]
    fn a_scenario_that_nothing_broke_keeps_every_promise() {
        for scenario in Scenario::value_variants() {
            let (folder, run) = written(*scenario);
            assert!(run.told.iter().all(|line| line.starts_with("ok ")), "{:?}", run.told);
            assert_eq!(violations(&folder, run), [""; 0], "{scenario}");
        }
    }

    /// What is left of the one segment after `edit`.
    fn edited(edit: impl Fn(Vec<String>) -> Vec<String>) -> Vec<String> {
        let (folder, run) = written(Scenario::Records);
        let path = folder.path().join("store/logs/telemetry/session_run-7-1.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = edit(text.lines().map(str::to_owned).collect());
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        violations(&folder, run)
    }

    #[test]
    fn a_record_that_is_gone_doubled_or_moved_is_noticed() {
        let gone = edited(|mut lines| {
            lines.remove(5);
            lines
        });
        assert!(gone.iter().any(|text| is_loss(text)), "{gone:?}");
        let doubled = edited(|mut lines| {
            lines.insert(5, lines[5].clone());
            lines
        });
        assert!(doubled.iter().any(|text| text.contains("2 times")), "{doubled:?}");
        assert!(!doubled.iter().any(|text| is_loss(text)), "{doubled:?}");
        let moved = edited(|mut lines| {
            lines.swap(4, 5);
            lines
        });
        assert!(moved.iter().any(|text| text.contains("out of order")), "{moved:?}");
    }

    #[test]
    fn a_record_that_nobody_is_owed_is_missed_before_one_that_is_there() {
        let (folder, run) = written(Scenario::Records);
        let path = folder.path().join("store/logs/telemetry/session_run-7-1.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        let keep = |line: &&str| !line.contains("\"step\":35,");
        let lines: Vec<&str> = text.lines().filter(keep).collect();
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        let told = run.told.iter().take_while(|line| *line != "ok end").cloned().collect();
        let found = violations(&folder, Run { told, crash: Crash::Power, ..run });
        assert!(found.iter().any(|text| text.contains("a hole in run-7-1: step 35")), "{found:?}");
    }

    #[test]
    fn a_checkpoint_that_is_gone_or_cut_is_noticed() {
        for cut in [None, Some(100)] {
            let (folder, run) = written(Scenario::Prune);
            let path = folder.path().join("store/checkpoints/c-7-3.npz");
            match cut {
                None => std::fs::remove_file(&path).unwrap(),
                Some(bytes) => std::fs::File::options()
                    .write(true)
                    .open(&path)
                    .unwrap()
                    .set_len(bytes)
                    .unwrap(),
            }
            let found = violations(&folder, run);
            assert!(found.iter().any(|text| text.contains("c-7-3 is half")), "{found:?}");
        }
    }
}
