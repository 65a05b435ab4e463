//! Measures tidelog against named references, each pair taken in turn in one run.
//!
//! `scripts/bench` starts a PostgreSQL and builds the programs that are measured.

#![expect(clippy::print_stdout, reason = "a program that prints its results")]

mod append;
mod backfill;
mod index;
mod memory;
mod open;
mod records;
mod stats;
mod verify;

use clap::{Parser, Subcommand};

/// What a measurement returns.
pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Measures tidelog against named references, in one run. Build with --release.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Subcommand)]
enum Measurement {
    Append(append::Arguments),
    Backfill(backfill::Arguments),
    Index(index::Arguments),
    Memory(memory::Arguments),
    Open(open::Arguments),
    Verify(verify::Arguments),
}

fn main() -> Outcome {
    match Arguments::parse().measurement {
        Measurement::Append(arguments) => append::run(&arguments),
        Measurement::Backfill(arguments) => backfill::run(&arguments),
        Measurement::Index(arguments) => index::run(&arguments),
        Measurement::Memory(arguments) => memory::run(&arguments),
        Measurement::Open(arguments) => open::run(&arguments),
        Measurement::Verify(arguments) => verify::run(&arguments),
    }
}
