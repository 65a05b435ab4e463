//! Breaks tidelog on purpose; ends with code 1 if it did not keep a promise, with 3 if something
//! that was asked for was not tried.

#![expect(clippy::print_stdout, reason = "a program that prints its results")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidelog_faults::crowd::Crowd;
use tidelog_faults::scenario::{self, Manner, Task};
use tidelog_faults::{
    Options, RUNS_DEFAULT, Report, Result, cuts, environment, kills, states, syscalls,
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
        Size { runs: self.runs.unwrap_or(usize::MAX), seed: self.seed }.options()
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
