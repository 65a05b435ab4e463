//! The process that is killed, or whose disk loses power, and what it said until then.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::Result;

/// Longest time that a machine under load may take for a few hundred lines.
const STUCK: Duration = Duration::from_secs(60);
/// Between two looks at how many lines were said.
const PAUSE: Duration = Duration::from_micros(200);

/// How Rust tells of a panic.
const PANIC: &str = "panicked at";

/// A running process. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Victim {
    child: Child,
    /// None once it was joined.
    listener: Option<JoinHandle<Vec<Said>>>,
    lines: Arc<AtomicUsize>,
    /// Its standard error, where a panic is told.
    complaints: File,
}

/// How a process went away, and what it said until then.
#[derive(Debug)]
pub(crate) struct Death {
    /// In order.
    pub(crate) said: Vec<Said>,
    /// A moment before the signal.
    pub(crate) at: Instant,
    /// Whether it had not ended by itself.
    pub(crate) was_killed: bool,
}

/// One line that the process printed: a call had returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    /// When it arrived, which is after the call returned.
    pub(crate) at: Instant,
    /// Without its newline.
    pub(crate) text: String,
}

impl Victim {
    /// Starts the process and listens to it.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let complaints = tempfile::tempfile()?;
        let stderr = complaints.try_clone()?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("a process without an output")?;
        let lines = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&lines);
        let listener = thread::Builder::new().spawn(move || listen(stdout, &counter))?;
        Ok(Self { child, listener: Some(listener), lines, complaints })
    }

    /// Waits until it has said so many lines, or is done.
    ///
    /// # Errors
    /// It hangs.
    pub(crate) fn wait_for(&mut self, lines: usize) -> Result<()> {
        let start = Instant::now();
        while self.lines.load(Ordering::Acquire) < lines && self.child.try_wait()?.is_none() {
            if start.elapsed() > STUCK {
                return Err(format!("the program under test hangs before line {lines}").into());
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// It panicked, or had failed by itself before.
    pub(crate) fn kill(mut self) -> Result<Death> {
        let at = Instant::now();
        self.child.kill()?;
        let status = self.child.wait()?;
        let listener = self.listener.take().ok_or("a process is killed once")?;
        let said = listener.join().map_err(|_| "the listener panicked")?;
        let mut complaints = String::new();
        self.complaints.rewind()?;
        self.complaints.read_to_string(&mut complaints)?;
        let was_killed = status.code().is_none();
        if complaints.contains(PANIC) || !(was_killed || status.success()) {
            return Err(format!("the program under test ended with {status}: {complaints}").into());
        }
        Ok(Death { said, at, was_killed })
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.child.kill().ok(); // it may be gone already
        self.child.wait().ok();
    }
}

/// A line without its newline was not finished: whether its call returned is not known.
fn listen(stdout: ChildStdout, lines: &AtomicUsize) -> Vec<Said> {
    let mut stdout = BufReader::new(stdout);
    let mut said = Vec::new();
    let mut line = String::new();
    while stdout.read_line(&mut line).is_ok_and(|bytes| bytes > 0) && line.ends_with('\n') {
        said.push(Said { at: Instant::now(), text: line.trim_end().to_owned() });
        lines.fetch_add(1, Ordering::Release);
        line.clear();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn death(script: &str, lines: usize) -> Result<Death> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let mut victim = Victim::start(command)?;
        victim.wait_for(lines)?;
        victim.kill()
    }

    #[test]
    fn what_was_said_is_told_without_the_line_that_was_not_finished() {
        let death = death("printf 'one\\ntwo\\nthr'; exec sleep 60", 2).unwrap();
        let texts: Vec<&str> = death.said.iter().map(|said| said.text.as_str()).collect();
        assert_eq!((texts, death.was_killed), (vec!["one", "two"], true));
    }

    #[test]
    fn a_program_that_failed_or_panicked_is_an_error_and_no_kill() {
        for script in ["exit 3", "echo thread panicked at x >&2; echo said; exec sleep 60"] {
            assert!(death(script, 1).is_err(), "{script}");
        }
        assert!(!death("exit 0", 1).unwrap().was_killed);
    }
}
