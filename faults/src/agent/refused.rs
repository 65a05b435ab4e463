//! The server is there and takes nothing: its disk is full, or it is read-only, as a database, or as
//! a standby. The agent waits and tells why; when the server takes lines again, all of them come.

use std::path::{Path, PathBuf};
use std::process::Command;

use fastrand::Rng;
use postgres::Client;

use super::crash::{DATABASE, await_progress, finish};
use super::follower::Follower;
use super::oracle;
use super::server::{Death, Server, is_root, own, shared_folder};
use super::writers::Writers;
use crate::{Options, Report, Result};

/// A new database with the schema takes about 12 MB.
const SMALL: &str = "size=16m";
const LARGE: &str = "size=600m";

/// Fills the disk, and forbids writing, as many times as asked for.
///
/// # Errors
/// A server or a program could not be started.
pub fn run(options: &Options) -> Result<Report> {
    let mut report = Report::default();
    let mut rng = Rng::with_seed(options.seed);
    for _ in 0..options.runs {
        report.merge(refuse(options, &mut rng, Refusal::ReadOnly)?);
        report.merge(refuse(options, &mut rng, Refusal::Standby)?);
        if is_root() {
            report.merge(refuse(options, &mut rng, Refusal::DiskFull)?);
        } else {
            report.skipped.push("a full disk of the server: only root can mount one".into());
        }
    }
    Ok(report)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    ReadOnly,
    Standby,
    DiskFull,
}

impl Refusal {
    /// A part of what the agent says.
    fn code(self) -> &'static str {
        match self {
            Self::ReadOnly | Self::Standby => "SQLSTATE 25006",
            Self::DiskFull => "SQLSTATE 53100",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "a database that is read-only",
            Self::Standby => "a server that is a standby",
            Self::DiskFull => "a server whose disk is full",
        }
    }
}

fn refuse(options: &Options, rng: &mut Rng, refusal: Refusal) -> Result<Report> {
    let mut report = Report::default();
    let mut server = Server::start(&[])?;
    let disk = match refusal {
        Refusal::DiskFull => Some(small_disk(&server)?),
        _ => None,
    };
    let options_of_database = disk.as_ref().map_or("", |_| "TABLESPACE small");
    server.create_replica_with(DATABASE, options_of_database)?;
    let folder = shared_folder()?;
    let store = folder.path().join("store");
    let pause_us = if disk.is_some() { 300 } else { 3000 };
    let mut writers = Writers::start(options, &store, options.seed, (2, pause_us))?;
    let stores = [store];
    let follower = Follower::start(options, writers.store(), &server.url(DATABASE))?;
    writers.plant(rng)?;
    await_progress(&mut server.client(DATABASE)?)?;
    begin(refusal, &mut server)?;
    follower.await_told(refusal.code(), 2)?;
    let mut found = oracle::prefix(&stores, &mut server.client(DATABASE)?)?;
    end(refusal, &mut server.client(DATABASE)?, disk.as_ref())?;
    await_progress(&mut server.client(DATABASE)?)?;
    follower.kill()?;
    found.extend(finish(options, vec![writers], &server, &mut report)?);
    report.executed += 1;
    report.count(refusal.name(), 1);
    let name = |text| format!("{}, seed {}: {text}", refusal.name(), options.seed);
    report.violations.extend(found.into_iter().map(name));
    Ok(report)
}

fn begin(refusal: Refusal, server: &mut Server) -> Result<()> {
    match refusal {
        Refusal::ReadOnly => Ok(server.client("postgres")?.batch_execute(&format!(
            "ALTER DATABASE {DATABASE} SET default_transaction_read_only = on;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{DATABASE}'"
        ))?),
        Refusal::Standby => {
            server.stop(Death::Fast)?;
            server.make_standby()?;
            server.restart()
        }
        Refusal::DiskFull => Ok(()), // the program writes until it is
    }
}

fn end(refusal: Refusal, client: &mut Client, disk: Option<&Disk>) -> Result<()> {
    match refusal {
        Refusal::ReadOnly => Ok(client.batch_execute(&format!(
            "BEGIN READ WRITE;
             ALTER DATABASE {DATABASE} RESET default_transaction_read_only; COMMIT"
        ))?),
        Refusal::Standby => Ok(client.batch_execute("SELECT pg_promote()")?),
        Refusal::DiskFull => disk.map_or(Ok(()), Disk::enlarge),
    }
}

/// A tablespace on a disk of its own.
fn small_disk(server: &Server) -> Result<Disk> {
    let disk = Disk::mount(server.folder())?;
    let space = disk.at.join("space");
    std::fs::create_dir(&space)?;
    own(&space)?;
    let sql = format!("CREATE TABLESPACE small LOCATION '{}'", space.display());
    server.client("postgres")?.batch_execute(&sql)?;
    Ok(disk)
}

/// A small file system in memory; gone with this value.
#[derive(Debug)]
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn mount(folder: &Path) -> Result<Self> {
        let at = folder.join("small");
        std::fs::create_dir(&at)?;
        call(Command::new("mount").args(["-t", "tmpfs", "-o", SMALL, "tidelog-faults"]).arg(&at))?;
        Ok(Self { at })
    }

    fn enlarge(&self) -> Result<()> {
        call(Command::new("mount").args(["-o", &format!("remount,{LARGE}")]).arg(&self.at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A server that still runs keeps it until then.
        call(Command::new("umount").arg("--lazy").arg(&self.at)).ok();
    }
}

/// Runs a program to its end; what it said is in the error.
pub(super) fn call(command: &mut Command) -> Result<()> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
        }
    }
}
