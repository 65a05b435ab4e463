//! The line between agent and server fails: it drops, delays, stalls, closes one way, or is cut; at
//! any byte, and right after COMMIT was sent, when nobody knows whether it took effect.

use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::crash::{DATABASE, finish};
use super::follower::Follower;
use super::oracle;
use super::server::{Server, shared_folder};
use super::wire::{Fault, Proxy, Way};
use super::writers::Writers;
use crate::{Options, Report, Result};

/// A connection says hello within the first few hundred bytes, a batch has up to some megabytes.
const BYTES_MAX: [usize; 3] = [400, 8_000, 2_000_000];
/// A reply to COMMIT, with what says that the server waits for more.
const REPLY_BYTES: usize = 17;
/// Shorter than the agent's deadlines: the longest of them has a harness of its own.
const STALL_MAX: Duration = Duration::from_secs(2);
const DELAY_MAX: Duration = Duration::from_millis(15);
/// A look at the replica after so many faults.
const FAULTS_PER_LOOK: usize = 10;
/// The agent waits longer and longer after failures in a row without progress; another begins anew
/// when nothing has happened for so long.
const QUIET_MAX: Duration = Duration::from_secs(2);

/// Breaks as many connections as asked for.
///
/// # Errors
/// A server or a program could not be started.
pub fn run(options: &Options) -> Result<Report> {
    let mut report = Report::default();
    let mut rng = Rng::with_seed(options.seed);
    let server = Server::start(&[])?;
    server.create_replica(DATABASE)?;
    let folder = shared_folder()?;
    let mut writers =
        Writers::start(options, &folder.path().join("store"), options.seed, (2, 1000))?;
    let mut drawn = rng.fork();
    let proxy = Proxy::start(server.port(), move || draw(&mut drawn))?;
    let url = server.url_through("127.0.0.1", proxy.port, DATABASE);
    let stores = [writers.store().to_owned()];
    let mut follower = Follower::start(options, writers.store(), &url)?;
    let mut found = Vec::new();
    let mut happened = 0;
    while happened < options.runs {
        writers.plant(&mut rng)?;
        if !await_fault(&proxy, happened)? {
            follower.kill()?;
            follower = Follower::start(options, writers.store(), &url)?;
        }
        let now = proxy.happened();
        if now / FAULTS_PER_LOOK > happened / FAULTS_PER_LOOK {
            found.extend(oracle::prefix(&stores, &mut server.client(DATABASE)?)?);
            report.count("looks at the replica between faults", 1);
        }
        happened = now;
    }
    report.executed = happened;
    proxy.counts().into_iter().for_each(|(kind, count)| report.count(kind, count));
    follower.kill()?;
    found.extend(finish(options, vec![writers], &server, &mut report)?);
    let name = |text| format!("proxy, seed {}: {text}", options.seed);
    report.violations.extend(found.into_iter().map(name));
    Ok(report)
}

/// Waits for one more fault, but not for ever. Tells whether there was one.
fn await_fault(proxy: &Proxy, happened: usize) -> Result<bool> {
    let start = Instant::now();
    while proxy.happened() == happened {
        if start.elapsed() > QUIET_MAX {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(true)
}

/// What happens to the next connection. One in six is left alone for a while, so that there is
/// progress.
fn draw(rng: &mut Rng) -> Fault {
    let way = if rng.bool() { Way::ToServer } else { Way::ToAgent };
    let bytes_max = rng.choice(BYTES_MAX).unwrap_or(400);
    let bytes = rng.usize(0..bytes_max);
    match rng.u8(0..12) {
        0 => Fault::Drop,
        1 | 2 => Fault::Cut(way, bytes),
        3 => Fault::HalfClose(way, bytes),
        4 => Fault::Stall(way, bytes, STALL_MAX.mul_f64(rng.f64())),
        5 => Fault::Delay(DELAY_MAX.mul_f64(rng.f64())),
        6 => Fault::None,
        _ => Fault::Commit(rng.usize(1..6), rng.usize(0..=REPLY_BYTES)),
    }
}
