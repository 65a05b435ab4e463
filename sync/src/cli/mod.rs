//! The commands. Data goes to standard output, everything else to standard error.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 replica and files differ, 4 the database is not reached
//! or refuses, 75 not done in time, 130 and 143 ended by a second signal.

mod blobs;
mod check_config;
mod failure;
mod migrate;
mod once;
mod quarantine;
mod restore;
mod retention;
mod run;
mod status;
mod target;
mod verify;
mod wait;

use std::env;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tidelog_sync::config::{self, Config, ConfigArgs, Options, Secret};
use tidelog_sync::{Notice, SyncError, Target};

use failure::Failure;

/// Keeps PostgreSQL an exact replica of a tidelog store.
#[derive(Debug, Parser)]
#[command(name = "tidelog-sync", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    CheckConfig(check_config::CheckConfig),
    Migrate(migrate::Migrate),
    Once(once::Once),
    Restore(restore::Restore),
    Quarantine(quarantine::Quarantine),
    Retention(retention::Retention),
    Run(run::Run),
    Status(status::Status),
    Verify(verify::Verify),
    Wait(wait::Wait),
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
    /// File that holds the connection string, as secrets are mounted; DATABASE_URL wins over it
    #[arg(long, value_name = "FILE", env = "TIDELOG_SYNC_DATABASE_URL_FILE")]
    database_url_file: Option<PathBuf>,
}

/// How much poison.
#[derive(Debug, Args)]
struct PoisonArgs {
    /// Stop writing a segment of which the server refuses more than so many of 20 times as many lines
    /// for one reason
    #[arg(long, value_name = "LINES", env = "TIDELOG_SYNC_POISON_LIMIT",
          default_value_t = tidelog_sync::POISON_LIMIT)]
    poison_limit: u32,
}

impl DatabaseArgs {
    fn target(&self) -> Result<Target, SyncError> {
        let is_in_environment = env::var_os("DATABASE_URL").is_some_and(|url| !url.is_empty());
        let url = match (&self.database_url, &self.database_url_file) {
            (None, Some(path)) if !is_in_environment => Some(config::url_in(path)?),
            (url, _) => url.clone(),
        };
        Ok(Target::from_environment(url.as_deref())?)
    }
}

/// Which stores and which database, as `run` is told.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// The settings of `run`
    #[arg(long, value_name = "FILE", env = "TIDELOG_SYNC_CONFIG")]
    config: Option<PathBuf>,
    /// Folder of a store [default: tidelog]; give it again for each other store
    #[arg(long, value_name = "DIR", env = "TIDELOG_STORE")]
    store: Vec<PathBuf>,
    /// Folder whose child folders are stores; may be given again
    #[arg(long, value_name = "DIR", env = "TIDELOG_SYNC_STORES_IN")]
    stores_in: Vec<PathBuf>,
    /// Connection string as for psql. Others can read it in the process list: prefer the
    /// environment variable, --database-url-file, or the PG* variables and a password file
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<Secret>,
    /// File that holds the connection string, as secrets are mounted
    #[arg(long, value_name = "FILE", env = "TIDELOG_SYNC_DATABASE_URL_FILE")]
    database_url_file: Option<PathBuf>,
}

impl PlaceArgs {
    fn config(&self, matches: &ArgMatches) -> Result<Config, Failure> {
        let options = Options {
            store: self.store.clone(),
            stores_in: self.stores_in.clone(),
            database_url: self.database_url.clone(),
            database_url_file: self.database_url_file.clone(),
            ..Options::default()
        };
        let arguments = ConfigArgs { config: self.config.clone(), options };
        Config::gather(&arguments, matches).map_err(Failure::Config)
    }
}

/// Parses the arguments, runs the command and says how it went.
pub(crate) fn run() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    // Who said what is in the matches of the subcommand.
    let matches = matches.subcommand().map(|(_, matches)| matches.clone()).unwrap_or_default();
    let outcome = match cli.command {
        Command::CheckConfig(command) => command.run(&matches),
        Command::Migrate(command) => command.run(),
        Command::Once(command) => command.run(),
        Command::Restore(command) => command.run(),
        Command::Quarantine(command) => command.run(),
        Command::Retention(command) => command.run(),
        Command::Run(command) => command.run(&matches),
        Command::Status(command) => command.run(&matches),
        Command::Verify(command) => command.run(),
        Command::Wait(command) => command.run(&matches),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
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

/// Writes data as one line of JSON.
fn print_json(data: &impl serde::Serialize) -> Result<(), Failure> {
    let json =
        serde_json::to_string(data).map_err(|error| Failure::Output(io::Error::other(error)))?;
    print(&json)
}

/// Writes a report as one line for people.
fn print_report(report: &tidelog_sync::Report) -> Result<(), Failure> {
    print(&format!(
        "{} lines of {} segments sent in {} batches, {} lines to quarantine",
        report.lines, report.segments, report.batches, report.quarantined
    ))?;
    if !report.gaps.is_empty() {
        let count = report.gaps.len();
        say(&format!(
            "warning: lines of {count} segments are gone; tidelog-sync status names them"
        ));
    }
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
