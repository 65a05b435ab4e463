//! Several stores by one process: a thread and an agent each. One that fails stops no other.
//!
//! Threads grow with the number of stores, connections do not: agents take turns. The main thread
//! looks for new stores, tells systemd how it goes, and answers nobody: probes and metrics have a
//! thread of their own.

mod board;
mod counters;
mod following;
mod http;
mod lag;
pub mod log;
mod metrics;
mod probes;
mod systemd;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::config::{self, Config};
use crate::connect::Target;
use crate::state::Notice;
use crate::turns::Turns;
use board::Board;
use following::{Following, Shared};
use log::{Level, Log};
use systemd::Systemd;

pub use following::Ending;

/// Between two looks at parent folders.
const DISCOVER_INTERVAL: Duration = Duration::from_secs(5);
/// How soon the main thread notices a request to stop.
const TICK: Duration = Duration::from_millis(50);
/// What an agent may take beyond its limit to stop, before it is left behind.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// Follows stores until asked to stop.
pub struct Service {
    shared: Arc<Shared>,
    board: Arc<Board>,
    systemd: Systemd,
    threads: BTreeMap<PathBuf, StoreThread>,
    /// Folders that were told of as too many.
    refused: BTreeSet<PathBuf>,
}

struct StoreThread {
    handle: JoinHandle<Ending>,
    stop: Arc<AtomicBool>,
    /// It was found in a parent folder, and ends when it is gone from there.
    is_found: bool,
}

impl Service {
    /// Begins to serve probes and metrics if they are asked for. No store is followed yet.
    ///
    /// # Errors
    /// Nobody can listen at the address.
    pub fn start(config: Config, target: Target) -> io::Result<Self> {
        let log = Log::to_stderr(config.log_format(), config.log_level());
        let turns = Turns::new(config.connections());
        let board = Arc::new(Board::default());
        if let Some(address) = config.listen() {
            http::serve(address, Arc::clone(&board), config.clone())?;
        }
        let systemd = Systemd::from_environment(config.live_timeout().0);
        let shared = Arc::new(Shared { target, config, log, turns });
        let (threads, refused) = (BTreeMap::new(), BTreeSet::new());
        Ok(Self { shared, board, systemd, threads, refused })
    }

    /// Follows the stores until `stop` is set, then waits until what is there is sent, for as long
    /// as the configuration says. Returns how it ended for each store; none where the agent did not
    /// stop in time, or panicked.
    pub fn run(mut self, stop: &AtomicBool) -> Vec<(PathBuf, Option<Ending>)> {
        let mut discovered_at: Option<Instant> = None;
        while !stop.load(Ordering::Relaxed) {
            if discovered_at.is_none_or(|time| time.elapsed() >= DISCOVER_INTERVAL) {
                self.discover();
                discovered_at = Some(Instant::now());
                self.systemd.ready();
            }
            self.systemd.tick(&self.board);
            thread::sleep(TICK);
        }
        self.stop()
    }

    /// Begins to follow what is not followed, and ends what is gone from its parent folder.
    fn discover(&mut self) {
        let found = self.find();
        self.end_gone(found.as_ref());
        let named: Vec<PathBuf> = self.shared.config.stores().into_iter().map(absolute).collect();
        let is_named = named.len() > 1 || !self.shared.config.stores_in().is_empty();
        let found = found.into_iter().flatten().map(|folder| (folder, true));
        for (folder, is_found) in named.into_iter().map(|folder| (folder, false)).chain(found) {
            if !self.threads.contains_key(&folder) {
                self.follow(folder, is_found, is_named);
            }
        }
    }

    /// Stores in the parent folders; none if one of these cannot be listed, which is not to say that
    /// its stores are gone.
    fn find(&self) -> Option<BTreeSet<PathBuf>> {
        let mut found = BTreeSet::new();
        for parent in self.shared.config.stores_in() {
            found.extend(config::stores_in(parent).ok()?.into_iter().map(absolute));
        }
        Some(found)
    }

    /// Asks threads to stop whose stores are gone, and forgets those that ended. One that panicked
    /// begins anew.
    fn end_gone(&mut self, found: Option<&BTreeSet<PathBuf>>) {
        self.threads.retain(|folder, thread| {
            if thread.is_found && found.is_some_and(|found| !found.contains(folder)) {
                thread.stop.store(true, Ordering::Relaxed);
            }
            let is_over = thread.handle.is_finished();
            if is_over {
                self.board.remove(folder);
            }
            !is_over
        });
    }

    fn follow(&mut self, folder: PathBuf, is_found: bool, is_named: bool) {
        if self.threads.len() >= self.shared.config.stores_max() {
            self.refuse(folder);
            return;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let following = Following {
            folder: folder.clone(),
            shared: Arc::clone(&self.shared),
            board: self.board.add(&folder),
            stop: Arc::clone(&stop),
            is_named,
        };
        let name = "tidelog-store".to_owned();
        match thread::Builder::new().name(name).spawn(move || following.run()) {
            Ok(handle) => {
                self.threads.insert(folder, StoreThread { handle, stop, is_found });
            }
            // Tried again at the next look.
            Err(error) => self.warn(&folder, format!("cannot start a thread for it: {error}")),
        }
    }

    fn refuse(&mut self, folder: PathBuf) {
        if self.refused.insert(folder.clone()) {
            let limit = self.shared.config.stores_max();
            let reason = format!(
                "is not followed, because {limit} stores are; raise --stores-max, or run another \
                 agent for other folders"
            );
            self.warn(&folder, reason);
        }
    }

    fn warn(&self, folder: &Path, reason: String) {
        let notice = Notice::Refused { path: folder.to_owned(), reason };
        self.shared.log.write(Level::Warn, None, &notice);
    }

    fn stop(mut self) -> Vec<(PathBuf, Option<Ending>)> {
        self.systemd.stopping();
        for thread in self.threads.values() {
            thread.stop.store(true, Ordering::Relaxed);
        }
        let until = Instant::now() + self.shared.config.drain_timeout().0 + STOP_MARGIN;
        let is_running = |thread: &StoreThread| !thread.handle.is_finished();
        while self.threads.values().any(is_running) && Instant::now() < until {
            self.systemd.tick(&self.board);
            thread::sleep(TICK);
        }
        let ending = |thread: StoreThread| match thread.handle.is_finished() {
            true => thread.handle.join().ok(),
            false => None,
        };
        self.threads.into_iter().map(|(folder, thread)| (folder, ending(thread))).collect()
    }
}

/// The same folder by one name, whether or not it is there.
fn absolute(folder: PathBuf) -> PathBuf {
    std::path::absolute(&folder).unwrap_or(folder)
}
