//! The server is set back to a backup, again and again, while agents follow and a program writes.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::crash::{DATABASE, await_progress, finish, lines};
use super::follower::{Follower, PATIENCE};
use super::oracle;
use super::server::{Death, Server, shared_folder};
use super::writers::Writers;
use crate::{Options, Report, Result};

const BACKUP: &str = "backup";
/// How an agent says that the replica went back.
const REWOUND: &str = ": the replica went back from line";
const WRITTEN_MAX: Duration = Duration::from_millis(1500);

/// Restores a backup as many times as asked for.
///
/// # Errors
/// A server or a program could not be started.
pub fn run(options: &Options) -> Result<Report> {
    let mut report = Report::default();
    let mut rng = Rng::with_seed(options.seed);
    let mut server = Server::start(&[])?;
    server.create_replica(DATABASE)?;
    let folder = shared_folder()?;
    let store = folder.path().join("store");
    let mut writers = Writers::start(options, &store, options.seed, (2, 1000))?;
    let stores = [writers.store().to_owned()];
    let url = server.url(DATABASE);
    let mut found = Vec::new();
    for number in 0..options.runs {
        let follower = Follower::start(options, writers.store(), &url)?;
        // Of three backups, the last one is older than the one before.
        if number % 3 != 2 {
            work(&mut writers, &server, &mut rng)?;
            server.stop(Death::Fast)?;
            server.back_up(BACKUP)?;
            server.restart()?;
        }
        work(&mut writers, &server, &mut rng)?;
        let before = lines(&mut server.client(DATABASE)?)?;
        server.stop(Death::Immediate)?;
        server.put_back(BACKUP)?;
        server.restart()?;
        await_lines(&server, before)?;
        found.extend(oracle::prefix(&stores, &mut server.client(DATABASE)?)?);
        found.extend(check_told(&follower.told()?));
        follower.kill()?;
        report.executed += 1;
    }
    report.count("backups restored", report.executed);
    found.extend(finish(options, vec![writers], &server, &mut report)?);
    let name = |text| format!("rewind, seed {}: {text}", options.seed);
    report.violations.extend(found.into_iter().map(name));
    Ok(report)
}

/// Lets the program write and the agent send for a while.
fn work(writers: &mut Writers, server: &Server, rng: &mut Rng) -> Result<()> {
    writers.plant(rng)?;
    await_progress(&mut server.client(DATABASE)?)?;
    thread::sleep(WRITTEN_MAX.mul_f64(rng.f64()));
    Ok(())
}

/// Waits until the replica has as many lines as before.
fn await_lines(server: &Server, before: i64) -> Result<()> {
    let start = Instant::now();
    while lines(&mut server.client(DATABASE)?)? < before {
        if start.elapsed() > PATIENCE {
            return Err(format!("the replica never gets back to {before} lines").into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// An agent that lives through one restore tells it once for each file whose lines went away.
fn check_told(told: &str) -> Vec<String> {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for (path, _) in told.lines().filter_map(|line| line.split_once(REWOUND)) {
        *times.entry(path).or_default() += 1;
    }
    if times.is_empty() {
        return vec![format!("no agent told that the replica went back: {told}")];
    }
    let twice = times.into_iter().filter(|(_, times)| *times > 1);
    twice.map(|(path, times)| format!("{path}: told {times} times that it went back")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_that_is_told_never_or_twice_is_noticed() {
        let line = |path: &str| format!("{path}{REWOUND} 7 to line 3; sending again\n");
        assert!(check_told(&(line("a") + &line("b"))).is_empty());
        assert_eq!(check_told(&line("a").repeat(2)).len(), 1);
        assert_eq!(check_told("agent: ready\n").len(), 1);
    }
}
