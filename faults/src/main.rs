//! Breaks tidelog on purpose; ends with code 1 if it did not keep a promise, with 3 if something
//! that was asked for was not tried.

#![expect(clippy::print_stdout, reason = "a program that prints its results")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidelog_faults::crowd::Crowd;
use tidelog_faults::scenario::{self, Manner, Task};
use tidelog_faults::{
    Options, RUNS_DEFAULT, Report, Result, agent, cuts, environment, kills, states, syscalls,
};

/// Exit code of a run that proves less than it was asked for: nothing executed, or something skipped.
const NOT_TRIED: u8 = 3;

/// Breaks tidelog on purpose, and says which promises were not kept.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The program under test: calls the store, and tells each call that has returned
    Write {
        #[command(flatten)]
        task: Task,
        /// The store's folder
        #[arg(long)]
        store: PathBuf,
    },
    /// The program under test, which does what the lines of standard input say
    Obey {
        #[command(flatten)]
        manner: Manner,
        /// The store's folder
        #[arg(long)]
        store: PathBuf,
    },
    /// Several of the programs under test at once, in threads of one process
    Writers {
        #[command(flatten)]
        crowd: Crowd,
        /// The store's folder
        #[arg(long)]
        store: PathBuf,
    },
    /// Threads that record to one session until they are killed
    Share {
        #[command(flatten)]
        sharers: kills::Sharers,
        /// The store's folder
        #[arg(long)]
        store: PathBuf,
    },
    /// Opens a store for writing, which recovers what dead writers left
    Open {
        /// The store's folder
        #[arg(long)]
        store: PathBuf,
    },
    /// Processes are killed at any moment; runs: kills
    Kills(Size),
    /// Power is cut under a real ext4 and XFS (root only); runs: cuts on each
    Cuts(Size),
    /// Power fails at every system call, in a model of the disk; runs: states a scenario at most
    States(Size),
    /// The same with one persist ignored at a time, which must show; runs: states a persist at most
    DeafStates(Size),
    /// The machine around fails: disks full, read-only, slow or gone; once each, best as root
    Environment {
        /// What records hold
        #[arg(long, default_value_t = 7)]
        seed: u64,
    },
    /// The agent as the program under test; its database is DATABASE_URL
    Follow(agent::Follow),
    /// Agents and servers are killed at any moment; runs: kills of each, in each commit mode
    AgentCrash(Share),
    /// The line between agent and server fails at any byte; runs: faults
    Proxy(Share),
    /// The server is set back to a backup; runs: restores
    Rewind(Share),
    /// PgBouncer with TLS and a pool of two before four agents; runs: kills of agents
    Pooler(Share),
    /// Backends stop in the middle of a batch; runs: stops
    Stall(Share),
    /// The server takes nothing: read-only, standby, disk full (root only); runs: of each
    Disk(Share),
    /// The network goes away (root only); runs: partitions
    Partition(Share),
    /// Random actions of everybody against what the files say; runs: cases
    Model(Share),
    /// Every system call fails once, from then on, or kills; runs: faults, all by default
    Syscalls(Share),
}

#[derive(clap::Args)]
struct Share {
    /// So many, drawn from the seed
    #[arg(long)]
    runs: Option<usize>,
    /// What choices are drawn from
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

impl Share {
    fn options(&self) -> Result<Options> {
        self.options_or(usize::MAX)
    }

    fn options_or(&self, runs: usize) -> Result<Options> {
        Size { runs: self.runs.unwrap_or(runs), seed: self.seed }.options()
    }
}

#[derive(clap::Args)]
struct Size {
    /// How much to do
    #[arg(long, default_value_t = RUNS_DEFAULT)]
    runs: usize,
    /// What choices are drawn from
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

impl Size {
    fn options(&self) -> Result<Options> {
        Ok(Options { program: std::env::current_exe()?, runs: self.runs, seed: self.seed })
    }
}

fn main() -> Result<ExitCode> {
    let report = match Arguments::parse().command {
        Command::Write { task, store } => {
            scenario::write(&task, store, std::io::stdout())?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Obey { manner, store } => {
            scenario::obey(manner, store, std::io::stdin().lock(), std::io::stdout())?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Writers { crowd, store } => {
            crowd.write(&store)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Share { sharers, store } => {
            sharers.write(&store)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Open { store } => {
            tidelog::Store::open(store)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Follow(follow) => {
            follow.run()?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::AgentCrash(share) => agent::crash(&share.options_or(25)?)?,
        Command::Proxy(share) => agent::proxy(&share.options_or(200)?)?,
        Command::Rewind(share) => agent::rewind(&share.options_or(25)?)?,
        Command::Pooler(share) => agent::pooler(&share.options_or(50)?)?,
        Command::Stall(share) => agent::stall(&share.options_or(20)?)?,
        Command::Disk(share) => agent::disk(&share.options_or(5)?)?,
        Command::Partition(share) => agent::partition(&share.options_or(20)?)?,
        Command::Model(share) => agent::model(&share.options_or(1000)?)?,
        Command::Kills(size) => kills::run(&size.options()?)?,
        Command::Cuts(size) => cuts::run(&size.options()?)?,
        Command::Environment { seed } => environment::run(std::env::current_exe()?, seed)?,
        Command::Syscalls(share) => syscalls::run(&share.options()?)?,
        Command::States(size) => states::run(&size.options()?)?,
        Command::DeafStates(size) => states::run_deaf(&size.options()?)?,
    };
    Ok(print(&report))
}

fn print(report: &Report) -> ExitCode {
    println!("{report}");
    match report.violations.is_empty() {
        false => ExitCode::FAILURE,
        true if report.executed == 0 || !report.skipped.is_empty() => ExitCode::from(NOT_TRIED),
        true => ExitCode::SUCCESS,
    }
}
