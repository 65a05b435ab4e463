//! Puts crash states on a real disk, one after another, and asks the oracle about each.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::scenes::STORE;
use super::tree::Tree;
use crate::check::{Run, check};
use crate::{Report, Result};

/// What a crash left, and what had been told by then.
pub(super) struct State {
    /// Where it comes from, for a person.
    pub(super) name: String,
    pub(super) tree: Tree,
    pub(super) runs: Vec<Run>,
}

/// States that wait for a thread.
const WAITING_MAX: usize = 8;

/// Checks what `produce` sends, on all processors.
///
/// # Errors
/// Those of `produce`, or a state that cannot be written.
pub(super) fn visit(produce: impl FnOnce(&SyncSender<State>) -> Result<()>) -> Result<Report> {
    let (sender, receiver) = sync_channel(WAITING_MAX);
    let receiver = Mutex::new(Some(receiver));
    std::thread::scope(|scope| {
        let checked = scope.spawn(|| on_all_processors(&|| check_all(&receiver)));
        let produced = produce(&sender);
        drop(sender);
        let report = checked.join().map_err(|panic| words(panic.as_ref()))??;
        produced.map(|()| report)
    })
}

/// Does the same work on each processor and adds up what came of it.
///
/// # Errors
/// Those of the work.
pub(super) fn on_all_processors(work: &(impl Fn() -> Result<Report> + Sync)) -> Result<Report> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut report = Report::default();
        for worker in workers {
            report.merge(worker.join().map_err(|panic| words(panic.as_ref()))??);
        }
        Ok(report)
    })
}

fn check_all(states: &Mutex<Option<Receiver<State>>>) -> Result<Report> {
    let mut report = Report::default();
    while let Some(state) = next(states) {
        let found = check_state(&state).inspect_err(|_| {
            states.lock().unwrap_or_else(PoisonError::into_inner).take(); // nobody waits for us
        })?;
        report.executed += 1;
        report.violations.extend(found.iter().map(|text| format!("{}: {text}", state.name)));
    }
    Ok(report)
}

fn next(states: &Mutex<Option<Receiver<State>>>) -> Option<State> {
    states.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.recv().ok()
}

/// What the oracle says of a state.
///
/// # Errors
/// The state cannot be written.
pub(super) fn check_state(state: &State) -> Result<Vec<String>> {
    let folder = tempfile::tempdir_in(fast_folder())?;
    state.tree.write_to(folder.path())?;
    let found = catch_unwind(AssertUnwindSafe(|| check(&folder.path().join(STORE), &state.runs)))
        .unwrap_or_else(|panic| vec![format!("panicked: {}", words(panic.as_ref()))]);
    if !found.is_empty() {
        keep(state)?;
    }
    Ok(found)
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Memory, where there is a folder in it: nothing here is about the real disk.
fn fast_folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// Names the folder in which violated states are kept to be looked at.
const KEEP: &str = "TIDELOG_FAULTS_KEEP";

fn keep(state: &State) -> Result<()> {
    let Some(folder) = std::env::var_os(KEEP) else { return Ok(()) };
    let folder = Path::new(&folder).join(state.name.replace(['/', ' ', ':'], "_"));
    std::fs::create_dir_all(&folder)?;
    let told: Vec<&str> = state.runs.iter().flat_map(|run| &run.told).map(String::as_str).collect();
    std::fs::write(folder.join("told"), told.join("\n"))?;
    match folder.join(STORE).exists() {
        true => Ok(()), // an earlier state of this name
        false => state.tree.write_to(&folder),
    }
}
