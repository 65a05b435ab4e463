//! The agent as an operator runs it: real processes, signals, probes and settings.

mod lock;
mod probes;
mod settings;
mod several;
mod signals;
mod waiting;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidelog::{Outcome, Session, Store};

use crate::support::postgres::TestDatabase;
use crate::support::{program, session_id, telemetry};

const PATIENCE: Duration = Duration::from_secs(30);
/// Nobody listens there.
const NO_DATABASE: &str = "postgres://u:c4narY@127.0.0.1:1/d?sslmode=disable";

/// Stores in a folder of their own.
struct Runs(TempDir);

impl Runs {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn folder(&self) -> &Path {
        self.0.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A store with a session of so many records, which goes on.
    fn session(&self, name: &str, records: i64) -> Session {
        let store = Store::open(self.path(name)).unwrap();
        let session = store.start_session(session_id(name)).unwrap();
        record(&session, 0..records);
        session
    }

    /// A store with a finished session of so many records.
    fn store(&self, name: &str, records: i64) -> PathBuf {
        self.session(name, records).end(Outcome::Completed).unwrap();
        self.path(name)
    }
}

fn record(session: &Session, steps: std::ops::Range<i64>) {
    for step in steps {
        session.record_telemetry(step, &telemetry(0.5)).unwrap();
    }
}

/// `tidelog-sync` in an environment that says nothing.
fn agent(arguments: &[&str]) -> Command {
    clean(Command::new(program("tidelog-sync")), arguments)
}

fn clean(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments);
    for (name, _) in std::env::vars() {
        if name.starts_with("TIDELOG") || name.starts_with("PG") || name == "DATABASE_URL" {
            command.env_remove(name);
        }
    }
    command
}

fn output(arguments: &[&str]) -> (Output, String) {
    let output = agent(arguments).output().unwrap();
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    (output, String::from_utf8(text).unwrap())
}

/// A running agent, killed at the end of the test.
struct Running {
    child: Child,
    log: Receiver<String>,
}

impl Running {
    /// `run` with these options, without the random wait at the beginning.
    fn start(options: &[&str]) -> Self {
        let arguments = [&["run", "--start-delay", "0s"], options].concat();
        Self::spawn(agent(&arguments))
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, log) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        thread::spawn(move || {
            // The test may have seen enough.
            lines.map_while(Result::ok).for_each(|line| sender.send(line).unwrap_or_default());
        });
        Self { child, log }
    }

    /// The next line of the log with this part.
    fn says(&self, part: &str) -> String {
        let start = Instant::now();
        let mut seen = Vec::new();
        loop {
            let left = PATIENCE.saturating_sub(start.elapsed());
            match self.log.recv_timeout(left) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("never said: {part}; but {seen:#?}"),
            }
        }
    }

    /// What was said and not yet looked at.
    fn rest(&self) -> String {
        self.log.iter().collect::<Vec<_>>().join("\n")
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "never ended");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits until so many records of the session are in the database.
fn await_records(database: &TestDatabase, session: &str, expected: i64) {
    let mut client = database.client();
    let sql = "SELECT count(*) FROM telemetry_records WHERE session_id = $1";
    let start = Instant::now();
    while client.query_one(sql, &[&session]).unwrap().get::<_, i64>(0) != expected {
        assert!(start.elapsed() < PATIENCE, "{session} never has {expected} records");
        thread::sleep(Duration::from_millis(50));
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
