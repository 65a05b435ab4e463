use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::context::Context;
use crate::error::CliError;

const PROGRAM: &str = "tidelog-sync";

/// Run tidelog-sync, the agent that carries the store into PostgreSQL.
///
/// `tidelog sync …` is `tidelog-sync …`. The agent is taken from the folder of this program, else from PATH. It gets the store by the
/// environment variable TIDELOG_STORE. `tidelog sync --help` shows its commands.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Sync {
    /// Arguments of tidelog-sync
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

impl Sync {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let mut agent = Command::new(program());
        agent.args(self.arguments).env("TIDELOG_STORE", context.store_path());
        if context.json {
            agent.arg("--json");
        }
        let error = become_agent(agent);
        Err(match error.kind() {
            io::ErrorKind::NotFound => {
                CliError::failure(format!("{PROGRAM} is neither beside this program nor in PATH"))
                    .with_hint("cargo install tidelog-sync")
            }
            _ => CliError::failure(format!("cannot run {PROGRAM}")).because(error),
        })
    }
}

/// The agent beside this program, else the one that PATH finds.
pub(crate) fn program() -> PathBuf {
    let name = format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name(&name));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| name.into())
}

/// Signals and the exit code are the agent's own, as this process becomes it.
#[cfg(unix)]
fn become_agent(mut agent: Command) -> io::Error {
    std::os::unix::process::CommandExt::exec(&mut agent)
}

#[cfg(not(unix))]
fn become_agent(mut agent: Command) -> io::Error {
    match agent.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => error,
    }
}
