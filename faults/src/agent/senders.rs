//! What agents do in a case of the model, and what happens to them.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tidelog_sync::{Agent, Target};

use super::databases::END;
use super::model::Action;
use super::wire::{Fault, Proxy, Way};
use super::world::World;
use crate::Result;

/// So often two agents at once send all, each time from another line on.
const ROUNDS: usize = 4;
/// How long an agent that nothing happens to tries again.
const PATIENCE: Duration = Duration::from_secs(20);

impl World<'_> {
    fn agent(&self, root: &Path, url: &str) -> Result<Agent> {
        Ok(Agent::new(root, Target::parse(Some(url), &|_| None)?, |_| {})?)
    }

    /// What an agent does, and what happens to it. Only one that nothing happens to must succeed.
    pub(super) fn send(&mut self, action: Action) -> Result<()> {
        let url = self.server.url(&self.database);
        match action {
            Action::Send(place) => {
                let root = self.place(place)?.root.clone();
                let agent = self.place(place)?.agent.take();
                let mut agent = agent.map_or_else(|| self.agent(&root, &url), Ok)?;
                agent.once(PATIENCE)?;
                self.place(place)?.agent = Some(agent);
            }
            Action::SendCut(place, to_server, bytes) => {
                let way = if to_server { Way::ToServer } else { Way::ToAgent };
                self.send_through(place, Fault::Cut(way, bytes))?;
            }
            Action::SendCommit(place, number, bytes) => {
                self.send_through(place, Fault::Commit(number, bytes))?;
            }
            Action::SendTwice(one, other) => self.send_twice(one, other, &url)?,
            Action::Restart(place, pause_ms) => self.restart(place, pause_ms, &url)?,
            _ => self.restore()?,
        }
        Ok(())
    }

    fn send_through(&mut self, place: usize, fault: Fault) -> Result<()> {
        let proxy = Proxy::start(self.server.port(), move || fault)?;
        let url = self.server.url_through("127.0.0.1", proxy.port, &self.database);
        let root = self.place(place)?.root.clone();
        self.agent(&root, &url)?.once(Duration::ZERO).ok(); // the connection breaks
        Ok(())
    }

    fn send_twice(&mut self, one: usize, other: usize, url: &str) -> Result<()> {
        let roots = [self.place(one)?.root.clone(), self.place(other)?.root.clone()];
        let send = |root: &PathBuf| -> Result<()> {
            let target = Target::parse(Some(url), &|_| None)?;
            let mut agent = Agent::new(root, target, |_| {})?;
            for _ in 0..ROUNDS {
                agent.once(PATIENCE)?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let agents = roots.each_ref().map(|root| scope.spawn(|| send(root)));
            while agents.iter().any(|agent| !agent.is_finished()) {
                self.record(one, 0, 1)?;
                thread::sleep(Duration::from_millis(1));
            }
            agents.into_iter().try_for_each(|it| it.join().map_err(|_| "an agent panicked")?)
        })
    }

    fn restart(&mut self, place: usize, pause_ms: u16, url: &str) -> Result<()> {
        let root = self.place(place)?.root.clone();
        let mut client = self.server.client("postgres")?;
        let database = self.database.clone();
        let ended = thread::spawn(move || {
            thread::sleep(Duration::from_millis(pause_ms.into()));
            client.execute(END, &[&database]).map(drop)
        });
        self.agent(&root, url)?.once(Duration::ZERO).ok(); // its connection ends
        Ok(ended.join().map_err(|_| "a thread panicked")??)
    }
}
