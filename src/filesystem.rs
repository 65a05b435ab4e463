//! What kind of file system is a folder on, and what can be relied on there?
//!
//! Between hosts there is no shared memory, so SQLite's WAL mode is for local disks only. What a
//! system does not name in [`MAGICS`] is taken for remote: that is slower and never wrong.

use std::path::Path;

/// Where the bytes of a file system are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystemKind {
    /// On a disk of this host.
    Local,
    /// On another host, or on a disk that several hosts share.
    Network,
    /// A program answers (FUSE), and nobody knows from where.
    Program,
    /// In memory: nothing survives a reboot.
    Memory,
    /// Layers, as of a container: what is written may go with it.
    Overlay,
    /// Not in the table.
    Unknown,
}

/// A file system as the system names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileSystem {
    pub(crate) kind: FileSystemKind,
    /// `nfs`, `ext4`, or `unknown`.
    pub(crate) name: &'static str,
}

const UNKNOWN: FileSystem = FileSystem { kind: FileSystemKind::Unknown, name: "unknown" };

impl FileSystem {
    /// The file system of a folder or file; unknown if the system does not tell.
    #[cfg(target_os = "linux")]
    pub(crate) fn of(path: &Path) -> Self {
        // magics have 32 bits; some systems extend them by their sign
        rustix::fs::statfs(path).map_or(UNKNOWN, |found| named(found.f_type as u64 & 0xffff_ffff))
    }

    /// Elsewhere than on Linux nobody is asked, and the disk is taken for local.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn of(_path: &Path) -> Self {
        Self { kind: FileSystemKind::Local, ..UNKNOWN }
    }

    /// Whether other hosts may use the same files at the same time.
    pub(crate) fn may_be_shared(self) -> bool {
        use FileSystemKind::{Network, Program, Unknown};
        matches!(self.kind, Network | Program | Unknown)
    }
}

#[cfg(target_os = "linux")]
fn named(magic: u64) -> FileSystem {
    MAGICS
        .iter()
        .find(|(known, ..)| *known == magic)
        .map_or(UNKNOWN, |(_, kind, name)| FileSystem { kind: *kind, name })
}

/// What `statfs` says of a file system, from the kernel's `magic.h` and the makers' headers.
#[cfg(target_os = "linux")]
const MAGICS: [(u64, FileSystemKind, &str); 47] = {
    use FileSystemKind::{Local, Memory, Network, Overlay, Program};
    [
        (0x0000_6969, Network, "nfs"),
        (0x0000_517b, Network, "smb"),
        (0xff53_4d42, Network, "cifs"),
        (0xfe53_4d42, Network, "smb2"),
        (0x5346_414f, Network, "afs"),
        (0x6b41_4653, Network, "afs"),
        (0x00c3_6400, Network, "ceph"),
        (0x0bd0_0bd0, Network, "lustre"),
        (0x4750_4653, Network, "gpfs"),
        (0x1983_0326, Network, "beegfs"),
        (0x0102_1997, Network, "9p"),
        (0x7375_7245, Network, "coda"),
        (0x0000_564c, Network, "ncp"),
        (0x7461_636f, Network, "ocfs2"),
        (0x0116_1970, Network, "gfs2"),
        (0xaad7_aaea, Network, "panfs"),
        (0x2003_0528, Network, "orangefs"),
        (0xbeef_dead, Network, "stornext"),
        (0x6163_6673, Network, "acfs"),
        (0xbacb_acbc, Network, "vmhgfs"),
        (0x786f_4256, Network, "vboxsf"),
        (0x7c7c_6673, Network, "prl_fs"),
        (0x6573_5546, Program, "fuse"),
        (0x0102_1994, Memory, "tmpfs"),
        (0x8584_58f6, Memory, "ramfs"),
        (0x9584_58f6, Memory, "hugetlbfs"),
        (0x794c_7630, Overlay, "overlay"),
        (0x6175_6673, Overlay, "aufs"),
        (0x0000_ef53, Local, "ext4"),
        (0x5846_5342, Local, "xfs"),
        (0x9123_683e, Local, "btrfs"),
        (0x2fc1_2fc1, Local, "zfs"),
        (0xf2f5_2010, Local, "f2fs"),
        (0xca45_1a4e, Local, "bcachefs"),
        (0x3153_464a, Local, "jfs"),
        (0x5265_4973, Local, "reiserfs"),
        (0x0000_3434, Local, "nilfs2"),
        (0x0000_4d44, Local, "fat"),
        (0x2011_bab0, Local, "exfat"),
        (0x5346_544e, Local, "ntfs"),
        (0x7366_746e, Local, "ntfs3"),
        (0x0000_482b, Local, "hfs+"),
        (0x0000_f15f, Local, "ecryptfs"),
        (0x0000_7275, Local, "romfs"),
        (0x7371_7368, Local, "squashfs"),
        (0xe0f5_e1e2, Local, "erofs"),
        (0x0000_9660, Local, "iso9660"),
    ]
};

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn file_systems_that_several_hosts_may_use_are_shared() {
        for (magic, name) in [
            (0x6969, "nfs"),
            (0xff53_4d42, "cifs"),
            (0x0bd0_0bd0, "lustre"),
            (0x6573_5546, "fuse"),
            (0x1234, "unknown"),
        ] {
            assert_eq!((named(magic).name, named(magic).may_be_shared()), (name, true));
        }
        for (magic, name) in [(0xef53, "ext4"), (0x0102_1994, "tmpfs"), (0x794c_7630, "overlay")] {
            assert_eq!((named(magic).name, named(magic).may_be_shared()), (name, false));
        }
    }

    #[test]
    fn no_magic_is_in_the_table_twice() {
        let magics: std::collections::BTreeSet<u64> = MAGICS.iter().map(|(m, ..)| *m).collect();
        assert_eq!(magics.len(), MAGICS.len());
    }

    #[test]
    fn a_folder_in_memory_is_told_from_one_on_disk() {
        assert_eq!(FileSystem::of(Path::new("/dev/shm")).kind, FileSystemKind::Memory);
        assert_eq!(FileSystem::of(Path::new("/nowhere")), UNKNOWN);
    }
}
