//! The program under test, told one call after the other.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use crate::Result;
use crate::check::{self, Crash, Run};
use crate::scenario::{Durability, Operation, Scenario, Task};

/// A call that takes longer hangs.
const CALL_MAX: Duration = Duration::from_secs(10);

/// How the program will be started, or the program.
#[derive(Debug)]
pub(super) struct Driver {
    program: PathBuf,
    store: PathBuf,
    task: Task,
    arguments: Vec<OsString>,
    running: Option<Running>,
    plan: Vec<Operation>,
    told: String,
    /// Ids that the oracle must complain about: somebody took their files away.
    taken: Vec<String>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    asks: ChildStdin,
    tells: Receiver<String>,
    /// Its standard error, where a panic is told.
    complaints: File,
}

impl Driver {
    pub(super) fn new(program: &Path, store: PathBuf, seed: u64) -> Self {
        let durability = Durability::Written;
        let task = Task { scenario: Scenario::Records, seed, durability, records: 0 };
        let program = program.to_owned();
        let (arguments, plan, taken) = (Vec::new(), Vec::new(), Vec::new());
        Self { program, store, task, arguments, running: None, plan, told: String::new(), taken }
    }

    pub(super) fn durability(mut self, durability: Durability) -> Self {
        self.task.durability = durability;
        self
    }

