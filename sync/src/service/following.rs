//! One store on its thread: waits for it, waits for its lock, follows it, and begins again after
//! whatever goes wrong.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidelog::{FollowerLock, FollowerTurn, Store};

use crate::agent::{Agent, Report};
use crate::backoff::Backoff;
use crate::config::Config;
use crate::connect::Target;
use crate::error::SyncError;
use crate::service::board::StoreBoard;
use crate::service::log::{Log, News};
use crate::state::{AgentState, Notice};
use crate::turns::Turns;
use crate::wake::{self, LOOK_INTERVAL};

/// What all stores of the process share.
pub(crate) struct Shared {
    pub(crate) target: Target,
    pub(crate) config: Config,
    pub(crate) log: Log,
    pub(crate) turns: Arc<Turns>,
}

/// One store.
pub(crate) struct Following {
    pub(crate) folder: PathBuf,
    pub(crate) shared: Arc<Shared>,
    pub(crate) board: Arc<StoreBoard>,
    pub(crate) stop: Arc<AtomicBool>,
    /// Lines of the log name the store, because there are others.
    pub(crate) is_named: bool,
}

/// How a store's thread ended, once it was asked to stop.
#[derive(Debug)]
pub enum Ending {
    /// It never had its turn: no store, or another agent has it.
    NothingToDo,
    /// Everything was sent that could be.
    Drained(Report),
    /// The last failure.
    Failed(SyncError),
}

impl Following {
    /// Follows the store until asked to stop.
    pub(crate) fn run(&self) -> Ending {
        self.board.pulse.adopt();
        let mut backoff = Backoff::default();
        let mut tell = self.teller();
        loop {
            let error = match self.follow() {
                Ok(ending) => return ending,
                Err(error) if self.is_stopped() => return Ending::Failed(error),
                Err(error) => error,
            };
            let wait = backoff.next_delay(Backoff::SLOW_CAP, fastrand::u16(..));
            let reason = error.to_string();
            tell(&Notice::Agent(AgentState::Blocked { wait, reason }));
            wake::pause(wait, &self.stop);
            if self.is_stopped() {
                return Ending::Failed(error);
            }
        }
    }

    fn follow(&self) -> Result<Ending, SyncError> {
        let (target, tell) = (self.shared.target.clone(), self.teller());
        let Some(agent) = Agent::await_store(&self.folder, target, tell, &self.stop)? else {
            return Ok(Ending::NothingToDo);
        };
        let Some(_lock) = self.await_lock(&Store::open_read_only(&self.folder)?)? else {
            return Ok(Ending::NothingToDo);
        };
        let mut agent = agent
            .with_drain_timeout(self.shared.config.drain_timeout().0)
            .with_turns(Arc::clone(&self.shared.turns))
            .with_poison_limit(self.shared.config.poison_limit())
            .with_blobs(self.shared.config.blobs());
        if let Some(folder) = self.shared.config.state_dir() {
            agent = agent.remembering(&folder, self.shared.config.new_target());
        }
        self.board.watch(agent.progress());
        agent.run(self.first_delay(), &self.stop).map(Ending::Drained)
    }

    /// Waits until no other agent follows the store; the outer `None` if asked to stop before. Where
    /// nothing can be locked there is nothing to wait for.
    fn await_lock(&self, store: &Store) -> Result<Option<Option<FollowerLock>>, SyncError> {
        let mut tell = self.teller();
        let mut is_told = false;
        while !self.is_stopped() {
            match store.try_follow()? {
                FollowerTurn::Mine(lock) => return Ok(Some(Some(lock))),
                FollowerTurn::Taken { holder } => {
                    if !std::mem::replace(&mut is_told, true) {
                        tell(&Notice::Agent(AgentState::Standby { holder }));
                    }
                }
                FollowerTurn::Unlockable { file_system, reason } => {
                    let path = self.folder.clone();
                    tell(&Notice::Unlocked { path, file_system, reason });
                    return Ok(Some(None));
                }
                // A later tidelog may know more answers.
                _ => return Ok(Some(None)),
            }
            wake::pause(LOOK_INTERVAL, &self.stop);
        }
        Ok(None)
    }

    fn first_delay(&self) -> Duration {
        self.shared.config.start_delay().0.mul_f64(fastrand::f64())
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Tells board and log.
    fn teller(&self) -> impl FnMut(&Notice) + 'static {
        let (board, shared) = (Arc::clone(&self.board), Arc::clone(&self.shared));
        let store = self.is_named.then(|| self.folder.clone());
        let mut news = News::default();
        move |notice| {
            board.note(notice);
            shared.log.write(news.level(notice), store.as_deref(), notice);
        }
    }
}
