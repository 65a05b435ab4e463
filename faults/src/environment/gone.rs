//! Cases of folders that are removed, moved or replaced under a session.

use std::fs;

use tempfile::TempDir;

use super::Lab;
use super::driver::Driver;
use crate::Result;

/// A session in progress, in a store with one checkpoint and one emergency if so wanted.
fn begun(lab: &Lab, before: &[&str]) -> Result<(TempDir, Driver)> {
    let folder = tempfile::tempdir()?;
    let driver = lab.driver(folder.path().join("store"));
    let mut driver = driver.with(&["--segment-bytes-max", "8192"]).start()?;
    driver.all_ok(&["open", "start run-1"])?;
    driver.records(1..6)?;
    driver.all_ok(before)?;
    Ok((folder, driver))
}

/// What is said when the store is not there, and what to do.
const GONE: [&str; 2] = ["was removed or replaced", "open it again"];

/// Nothing is written where the store was; everything says that it is gone.
pub(super) fn removed(lab: &Lab) -> Result<()> {
    let (folder, mut driver) = begun(lab, &["persist"])?;
    let store = folder.path().join("store");
    fs::remove_dir_all(&store)?;
    driver.ok("record 6")?;
    driver.err("persist", &["removed while it was being written"])?;
    if driver.try_records(100..110)? != 10 {
        return Err("a store that is gone keeps records".into());
    }
    driver.err("checkpoint c-1", &GONE)?;
    for operation in ["emergency e-1", "persist"] {
        driver.err(operation, &[])?;
    }
    driver.err("start run-2", &GONE)?;
    driver.leave()?;
    if store.exists() { Err("something was written where the store was".into()) } else { Ok(()) }
}

pub(super) fn moved_and_back(lab: &Lab) -> Result<()> {
    let (folder, mut driver) = begun(lab, &["checkpoint c-1"])?;
    let (store, elsewhere) = (folder.path().join("store"), folder.path().join("elsewhere"));
    fs::rename(&store, &elsewhere)?;
    driver.err("checkpoint c-2", &GONE)?;
    driver.err("emergency e-2", &GONE)?;
    driver.try_records(6..106)?;
    if store.exists() {
        return Err("something was written where the store was".into());
    }
    fs::rename(&elsewhere, &store)?;
    driver.all_ok(&["checkpoint c-2", "emergency e-3"])?;
    driver.records(106..206)?;
    driver.all_ok(&["missed", "persist", "end"])?;
    driver.finish()
}

/// The other store gets nothing that is not its own.
pub(super) fn replaced(lab: &Lab) -> Result<()> {
    let (folder, mut driver) = begun(lab, &["checkpoint c-1"])?;
    let (store, elsewhere) = (folder.path().join("store"), folder.path().join("elsewhere"));
    fs::rename(&store, &elsewhere)?;
    let mut other = lab.driver(&store).start()?;
    other.all_ok(&["open", "start run-9", "record 1", "end"])?;
    driver.err("checkpoint c-2", &GONE)?;
    driver.err("emergency e-2", &GONE)?;
    driver.err("start run-2", &GONE)?;
    driver.leave()?;
    other.finish()?;
    match store.join("checkpoints").exists() || store.join("logs/emergency").exists() {
        true => Err("the other store got what is not its own".into()),
        false => Ok(()),
    }
}

/// It is made again when it is needed.
pub(super) fn one_folder(lab: &Lab) -> Result<()> {
    for (folder, of) in
        [("active", None), ("checkpoints", Some("c-1")), ("logs/emergency", Some("e-1"))]
    {
        let (store, mut driver) = begun(lab, &["checkpoint c-1", "emergency e-1"])?;
        fs::remove_dir_all(store.path().join("store").join(folder))?;
        of.into_iter().for_each(|id| driver.take(id));
        driver.records(6..106)?;
        driver.all_ok(&["checkpoint c-2", "emergency e-2", "persist", "missed", "end"])?;
        driver.finish().map_err(|error| format!("{folder}: {error}"))?;
    }
    segments(lab)
}

/// What was in the segments is gone; whoever asks is told, and the session goes on.
fn segments(lab: &Lab) -> Result<()> {
    let (folder, mut driver) = begun(lab, &["persist"])?;
    fs::remove_dir_all(folder.path().join("store/logs/telemetry"))?;
    driver.ok("record 6")?;
    driver.err("persist", &["removed while it was being written"])?;
    driver.forgive();
    driver.records(7..107)?;
    driver.all_ok(&["checkpoint c-2", "persist", "missed", "end"])?;
    driver.finish()
}
