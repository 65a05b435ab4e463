//! A whole store into PostgreSQL, against `psql \copy … binary` of the same rows into the same
//! table with the same indexes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;
use postgres::{Client, NoTls};

use crate::Outcome;
use crate::records;
use crate::stats::spread;

/// Copy a store into PostgreSQL, against psql's \copy of the same rows.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Records in the store.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Rounds of both, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Server; a role that may create databases.
    #[arg(long, env = "TIDELOG_TEST_DATABASE_URL", hide_env_values = true)]
    database_url: String,
}

/// A database that is dropped with the value.
pub(crate) struct Scratch {
    server: String,
    name: String,
}

impl Scratch {
    pub(crate) fn create(server: &str, name: &str) -> Result<Self, postgres::Error> {
        let scratch = Self { server: server.to_owned(), name: name.to_owned() };
        let mut client = Client::connect(server, NoTls)?;
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))?;
        client.batch_execute(&format!("CREATE DATABASE {name}"))?;
        Ok(scratch)
    }

    pub(crate) fn url(&self) -> String {
        let server = self.server.rsplit_once('/').map_or(self.server.as_str(), |(head, _)| head);
        format!("{server}/{}", self.name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Ok(mut client) = Client::connect(&self.server, NoTls) {
            let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
            client.batch_execute(&drop).ok();
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("store");
    records::store(&store, arguments.records)?;
    let (mut ours, mut theirs, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..arguments.rounds {
        let (own, reference) = one_round(arguments, &store, folder.path())?;
        let per_second = |time: Duration| arguments.records as f64 / time.as_secs_f64();
        ours.push(per_second(own));
        theirs.push(per_second(reference));
        ratios.push(per_second(own) / per_second(reference));
    }
    println!("tidelog-sync once, rows/s:    {:.0}", spread(ours));
    println!("psql \\copy binary, rows/s:    {:.0}", spread(theirs));
    println!("ratio:                        {:.2}", spread(ratios));
    Ok(())
}

fn one_round(
    arguments: &Arguments,
    store: &Path,
    folder: &Path,
) -> Result<(Duration, Duration), Box<dyn std::error::Error>> {
    let database = Scratch::create(&arguments.database_url, "tidelog_bench")?;
    let url = database.url();
    agent(&url, store, "migrate")?;
    let mut client = Client::connect(&url, NoTls)?;
    client.batch_execute("CHECKPOINT")?;
    let own = agent(&url, store, "once")?;

    let rows = folder.join("rows.binary");
    let file = rows.display();
    psql(&url, &format!(r"\copy telemetry_records TO '{file}' (FORMAT binary)"))?;
    client.batch_execute("TRUNCATE telemetry_records; CHECKPOINT")?;
    let copy = format!(r"\copy telemetry_records FROM '{file}' (FORMAT binary)");
    let reference = psql(&url, &copy)?;
    let found: i64 = client.query_one("SELECT count(*) FROM telemetry_records", &[])?.get(0);
    if u64::try_from(found) != Ok(arguments.records) {
        return Err(format!("{found} rows in the table, {} expected", arguments.records).into());
    }
    Ok((own, reference))
}

/// A program of this workspace, built beside this one.
pub(crate) fn program(name: &str) -> std::io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

fn agent(url: &str, store: &Path, command: &str) -> Result<Duration, Box<dyn std::error::Error>> {
    timed(
        Command::new(program("tidelog-sync")?)
            .arg(command)
            .env("DATABASE_URL", url)
            .env("TIDELOG_STORE", store),
    )
}

fn psql(url: &str, command: &str) -> Result<Duration, Box<dyn std::error::Error>> {
    timed(Command::new("psql").args([
        "--no-psqlrc",
        "--quiet",
        "-v",
        "ON_ERROR_STOP=1",
        url,
        "-c",
        command,
    ]))
}

fn timed(command: &mut Command) -> Result<Duration, Box<dyn std::error::Error>> {
    let start = Instant::now();
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(start.elapsed())
}
