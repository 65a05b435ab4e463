//! Disks of a few megabytes that are mounted for one case, and what can be done to them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::Skip;
use crate::Result;

/// A page of a tmpfs, which is also its block.
pub(super) const PAGE_BYTES: u64 = 4096;
const PAGE: [u8; 4096] = [0; 4096];

/// A mounted file system; dropped, it is unmounted.
#[derive(Debug)]
pub(super) struct Disk {
    mount_point: PathBuf,
    _folder: TempDir,
}

/// Runs a program; what it said is the error.
pub(super) fn call<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}

impl Disk {
    /// A disk in memory with these options, `size=4m`.
    pub(super) fn in_memory(options: &str) -> Result<Self> {
        Self::mounted(&["-t", "tmpfs", "-o", options, "tmpfs"])
    }

    /// The file system in an image.
    pub(super) fn of_image(image: &Path) -> Result<Self> {
        Self::mounted(&[OsStr::new("-o"), OsStr::new("loop"), image.as_os_str()])
    }

    fn mounted<A: AsRef<OsStr>>(arguments: &[A]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tidelog-faults-").tempdir()?;
        let mount_point = folder.path().join("disk");
        fs::create_dir(&mount_point)?;
        let arguments = arguments.iter().map(AsRef::as_ref).chain([mount_point.as_os_str()]);
        let arguments: Vec<&OsStr> = arguments.collect();
        call("mount", &arguments).map_err(|error| Skip(error.to_string()))?;
        Ok(Self { mount_point, _folder: folder })
    }

    pub(super) fn path(&self) -> &Path {
        &self.mount_point
    }

    /// Where its store lies.
    pub(super) fn store(&self) -> PathBuf {
        self.mount_point.join("store")
    }

    fn filler(&self) -> PathBuf {
        self.mount_point.join("filler")
    }

    /// Leaves no page free.
    pub(super) fn fill(&self) -> Result<()> {
        let mut filler = File::options().create(true).append(true).open(self.filler())?;
        while filler.write(&PAGE).is_ok_and(|bytes| bytes > 0) {}
        Ok(())
    }

    /// Gives so many bytes back.
    pub(super) fn free(&self, bytes: u64) -> Result<()> {
        let filler = File::options().write(true).open(self.filler())?;
        Ok(filler.set_len(filler.metadata()?.len().saturating_sub(bytes))?)
    }

    /// Gives everything back.
    pub(super) fn empty(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }

    /// Lets no other file be created; those made for it are in the way until they are removed.
    pub(super) fn use_up_inodes(&self) -> Result<PathBuf> {
        let folder = self.mount_point.join("many");
        fs::create_dir(&folder)?;
        let mut number = 0;
        while File::create(folder.join(number.to_string())).is_ok() {
            number += 1;
        }
        Ok(folder)
    }

    pub(super) fn remount(&self, options: &str) -> Result<()> {
        let options = format!("remount,{options}");
        call("mount", &[OsStr::new("-o"), OsStr::new(&options), self.mount_point.as_os_str()])
    }

    /// Unmounts and mounts the image again.
    pub(super) fn again(&self, image: &Path) -> Result<()> {
        self.unmount()?;
        let arguments = ["-o", "loop"].map(OsStr::new);
        call("mount", &[&arguments[..], &[image.as_os_str(), self.path().as_os_str()]].concat())
    }

    fn unmount(&self) -> Result<()> {
        for _ in 0..100 {
            if call("umount", &[self.path()]).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20)); // a process that ended holds it a moment
        }
        call("umount", &[self.path()])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.unmount().is_err() {
            call("umount", &[OsStr::new("--lazy"), self.path().as_os_str()]).ok(); // at least unseen
        }
    }
}

/// Makes a file system in a file of so many bytes, most of which are not there.
pub(super) fn image(path: &Path, file_system: &str, bytes: u64) -> Result<()> {
    File::create(path)?.set_len(bytes)?;
    let quiet_and_forced = match file_system {
        "ext4" => ["-q", "-F"],
        _ => ["-q", "-f"],
    };
    let arguments = quiet_and_forced.map(OsStr::new);
    let program = format!("mkfs.{file_system}");
    let made = call(&program, &[&arguments[..], &[path.as_os_str()]].concat());
    made.map_err(|error| Skip(format!("{program}: {error}")).into())
}
