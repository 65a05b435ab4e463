//! Cases of a system that refuses: no more open files, no permission, no writing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::disk::{self, Disk, call};
use super::{Lab, Skip};
use crate::Result;

/// The user and group `nobody` of any Linux.
const NOBODY: u32 = 65534;
/// What an error says of too many open files beside the path.
const TOO_MANY: [&str; 2] = ["Too many open files", "ulimit -n"];
/// A segment that is soon full.
const SMALL_SEGMENTS: [&str; 2] = ["--segment-bytes-max", "8192"];

/// However few files it may open, a session starts or says why not.
pub(super) fn open_files_at_start(lab: &Lab) -> Result<()> {
    let mut refused = 0;
    for files in 4..16 {
        let folder = tempfile::tempdir()?;
        let store = folder.path().join("store");
        let limit = format!("--nofile={files}");
        let mut driver = lab.driver(&store).start_under(&["prlimit", &limit])?;
        for operation in ["open", "start run-1", "record 1", "checkpoint c-1", "emergency e-1"] {
            let told = driver.ask(operation)?;
            let is_clear = TOO_MANY.iter().all(|word| told.contains(word));
            if told.contains(TOO_MANY[0]) && is_clear {
                refused += 1;
            } else if !told.starts_with("ok ") && !told.ends_with("is open") {
                return Err(format!("{files} open files: {told}").into());
            }
        }
        driver.finish()?;
    }
    if refused > 3 { Ok(()) } else { Err("no limit was reached".into()) }
}

pub(super) fn open_files_later(lab: &Lab) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("store");
    let mut driver = lab.driver(&store).with(&SMALL_SEGMENTS).start()?;
    driver.all_ok(&["open", "start run-1"])?;
    driver.records(1..10)?;
    let pid = driver.pid()?;
    limit_open_files(pid, first_free(pid)?)?;
    let path = store.to_string_lossy();
    driver.err("checkpoint c-1", &[&path, TOO_MANY[0], TOO_MANY[1]])?;
    driver.err("emergency e-1", &[&path, TOO_MANY[0], TOO_MANY[1]])?;
    driver.records(10..110)?; // the segment takes more than it should
    limit_open_files(pid, 1024)?;
    driver.all_ok(&["checkpoint c-1", "emergency e-2"])?;
    driver.records(110..210)?;
    driver.all_ok(&["missed", "end"])?;
    driver.finish()?;
    match fs::read_dir(store.join("logs/telemetry"))?.count() {
        1 => Err("no new segment was begun".into()),
        _ => Ok(()),
    }
}

/// The number that the next open file would get.
fn first_free(pid: u32) -> Result<u32> {
    let mut used = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        used.push(entry?.file_name().to_string_lossy().parse::<u32>()?);
    }
    (0..).find(|number| !used.contains(number)).ok_or_else(|| "all are used".into())
}

fn limit_open_files(pid: u32, files: u32) -> Result<()> {
    call("prlimit", &["--pid", &pid.to_string(), &format!("--nofile={files}:")])
}

/// A store of a system user whose folders another one takes away.
pub(super) fn permission(lab: &Lab) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("tidelog-faults-").tempdir_in("/tmp")?;
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.path(), open.clone())?;
    let program = folder.path().join("program"); // the build folder may be root's alone
    fs::copy(&lab.program, &program)?;
    let store = folder.path().join("home/store");
    fs::create_dir(folder.path().join("home"))?;
    chown(folder.path().join("home"), Some(NOBODY), Some(NOBODY))
        .map_err(|error| Skip(format!("chown: {error}")))?;
    let lab = Lab { program, seed: lab.seed };
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let user = [&["setpriv"][..], &user].concat();
    let mut driver = lab.driver(&store).with(&SMALL_SEGMENTS).start_under(&user)?;
    driver.all_ok(&["open", "start run-1"])?;
    driver.records(1..10)?;
    driver.all_ok(&["checkpoint c-1", "emergency e-1"])?;
    let path = store.to_string_lossy();
    let denied = [&path, "Permission denied", "owner"];
    each_folder(&store, |folder| {
        Ok(fs::set_permissions(folder, fs::Permissions::from_mode(0o000))?)
    })?;
    driver.err("checkpoint c-2", &denied)?;
    driver.err("emergency e-2", &denied)?;
    driver.records(10..110)?;
    each_folder(&store, |folder| Ok(fs::set_permissions(folder, open.clone())?))?;
    driver.all_ok(&["checkpoint c-2", "emergency e-3"])?;
    driver.records(110..210)?;
    driver.all_ok(&["missed", "end"])?;
    driver.finish()
}

fn each_folder(store: &Path, action: impl Fn(PathBuf) -> Result<()>) -> Result<()> {
    let folders = ["active", "checkpoints", "logs/telemetry", "logs/emergency"];
    folders.iter().try_for_each(|folder| action(store.join(folder)))
}

pub(super) fn immutable(lab: &Lab) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("image");
    disk::image(&image, "ext4", 32 << 20)?;
    let disk = Disk::of_image(&image)?;
    let store = disk.store();
    let chattr = |flag: &'static str| {
        move |folder: PathBuf| call("chattr", &[flag.into(), folder.into_os_string()])
    };
    let mut driver = lab.driver(&store).with(&SMALL_SEGMENTS).start()?;
    driver.all_ok(&["open", "start run-1"])?;
    driver.records(1..10)?;
    driver.all_ok(&["checkpoint c-1", "emergency e-1"])?;
    each_folder(&store, chattr("+i")).map_err(|error| Skip(error.to_string()))?;
    let path = store.to_string_lossy();
    driver.err("checkpoint c-2", &[&path, "Operation not permitted", "owner"])?;
    driver.err("emergency e-2", &[&path, "Operation not permitted", "owner"])?;
    driver.records(10..110)?;
    driver.err("start run-2", &[&path, "Operation not permitted", "owner"])?;
    each_folder(&store, chattr("-i"))?;
    driver.all_ok(&["start run-2", "checkpoint c-2", "emergency e-3"])?;
    driver.records(110..210)?;
    driver.all_ok(&["missed", "end"])?;
    driver.finish()
}

pub(super) fn read_only(lab: &Lab) -> Result<()> {
    let disk = Disk::in_memory("size=4m")?;
    disk.remount("ro")?;
    let mut driver = lab.driver(disk.store()).start()?;
    let path = disk.store().to_string_lossy().into_owned();
    let words = [path.as_str(), "Read-only file system", "mount"];
    driver.err("open", &words)?;
    disk.remount("rw")?;
    driver.ok("open")?;
    disk.remount("ro")?;
    driver.err("start run-1", &words)?;
    disk.remount("rw")?;
    driver.ok("start run-1")?;
    driver.records(1..10)?;
    driver.ok("end")?;
    driver.finish()
}
