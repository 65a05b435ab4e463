//! Does what the plan says and tells each call that has returned.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use tidelog::import::{ImportOptions, import};
use tidelog::{CheckpointId, Outcome, Session, SessionId, Store};

use super::{Durability, Operation, Task, values};
use crate::{Error, Result};

pub(super) struct Writer<'a, W> {
    task: &'a Task,
    root: PathBuf,
    store: Option<Store>,
    session: Option<Session>,
    told: W,
}

impl<'a, W: Write> Writer<'a, W> {
    pub(super) fn new(task: &'a Task, root: PathBuf, told: W) -> Self {
        Self { task, root, store: None, session: None, told }
    }

    pub(super) fn run(mut self) -> Result<()> {
        for operation in self.task.plan() {
            let line = match self.call(&operation) {
                Ok(more) => format!("ok {operation} {more}").trim_end().to_owned(),
                Err(error) => format!("err {operation} {error}").replace('\n', " "),
            };
            // one system call a line: nothing is told late, nothing half
            self.told.write_all(format!("{line}\n").as_bytes())?;
            self.told.flush()?;
        }
        Ok(())
    }

    /// What is told beside the call, if anything.
    fn call(&mut self, operation: &Operation) -> Result<String> {
        let seed = self.task.seed;
        match operation {
            Operation::Start(id) => return self.start(id),
            Operation::Checkpoint(id) => return self.checkpoint(id),
            Operation::Import => return self.import(),
            Operation::Open => self.store = Some(Store::open(&self.root)?),
            Operation::Close => (self.session, self.store) = (None, None),
            Operation::Record(step) => {
                self.session()?.record_telemetry(*step, &values::telemetry(seed, *step))?;
                self.persist_if_promised()?;
            }
            Operation::Basin(step) => {
                self.session()?.record_basin(values::basin_point(seed, *step))?;
                self.persist_if_promised()?;
            }
            Operation::Persist => self.session()?.persist()?,
            Operation::Emergency(id) => {
                self.session()?.record_emergency(values::emergency(seed, id)?)?;
            }
            Operation::End => {
                self.session.take().ok_or("no session is open")?.end(Outcome::Completed)?;
            }
            Operation::Prune(id) => self.store()?.prune_checkpoint(&CheckpointId::new(id)?)?,
            Operation::Load(id) => {
                self.store()?.load_checkpoint(&CheckpointId::new(id)?)?;
            }
            Operation::Query => self.store()?.refresh_index(&mut |_| {})?,
        }
        Ok(String::new())
    }

    fn start(&mut self, id: &str) -> Result<String> {
        self.session = None;
        let session = self.store()?.start_session(SessionId::new(id)?)?;
        let attempt = session.attempt();
        self.session = Some(session);
        Ok(attempt.to_string())
    }

    fn persist_if_promised(&self) -> Result<()> {
        match self.task.durability {
            Durability::Persisted => Ok(self.session()?.persist()?),
            Durability::Buffered | Durability::Written => Ok(()),
        }
    }

    fn checkpoint(&self, id: &str) -> Result<String> {
        let id = self.session()?.save_checkpoint(values::new_checkpoint(self.task.seed, id)?)?;
        let file = self.root.join("checkpoints").join(format!("{id}.npz"));
        let hash = Sha256::digest(std::fs::read(file)?);
        Ok(hash.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").ok(); // a String takes everything
            text
        }))
    }

    fn import(&self) -> Result<String> {
        let folder = super::predecessor();
        let report = import(self.store()?, &folder, &ImportOptions::default(), &mut |_| {})?;
        Ok(report.taken().to_string())
    }

    fn store(&self) -> Result<&Store> {
        self.store.as_ref().ok_or_else(|| Error::from("no store is open"))
    }

    fn session(&self) -> Result<&Session> {
        self.session.as_ref().ok_or_else(|| Error::from("no session is open"))
    }
}
