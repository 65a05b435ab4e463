//! Peak memory on a large store, against that on a small one.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use clap::Args;

use crate::Outcome;
use crate::backfill::{Scratch, program};
use crate::records;

/// Compare peak memory of the programs on a small and a large store.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Records in the small store.
    #[arg(long, default_value_t = 100_000)]
    small: u64,
    /// Records in the large store.
    #[arg(long, default_value_t = 10_000_000)]
    large: u64,
    /// Server; a role that may create databases.
    #[arg(long, env = "TIDELOG_TEST_DATABASE_URL", hide_env_values = true)]
    database_url: String,
}

const ALL: &str = "SELECT * FROM telemetry_records";
const MEAN: &str = "SELECT count(*), avg(phi) FROM telemetry_records";

/// What is measured: the program and its arguments.
const COMMANDS: &[(&str, &[&str])] = &[
    ("tidelog", &["rebuild"]),
    ("tidelog", &["sql", MEAN]),
    ("tidelog", &["sql", ALL]),
    ("tidelog", &["sql", "--json", ALL]),
    ("tidelog", &["show", "bench"]),
    ("tidelog", &["tail", "bench"]),
    ("tidelog", &["verify"]),
    ("tidelog-sync", &["migrate"]),
    ("tidelog-sync", &["once"]),
    ("tidelog-sync", &["status"]),
];

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let small = peaks(arguments, arguments.small)?;
    let large = peaks(arguments, arguments.large)?;
    println!(
        "peak memory in MiB: {} records, {} records, growth",
        arguments.small, arguments.large
    );
    for ((command, small), large) in COMMANDS.iter().zip(small).zip(large) {
        let line = format!("{} {}", command.0, command.1.join(" "));
        println!(
            "{line:60} {:8.1} {:8.1} {:+8.1}",
            mib(small),
            mib(large),
            mib(large) - mib(small)
        );
    }
    Ok(())
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// Peak memory of each command in KiB.
fn peaks(arguments: &Arguments, count: u64) -> Result<Vec<u64>, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    records::store(folder.path(), count)?;
    let database = Scratch::create(&arguments.database_url, "tidelog_bench_memory")?;
    let url = database.url();
    COMMANDS.iter().map(|command| peak(command, folder.path(), &url)).collect()
}

fn peak(
    (name, arguments): &(&str, &[&str]),
    store: &Path,
    url: &str,
) -> Result<u64, Box<dyn std::error::Error>> {
    let mut child = Command::new(program(name)?)
        .args(*arguments)
        .env("TIDELOG_STORE", store)
        .env("DATABASE_URL", url)
        .stdout(Stdio::null())
        .spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait()?.is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = kib.unwrap_or(peak).max(peak);
        thread::sleep(Duration::from_millis(5));
    }
    match child.wait()?.success() {
        true => Ok(peak),
        false => Err(format!("{name} {arguments:?} failed").into()),
    }
}
