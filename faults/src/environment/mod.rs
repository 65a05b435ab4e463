//! The machine around a session fails: its disk is full, read-only, slow or gone, its folders are
//! removed or replaced, it may open no more files.
//!
//! Each case runs the program under test (`driver`), breaks something between two of
//! its calls, looks whether the calls say what they should, makes it good again, and looks whether
//! the same session goes on. At the end the oracle compares what was told with what is there.
//! A case whose means are missing, root or a loop device, is skipped with the reason.

mod disk;
mod driver;
mod failing;
mod full;
mod gone;
mod refused;

use std::fmt;
use std::path::PathBuf;

use crate::{Report, Result, pool};
use driver::Driver;

/// One thing that fails.
type Case = (&'static str, fn(&Lab) -> Result<()>);

/// Everything that fails, in words.
const CASES: [Case; 24] = [
    ("disk full, records written", full::written),
    ("disk full, records persisted", full::persisted),
    ("disk full, records buffered", full::buffered),
    ("disk full, records raise", full::raises),
    ("disk full for many emergencies", full::many_emergencies),
    ("disk full at a checkpoint", full::checkpoint),
    ("disk full at the entry of a checkpoint", full::entry_of_a_checkpoint),
    ("disk full at the end", full::end),
    ("disk full when a segment is", full::new_segment),
    ("disk full at the start", full::start),
    ("no file may be created: inodes", full::inodes),
    ("too many open files at the start", refused::open_files_at_start),
    ("too many open files later", refused::open_files_later),
    ("permission lost", refused::permission),
    ("folders immutable", refused::immutable),
    ("file system read-only at the start", refused::read_only),
    ("store removed", gone::removed),
    ("store moved away and back", gone::moved_and_back),
    ("store replaced by another", gone::replaced),
    ("one folder removed", gone::one_folder),
    ("file system gives up", failing::abort),
    ("write-back fails, ext4", failing::write_back_ext4),
    ("write-back fails, XFS", failing::write_back_xfs),
    ("slow disk", failing::slow),
];

/// What the cases need.
#[derive(Debug)]
struct Lab {
    program: PathBuf,
    seed: u64,
}

impl Lab {
    fn driver(&self, store: impl Into<PathBuf>) -> Driver {
        Driver::new(&self.program, store.into(), self.seed)
    }
}

/// Why a case cannot run on this machine.
#[derive(Debug)]
struct Skip(String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Runs every case once with the program `tidelog-faults`.
///
/// # Errors
/// A thread cannot be started. A case that fails is a violation.
pub fn run(program: PathBuf, seed: u64) -> Result<Report> {
    let lab = Lab { program, seed };
    pool::each(&CASES, |(name, case)| {
        let mut report = Report::default();
        match case(&lab) {
            Err(error) if error.is::<Skip>() => {
                report.skipped.push(format!("{name}: {error}"));
                return Ok(report);
            }
            Err(error) => report.violations.push(format!("{name}: {error}")),
            Ok(()) => {}
        }
        report.executed = 1;
        report.count("environment: cases", 1);
        Ok(report)
    })
}
