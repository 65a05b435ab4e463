//! Which runs are broken? A scenario, from an empty folder or from what an earlier crash left.

use std::path::{Path, PathBuf};

use super::choose::Fates;
use super::crash::Disk;
use super::history::History;
use super::player::Player;
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
    /// The run before it.
    pub(super) killed: Option<Killed>,
}

/// A run whose process was killed. What it had not persisted is still not when the next one begins.
#[derive(Debug, Clone)]
pub(super) struct Killed {
    pub(super) task: Task,
    /// After so many thousandths of its calls.
    pub(super) after: usize,
    /// Whether it left half a line.
    pub(super) is_torn: bool,
}

/// Name of the store's folder in the folder that is watched.
pub(super) const STORE: &str = "store";

/// All scenes of the long run.
pub(super) fn scenes(seed: u64) -> Vec<Scene> {
    let task = |scenario, records, durability| Task { scenario, seed, durability, records };
    let scene = |name: &str, task| Scene { name: name.to_owned(), task, killed: None };
    let mixed = task(Scenario::Mixed, 60, Durability::Written);
    let rotate = task(Scenario::Rotate, 20, Durability::Written);
    let recovery = |name: &str, killed: &Task, after, is_torn| Scene {
        name: name.to_owned(),
        task: Task { seed: seed + 1, ..task(Scenario::Records, 3, Durability::Written) },
        killed: Some(Killed { task: killed.clone(), after, is_torn }),
    };
    vec![
        scene("records", task(Scenario::Records, 20, Durability::Written)),
        scene("records, buffered", task(Scenario::Records, 20, Durability::Buffered)),
        scene("records, persisted", task(Scenario::Records, 10, Durability::Persisted)),
        scene("rotate", rotate.clone()),
        scene("rotate, buffered", task(Scenario::Rotate, 20, Durability::Buffered)),
        scene("background", task(Scenario::Background, 10, Durability::Buffered)),
        scene("checkpoints", task(Scenario::Checkpoints, 10, Durability::Written)),
        scene("prune", task(Scenario::Prune, 3, Durability::Written)),
        scene("import", task(Scenario::Import, 0, Durability::Written)),
        scene("resume", task(Scenario::Resume, 8, Durability::Written)),
        scene("store", task(Scenario::Store, 2, Durability::Written)),
        scene("mixed", mixed.clone()),
        recovery("recovery, early", &mixed, 300, false),
        recovery("recovery, late", &mixed, 900, false),
        recovery("recovery of a torn tail", &mixed, 600, true),
        recovery("recovery of rotate", &rotate, 600, false),
    ]
}

impl Scene {
    /// Runs it under `strace`, after the run that is killed.
    ///
    /// # Errors
    /// It cannot be run, or makes a call that the model does not know.
    pub(super) fn trace(&self, options: &Options) -> Result<History> {
        let mut player = Player::new();
        if let Some(killed) = &self.killed {
            run(&mut player, options, &killed.task, killed.after)?;
            if killed.is_torn {
                tear(&mut player)?;
            }
        }
        run(&mut player, options, &self.task, 1000)?;
        Ok(player.history)
    }

    /// What was to be done and had been told by this point of its history.
    pub(super) fn runs(&self, history: &History, point: usize, crash: Crash) -> Vec<Run> {
        let killed = self.killed.iter().map(|killed| history.killed_run(&killed.task, crash));
        killed.chain([history.run(&self.task, point, crash)]).collect()
    }
}

/// Runs a task on what the player knows, and follows so many thousandths of its calls.
fn run(player: &mut Player, options: &Options, task: &Task, promille: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let base = folder.path().canonicalize()?;
    as_left(player).write_to(&base)?;
    let calls = trace::trace(options, task, &base.join(STORE))?;
    let followed = calls.len() * promille / 1000;
    player.follow(&base, calls.get(..followed).unwrap_or_default())
}

/// What is there if the process ends now.
fn as_left(player: &Player) -> Tree {
    let point = player.history.events.len();
    Disk::new(&player.history, None).tree(point, &Fates::new(), true)
}

/// The last line of a killed writer may be half: each segment that is announced gets such a tail.
fn tear(player: &mut Player) -> Result<()> {
    const HALF: &[u8] = br#"{"timestamp":"2026-01-"#;
    let tree = as_left(player);
    let below = |folder: &str| -> Vec<(PathBuf, String)> {
        let files = tree.iter().filter(|(path, _)| path.starts_with(Path::new(STORE).join(folder)));
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        files.filter_map(|(path, bytes)| Some((path.to_owned(), text(bytes?)))).collect()
    };
    let markers: String = below("active").into_iter().map(|(_, text)| text).collect();
    for (path, _) in below("logs") {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if name.is_some_and(|name| markers.contains(&name)) {
            player.append(&path, HALF)?;
        }
    }
    Ok(())
}
