//! The network between agent and server goes away: packets vanish, and nobody says so.
//!
//! The agent runs in a network namespace of its own, whose only link leads to the server.

use std::process::Command;
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use super::crash::{DATABASE, await_progress, finish};
use super::follower::Follower;
use super::oracle;
use super::refused::call;
use super::server::{Server, is_root, shared_folder};
use super::writers::Writers;
use crate::{Options, Report, Result};

/// Of the addresses that no network routes.
const SERVER: &str = "10.213.77.1";
const AGENT: &str = "10.213.77.2";
/// Shorter than the agent's patience with a silent peer, which the connection string sets.
const BRIEF: Duration = Duration::from_millis(1500);
const LIMITS: &str = "connect_timeout=2&tcp_user_timeout=4000";

/// Partitions the network as many times as asked for: for a while, and until the agent notices.
///
/// # Errors
/// A server or a program could not be started.
pub fn run(options: &Options) -> Result<Report> {
    if !is_root() {
        return Ok(Report::skipped("a network partition: only root can make a network"));
    }
    let network = match Network::create() {
        Ok(network) => network,
        Err(reason) => return Ok(Report::skipped(format!("a network partition: {reason}"))),
    };
    let mut report = Report::default();
    let mut rng = Rng::with_seed(options.seed);
    let server = Server::start(&[&format!("listen_addresses=127.0.0.1,{SERVER}")])?;
    server.let_in(AGENT)?;
    server.create_replica(DATABASE)?;
    let url = format!("{}&{LIMITS}", server.url_through(SERVER, server.port(), DATABASE));
    let folder = shared_folder()?;
    let store = folder.path().join("store");
    let mut writers = Writers::start(options, &store, options.seed, (2, 2000))?;
    let follower = Follower::spawn(network.command(options), writers.store(), &url, &[])?;
    let mut found = Vec::new();
    for number in 0..options.runs {
        writers.plant(&mut rng)?;
        await_progress(&mut server.client(DATABASE)?)?;
        let told = follower.told()?.matches("agent: backoff").count();
        network.cut()?;
        if number % 2 == 0 {
            follower.await_told("agent: backoff", told + 2)?;
            report.count("partitions that the agent noticed", 1);
        } else {
            thread::sleep(BRIEF);
            report.count("partitions for a while", 1);
        }
        found.extend(oracle::prefix(std::slice::from_ref(&store), &mut server.client(DATABASE)?)?);
        network.heal()?;
        await_progress(&mut server.client(DATABASE)?)?;
        report.executed += 1;
    }
    follower.kill()?;
    found.extend(finish(options, vec![writers], &server, &mut report)?);
    let name = |text| format!("partition, seed {}: {text}", options.seed);
    report.violations.extend(found.into_iter().map(name));
    Ok(report)
}

/// A namespace and the link to it; gone with this value.
struct Network {
    name: String,
}

impl Network {
    fn create() -> Result<Self> {
        let process = std::process::id();
        let network = Self { name: format!("tidelog{process}") };
        let name = &network.name;
        let (here, there) = (format!("tlh{process}"), format!("tla{process}"));
        for words in [
            format!("netns add {name}"),
            format!("link add {here} type veth peer name {there} netns {name}"),
            format!("addr add {SERVER}/30 dev {here}"),
            format!("link set {here} up"),
            format!("-n {name} addr add {AGENT}/30 dev {there}"),
            format!("-n {name} link set {there} up"),
        ] {
            call(Command::new("ip").args(words.split(' ')))?;
        }
        network.cut()?;
        network.heal()?;
        Ok(network)
    }

    /// The program under test, in the namespace.
    fn command(&self, options: &Options) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(&options.program);
        command
    }

    fn cut(&self) -> Result<()> {
        self.filter("-A OUTPUT -j DROP")?;
        self.filter("-A INPUT -j DROP")
    }

    fn heal(&self) -> Result<()> {
        self.filter("-F")
    }

    fn filter(&self, words: &str) -> Result<()> {
        let mut command = Command::new("ip");
        call(command.args(["netns", "exec", &self.name, "iptables"]).args(words.split(' ')))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The link goes with its other end.
        call(Command::new("ip").args(["netns", "delete", &self.name])).ok();
    }
}
