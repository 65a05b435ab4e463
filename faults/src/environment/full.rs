//! Cases of a disk without space, and of one without inodes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Lab;
use super::disk::{Disk, PAGE_BYTES};
use super::driver::Driver;
use crate::Result;
use crate::check::Crash;
use crate::scenario::Durability;

/// Of a disk that has to hold a session, a reserve and little more.
const SMALL: &str = "size=4m";
/// What an error of a full disk says beside the path.
const NO_SPACE: [&str; 2] = ["No space left on device", "free some space"];
/// A persister that comes often looks soon whether there is space again.
const OFTEN: [&str; 2] = ["--persist-interval-ms", "20"];
/// Most records that go into what a file's last page has left, and into a buffer.
const SLACK_RECORDS: i64 = 400;
/// Of a session's reserve, on disk.
const RESERVE_BYTES: u64 = 256 << 10;

pub(super) fn written(lab: &Lab) -> Result<()> {
    counts(lab, Durability::Written)
}

pub(super) fn persisted(lab: &Lab) -> Result<()> {
    counts(lab, Durability::Persisted)
}

pub(super) fn buffered(lab: &Lab) -> Result<()> {
    counts(lab, Durability::Buffered)
}

/// A session in progress on a small disk of its own.
fn begun(lab: &Lab, durability: Durability, more: &[&str]) -> Result<(Disk, Driver)> {
    let disk = Disk::in_memory(SMALL)?;
    let driver = lab.driver(disk.store()).durability(durability).with(&OFTEN).with(more);
    let mut driver = driver.start()?;
    driver.all_ok(&["open", "start run-1"])?;
    driver.records(1..21)?;
    Ok((disk, driver))
}

/// Training goes on, twice: each record is kept or counted, what matters more gets through, and
/// with the space the reserve comes back.
fn counts(lab: &Lab, durability: Durability) -> Result<()> {
    let (disk, mut driver) = begun(lab, durability, &[])?;
    for (round, first) in [(1, 100), (2, 1000)] {
        disk.fill()?;
        let missed = driver.try_records(first..first + SLACK_RECORDS)?;
        if missed == 0 {
            return Err("a full disk took every record".into());
        }
        driver.ok(&format!("emergency e-{round}-1"))?;
        driver.try_records(first + 500..first + 510)?;
        driver.ok(&format!("emergency e-{round}-2"))?;
        driver.ok("missed")?;
        disk.empty()?;
        driver.records(first + 600..first + 610)?;
        wait_for_reserve(&disk.store())?;
    }
    driver.all_ok(&["missed", "persist", "end"])?;
    driver.finish()
}

fn reserved_bytes(store: &Path) -> Result<u64> {
    let mut bytes = 0;
    for file in fs::read_dir(store.join("active"))? {
        let path = file?.path();
        if path.extension().is_some_and(|ending| ending == "reserve") {
            bytes += fs::metadata(path)?.blocks() * 512;
        }
    }
    Ok(bytes)
}

