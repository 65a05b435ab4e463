//! Does what it is asked to and tells each call that has returned.

use std::fmt::Write as _;
use std::io::{IoSlice, Write};
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use tidelog::import::{ImportOptions, import};
use tidelog::{CheckpointId, Outcome, Recorded, Session, SessionId, Store};

use super::{Manner, Operation, plan_line, values};
use crate::{Error, Result};

pub(super) struct Writer<W> {
    manner: Manner,
    root: PathBuf,
    store: Option<Store>,
    session: Option<Session>,
    told: W,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(manner: Manner, root: PathBuf, told: W) -> Self {
        Self { manner, root, store: None, session: None, told }
    }

    /// Does one operation and tells how it went.
    pub(super) fn perform(&mut self, operation: &Operation) -> Result<()> {
        let line = self.call(operation).unwrap_or_else(|error| {
            format!("{} {error}", plan_line("err", operation)).replace('\n', " ")
        });
        self.say(&format!("{line}\n"))
    }

    /// One system call a line: nothing is told late, nothing half. It is one that the store never
    /// makes, so that all of the store's can be made to fail and the words still come.
    fn say(&mut self, line: &str) -> Result<()> {
        match self.told.write_vectored(&[IoSlice::new(line.as_bytes())])? {
            bytes if bytes == line.len() => Ok(self.told.flush()?),
            _ => Err("half a word was told".into()),
        }
    }

    /// What is told of a call that returned.
    fn call(&mut self, operation: &Operation) -> Result<String> {
        let seed = self.manner.seed;
        let mut more = String::new();
        match operation {
            Operation::Record(step) => {
                let telemetry = values::telemetry(seed, *step);
                let recorded = self.session()?.record_telemetry(*step, &telemetry)?;
                return Ok(step_line(recorded, operation, *step));
            }
            Operation::Basin(step) => {
                let recorded = self.session()?.record_basin(values::basin_point(seed, *step))?;
                return Ok(step_line(recorded, operation, *step));
            }
            Operation::Start(id) => more = self.start(id)?,
            Operation::Checkpoint(id) => more = self.checkpoint(id)?,
            Operation::Import => more = self.import()?,
            Operation::Missed => more = self.session()?.missed()?.records.to_string(),
            Operation::Open => more = self.open()?,
            Operation::Close => (self.session, self.store) = (None, None),
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
        Ok(format!("{} {more}", plan_line("ok", operation)).trim_end().to_owned())
    }

    fn open(&mut self) -> Result<String> {
        let store = Store::open(&self.root)?;
        let id = store.id().to_string();
        self.store = Some(store);
        Ok(id)
    }

    fn start(&mut self, id: &str) -> Result<String> {
        self.session = None;
        let session =
            self.store()?.start_session_with(SessionId::new(id)?, self.manner.options())?;
        let attempt = session.attempt();
        self.session = Some(session);
        Ok(attempt.to_string())
    }

    fn checkpoint(&self, id: &str) -> Result<String> {
        let id = self.session()?.save_checkpoint(values::new_checkpoint(self.manner.seed, id)?)?;
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
        Ok(super::entries_there(&report).to_string())
    }

    fn store(&self) -> Result<&Store> {
        self.store.as_ref().ok_or_else(|| Error::from("no store is open"))
    }

    fn session(&self) -> Result<&Session> {
        self.session.as_ref().ok_or_else(|| Error::from("no session is open"))
    }
}

fn step_line(recorded: Recorded, operation: &Operation, step: i64) -> String {
    match recorded {
        Recorded::Kept => plan_line("ok", operation),
        Recorded::NotPersisted => format!("unpersisted {step}"),
        Recorded::Missed => format!("missed {step}"),
    }
}
