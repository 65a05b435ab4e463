use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::Cli;
use crate::error::CliError;
use crate::output::Output;

/// Print the completion script of a shell.
///
/// For bash: `source <(tidelog completions bash)`.
#[derive(Args)]
pub(crate) struct Completions {
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "tidelog", &mut script);
        Ok(output.write(&script)?)
    }
}
