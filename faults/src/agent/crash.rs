//! Agents and servers are killed at any moment while a program writes.
//!
//! An agent dies by SIGKILL; a server by SIGKILL of its first process, or all of it at once as by
//! `pg_ctl stop -m immediate`. With `synchronous_commit = off` the server then forgets transactions
//! that it had told to be committed; the cursor goes with them. Between the kills the replica holds
//! exactly the lines before its cursors, and in the end exactly those of the files.
//!
//! Then eight agents bring eight stores with the same sessions to one server, and are killed, too:
//! no line may be lost, and no deadlock may ever be met.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use postgres::Client;

use super::follower::{Follower, PATIENCE};
use super::oracle;
use super::server::{Death, Server, shared_folder};
use super::writers::Writers;
use crate::{Options, Report, Result};

pub(super) const DATABASE: &str = "replica";
/// The longest time between progress and a kill.
const PAUSE_MAX: Duration = Duration::from_millis(120);
/// The program gets so far ahead before the first agent.
const HEAD_START: Duration = Duration::from_millis(1500);
/// A look at the replica after so many kills.
const KILLS_PER_LOOK: usize = 5;
/// Stores, and agents, that share a server.
const STORES: usize = 8;
/// How the server says it.
const DEADLOCK: &str = "deadlock detected";

/// Kills as many agents as asked for, and as many servers, in either commit mode; and as many of
/// eight agents.
///
/// # Errors
/// A server or a program could not be started.
pub fn run(options: &Options) -> Result<Report> {
    let mut report = Report::default();
    let mut rng = Rng::with_seed(options.seed);
    for mode in ["on", "off"] {
        let found = kill_both(mode, options, &mut rng, &mut report)?;
        let name = |text| format!("synchronous_commit {mode}, seed {}: {text}", options.seed);
        report.violations.extend(found.into_iter().map(name));
    }
    let found = many(options, &mut rng, &mut report)?;
    let name = |text| format!("{STORES} agents, seed {}: {text}", options.seed);
    report.violations.extend(found.into_iter().map(name));
    Ok(report)
}

fn kill_both(
    mode: &str,
    options: &Options,
    rng: &mut Rng,
    report: &mut Report,
) -> Result<Vec<String>> {
    let mut server = Server::start(&[&format!("synchronous_commit={mode}")])?;
    server.create_replica(DATABASE)?;
    let url = server.url(DATABASE);
    let folder = shared_folder()?;
    let mut writers =
        Writers::start(options, &folder.path().join("store"), options.seed, (2, 1000))?;
    thread::sleep(HEAD_START);
    let stores = [writers.store().to_owned()];
    let mut found = Vec::new();
    let mut follower = Follower::start(options, writers.store(), &url)?;
    for number in 1..=2 * options.runs {
        writers.plant(rng)?;
        await_progress(&mut server.client(DATABASE)?)?;
        thread::sleep(PAUSE_MAX.mul_f64(rng.f64()));
        if number % 2 == 0 {
            let was_alive = follower.kill()?;
            report.count(&format!("agents killed, synchronous_commit {mode}"), was_alive.into());
            report.executed += usize::from(was_alive);
            follower = Follower::start(options, writers.store(), &url)?;
        } else {
            server.stop(if rng.bool() { Death::Kill } else { Death::Immediate })?;
            server.restart()?;
            report.count(&format!("servers killed, synchronous_commit {mode}"), 1);
            report.executed += 1;
        }
        if number % KILLS_PER_LOOK == 0 {
            found.extend(oracle::prefix(&stores, &mut server.client(DATABASE)?)?);
            report.count("looks at the replica between kills", 1);
        }
    }
    follower.kill()?;
    found.extend(finish(options, vec![writers], &server, report)?);
    Ok(found)
}

/// Waits until a line more is in the replica.
pub(super) fn await_progress(client: &mut Client) -> Result<()> {
    let start = Instant::now();
    let before = lines(client)?;
    while lines(client)? == before {
        if start.elapsed() > PATIENCE {
            return Err("no line arrives any more".into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// How many lines are in the replica.
pub(super) fn lines(client: &mut Client) -> Result<i64> {
    let sql = "SELECT coalesce(sum(next_line), 0)::bigint FROM sync_segments";
    Ok(client.query_one(sql, &[])?.try_get(0)?)
}

/// Ends the writers, sends what is left, and compares.
pub(super) fn finish(
    options: &Options,
    writers: Vec<Writers>,
    server: &Server,
    report: &mut Report,
) -> Result<Vec<String>> {
    let stores: Result<Vec<PathBuf>> = writers.into_iter().map(Writers::finish).collect();
    let stores = stores?;
    let url = server.url(DATABASE);
    for store in &stores {
        Follower::once(options, store, &url)?;
    }
    let mut client = server.client(DATABASE)?;
    report.count("lines compared", usize::try_from(lines(&mut client)?)?);
    let mut found = oracle::exact(&stores, &mut client)?;
    let deadlocks = server.log()?.matches(DEADLOCK).count();
    if deadlocks > 0 {
        found.push(format!("{deadlocks} deadlocks in the server's log"));
    }
    Ok(found)
}

fn many(options: &Options, rng: &mut Rng, report: &mut Report) -> Result<Vec<String>> {
    let server = Server::start(&[])?;
    server.create_replica(DATABASE)?;
    let url = server.url(DATABASE);
    let folder = shared_folder()?;
    let start = |number: usize| {
        let store = folder.path().join(number.to_string());
        Writers::start(options, &store, options.seed, (1, 4000))
    };
    let mut writers: Vec<Writers> = (0..STORES).map(start).collect::<Result<_>>()?;
    let follow = |writers: &Writers| Follower::start(options, writers.store(), &url);
    let mut followers: Vec<Follower> = writers.iter().map(follow).collect::<Result<_>>()?;
    let stores: Vec<PathBuf> = writers.iter().map(|it| it.store().to_owned()).collect();
    let mut found = Vec::new();
    for _ in 0..options.runs {
        let number = rng.usize(..STORES);
        let (Some(writers), Some(slot)) = (writers.get_mut(number), followers.get_mut(number))
        else {
            continue;
        };
        writers.plant(rng)?;
        await_progress(&mut server.client(DATABASE)?)?;
        thread::sleep(PAUSE_MAX.mul_f64(rng.f64()));
        let was_alive = std::mem::replace(slot, follow(writers)?).kill()?;
        report.count(&format!("agents of {STORES} killed"), was_alive.into());
        report.executed += usize::from(was_alive);
    }
    found.extend(oracle::prefix(&stores, &mut server.client(DATABASE)?)?);
    drop(followers);
    found.extend(finish(options, writers, &server, report)?);
    Ok(found)
}
