//! One run of the program under test, watched by strace.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::fault::Fault;
use crate::scenario::Task;
use crate::{Options, Result};

/// A run takes a tenth of a second; one that takes longer than this hangs.
pub(super) const TIME_MAX: Duration = Duration::from_secs(10);

/// Between two looks at a run.
const PAUSE: Duration = Duration::from_millis(2);

/// How a run ended.
#[derive(Debug)]
pub(super) struct Death {
    pub(super) told: String,
    /// Whether the fault happened.
    pub(super) was_hit: bool,
    /// What a program may not do whatever its disk does: panic, abort, hang.
    pub(super) complaint: Option<String>,
}

/// Where a store is short-lived: in memory, if the machine has a place for that.
pub(super) fn folder() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    Ok(tempfile::Builder::new().prefix("tidelog-faults-").tempdir_in(parent)?)
}

/// Runs untouched; what strace saw of these calls.
pub(super) fn trace(options: &Options, task: &Task, folder: &Path, calls: &str) -> Result<String> {
    let strace = ["strace", "-f", "-y", "-qq", "-e", &format!("trace={calls}"), "-o"];
    let trace = folder.join("trace");
    let (end, told) = watched(options, task, folder, &strace.map(str::to_owned), Some(&trace))?;
    match end {
        Some(status) if status.success() && told.lines().all(|line| line.starts_with("ok ")) => {
            Ok(fs::read_to_string(trace)?)
        }
        _ => Err(format!("{task:?} does not run: {told}").into()),
    }
}

/// Runs under a fault.
pub(super) fn run(options: &Options, task: &Task, folder: &Path, fault: &Fault) -> Result<Death> {
    let calls = format!("trace={}", fault.call());
    let expression = fault.expression();
    // with --seccomp-bpf other calls cost nothing, and strace 6.1 sends no signal
    let quick = if fault.kills() { "-qq" } else { "--seccomp-bpf" };
    let strace = ["strace", "-f", quick, "-qq", "-e", &calls, "-e", &expression, "-o"];
    let trace = folder.join("trace");
    let (end, told) = watched(options, task, folder, &strace.map(str::to_owned), Some(&trace))?;
    let is_killed = end.is_some_and(|status| status.signal() == Some(9));
    let was_hit = is_killed || fs::read_to_string(trace)?.contains("(INJECTED)");
    let complaint = match end {
        Some(status) if status.success() || fault.kills() && is_killed => None,
        end => Some(complaint(folder, end)?),
    };
    Ok(Death { told, was_hit, complaint })
}

/// Runs in the hands of another program; how that ended, none if it had to be ended.
pub(super) fn watched(
    options: &Options,
    task: &Task,
    folder: &Path,
    watcher: &[String],
    output: Option<&Path>,
) -> Result<(Option<ExitStatus>, String)> {
    let (told, said) = (folder.join("told"), folder.join("said"));
    let (program, arguments) = watcher.split_first().ok_or("nobody watches")?;
    let mut child = Command::new(program)
        .args(arguments)
        .args(output)
        .arg(&options.program)
        .args(task.arguments(&folder.join("store")))
        .stdout(File::create(&told)?)
        .stderr(File::create(said)?)
        .process_group(0)
        .spawn()?;
    let end = wait(&mut child)?;
    Ok((end, fs::read_to_string(told)?))
}

/// Waits for the end, and makes one of the whole group if there is none.
fn wait(child: &mut Child) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    while start.elapsed() < TIME_MAX {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(PAUSE);
    }
    let group = format!("-{}", child.id());
    Command::new("kill").args(["-KILL", "--", &group]).status()?;
    child.wait()?;
    Ok(None)
}

/// The words for a program that did not end as it should.
pub(super) fn complaint(folder: &Path, end: Option<ExitStatus>) -> Result<String> {
    let said = fs::read_to_string(folder.join("said"))?.replace('\n', " ");
    Ok(match end {
        None => format!("hangs for {} s {said}", TIME_MAX.as_secs()),
        Some(status) => format!("ends with {status} {said}"),
    })
}
