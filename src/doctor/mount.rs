//! How is the folder's file system mounted? Linux lists all mounts in a file.

use std::path::Path;

/// Whether locks there hold within this machine only, as an NFS mount can say.
pub(super) fn has_local_locks(folder: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    options(&mounts, &folder)
        .split(',')
        .any(|option| matches!(option, "nolock" | "local_lock=all" | "local_lock=flock"))
}

/// The file system's options at the mount that a folder is on; empty if there is none. Of mounts on
/// one place the last one counts.
fn options<'a>(mounts: &'a str, folder: &Path) -> &'a str {
    let options = |line: &'a str| {
        let place = line.split(' ').nth(4)?.replace("\\040", " ");
        let options = line.split_once(" - ")?.1.split(' ').nth(2)?;
        folder.starts_with(&place).then_some((place.len(), options))
    };
    let deepest = mounts.lines().filter_map(options).max_by_key(|(length, _)| *length);
    deepest.map(|(_, options)| options).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /data rw shared:2 - nfs host:/data rw,vers=3,local_lock=none
31 30 0:41 / /data/my\\040runs rw - nfs host:/runs rw,vers=3,nolock
";

    #[test]
    fn the_deepest_mount_above_a_folder_counts() {
        let options = |folder: &str| options(MOUNTS, Path::new(folder));
        assert_eq!(options("/home/a"), "rw");
        assert_eq!(options("/data/store"), "rw,vers=3,local_lock=none");
        assert_eq!(options("/data/my runs/store"), "rw,vers=3,nolock");
        assert_eq!(options("/database"), "rw");
    }
}
