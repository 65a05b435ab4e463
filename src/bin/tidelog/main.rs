//! `tidelog`: record, look at and check a store from the command line.
//!
//! Parses, hands over to one file per subcommand, and turns the result into an exit code.

mod agent_lag;
mod best;
mod chart;
mod checkpoints;
mod completions;
mod context;
mod delete;
mod demo;
mod demo_run;
mod doctor;
mod entry_line;
mod error;
mod followed;
mod import;
mod output;
mod progress;
mod rebuild;
mod rows;
mod sessions;
mod show;
mod sql;
mod status;
mod sync;
mod table;
mod tail;
mod text;
mod tree;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use context::{Context, Globals};
use error::CliError;
use output::Output;

/// The flight recorder for model training.
///
/// A store is one folder of plain files: journal segments, emergency events, checkpoints, and a
/// SQLite index that is made from them. Data goes to standard output, everything else to standard
/// error. Exit codes: 0 done, 1 failed or `doctor` found a problem, 2 wrong usage, 3 `verify` found
/// damage.
#[derive(Parser)]
#[command(name = "tidelog", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Demo),
    Import(import::Import),
    Sessions(sessions::Sessions),
    Show(show::Show),
    Tail(tail::Tail),
    Sql(sql::Sql),
    Checkpoints(checkpoints::Checkpoints),
    Best(best::Best),
    Delete(delete::Delete),
    Status(status::Status),
    Rebuild(rebuild::Rebuild),
    Verify(verify::Verify),
    Doctor(doctor::Doctor),
    Completions(completions::Completions),
    Sync(sync::Sync),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let context = Context::new(cli.globals);
    let mut output = Output::new();
    let done = run(cli.command, &context, &mut output);
    match done.and_then(|()| output.finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(&context),
    }
}

fn run(command: Command, context: &Context, output: &mut Output) -> Result<(), CliError> {
    match command {
        Command::Demo(command) => command.run(context, output),
        Command::Import(command) => command.run(context, output),
        Command::Sessions(command) => command.run(context, output),
        Command::Show(command) => command.run(context, output),
        Command::Tail(command) => command.run(context, output),
        Command::Sql(command) => command.run(context, output),
        Command::Checkpoints(command) => command.run(context, output),
        Command::Best(command) => command.run(context, output),
        Command::Delete(command) => command.run(context, output),
        Command::Status(command) => command.run(context, output),
        Command::Rebuild(command) => command.run(context, output),
        Command::Verify(command) => command.run(context, output),
        Command::Doctor(command) => command.run(context, output),
        Command::Completions(command) => command.run(output),
        Command::Sync(command) => command.run(context),
    }
}
