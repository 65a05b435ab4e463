//! The agent under test: a process that follows a store, and what it tells.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::NamedTempFile;
use tidelog_sync::{Agent, Target};

use super::signal;
use crate::{Options, Result};

/// How long an agent may take for anything that has an end: its longest deadline, and some more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);
const PAUSE: Duration = Duration::from_millis(5);
/// How Rust tells of a panic.
const PANIC: &str = "panicked at";

/// The agent as the program under test. The database is the one of `DATABASE_URL`.
#[derive(Debug, Clone, clap::Args)]
pub struct Follow {
    /// The store's folder
    #[arg(long)]
    pub store: PathBuf,
    /// Send what is there, try again for so many seconds, and end
    #[arg(long)]
    pub once: Option<u64>,
}

impl Follow {
    /// Follows at once: without the random wait of a fleet.
    ///
    /// # Errors
    /// What the agent ends with.
    pub fn run(&self) -> Result<()> {
        let target = Target::from_environment(None)?;
        let tell = |notice: &tidelog_sync::Notice| {
            // Whoever listens may be gone.
            std::io::Write::write_all(&mut std::io::stderr(), format!("{notice}\n").as_bytes())
                .ok();
        };
        let mut agent = Agent::new(&self.store, target, tell)?;
        let _report = match self.once {
            Some(seconds) => agent.once(Duration::from_secs(seconds))?,
            None => agent.run(Duration::ZERO, &Arc::new(AtomicBool::new(false)))?,
        };
        Ok(())
    }
}

/// A running agent. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Follower {
    child: Child,
    /// Its standard error: one line a notice.
    log: NamedTempFile,
}

impl Follower {
    /// Starts an agent that follows until it is killed.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(options: &Options, store: &Path, url: &str) -> Result<Self> {
        Self::spawn(Command::new(&options.program), store, url, &[])
    }

    /// Sends everything that is there and waits for the end of it.
    ///
    /// # Errors
    /// It does not succeed.
    pub(crate) fn once(options: &Options, store: &Path, url: &str) -> Result<String> {
        let mut follower =
            Self::spawn(Command::new(&options.program), store, url, &["--once", "60"])?;
        let start = Instant::now();
        while follower.child.try_wait()?.is_none() {
            if start.elapsed() > PATIENCE {
                return Err(format!("the agent does not end: {}", follower.told()?).into());
            }
            thread::sleep(PAUSE);
        }
        let status = follower.child.wait()?;
        let told = follower.told()?;
        if status.success() {
            Ok(told)
        } else {
            Err(format!("the agent ended with {status}: {told}").into())
        }
    }

    /// As [`start`](Self::start), by a command that ends in the program's name.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn spawn(
        mut command: Command,
        store: &Path,
        url: &str,
        more: &[&str],
    ) -> Result<Self> {
        let log = NamedTempFile::new()?;
        let child = command
            .arg("follow")
            .args(more)
            .arg("--store")
            .arg(store)
            .env("DATABASE_URL", url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.reopen()?)
            .spawn()?;
        Ok(Self { child, log })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL. Tells whether it was alive until then.
    ///
    /// # Errors
    /// It panicked.
    pub(crate) fn kill(mut self) -> Result<bool> {
        let was_alive = self.child.try_wait()?.is_none();
        if was_alive {
            signal(self.id(), Signal::KILL)?;
        }
        self.child.wait()?;
        let told = self.told()?;
        if told.contains(PANIC) { Err(told.into()) } else { Ok(was_alive) }
    }

    /// Everything that it has told so far.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn told(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.log.path())?).into_owned())
    }

    /// Waits until it has told this so many times.
    ///
    /// # Errors
    /// It never does.
    pub(crate) fn await_told(&self, part: &str, times: usize) -> Result<()> {
        let start = Instant::now();
        while self.told()?.matches(part).count() < times {
            if start.elapsed() > PATIENCE {
                return Err(format!("the agent never told {part}: {}", self.told()?).into());
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.child.kill().ok(); // it may be gone already
        self.child.wait().ok();
    }
}
