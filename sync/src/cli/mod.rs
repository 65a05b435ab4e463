//! The commands. Data goes to standard output, everything else to standard error.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 replica and files differ, 4 the database is not reached or refuses.

mod migrate;
mod once;
mod run;
mod status;
mod verify;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tidelog_sync::{Notice, SyncError, Target};

/// Keeps PostgreSQL an exact replica of a tidelog store.
#[derive(Debug, Parser)]
#[command(name = "tidelog-sync", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Migrate(migrate::Migrate),
    Once(once::Once),
    Run(run::Run),
    Status(status::Status),
    Verify(verify::Verify),
}

/// Which store.
#[derive(Debug, Args)]
struct StoreArgs {
    /// Folder of the store
    #[arg(long, value_name = "DIR", env = "TIDELOG_STORE", default_value = "tidelog")]
    store: PathBuf,
}

/// Which database.
#[derive(Debug, Args)]
struct DatabaseArgs {
    /// Connection string as for psql. Others can read it in the process list: prefer the
    /// environment variable DATABASE_URL, or the PG* variables and a password file
    #[arg(long, value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
}

impl DatabaseArgs {
    fn target(&self) -> Result<Target, SyncError> {
        Ok(Target::from_environment(self.database_url.as_deref())?)
    }
}

/// Why a command failed.
enum Failure {
    Sync(SyncError),
    /// Standard output is gone; whoever read it has seen enough.
    Output(io::Error),
    /// Segments that are not sent; told already.
    Forked(usize),
    /// Segments that could not be read; told already.
    Unreadable(usize),
    /// Replica and files are not the same; told already.
    Different,
    /// The system took no handler of signals.
    Signals(io::Error),
}

impl<T: Into<SyncError>> From<T> for Failure {
    fn from(error: T) -> Self {
        Self::Sync(error.into())
    }
}

/// Parses the arguments, runs the command and says how it went.
pub(crate) fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Migrate(command) => command.run(),
        Command::Once(command) => command.run(),
        Command::Run(command) => command.run(),
        Command::Status(command) => command.run(),
        Command::Verify(command) => command.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    match failure {
        Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Failure::Output(error) => {
            say(&format!("error: cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
        Failure::Signals(error) => {
            say(&format!("error: cannot wait for SIGTERM and SIGINT: {error}"));
            ExitCode::FAILURE
        }
        Failure::Forked(count) => {
            say(&format!("error: {count} segments are not sent, because sent lines changed since"));
            say("  try: tidelog verify; a copy of the file from a backup goes on where it was");
            ExitCode::FAILURE
        }
        Failure::Unreadable(count) => {
            say(&format!("error: {count} segments are not sent, because they cannot be read"));
            say("  try: tidelog verify; look at the rights of the files, and at the disk");
            ExitCode::FAILURE
        }
        Failure::Different => ExitCode::from(3),
        Failure::Sync(error) => {
            say(&format!("error: {error}"));
            if let Some(hint) = hint(error) {
                say(&format!("  try: {hint}"));
            }
            ExitCode::from(code(error))
        }
    }
}

fn code(error: &SyncError) -> u8 {
    match error {
        SyncError::Target(_) => 2,
        SyncError::Database(_) | SyncError::Schema { .. } | SyncError::Quarantine { .. } => 4,
        _ => 1,
    }
}

/// What to try, where the error itself does not say it.
fn hint(error: &SyncError) -> Option<&'static str> {
    match error {
        SyncError::Database(_) => Some("psql \"$DATABASE_URL\" -c 'SELECT 1'"),
        SyncError::Target(_) => {
            Some("DATABASE_URL=postgresql://user@host/database tidelog-sync status")
        }
        _ => None,
    }
}

/// Writes a line to standard error. There is nobody to tell when that fails.
fn say(line: &str) {
    writeln!(io::stderr().lock(), "{line}").ok();
}

/// The log: one line a change of state.
fn log(notice: &Notice) {
    say(&notice.to_string());
}

/// Writes data to standard output.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Writes a report as one line for people.
fn print_report(report: &tidelog_sync::Report) -> Result<(), Failure> {
    print(&format!(
        "{} lines of {} segments sent in {} batches, {} lines to quarantine",
        report.lines, report.segments, report.batches, report.quarantined
    ))?;
    match (report.forked.len(), report.unreadable.len()) {
        (0, 0) => Ok(()),
        (0, count) => Err(Failure::Unreadable(count)),
        (count, _) => Err(Failure::Forked(count)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_and_option_has_a_help_text() {
        let mut cli = Cli::command();
        cli.build();
        for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for option in command.get_arguments() {
                assert!(option.get_help().is_some(), "{} {}", command.get_name(), option.get_id());
            }
        }
    }
}
