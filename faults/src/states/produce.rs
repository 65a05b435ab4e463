//! Makes the crash states of one scene, each once.

use std::collections::HashSet;
use std::sync::mpsc::SyncSender;

use fastrand::Rng;

use super::choose::{self, Fates};
use super::crash::Disk;
use super::history::{Event, History};
use super::scenes::Scene;
use super::visit::State;
use crate::check::Crash;
use crate::{Options, Result};

/// A point is worth at least the death of the process, and power that takes all or nothing.
const STATES_MIN: usize = 3;

/// How many there are of what.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) points: usize,
    pub(super) visited: usize,
    exhaustively: usize,
    states: usize,
}

impl Counts {
    pub(super) fn by_name(&self) -> [(&'static str, usize); 4] {
        [
            ("crash points", self.points),
            ("crash points visited", self.visited),
            ("crash points visited exhaustively", self.exhaustively),
            ("states", self.states),
        ]
    }
}

struct Producer<'a> {
    scene: &'a Scene,
    disk: Disk<'a>,
    rng: Rng,
    states: &'a SyncSender<State>,
    /// Fingerprints of what was sent, with the number of words that had been told.
    sent: HashSet<(u64, usize)>,
    exhaustive_points: usize,
}

/// Sends the states and says how many there are of what. At most `runs` states, but three for each
/// point; points that these do not suffice for are left out, drawn from the seed.
///
/// # Errors
/// Nobody takes the states.
pub(super) fn produce(
    options: &Options,
    scene: &Scene,
    history: &History,
    states: &SyncSender<State>,
) -> Result<Counts> {
    let mut producer = Producer {
        scene,
        disk: Disk::new(history, None),
        rng: Rng::with_seed(options.seed),
        states,
        sent: HashSet::new(),
        exhaustive_points: 0,
    };
    let all = producer.crash_points();
    let visited = producer.some_of(all.clone(), options.runs / STATES_MIN);
    let mut left = options.runs;
    for (number, point) in visited.iter().enumerate() {
        let before = producer.sent.len();
        producer.point(*point, left / (visited.len() - number))?;
        left = left.saturating_sub(producer.sent.len() - before);
    }
    Ok(Counts {
        points: all.len(),
        visited: visited.len(),
        exhaustively: producer.exhaustive_points,
        states: producer.sent.len(),
    })
}

impl Producer<'_> {
    /// After each change and each word. A persist only takes states away, and SQLite's own writes
    /// are not what is asked about.
    fn crash_points(&self) -> Vec<usize> {
        let history = self.disk.history;
        let is_after_something = |point: &usize| {
            let last = point.saturating_sub(1);
            let is_persist = matches!(history.event(last), Some(Event::Persist { .. }));
            *point == history.began || !is_persist && !self.disk.is_derived(last)
        };
        (history.began..=history.events.len()).filter(is_after_something).collect()
    }

    fn some_of(&mut self, mut points: Vec<usize>, limit: usize) -> Vec<usize> {
        while points.len() > limit.max(1) {
            points.remove(self.rng.usize(..points.len()));
        }
        points
    }

    /// The process dies here, or power fails.
    fn point(&mut self, point: usize, limit: usize) -> Result<()> {
        self.send(point, &Fates::new(), Crash::Application)?;
        let pending = self.disk.pending(point);
        let limit = limit.saturating_sub(1);
        let chosen = choose::choose(self.disk.history, &pending, limit, &mut self.rng);
        self.exhaustive_points += usize::from(chosen.is_exhaustive);
        chosen.fates.iter().try_for_each(|fates| self.send(point, fates, Crash::PowerInAnyOrder))
    }

    fn send(&mut self, point: usize, fates: &Fates, crash: Crash) -> Result<()> {
        let tree = self.disk.tree(point, fates, self.rng.bool());
        let runs = self.scene.runs(self.disk.history, point, crash);
        let told = runs.last().map_or(0, |run| run.told.len());
        if !self.sent.insert((tree.fingerprint(), told)) {
            return Ok(());
        }
        let name = format!("{}, event {point}, {crash:?} crash", self.scene.name);
        let sent = self.states.send(State { name, tree, runs });
        sent.map_err(|_| "no thread checks states any more".into())
    }
}
