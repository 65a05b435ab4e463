//! Who writes while agents and servers are broken: a program in a process of its own, and a session
//! in this one whose file gets lines that no library writes.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use tidelog::{Outcome, Session, SessionId, Store, Telemetry};

use crate::crowd::{self, Crowd};
use crate::scenario::{Durability, Scenario, Task};
use crate::victim::Victim;
use crate::{Options, Result};

/// The session of this process; in several stores it is one.
const SESSION: &str = "planted";
/// Most records between two damaged lines.
const RECORDS_MAX: i64 = 40;

/// A store that is written to.
pub(crate) struct Writers {
    store: PathBuf,
    program: Option<Victim>,
    session: Session,
    step: i64,
}

impl Writers {
    /// Starts a program of so many threads, each of which rests so long after a call. Programs of
    /// the same seed write sessions, events and checkpoints of the same ids.
    ///
    /// # Errors
    /// It cannot be started, or this is no place for a store.
    pub(crate) fn start(
        options: &Options,
        store: &Path,
        seed: u64,
        (threads, pause_us): (u64, u64),
    ) -> Result<Self> {
        let session = Store::open(store)?.start_session(SessionId::new(SESSION)?)?;
        let scenario = Scenario::Mixed;
        let records = crowd::records(scenario);
        let task = Task { scenario, seed, durability: Durability::Written, records };
        let program = Victim::start(Crowd { task, threads, pause_us }.command(options, store))?;
        Ok(Self { store: store.to_owned(), program: Some(program), session, step: 0 })
    }

    /// Records a little here, with a line in between that is no entry, or one of a kind that
    /// nobody knows.
    ///
    /// # Errors
    /// The disk refuses.
    pub(crate) fn plant(&mut self, rng: &mut Rng) -> Result<()> {
        for _ in 0..rng.i64(1..=RECORDS_MAX) {
            self.step += 1;
            let phi = *rng.choice(&[0.25, f64::NAN, f64::INFINITY, 1e-300]).unwrap_or(&0.5);
            let telemetry = Telemetry { phi: Some(phi), ..Telemetry::default() };
            self.session.record_telemetry(self.step, &telemetry.with("n", self.step))?;
        }
        let line = match rng.u8(0..3) {
            0 => format!("no entry {}\n", self.step),
            1 => format!(
                "{{\"timestamp\":\"2026-01-05T09:30:00.000000Z\",\"event\":\"new\",\"n\":{}}}\n",
                self.step
            ),
            _ => return Ok(()),
        };
        let path = self.store.join(format!("logs/telemetry/session_{SESSION}.jsonl"));
        // One write at the end of the file, as the session's own are.
        Ok(File::options().append(true).open(path)?.write_all(line.as_bytes())?)
    }

    /// Kills the program, ends the session, and recovers what is left.
    ///
    /// # Errors
    /// The program failed, or the store cannot be opened.
    pub(crate) fn finish(mut self) -> Result<PathBuf> {
        if let Some(program) = self.program.take() {
            program.kill()?;
        }
        self.session.end(Outcome::Completed)?;
        Store::open(&self.store)?;
        Ok(self.store)
    }

    pub(crate) fn store(&self) -> &Path {
        &self.store
    }
}
