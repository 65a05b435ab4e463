//! A file system of its own, in an image file, whose power can be cut.
//!
//! The cut is the file system's own: the shutdown ioctl without a flush of its log. From that
//! moment nothing reaches the image any more; dirty pages and what the log had not committed are
//! lost, as when a machine loses its power. Taken out and put in again, the file system repairs
//! itself from its log. What this cannot show is a disk that forgets what it has acknowledged.
//!
//! Nothing is left behind: dropped, the volume is unmounted, and its loop device goes with the
//! mount. `scripts/faults` runs in a mount namespace of its own, so that the kernel does the same
//! for a harness that was interrupted or killed; what one without a namespace left, the next one
//! takes away ([`sweep`]).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::Result;

/// How the folder of a volume is called; then comes the process that made it.
const PREFIX: &str = "tidelog-cut-";
/// In that folder, where the volume is mounted.
const MOUNT_POINT: &str = "volume";
/// Sparse: only what is persisted takes space.
const IMAGE_BYTES: u64 = 1 << 30;
/// A dead process's files may be closed a moment after it was waited for.
const UNMOUNT_TRIES: u32 = 50;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(20);

/// Which file system a volume has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileSystem {
    /// With its default, ordered data.
    Ext4,
    /// With its defaults.
    Xfs,
}

impl FileSystem {
    /// Both, in the order in which they are tried.
    pub(super) const ALL: [Self; 2] = [Self::Ext4, Self::Xfs];

    /// As `mount` calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    fn make(self, image: &Path) -> Result<()> {
        match self {
            Self::Ext4 => call("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image.as_os_str()]),
            Self::Xfs => call("mkfs.xfs", &["-q".as_ref(), "-f".as_ref(), image.as_os_str()]),
        }
    }
}

/// A mounted file system.
#[derive(Debug)]
pub(super) struct Volume {
    file_system: FileSystem,
    image: PathBuf,
    mount_point: PathBuf,
    mounted: bool,
    _folder: tempfile::TempDir,
}

impl Volume {
    /// Makes and mounts an empty file system.
    ///
    /// # Errors
    /// A program is missing or failed, as without root or loop devices.
    pub(super) fn create(file_system: FileSystem) -> Result<Self> {
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let image = folder.path().join("image");
        let mount_point = folder.path().join(MOUNT_POINT);
        std::fs::create_dir(&mount_point)?;
        std::fs::File::create(&image)?.set_len(IMAGE_BYTES)?;
        file_system.make(&image)?;
        let mut volume = Self { file_system, image, mount_point, mounted: false, _folder: folder };
        volume.mount()?;
        Ok(volume)
    }

    /// The file system's uppermost folder.
    pub(super) fn root(&self) -> &Path {
        &self.mount_point
    }

    /// Cuts the power: what is not persisted now is lost, and each later write fails.
    ///
    /// # Errors
    /// The file system knows no shutdown.
    pub(super) fn cut(&self) -> Result<()> {
        let words = ["-x".as_ref(), "-c".as_ref(), "shutdown".as_ref(), self.root().as_os_str()];
        call("xfs_io", &words)
    }

    /// Takes the volume out and puts it in again, as after a reboot.
    ///
    /// # Errors
    /// A process still has a file of it open, or the file system cannot be repaired.
    pub(super) fn reboot(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    fn mount(&mut self) -> Result<()> {
        let options = ["-t", self.file_system.name(), "-o", "loop"].map(OsStr::new);
        let places = [self.image.as_os_str(), self.mount_point.as_os_str()];
        call("mount", &[options.as_slice(), places.as_slice()].concat())?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        let mut tried = call("umount", &[self.mount_point.as_os_str()]);
        for _ in 1..UNMOUNT_TRIES {
            if tried.is_ok() {
                break;
            }
            thread::sleep(UNMOUNT_PAUSE);
            tried = call("umount", &[self.mount_point.as_os_str()]);
        }
        tried?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            // out of sight now, gone with the last open file
            call("umount", &["--lazy".as_ref(), self.mount_point.as_os_str()]).ok();
        }
    }
}

/// Takes away what harnesses left that were killed.
///
/// # Errors
/// The folder of temporary files cannot be listed.
pub(super) fn sweep() -> Result<()> {
    for entry in std::fs::read_dir(std::env::temp_dir())? {
        let folder = entry?.path();
        if is_abandoned(&folder) {
            // it may not have been mounted; what cannot be removed is for the next sweep
            call("umount", &[folder.join(MOUNT_POINT).as_os_str()]).ok();
            std::fs::remove_dir_all(&folder).ok();
        }
    }
    Ok(())
}

fn is_abandoned(folder: &Path) -> bool {
    let name = folder.file_name().and_then(OsStr::to_str);
    let maker = name.and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok());
    maker.is_some_and(|pid: u32| !Path::new("/proc").join(pid.to_string()).exists())
}

/// Runs a program to its end; what it said is in the error.
fn call(program: &str, words: &[&OsStr]) -> Result<()> {
    let output = Command::new(program)
        .args(words)
        .output()
        .map_err(|error| format!("{program} cannot be run: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{program} failed: {}", said.trim()).into())
        }
    }
}

/// Makes, cuts and reboots one volume: `Err` says why no power can be cut here.
///
/// # Errors
/// What is missing: a program, root, a loop device, the shutdown itself.
pub(super) fn try_out(file_system: FileSystem) -> Result<()> {
    let mut volume = Volume::create(file_system)?;
    volume.cut()?;
    volume.reboot()
}