    /// More options of the program, before it starts.
    pub(super) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(OsString::from));
        self
    }

    /// The file of this id was taken away, and the oracle must say so.
    pub(super) fn take(&mut self, id: &str) {
        self.taken.push(id.to_owned());
    }

    /// Starts the program.
    pub(super) fn start(self) -> Result<Self> {
        self.start_under(&[])
    }

    /// Starts the program by another one, which is named with its arguments.
    pub(super) fn start_under(mut self, other: &[&str]) -> Result<Self> {
        let Task { seed, durability, .. } = self.task;
        let own = format!("obey --seed {seed} --durability {durability} --store");
        let own = own.split(' ').map(OsString::from).chain([self.store.clone().into()]);
        let words = other.iter().map(OsString::from).chain([self.program.clone().into()]);
        let mut words = words.chain(own).chain(self.arguments.drain(..));
        let complaints = tempfile::tempfile()?;
        let mut child = Command::new(words.next().unwrap_or_default())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(complaints.try_clone()?)
            .spawn()?;
        let asks = child.stdin.take().ok_or("nobody to ask")?;
        let stdout = child.stdout.take().ok_or("nobody to listen to")?;
        let (tell, tells) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(stdout)
                .lines()
                .map_while(|line| line.ok())
                .try_for_each(|line| tell.send(line))
        });
        self.running = Some(Running { child, asks, tells, complaints });
        Ok(self)
    }

    /// Asks for one call; what is told of it.
    pub(super) fn ask(&mut self, operation: &str) -> Result<String> {
        let running = self.running.as_mut().ok_or("the program does not run")?;
        running.asks.write_all(format!("{operation}\n").as_bytes())?;
        self.plan.push(operation.parse()?);
        match running.tells.recv_timeout(CALL_MAX) {
            Ok(line) => {
                self.told.push_str(&format!("{line}\n"));
                Ok(line)
            }
            Err(error) => Err(format!("{operation}: {error}: {}", running.said()).into()),
        }
    }

    /// Asks for a call that must return well.
    pub(super) fn ok(&mut self, operation: &str) -> Result<()> {
        let told = self.ask(operation)?;
        if told.starts_with(&format!("ok {operation}")) { Ok(()) } else { Err(told.into()) }
    }

    /// Asks for several of them.
    pub(super) fn all_ok(&mut self, operations: &[&str]) -> Result<()> {
        operations.iter().try_for_each(|operation| self.ok(operation))
    }

    /// Asks for records that must be kept.
    pub(super) fn records(&mut self, steps: std::ops::Range<i64>) -> Result<()> {
        steps.into_iter().try_for_each(|step| self.ok(&format!("record {step}")))
    }

    /// Asks for records, some of which are kept; how many were not.
    pub(super) fn try_records(&mut self, steps: std::ops::Range<i64>) -> Result<usize> {
        let mut missed = 0;
        for step in steps {
            match self.ask(&format!("record {step}"))? {
                told if told == format!("missed {step}") => missed += 1,
                told if told == format!("ok record {step}") => {}
                told => return Err(told.into()),
            }
        }
        Ok(missed)
    }

    /// Asks for a call that must fail and say all of this: what, where, and what to do.
    pub(super) fn err(&mut self, operation: &str, words: &[&str]) -> Result<()> {
        let told = self.ask(operation)?;
        let is_said = |word: &&str| told.contains(*word);
        match told.starts_with("err ") && words.iter().all(is_said) {
            true => Ok(()),
            false => Err(format!("{words:?} expected: {told}").into()),
        }
    }

    /// The program's process.
    pub(super) fn pid(&self) -> Result<u32> {
        Ok(self.running.as_ref().ok_or("the program does not run")?.child.id())
    }

    /// Lets the program end, which it must do well, and the oracle look.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.leave()?;
        self.look(Crash::Application)
    }

    /// The records so far are not owed: somebody took them away.
    pub(super) fn forgive(&mut self) {
        self.told = self.told.replace("ok record", "gone record");
    }

    /// Lets the program end; nobody looks yet.
    pub(super) fn leave(&mut self) -> Result<()> {
        self.ok("close")?;
        let Some(Running { mut child, asks, complaints, .. }) = self.running.take() else {
            return Ok(());
        };
        drop(asks);
        let status = child.wait()?;
        match said(complaints) {
            said if status.success() && said.is_empty() => Ok(()),
            said => Err(format!("ends with {status}: {said}").into()),
        }
    }

    /// Whether everything that was told is there.
    pub(super) fn look(&self, crash: Crash) -> Result<()> {
        let run = Run::new(self.task.clone(), &self.told, crash);
        let mut found = check::check(&self.store, &[Run { plan: self.plan.clone(), ..run }]);
        for id in &self.taken {
            let before = found.len();
            found.retain(|text| !text.contains(id.as_str()));
            if found.len() == before {
                return Err(format!("nobody says that {id} is gone").into());
            }
        }
        // one may be told in two lines: a disk took the first, and not the record behind it
        let (told, journaled) = (self.gaps(), joined(check::gaps(&self.store)?));
        if told != journaled {
            return Err(format!("gaps {told:?} were told, {journaled:?} journaled").into());
        }
        if found.is_empty() { Ok(()) } else { Err(found.join("; ").into()) }
    }

    /// Records, first and last step of each gap that something kept followed.
    fn gaps(&self) -> Vec<(u64, i64, i64)> {
        let (mut gaps, mut open) = (Vec::new(), None);
        for line in self.told.lines() {
            let step = line.split(' ').next_back().and_then(|step| step.parse().ok());
            match (line.split(' ').next(), step) {
                (Some("missed"), Some(step)) => {
                    let (records, first, _) = open.unwrap_or((0, step, step));
                    open = Some((records + 1, first, step));
                }
                (Some("ok"), _) if !is_question(line) => gaps.extend(open.take()),
                _ => {}
            }
        }
        gaps
    }
}

/// Whether nothing is written by this call.
fn is_question(line: &str) -> bool {
    ["ok missed", "ok persist", "ok close", "ok query"].iter().any(|word| line.starts_with(word))
}

impl Running {
    fn said(&self) -> String {
        self.complaints.try_clone().map(said).unwrap_or_default()
    }
}

fn said(mut complaints: File) -> String {
    let mut said = String::new();
    let read = complaints.rewind().and_then(|()| complaints.read_to_string(&mut said));
    read.map_or_else(|error| error.to_string(), |_| said)
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.child.kill().ok(); // it may be gone already
            running.child.wait().ok();
        }
    }
}

/// Gaps that follow each other without a step between them are one.
fn joined(gaps: Vec<(u64, i64, i64)>) -> Vec<(u64, i64, i64)> {
    let mut joined: Vec<(u64, i64, i64)> = Vec::new();
    for (records, first, last) in gaps {
        match joined.last_mut() {
            Some(before) if before.2 + 1 == first => {
                before.0 += records;
                before.2 = last;
            }
            _ => joined.push((records, first, last)),
        }
    }
    joined
}
