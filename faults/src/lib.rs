//! Everything that breaks tidelog on purpose.
//!
//! A [`scenario`] is the program under test: it calls the store's public API and says after each
//! call, on standard output, that it returned. A harness breaks something meanwhile. Then
//! [`check`], the oracle, reopens what is left and compares it with what was said.
//!
//! | harness | what it breaks |
//! | --- | --- |
//! | [`kills`] | the process: `kill -9` at any moment, of writers and of those who recover |
//! | [`cuts`] | power, under a real ext4 and XFS |
//! | [`states`] | power, in a model of the disk: every crash point, what was not persisted lost, reordered or torn |
//! | [`syscalls`] | every system call: it fails, or the process dies at it |
//! | [`agent`] | what is between the files and PostgreSQL: agents, servers, connections |
//! | [`environment`] | the machine around: a full, read-only, failing or slow disk, folders gone, no more files |
//!
//! The program `tidelog-faults` runs each for long; short seeded runs are tests of the workspace.

pub mod agent;
pub mod check;
pub mod crowd;
pub mod cuts;
pub mod environment;
pub mod kills;
mod pool;
mod report;
pub mod scenario;
pub mod states;
pub mod syscalls;
mod victim;
mod window;

use std::path::PathBuf;

pub use report::Report;

/// Whatever went wrong with a harness itself; what the store does wrong is in the [`Report`].
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// What a harness returns.
pub type Result<T> = std::result::Result<T, Error>;

/// How much a long run does if nobody says how much.
pub const RUNS_DEFAULT: usize = 2000;

/// What every harness is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program `tidelog-faults`, whose `write` is broken.
    pub program: PathBuf,
    /// How much to do; each harness says what it counts.
    pub runs: usize,
    /// Same seed, same run, as far as the machine allows.
    pub seed: u64,
}
