//! Where does the store lie, and how much room is there?

use std::path::{Path, PathBuf};

use super::{Finding, Level, mount, size};
use crate::disk::{self, Space};
use crate::filesystem::{FileSystem, FileSystemKind};

/// Below this much free space there is a warning: a long run writes about as much.
const FREE_BYTES_LOW: u64 = 1 << 30;
/// Below this it is a problem: the next checkpoint may not fit.
const FREE_BYTES_MIN: u64 = 32 << 20;
/// Below so many files that can still be made there is a warning.
const FREE_FILES_LOW: u64 = 10_000;
/// Below so many it is a problem.
const FREE_FILES_MIN: u64 = 100;

/// The folder itself, or the nearest one above that is there.
pub(super) fn nearest_folder(root: &Path) -> PathBuf {
    let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    root.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

pub(super) fn findings(folder: &Path) -> Vec<Finding> {
    let found = FileSystem::of(folder);
    let mut findings = vec![file_system(found)];
    if found.kind == FileSystemKind::Network && mount::has_local_locks(folder) {
        findings.push(local_locks());
    }
    match disk::space(folder) {
        Ok(space) => findings.extend(bytes(&space).into_iter().chain(files(&space))),
        Err(error) => findings.push(Finding::new("disk", Level::Problem, error.to_string())),
    }
    findings
}

fn file_system(found: FileSystem) -> Finding {
    let name = found.name;
    let finding = |level, text: String| Finding::new("file_system", level, text);
    match found.kind {
        FileSystemKind::Local => finding(Level::Ok, format!("{name}, on a disk of this machine")),
        FileSystemKind::Network => finding(Level::Note, format!("{name}, which other machines may use"))
            .meaning("queries wait for each other here, instead of sharing memory")
            .remedy("put the store on a local disk if only one machine uses it"),
        FileSystemKind::Program => finding(Level::Note, format!("{name}: a program keeps these files"))
            .meaning("it may be remote, so queries wait for each other; what a power cut leaves is up to that program")
            .remedy("put the store on a local disk"),
        FileSystemKind::Memory => finding(Level::Warning, format!("{name}, in memory"))
            .meaning("the store is gone after a reboot or a power cut")
            .remedy("put the store on a disk"),
        FileSystemKind::Overlay => finding(Level::Note, format!("{name}, as in a container"))
            .meaning("the store goes when the container is removed")
            .remedy("put the store on a mounted volume"),
        FileSystemKind::Unknown => finding(Level::Note, "one that tidelog does not know".into())
            .meaning("it is taken for a network file system, where queries wait for each other"),
    }
}

fn local_locks() -> Finding {
    Finding::new("locks", Level::Warning, "locks hold within this machine only")
        .meaning("to other machines a writer here seems dead, and they end its sessions as aborted")
        .remedy("mount without nolock and local_lock, or record from one machine only")
}

/// None where the file system has no size, such as `/proc`.
fn bytes(space: &Space) -> Option<Finding> {
    let usable = space.used_bytes + space.free_bytes;
    let full = space.used_bytes.saturating_mul(100).div_ceil(usable.max(1));
    let found = format!("{} free, {full} % full", size(space.free_bytes));
    let level = level(space.free_bytes, FREE_BYTES_LOW, FREE_BYTES_MIN);
    let finding = Finding::new("disk", level, found);
    let finding = match level {
        Level::Problem => finding
            .meaning("the next checkpoint may not fit, and on a full disk records are missed")
            .remedy(format!("free some space, {} or more", size(FREE_BYTES_LOW))),
        Level::Warning => finding
            .meaning("once it is full, records are missed until there is room again")
            .remedy(format!("free some space; this warning ends at {}", size(FREE_BYTES_LOW))),
        Level::Ok | Level::Note => finding,
    };
    (usable > 0).then_some(finding)
}

/// None where all is well, or the file system does not count.
fn files(space: &Space) -> Option<Finding> {
    let free = space.free_files?;
    let level = level(free, FREE_FILES_LOW, FREE_FILES_MIN);
    let finding = Finding::new("disk", level, format!("room for {free} more files"))
        .meaning("every session, emergency and checkpoint is a file; without room they fail")
        .remedy("remove small files from this file system, or move the store to another one");
    (level != Level::Ok).then_some(finding)
}

fn level(free: u64, low: u64, min: u64) -> Level {
    match free {
        _ if free < min => Level::Problem,
        _ if free < low => Level::Warning,
        _ => Level::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_room_is_a_warning_and_almost_none_a_problem() {
        for (free_bytes, level) in
            [(2 << 30, Level::Ok), (1 << 29, Level::Warning), (1 << 20, Level::Problem)]
        {
            let space = Space { free_bytes, used_bytes: 1 << 30, free_files: None };
            let finding = bytes(&space).unwrap();
            assert_eq!(finding.level, level);
            let says_warning = finding.remedy.is_some_and(|remedy| remedy.contains("warning"));
            assert_eq!(says_warning, level == Level::Warning);
        }
        for (free_files, level) in [(9_999, Level::Warning), (99, Level::Problem)] {
            let space = Space { free_bytes: 0, used_bytes: 0, free_files: Some(free_files) };
            assert_eq!(files(&space).unwrap().level, level);
        }
    }

    #[test]
    fn little_room_is_told_in_small_units_and_none_where_there_is_no_disk() {
        let space = |free_bytes, used_bytes| Space { free_bytes, used_bytes, free_files: None };
        assert_eq!(bytes(&space(20 << 10, 1 << 30)).unwrap().found, "20 KiB free, 100 % full");
        assert_eq!(bytes(&space(0, 0)), None);
    }

    #[test]
    fn only_a_local_disk_needs_no_explanation() {
        use FileSystemKind::{Local, Memory, Network, Overlay, Program, Unknown};
        for kind in [Memory, Network, Overlay, Program, Unknown] {
            assert!(file_system(FileSystem { kind, name: "x" }).meaning.is_some());
        }
        assert_eq!(file_system(FileSystem { kind: Local, name: "x" }).level, Level::Ok);
    }
}
