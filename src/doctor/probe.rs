//! How long does the disk take, and do locks hold? Tried out with a file that goes again.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{Finding, Level};
use crate::disk::{self, LockedFile};
use crate::error::{Error, Result};

/// How often a persist is measured; the middle one is told.
const PERSISTS: usize = 5;
/// What each of them persists: about as much as a second of a run writes.
const PERSIST_BYTES: usize = 4096;
/// From here on the waiting is noticed.
const PERSIST_SLOW: Duration = Duration::from_millis(100);
/// No disk is faster; one that seems to be has not written.
const PERSIST_MIN: Duration = Duration::from_micros(5);

pub(super) fn findings(folder: &Path) -> Vec<Finding> {
    let (file, probe) = match Probe::create(folder) {
        Ok(created) => created,
        Err(error) => return vec![Finding::new("access", Level::Problem, error.to_string())],
    };
    let persist = match time_of_persist(&file, &probe.path) {
        Ok(time) => persist(time),
        Err(error) => Finding::new("persist", Level::Problem, error.to_string()),
    };
    let locks = match do_locks_hold(file, &probe.path) {
        Ok(true) => Finding::new("locks", Level::Ok, "file locks hold"),
        Ok(false) => Finding::new("locks", Level::Problem, "two took one lock at the same time")
            .meaning("nobody can tell a writer that lives from one that died")
            .remedy("put the store on a local disk"),
        Err(error) => Finding::new("locks", Level::Problem, error.to_string()),
    };
    vec![persist, locks]
}

/// A file that is removed when this is dropped. Killed before, it is a leftover that `verify` names.
struct Probe {
    path: PathBuf,
}

impl Probe {
    fn create(folder: &Path) -> Result<(File, Self)> {
        let path = folder.join(format!(".tidelog-doctor-{}", Uuid::new_v4().simple()));
        let file = disk::create_new(&path).map_err(Error::io("create", &path))?;
        Ok((file, Self { path }))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        disk::remove(&self.path).ok(); // then it is a leftover
    }
}

fn time_of_persist(mut file: &File, path: &Path) -> Result<Duration> {
    let mut times = [Duration::ZERO; PERSISTS];
    for time in &mut times {
        file.write_all(&[0; PERSIST_BYTES]).map_err(Error::io("write", path))?;
        let start = Instant::now();
        disk::persist(file, path)?;
        *time = start.elapsed();
    }
    times.sort();
    Ok(times.into_iter().nth(PERSISTS / 2).unwrap_or_default())
}

fn persist(time: Duration) -> Finding {
    let found = format!("{:.1} ms until the disk has what was written", time.as_secs_f64() * 1e3);
    match time {
        _ if time < PERSIST_MIN => Finding::new("persist", Level::Note, "takes no time")
            .meaning("nothing is written for a power cut here: memory, or a disk that pretends"),
        _ if time > PERSIST_SLOW => Finding::new("persist", Level::Warning, found)
            .meaning("starts, ends, emergencies and checkpoints wait this long; records do not")
            .remedy("see what else keeps this disk busy, or put the store on another one"),
        _ => Finding::new("persist", Level::Ok, found),
    }
}

/// A lock that is held must not be given again.
fn do_locks_hold(file: File, path: &Path) -> Result<bool> {
    let first = LockedFile::try_lock(file, path)?;
    let again = disk::open_to_lock(path).map_err(Error::io("open", path))?;
    let second = LockedFile::try_lock(again, path)?;
    Ok(first.is_some() && second.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let findings = findings(folder.path());
        assert_eq!(findings.iter().map(|f| f.check).collect::<Vec<_>>(), ["persist", "locks"]);
        assert_eq!(findings[1].level, Level::Ok);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_disk_that_is_slow_or_pretends_is_told() {
        let levels = [0, 2_000, 200_000].map(|us| persist(Duration::from_micros(us)).level);
        assert_eq!(levels, [Level::Note, Level::Ok, Level::Warning]);
    }
}
