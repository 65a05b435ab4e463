//! Cases of a disk that fails after it took the bytes, or takes its time.

use std::fs;
use std::time::{Duration, Instant};

use super::disk::{self, Disk};
use super::{Lab, Skip};
use crate::Result;
use crate::check::Crash;

/// ext4 finds itself broken under an open file: nothing can be written any more.
pub(super) fn abort(lab: &Lab) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("image");
    disk::image(&image, "ext4", 32 << 20)?;
    let disk = Disk::of_image(&image)?;
    let mut driver = lab.driver(disk.store()).start()?;
    driver.all_ok(&["open", "start run-1"])?;
    driver.records(1..10)?;
    driver.ok("persist")?;
    disk.remount("abort").map_err(|error| Skip(error.to_string()))?;
    let missed = driver.try_records(10..20)?;
    let path = disk.store().to_string_lossy().into_owned();
    match missed {
        10 => driver.ok("persist")?, // what was kept is on disk
        _ => driver.err("persist", &[&path])?,
    }
    for operation in ["checkpoint c-1", "emergency e-1"] {
        driver.err(operation, &[&path])?;
    }
    if driver.try_records(20..30)? != 10 {
        return Err("a disk that gave up keeps records".into());
    }
    driver.ok("missed")?;
    driver.err("end", &[&path])?;
    driver.leave()?;
    disk.again(&image)?;
    driver.look(Crash::Power)
}

pub(super) fn write_back_ext4(lab: &Lab) -> Result<()> {
    write_back(lab, "ext4", 48 << 20)
}

pub(super) fn write_back_xfs(lab: &Lab) -> Result<()> {
    write_back(lab, "xfs", 320 << 20)
}

/// The disk takes more than it can keep, as a thin volume does: a persist fails, and the next one
/// must not say that all is well. If the file system lives on, so does the session.
fn write_back(lab: &Lab, file_system: &str, bytes: u64) -> Result<()> {
    let thin = Disk::in_memory(&format!("size={bytes}"))?;
    let image = thin.path().join("image");
    disk::image(&image, file_system, bytes)?;
    let disk = Disk::of_image(&image)?;
    let mut driver = lab.driver(disk.store()).start()?;
    driver.all_ok(&["open", "start run-1"])?;
    driver.records(1..20)?;
    driver.ok("persist")?;
    thin.fill()?;
    driver.try_records(20..3000)?;
    let path = disk.store().to_string_lossy().into_owned();
    driver.err("persist", &[&path])?;
    driver.err("persist", &[&path])?;
    thin.empty()?;
    std::thread::sleep(Duration::from_millis(1100)); // until a new segment is tried again
    let goes_on = driver.try_records(5000..5010)? == 0;
    if goes_on {
        driver.all_ok(&["persist", "missed", "end"])?;
    }
    driver.leave()?;
    disk.again(&image)?;
    driver.look(Crash::Power)
}

/// What each persist of the slow disk takes.
const DELAY: Duration = Duration::from_millis(200);
/// Records do not wait for the disk.
pub(super) fn slow(lab: &Lab) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let trace = folder.path().join("trace");
    let delay = format!("inject=fdatasync:delay_enter={}", DELAY.as_micros());
    let trace_path = trace.to_string_lossy().into_owned();
    let mut strace = vec!["strace", "-f", "--seccomp-bpf", "-qq", "-o", &trace_path];
    strace.extend(["-e", "trace=fdatasync", "-e", &delay]);
    let driver = lab.driver(folder.path().join("store")).with(&["--persist-interval-ms", "20"]);
    let mut driver =
        driver.start_under(&strace).map_err(|error| Skip(format!("strace: {error}")))?;
    driver.all_ok(&["open", "start run-1"])?;
    let persists_before = fs::read_to_string(&trace)?.lines().count();
    let (start, mut slow) = (Instant::now(), 0);
    for step in 1.. {
        let asked = Instant::now();
        driver.ok(&format!("record {step}"))?;
        slow += usize::from(asked.elapsed() > DELAY / 2); // a machine under load is slow at times
        if start.elapsed() > 15 * DELAY {
            break;
        }
    }
    let persists = fs::read_to_string(&trace)?.lines().count() - persists_before;
    if persists < 5 || slow > persists / 2 {
        return Err(format!("{slow} records waited for one of {persists} persists").into());
    }
    driver.ok("end")?;
    driver.finish()
}
