//! Which runs are broken? A scenario, from an empty folder or from what an earlier crash left.

use std::path::{Path, PathBuf};

use super::crash::Disk;
use super::history::{Event, History};
use super::trace;
use super::tree::Tree;
use crate::check::{Crash, Run};
use crate::scenario::{Durability, Scenario, Task};
use crate::{Options, Result};

/// One run whose power is cut.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) name: String,
    pub(super) task: Task,
    /// The run before it, whose process was killed after so many thousandths of its calls.
    pub(super) killed: Option<(Task, usize)>,
}

/// What came of running a scene once.
pub(super) struct Traced {
    pub(super) history: History,
    /// The runs before, all of which is there at the beginning.
    pub(super) before: Vec<Run>,
}

/// Name of the store's folder in the folder that is watched.
pub(super) const STORE: &str = "store";

/// All scenes of the long run.
pub(super) fn scenes(seed: u64) -> Vec<Scene> {
    let task = |scenario, records, durability| Task { scenario, seed, durability, records };
    let scene = |name: &str, task| Scene { name: name.to_owned(), task, killed: None };
    let mixed = task(Scenario::Mixed, 60, Durability::Written);
    let recovery = |name: &str, promille| Scene {
        name: name.to_owned(),
        task: Task { seed: seed + 1, ..task(Scenario::Records, 3, Durability::Written) },
        killed: Some((mixed.clone(), promille)),
    };
    vec![
        scene("records", task(Scenario::Records, 20, Durability::Written)),
        scene("records, buffered", task(Scenario::Records, 20, Durability::Buffered)),
        scene("records, persisted", task(Scenario::Records, 10, Durability::Persisted)),
        scene("rotate", task(Scenario::Rotate, 20, Durability::Written)),
        scene("rotate, buffered", task(Scenario::Rotate, 20, Durability::Buffered)),
        scene("background", task(Scenario::Background, 10, Durability::Buffered)),
        scene("checkpoints", task(Scenario::Checkpoints, 10, Durability::Written)),
        scene("prune", task(Scenario::Prune, 3, Durability::Written)),
        scene("import", task(Scenario::Import, 0, Durability::Written)),
        scene("resume", task(Scenario::Resume, 8, Durability::Written)),
        scene("store", task(Scenario::Store, 2, Durability::Written)),
        scene("mixed", mixed.clone()),
        recovery("recovery, early", 300),
        recovery("recovery, late", 900),
    ]
}

impl Scene {
    /// Runs it under `strace`.
    ///
    /// # Errors
    /// It cannot be run, or makes a call that the model does not know.
    pub(super) fn trace(&self, options: &Options) -> Result<Traced> {
        let Some((task, promille)) = &self.killed else {
            return traced(options, &self.task, &Tree::default(), Vec::new());
        };
        let first = traced(options, task, &Tree::default(), Vec::new())?;
        let point = first.history.events.len() * promille / 1000;
        let tree = Disk::new(&first.history, None).tree(point, &Default::default(), true);
        let killed = first.history.run(task, point, Crash::Application);
        traced(options, &self.task, &torn(tree), vec![killed])
    }
}

fn traced(options: &Options, task: &Task, initial: &Tree, before: Vec<Run>) -> Result<Traced> {
    let folder = tempfile::tempdir()?;
    let base = folder.path().canonicalize()?;
    initial.write_to(&base)?;
    let calls = trace::trace(options, task, &base.join(STORE))?;
    Ok(Traced { history: History::of(&base, initial, &calls)?, before })
}

/// The last line of a killed writer may be half: each segment that is announced gets such a tail.
fn torn(mut tree: Tree) -> Tree {
    const HALF: &[u8] = br#"{"timestamp":"2026-01-"#;
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let (active, logs) = (Path::new(STORE).join("active"), Path::new(STORE).join("logs"));
    let below = |folder: &Path| -> Vec<(PathBuf, Vec<u8>)> {
        let files = tree.iter().filter(|(path, _)| path.starts_with(folder));
        files.filter_map(|(path, bytes)| Some((path.to_owned(), bytes?.clone()))).collect()
    };
    let markers: String = below(&active).iter().map(|(_, bytes)| text(bytes)).collect();
    for (path, bytes) in below(&logs) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if name.is_some_and(|name| markers.contains(&name)) {
            tree.insert(path, Some([bytes.as_slice(), HALF].concat()));
        }
    }
    tree
}

impl History {
    /// What the task had told by the first `point` events.
    pub(super) fn run(&self, task: &Task, point: usize, crash: Crash) -> Run {
        let told = self.events.iter().take(point).filter_map(|happened| match &happened.event {
            Event::Told(line) => Some(format!("{line}\n")),
            _ => None,
        });
        Run::new(task.clone(), &told.collect::<String>(), crash)
    }

    /// An event by its number.
    pub(super) fn event(&self, number: usize) -> Option<&Event> {
        self.events.get(number).map(|happened| &happened.event)
    }
}
