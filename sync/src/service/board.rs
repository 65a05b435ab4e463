//! What is known of every store that this process follows, for whoever asks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::progress::Progress;
use crate::pulse::Pulse;
use crate::service::counters::Counters;
use crate::service::lag::{Lag, LagCounter};
use crate::state::{AgentState, Notice};

/// Files are looked at at most this often, whoever asks.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// The stores of this process.
#[derive(Debug, Default)]
pub(crate) struct Board {
    stores: Mutex<BTreeMap<PathBuf, Arc<StoreBoard>>>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct StoreBoard {
    pub(crate) pulse: Arc<Pulse>,
    facts: Mutex<Facts>,
    lag: Mutex<LagLook>,
}

/// What its agent told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) state: Option<AgentState>,
    pub(crate) counters: Counters,
    pub(crate) progress: Option<Arc<Progress>>,
}

#[derive(Debug, Default)]
struct LagLook {
    counter: LagCounter,
    last: Option<(Instant, Lag)>,
}

impl Board {
    /// A new store.
    pub(crate) fn add(&self, folder: &Path) -> Arc<StoreBoard> {
        let (facts, lag) = (Mutex::default(), Mutex::default());
        let store = Arc::new(StoreBoard { pulse: Pulse::begin(), facts, lag });
        lock(&self.stores).insert(folder.to_owned(), Arc::clone(&store));
        store
    }

    /// A store that is not followed any more.
    pub(crate) fn remove(&self, folder: &Path) {
        lock(&self.stores).remove(folder);
    }

    /// All of them now, by folder.
    pub(crate) fn stores(&self) -> BTreeMap<PathBuf, Arc<StoreBoard>> {
        lock(&self.stores).clone()
    }

    /// The stores whose loop does not move any more.
    pub(crate) fn stuck(&self, grace: Duration) -> Vec<PathBuf> {
        let stores = self.stores().into_iter();
        stores.filter(|(_, store)| !store.pulse.is_alive(grace)).map(|(folder, _)| folder).collect()
    }
}

impl StoreBoard {
    /// Takes over what the agent tells.
    pub(crate) fn note(&self, notice: &Notice) {
        let mut facts = lock(&self.facts);
        facts.counters.note(notice);
        if let Notice::Agent(state) = notice {
            facts.state = Some(state.clone());
        }
    }

    /// Where an agent's segments stand.
    pub(crate) fn watch(&self, progress: Arc<Progress>) {
        lock(&self.facts).progress = Some(progress);
    }

    pub(crate) fn facts(&self) -> Facts {
        lock(&self.facts).clone()
    }

    /// How far the replica is behind, as it was a second ago at most; none before the first
    /// connection, because only the replica knows what it has.
    pub(crate) fn lag(&self) -> Option<Lag> {
        let standings = self.facts().progress?.standings();
        standings.values().find(|standing| standing.cursor.is_some())?;
        let mut look = lock(&self.lag);
        match look.last {
            Some((time, lag)) if time.elapsed() < LAG_INTERVAL => Some(lag),
            _ => {
                let lag = look.counter.look(&standings);
                look.last = Some((Instant::now(), lag));
                Some(lag)
            }
        }
    }
}

/// Each change is one step, so a thread that panicked left nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