fn wait_for_reserve(store: &Path) -> Result<()> {
    let start = Instant::now();
    while reserved_bytes(store)? < RESERVE_BYTES {
        if start.elapsed() > Duration::from_secs(5) {
            return Err(format!("the reserve has {} bytes", reserved_bytes(store)?).into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

pub(super) fn raises(lab: &Lab) -> Result<()> {
    let (disk, mut driver) = begun(lab, Durability::Persisted, &["--raise"])?;
    disk.fill()?;
    let mut step = 100;
    let mut told = String::new();
    while !told.starts_with("err ") && step < 500 {
        step += 1;
        told = driver.ask(&format!("record {step}"))?;
    }
    let path = disk.store().to_string_lossy().into_owned();
    for word in [path.as_str()].iter().chain(&NO_SPACE) {
        if !told.contains(word) {
            return Err(format!("{word:?} expected: {told}").into());
        }
    }
    disk.empty()?;
    driver.records(600..610)?;
    let counted = driver.ask("missed")?;
    if counted != "ok missed 1" {
        return Err(counted.into());
    }
    driver.ok("end")?;
    driver.leave()
}

/// Records take what an emergency leaves of the space that was given back; the reserve still lasts.
pub(super) fn many_emergencies(lab: &Lab) -> Result<()> {
    let (disk, mut driver) = begun(lab, Durability::Written, &[])?;
    disk.fill()?;
    for number in 1..=16 {
        driver.try_records(number * 100..number * 100 + 60)?;
        driver.ok(&format!("emergency e-{number}"))?;
    }
    driver.ok("end")?;
    rest(&disk, driver)
}

/// Lets the oracle look, which needs space.
fn rest(disk: &Disk, mut driver: Driver) -> Result<()> {
    driver.leave()?;
    disk.empty()?;
    driver.look(Crash::Application)
}

/// A model may be large, and does not get what emergencies need.
pub(super) fn checkpoint(lab: &Lab) -> Result<()> {
    let (disk, mut driver) = begun(lab, Durability::Written, &[])?;
    disk.fill()?;
    let path = disk.store().join("checkpoints").to_string_lossy().into_owned();
    driver.err("checkpoint c-1", &[&path, NO_SPACE[0], NO_SPACE[1]])?;
    if reserved_bytes(&disk.store())? < RESERVE_BYTES {
        return Err("the reserve was given to a checkpoint".into());
    }
    driver.ok("emergency e-1")?;
    disk.empty()?;
    driver.all_ok(&["checkpoint c-1", "end"])?;
    driver.finish()
}

/// The file of a checkpoint fits exactly; its entry has the reserve.
pub(super) fn entry_of_a_checkpoint(lab: &Lab) -> Result<()> {
    let (disk, mut driver) = begun(lab, Durability::Written, &[])?;
    driver.ok("checkpoint c-1")?;
    let file = disk.store().join("checkpoints/c-1.npz");
    let pages = fs::metadata(file)?.len().div_ceil(PAGE_BYTES);
    disk.fill()?;
    driver.try_records(100..100 + SLACK_RECORDS)?;
    disk.free(pages * PAGE_BYTES)?;
    driver.all_ok(&["checkpoint c-2", "end"])?;
    rest(&disk, driver)
}

pub(super) fn end(lab: &Lab) -> Result<()> {
    let (disk, mut driver) = begun(lab, Durability::Written, &[])?;
    disk.fill()?;
    driver.try_records(100..100 + SLACK_RECORDS)?;
    driver.all_ok(&["missed", "end"])?;
    rest(&disk, driver)
}

pub(super) fn new_segment(lab: &Lab) -> Result<()> {
    let (disk, mut driver) = begun(lab, Durability::Written, &["--segment-bytes-max", "8192"])?;
    disk.fill()?;
    driver.try_records(100..100 + SLACK_RECORDS)?;
    driver.ok("emergency e-1")?;
    driver.try_records(600..700)?;
    disk.empty()?;
    driver.records(1000..1100)?;
    wait_for_reserve(&disk.store())?;
    driver.all_ok(&["missed", "end"])?;
    driver.finish()
}

pub(super) fn start(lab: &Lab) -> Result<()> {
    let disk = Disk::in_memory(SMALL)?;
    let mut driver = lab.driver(disk.store()).start()?;
    let path = disk.store().to_string_lossy().into_owned();
    disk.fill()?;
    driver.err("open", &[&path, NO_SPACE[0], NO_SPACE[1]])?;
    disk.free(PAGE_BYTES)?;
    driver.ok("open")?;
    driver.err("start run-1", &[&path, NO_SPACE[0], NO_SPACE[1]])?;
    disk.empty()?;
    driver.ok("start run-1")?;
    driver.records(1..10)?;
    driver.ok("end")?;
    driver.finish()
}

/// Records need no new file; the copy of an emergency gets the reserve's.
pub(super) fn inodes(lab: &Lab) -> Result<()> {
    let disk = Disk::in_memory("size=4m,nr_inodes=64")?;
    let driver = lab.driver(disk.store()).with(&["--segment-bytes-max", "8192"]);
    let mut driver = driver.start()?;
    driver.all_ok(&["open", "start run-1"])?;
    driver.ok("emergency e-1")?; // its folder is there
    let in_the_way = disk.use_up_inodes()?;
    driver.records(1..200)?;
    driver.ok("emergency e-2")?;
    let path = disk.store().to_string_lossy().into_owned();
    driver.err("emergency e-3", &[&path, NO_SPACE[0]])?;
    driver.err("checkpoint c-1", &[&path, NO_SPACE[0]])?;
    driver.records(200..300)?;
    fs::remove_dir_all(in_the_way)?;
    driver.ok("checkpoint c-1")?;
    driver.records(300..400)?;
    driver.all_ok(&["missed", "end"])?;
    driver.finish()
}
