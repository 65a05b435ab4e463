//! The stores, agents and the database of one case of the model.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidelog::{
    CheckpointId, Emergency, EventId, NewCheckpoint, Outcome, Session, SessionId, Store, Telemetry,
    Value,
};
use tidelog_sync::Agent;

use super::databases::{clone_database, drop_database};
use super::expected;
use super::model::Action;
use super::oracle;
use super::server::{Server, copy, shared_folder};
use crate::Result;

/// At the beginning.
const STORES: usize = 2;
/// With copies.
const STORES_MAX: usize = 4;
/// Session ids, which stores have in common.
const SESSIONS: usize = 3;

pub(super) struct World<'s> {
    folder: TempDir,
    pub(super) server: &'s Server,
    pub(super) database: String,
    has_backup: bool,
    places: Vec<Place>,
    /// Of folders, steps and ids: none is used twice.
    last: i64,
}

/// A store, who writes it, and the agent that lives on.
pub(super) struct Place {
    pub(super) root: PathBuf,
    store: Store,
    sessions: BTreeMap<usize, Session>,
    checkpoints: Vec<CheckpointId>,
    pub(super) agent: Option<Agent>,
}

impl Place {
    fn open(root: PathBuf) -> Result<Self> {
        let store = Store::open(&root)?;
        Ok(Self { root, store, sessions: BTreeMap::new(), checkpoints: Vec::new(), agent: None })
    }
}

impl<'s> World<'s> {
    /// Two new stores, and a database like the template.
    pub(super) fn new(server: &'s Server, template: &str, database: &str) -> Result<Self> {
        let folder = shared_folder()?;
        clone_database(server, template, database)?;
        let places = (0..STORES).map(|number| Place::open(folder.path().join(number.to_string())));
        let places = places.collect::<Result<_>>()?;
        let database = database.to_owned();
        Ok(Self { folder, server, database, has_backup: false, places, last: 100 })
    }

    /// Does it; then, if it was an agent's, tells what is wrong with the replica.
    pub(super) fn perform(&mut self, action: Action) -> Result<Vec<String>> {
        match action {
            Action::Start(place, session) => self.start(place, session)?,
            Action::Record(place, session, count) => self.record(place, session, count)?,
            Action::Checkpoint(place, session) => self.checkpoint(place, session)?,
            Action::Emergency(place, session) => self.emergency(place, session)?,
            Action::Plant(place, session) => self.plant(place, session)?,
            Action::End(place, session) => self.end(place, session)?,
            Action::Prune(place, number) => self.prune(place, number)?,
            Action::Kill(place) => self.kill(place)?,
            Action::Copy(place) => self.copy(place)?,
            Action::BackUp => self.back_up()?,
            _ => {
                self.send(action)?;
                return oracle::prefix(&self.roots(), &mut self.server.client(&self.database)?);
            }
        }
        Ok(Vec::new())
    }

    /// Every session ends, everything is sent, and the replica compared.
    pub(super) fn finish(mut self) -> Result<Vec<String>> {
        for place in &mut self.places {
            for session in std::mem::take(&mut place.sessions).into_values() {
                session.end(Outcome::Completed)?;
            }
        }
        (0..self.places.len()).try_for_each(|place| self.send(Action::Send(place)))?;
        oracle::exact(&self.roots(), &mut self.server.client(&self.database)?)
    }

    fn roots(&self) -> Vec<PathBuf> {
        self.places.iter().map(|place| place.root.clone()).collect()
    }

    fn next(&mut self) -> i64 {
        self.last += 1;
        self.last
    }

    pub(super) fn place(&mut self, number: usize) -> Result<&mut Place> {
        let count = self.places.len();
        self.places.get_mut(number % count).ok_or_else(|| "no store".into())
    }

    /// One of the sessions that are open.
    fn session(&mut self, place: usize, number: usize) -> Result<Option<&Session>> {
        let sessions = &self.place(place)?.sessions;
        Ok(sessions.values().nth(number % sessions.len().max(1)))
    }

    fn start(&mut self, place: usize, number: usize) -> Result<()> {
        let number = number % SESSIONS;
        let place = self.place(place)?;
        if !place.sessions.contains_key(&number) {
            let session = place.store.start_session(SessionId::new(format!("run-{number}"))?)?;
            place.sessions.insert(number, session);
        }
        Ok(())
    }

