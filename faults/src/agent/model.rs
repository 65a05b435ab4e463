//! Random actions of writers, agents, servers and people, a database for each case; what the replica
//! holds is compared after each action of an agent, and in the end.
//!
//! All of it happens in this process, so that a case takes a second. A case that fails is made
//! shorter, as far as it still fails, and told with its seed.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;

use super::server::Server;
use super::world::World;
use crate::{Options, Report, Result, pool};

const TEMPLATE: &str = "template_replica";
const ACTIONS_MIN: usize = 10;
const ACTIONS_MAX: usize = 50;
/// Most cases that are tried to make a failing one shorter.
const SHORTER_MAX: usize = 40;

/// One thing that somebody does. A number is one of as many as there are, whatever it is: so an
/// action stays one when those before it are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// A session of a store starts, or is resumed.
    Start(usize, usize),
    /// It records.
    Record(usize, usize, u16),
    /// It saves a checkpoint.
    Checkpoint(usize, usize),
    /// It records an emergency.
    Emergency(usize, usize),
    /// Its file gets a line that is no entry.
    Plant(usize, usize),
    /// It ends.
    End(usize, usize),
    /// A checkpoint's file is removed.
    Prune(usize, usize),
    /// All writers of a store die, one in the middle of a line.
    Kill(usize),
    /// A store is copied; both are written to from now on.
    Copy(usize),
    /// An agent that lives on sends all.
    Send(usize),
    /// A new agent's connection breaks after so many bytes, one way or the other.
    SendCut(usize, bool, usize),
    /// A new agent's connection breaks after so many COMMITs, before so many bytes of the reply.
    SendCommit(usize, usize, usize),
    /// Two new agents of two stores, or of one, send at once, while the first store is written to.
    SendTwice(usize, usize),
    /// The server ends every connection while a new agent sends.
    Restart(usize, u16),
    /// The database is backed up.
    BackUp,
    /// The database is what it was at the last backup.
    Restore,
}

impl Action {
    fn draw(rng: &mut Rng) -> Self {
        let (store, other) = (rng.usize(..8), rng.usize(..8));
        match rng.u8(..44) {
            0..=4 => Self::Start(store, other),
            5..=11 => Self::Record(store, other, rng.u16(1..200)),
            12 => Self::Record(store, other, rng.u16(1000..2500)),
            13..=15 => Self::Checkpoint(store, other),
            16 | 17 => Self::Emergency(store, other),
            18..=20 => Self::Plant(store, other),
            21 | 22 => Self::End(store, other),
            23 | 24 => Self::Prune(store, other),
            25 | 26 => Self::Kill(store),
            27 => Self::Copy(store),
            28..=31 => Self::Send(store),
            32 | 33 => Self::SendCut(store, rng.bool(), rng.usize(..20_000)),
            34..=36 => Self::SendCommit(store, rng.usize(1..5), rng.usize(..17)),
            37 | 38 => Self::SendTwice(store, other),
            39 => Self::Restart(store, rng.u16(..40)),
            40 | 41 => Self::BackUp,
            _ => Self::Restore,
        }
    }
}

/// Plays as many cases as asked for.
///
/// # Errors
/// The server could not be started, or a case could not be played.
pub fn run(options: &Options) -> Result<Report> {
    let server = Server::start(&["synchronous_commit=off", "autovacuum=off"])?;
    server.create_replica(TEMPLATE)?;
    let stage = Stage { server, cases: AtomicU64::new(0) };
    let mut rng = Rng::with_seed(options.seed);
    let seeds: Vec<u64> = (0..options.runs).map(|_| rng.u64(..)).collect();
    pool::each(&seeds, |seed| stage.case(*seed))
}

/// Where cases are played.
struct Stage {
    server: Server,
    /// Numbers of databases.
    cases: AtomicU64,
}

impl Stage {
    fn case(&self, seed: u64) -> Result<Report> {
        let mut rng = Rng::with_seed(seed);
        let length = rng.usize(ACTIONS_MIN..=ACTIONS_MAX);
        let actions: Vec<Action> = (0..length).map(|_| Action::draw(&mut rng)).collect();
        let mut report = Report { executed: 1, ..Report::default() };
        report.count("actions", actions.len());
        let found = self.play(&actions)?;
        if !found.is_empty() {
            let (actions, found) = self.shorter(actions, found)?;
            let mut text = format!("case of seed {seed}: {actions:?}");
            for line in found {
                write!(text, "\n    {line}").ok(); // a String takes everything
            }
            report.violations.push(text);
        }
        Ok(report)
    }

    /// What is wrong after these actions.
    fn play(&self, actions: &[Action]) -> Result<Vec<String>> {
        let number = self.cases.fetch_add(1, Ordering::Relaxed);
        let database = format!("case_{number}");
        let mut world = World::new(&self.server, TEMPLATE, &database)?;
        for (number, action) in actions.iter().enumerate() {
            let found = world.perform(*action).map_err(|error| format!("{actions:?}: {error}"))?;
            if !found.is_empty() {
                return Ok(after(&format!("{number} {action:?}"), found));
            }
        }
        Ok(after("the end", world.finish().map_err(|error| format!("{actions:?}: {error}"))?))
    }

    /// Leaves out what it can while the case still fails: halves, quarters, at last single actions.
    /// One that fails now and then only stays longer than it had to be.
    fn shorter(
        &self,
        mut actions: Vec<Action>,
        mut found: Vec<String>,
    ) -> Result<(Vec<Action>, Vec<String>)> {
        let (mut size, mut tried) = (actions.len() / 2, 0);
        while size > 0 {
            let mut at = 0;
            while at < actions.len() && tried < SHORTER_MAX {
                let mut less = actions.clone();
                less.drain(at..(at + size).min(less.len()));
                tried += 1;
                let found_less = self.play(&less)?;
                if found_less.is_empty() {
                    at += size;
                } else {
                    (actions, found) = (less, found_less);
                }
            }
            size /= 2;
        }
        Ok((actions, found))
    }
}

fn after(what: &str, found: Vec<String>) -> Vec<String> {
    found.into_iter().map(|text| format!("after {what}: {text}")).collect()
}
