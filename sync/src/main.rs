//! `tidelog-sync`: sends a store to PostgreSQL. The work is in the library; here are its commands.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