    pub(super) fn record(&mut self, place: usize, session: usize, count: u16) -> Result<()> {
        for _ in 0..count {
            let step = self.next();
            let Some(session) = self.session(place, session)? else { return Ok(()) };
            let phi = if step % 50 == 0 {
                f64::NAN
            } else {
                1.0 / f64::from(u16::try_from(step % 1000)?)
            };
            let telemetry = Telemetry { phi: Some(phi), ..Telemetry::default() };
            session.record_telemetry(step, &telemetry.with("n", step))?;
        }
        Ok(())
    }

    fn checkpoint(&mut self, place: usize, session: usize) -> Result<()> {
        let number = self.next();
        let Some(session) = self.session(place, session)? else { return Ok(()) };
        let id = CheckpointId::new(format!("c-{number}"))?;
        let new = NewCheckpoint {
            checkpoint_id: Some(id.clone()),
            ..NewCheckpoint::new(Value::from(number), 0.5)
        };
        session.save_checkpoint(new)?;
        self.place(place)?.checkpoints.push(id);
        Ok(())
    }

    fn emergency(&mut self, place: usize, session: usize) -> Result<()> {
        let number = self.next();
        let Some(session) = self.session(place, session)? else { return Ok(()) };
        let id = EventId::new(format!("e-{number}"))?;
        Ok(session.record_emergency(Emergency::new(id, "collapse", "high"))?)
    }

    /// A live segment gets a line that its writer would never write.
    fn plant(&mut self, place: usize, session: usize) -> Result<()> {
        let number = self.next();
        let place = self.place(place)?;
        match live_segment(&place.root, session)? {
            Some(path) => append(&path, &format!("no entry {number}\n")),
            None => Ok(()),
        }
    }

    fn end(&mut self, place: usize, number: usize) -> Result<()> {
        let sessions = &mut self.place(place)?.sessions;
        let key = sessions.keys().nth(number % sessions.len().max(1)).copied();
        match key.and_then(|key| sessions.remove(&key)) {
            Some(session) => Ok(session.end(Outcome::Completed)?),
            None => Ok(()),
        }
    }

    fn prune(&mut self, place: usize, number: usize) -> Result<()> {
        let place = self.place(place)?;
        if place.checkpoints.is_empty() {
            return Ok(());
        }
        let id = place.checkpoints.swap_remove(number % place.checkpoints.len());
        Ok(place.store.prune_checkpoint(&id)?)
    }

    /// A process cannot die in this one. But a copy of its store is what a dead one leaves, and
    /// takes its place.
    fn kill(&mut self, number: usize) -> Result<()> {
        let name = self.next().to_string();
        let to = self.folder.path().join(name);
        let place = self.place(number)?;
        copy(&place.root, &to)?;
        if let Some(path) = live_segment(&to, number)? {
            append(&path, "{\"timestamp\":\"2026-01-05T09:3")?;
        }
        let checkpoints = std::mem::take(&mut place.checkpoints);
        let dead = std::mem::replace(place, Place { checkpoints, ..Place::open(to)? });
        let root = dead.root.clone();
        drop(dead);
        Ok(fs::remove_dir_all(root)?)
    }

    fn copy(&mut self, number: usize) -> Result<()> {
        if self.places.len() < STORES_MAX {
            let name = self.next().to_string();
            let to = self.folder.path().join(name);
            copy(&self.place(number)?.root, &to)?;
            self.places.push(Place::open(to)?);
        }
        Ok(())
    }

    fn back_up(&mut self) -> Result<()> {
        let backup = format!("{}_backup", self.database);
        drop_database(self.server, &backup)?;
        clone_database(self.server, &self.database, &backup)?;
        self.has_backup = true;
        Ok(())
    }

    pub(super) fn restore(&self) -> Result<()> {
        if self.has_backup {
            drop_database(self.server, &self.database)?;
            clone_database(self.server, &format!("{}_backup", self.database), &self.database)?;
        }
        Ok(())
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        for database in [self.database.clone(), format!("{}_backup", self.database)] {
            drop_database(self.server, &database).ok(); // it goes with the server
        }
    }
}

/// The file of one of the segments that are announced as live.
fn live_segment(root: &Path, number: usize) -> Result<Option<PathBuf>> {
    let mut ids = Vec::new();
    let Ok(entries) = fs::read_dir(root.join("active")) else { return Ok(None) };
    for entry in entries {
        ids.extend(entry?.path().file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    ids.sort();
    let Some(id) = ids.get(number % ids.len().max(1)) else { return Ok(None) };
    for path in expected::files(&root.join("logs/telemetry"))? {
        if fs::read_to_string(&path)?.lines().next().is_some_and(|header| header.contains(id)) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn append(path: &Path, text: &str) -> Result<()> {
    Ok(File::options().append(true).open(path)?.write_all(text.as_bytes())?)
}
