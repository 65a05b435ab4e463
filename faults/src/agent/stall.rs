//! A backend stops in the middle of a batch, as by SIGSTOP, while its machine goes on to answer for
//! it: no timer of TCP fires, and the server cannot end a statement that does not run.
//!
//! Either it goes on after a while, or the agent's own deadline passes first: the agent connects
//! anew and meets the locks of the stopped one. When that one goes on at last, what it was told long
//! ago may still take effect. Then the first process of the server stops, and nobody is let in.

use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use postgres::Client;
use rustix::process::Signal;

use super::crash::{DATABASE, await_progress, finish};
use super::follower::{Follower, PATIENCE};
use super::oracle;
use super::server::{Server, shared_folder};
use super::signal;
use super::writers::Writers;
use crate::{Options, Report, Result};

/// How an agent says that its deadline has passed.
const NO_ANSWER: &str = "the database gave no answer within";
/// Shorter than any deadline of the agent.
const BRIEF_MAX: Duration = Duration::from_secs(3);
/// So many brief stops for each that outlasts the deadline.
const BRIEF_PER_LONG: usize = 4;
/// Any transaction that the agent may have open waits for this.
const LOCK: &str = "LOCK TABLE telemetry_records, sync_batches IN ACCESS EXCLUSIVE MODE";
const WAITING: &str = "SELECT pid FROM pg_stat_activity WHERE application_name = 'tidelog-sync'
    AND wait_event_type = 'Lock' AND datname = current_database()";
const BACKEND: &str = "SELECT pid FROM pg_stat_activity
    WHERE application_name = 'tidelog-sync' AND datname = current_database()";

/// Stops as many backends as asked for, and the server's first process as often.
///
/// # Errors
/// A server or a program could not be started.
pub fn run(options: &Options) -> Result<Report> {
    let mut report = Report::default();
    let mut rng = Rng::with_seed(options.seed);
    let server = Server::start(&[])?;
    server.create_replica(DATABASE)?;
    let url = format!("{}&connect_timeout=2", server.url(DATABASE));
    let folder = shared_folder()?;
    let mut writers =
        Writers::start(options, &folder.path().join("store"), options.seed, (2, 4000))?;
    let stores = [writers.store().to_owned()];
    let mut found = Vec::new();
    for number in 0..options.runs {
        let follower = Follower::start(options, writers.store(), &url)?;
        let mut client = server.client(DATABASE)?;
        writers.plant(&mut rng)?;
        await_progress(&mut client)?;
        let stopped = stop_in_a_batch(&server)?;
        if number % (BRIEF_PER_LONG + 1) == 0 {
            follower.await_told(NO_ANSWER, 1)?;
            follower.await_told("agent: connecting", 2)?;
            found.extend(oracle::prefix(&stores, &mut client)?);
            report.count("backends stopped for longer than the deadline", 1);
        } else {
            thread::sleep(BRIEF_MAX.mul_f64(rng.f64()));
            report.count("backends stopped for a while", 1);
        }
        signal(stopped, Signal::CONT)?;
        await_progress(&mut client)?;
        found.extend(oracle::prefix(&stores, &mut client)?);
        stop_the_first(&server, &follower, &mut client)?;
        follower.kill()?;
        report.count("logins that nobody answered", 1);
        report.executed += 2;
    }
    found.extend(finish(options, vec![writers], &server, &mut report)?);
    let name = |text| format!("stall, seed {}: {text}", options.seed);
    report.violations.extend(found.into_iter().map(name));
    Ok(report)
}

/// Stops a backend that waits for a lock in the middle of a batch, and then has that lock: a place
/// where it holds nothing that others need, but its transaction. Gives its process id.
fn stop_in_a_batch(server: &Server) -> Result<u32> {
    let (mut holder, mut client) = (server.client(DATABASE)?, server.client(DATABASE)?);
    let mut lock = holder.transaction()?;
    lock.batch_execute(LOCK)?;
    let process = await_process(&mut client, WAITING)?;
    signal(process, Signal::STOP)?;
    lock.rollback()?;
    Ok(process)
}

fn await_process(client: &mut Client, sql: &str) -> Result<u32> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(row) = client.query(sql, &[])?.first() {
            return Ok(u32::try_from(row.try_get::<_, i32>(0)?)?);
        }
        thread::sleep(Duration::from_millis(5));
    }
    Err("no backend of the agent is there".into())
}

/// Ends the agent's connection while nobody answers a login, until the agent says so.
fn stop_the_first(server: &Server, follower: &Follower, client: &mut Client) -> Result<()> {
    let first = server.process().ok_or("the server is not running")?;
    let told = follower.told()?.matches(NO_ANSWER).count();
    signal(first, Signal::STOP)?;
    let backend = await_process(client, BACKEND)?;
    client.execute("SELECT pg_terminate_backend($1)", &[&i32::try_from(backend)?])?;
    let outcome = follower.await_told(NO_ANSWER, told + 1);
    signal(first, Signal::CONT)?;
    outcome?;
    await_progress(client)
}
