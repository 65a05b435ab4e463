//! The only place that persists, renames, locks or asks for free space.
//!
//! **Persist** means: survives a power cut. A new file survives one only after both its bytes and
//! its folder's entry were persisted, hence the pairs below. Files are created with mode 0600 and
//! folders with 0700: a store belongs to the user who trains.
//!
//! A store lies in one folder: files are opened without following a link, so that no answer holds
//! what lies elsewhere and nothing is written there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use fs2::FileExt;
use tempfile::TempPath;

use crate::error::{Error, Result};
use crate::filesystem::FileSystem;
use crate::fork::Process;

/// Creates a folder and its parents, and persists each new one.
pub(crate) fn create_folder(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_folder(parent)?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(Error::io("create folder", path)(error)),
        // a folder that stayed would count as persisted at the next try
        Ok(()) => persist_folder_of(path).inspect_err(|_| drop(fs::remove_dir(path))),
    }
}

/// Creates a file that must not exist yet, for appending. Not persisted.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Creates a file under a name that nobody knows, to be written anywhere in it.
fn create_temporary(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Opens a file of the store for reading. A link is not followed, a pipe is not waited for.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    open_regular(path, OpenOptions::new().read(true))
}

/// Opens a file of the store to lock it. On network file systems only a file that is open for
/// writing can be locked; who may not write it opens it for reading.
pub(crate) fn open_to_lock(path: &Path) -> io::Result<File> {
    match open_regular(path, OpenOptions::new().read(true).write(true)) {
        Err(error) if is_forbidden(&error) => open(path),
        opened => opened,
    }
}

/// Opens a folder to lock it, for which Unix needs no right to write.
pub(crate) fn open_folder(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Whether this user, or anybody, may not write there.
pub(crate) fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    match options.open(path) {
        Err(_) if is_link(path) => Err(io::Error::other(LINK)),
        Ok(file) if !file.metadata()?.is_file() => Err(io::Error::other("it is no regular file")),
        opened => opened,
    }
}

/// What is said of a link among a store's files.
pub(crate) const LINK: &str =
    "it is a symbolic link, and a store lies in one folder; put there what it leads to";

/// Whether this name is a link, wherever it leads.
pub(crate) fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

/// Whether this name is a file, and no link to one.
pub(crate) fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

/// Persists a file's bytes and length.
pub(crate) fn persist(file: &File, path: &Path) -> Result<()> {
    file.sync_data().map_err(Error::io("persist", path))
}

/// Persists the entry of a file or folder in the folder that holds it.
pub(crate) fn persist_folder_of(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io("persist folder", folder))
}

/// Cuts a file to `bytes` and persists the cut.
pub(crate) fn truncate(path: &Path, bytes: u64) -> Result<()> {
    let file =
        open_regular(path, OpenOptions::new().write(true)).map_err(Error::io("open", path))?;
    file.set_len(bytes).map_err(Error::io("truncate", path))?;
    persist(&file, path)
}

/// Removes a file and persists that it is gone. A file that is gone already is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => persist_folder_of(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("remove", path)(error)),
    }
}

/// A file under a temporary name beside its final one; dropped, it leaves nothing.
///
/// Order on disk: bytes under the temporary name, persisted; then the final name; then the
/// folder. A crash before the last step leaves the whole file or none, and perhaps a
/// `.tidelog-*` leftover that nothing reads.
#[derive(Debug)]
pub(crate) struct NewFile {
    writer: BufWriter<File>,
    temporary: TempPath,
    path: PathBuf,
}

impl NewFile {
    /// Begins the file that will be `path`.
    pub(crate) fn begin(path: &Path) -> Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let new = tempfile::Builder::new()
            .prefix(".tidelog-")
            .make_in(folder, create_temporary)
            .map_err(Error::io("create a temporary file for", path))?;
        let (file, temporary) = new.into_parts();
        let writer = BufWriter::with_capacity(1 << 20, file);
        Ok(Self { writer, temporary, path: path.to_owned() })
    }

    /// Where the bytes go; it can seek.
    pub(crate) fn writer(&mut self) -> &mut BufWriter<File> {
        &mut self.writer
    }

    /// Persists the file under its final name. If a file of that name is there already, it
    /// stays as it is and `self` comes back, to be finished under another name.
    pub(crate) fn finish(self) -> Result<Option<Self>> {
        Ok(self.finish_as_file()?.err())
    }

    fn finish_as_file(mut self) -> Result<std::result::Result<File, Self>> {
        self.writer.flush().map_err(Error::io("write", &self.path))?;
        persist(self.writer.get_ref(), &self.path)?;
        let Self { writer, temporary, path } = self;
        match temporary.persist_noclobber(&path) {
            Ok(()) => {
                // what may not survive must not be in the way of the next try
                persist_folder_of(&path).inspect_err(|_| drop(fs::remove_file(&path)))?;
                Ok(Ok(writer.into_parts().0))
            }
            Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(Err(Self { writer, temporary: refused.path, path }))
            }
            Err(refused) => Err(Error::io("rename", &path)(refused.error)),
        }
    }

    /// Gives the file another final name in the same folder.
    pub(crate) fn rename(&mut self, path: PathBuf) {
        self.path = path;
    }
}

/// Writes a whole small file that must not exist yet; `false` if it does.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<bool> {
    let mut file = NewFile::begin(path)?;
    file.writer().write_all(bytes).map_err(Error::io("write", path))?;
    Ok(file.finish()?.is_none())
}

/// Between two tries to take a lock that is held for milliseconds.
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// A file under an exclusive lock; holding this is holding the lock.
///
/// The lock is the operating system's (`flock`) and ends with the process, however it ends. A forked
/// child shares it: it is let go by the process that took it, for both.
#[derive(Debug)]
pub(crate) struct LockedFile {
    file: File,
    process: Process,
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        if self.process.is_this() {
            FileExt::unlock(&self.file).ok(); // closing it lets it go unless a child has it open
        }
    }
}

impl LockedFile {
    /// Creates a file of this content under its lock: nobody sees it unlocked.
    pub(crate) fn create(path: &Path, content: &[u8]) -> Result<Self> {
        let mut new = NewFile::begin(path)?;
        FileExt::try_lock_exclusive(new.writer.get_ref()).map_err(cannot_lock(path))?;
        new.writer.write_all(content).map_err(Error::io("write", path))?;
        match new.finish_as_file()? {
            Ok(file) => Ok(Self { file, process: Process::this() }),
            Err(_) => Err(Error::io("create", path)(io::ErrorKind::AlreadyExists.into())),
        }
    }

    /// Takes the lock of a file; `None` if it is missing, or others hold it for the whole of
    /// `patience`.
    pub(crate) fn lock_within(path: &Path, patience: Duration) -> Result<Option<Self>> {
        let start = Instant::now();
        loop {
            let file = match open_to_lock(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => file.map_err(Error::io("open", path))?,
            };
            match Self::try_lock(file, path)? {
                None if start.elapsed() < patience => thread::sleep(LOCK_PAUSE),
                locked => return Ok(locked),
            }
        }
    }

    /// Takes the lock, or `None` if somebody else holds it.
    pub(crate) fn try_lock(file: File, path: &Path) -> Result<Option<Self>> {
        match FileExt::try_lock_exclusive(&file) {
            Ok(()) => Ok(Some(Self { file, process: Process::this() })),
            Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => {
                Ok(None)
            }
            Err(error) => Err(cannot_lock(path)(error)),
        }
    }

    /// Whether the locked file still has this name. Between opening and locking a file its
    /// former owner may have removed it.
    pub(crate) fn is_still_at(&self, path: &Path) -> bool {
        match (self.file.metadata(), fs::symlink_metadata(path)) {
            #[cfg(unix)]
            (Ok(mine), Ok(there)) => {
                use std::os::unix::fs::MetadataExt;
                mine.dev() == there.dev() && mine.ino() == there.ino()
            }
            #[cfg(not(unix))]
            (Ok(_), Ok(_)) => true,
            _ => false,
        }
    }
}

/// Creates a file whose blocks are the caller's, on a disk that fills up afterwards. Not persisted.
pub(crate) fn create_allocated(path: &Path, bytes: u64) -> Result<File> {
    let mut options = OpenOptions::new();
    // not for appending: where the file system cannot reserve, the C library writes zeros at offsets
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(Error::io("create", path))?;
    allocate(&file, path, bytes).inspect_err(|_| drop(fs::remove_file(path)))?;
    Ok(file)
}

/// Gives a file all the blocks up to this length.
pub(crate) fn allocate(file: &File, path: &Path, bytes: u64) -> Result<()> {
    FileExt::allocate(file, bytes).map_err(Error::io("reserve space in", path))
}

/// Removes a file whose return after a power cut would do no harm.
pub(crate) fn remove_unpersisted(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Whether the disk, or this user's share of it, is full.
pub(crate) fn is_full(error: &Error) -> bool {
    let Error::Io { source, .. } = error else { return false };
    matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Fails if an open file was removed: what is written to it is in no folder.
pub(crate) fn check_still_named(file: &File, path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        let found = file.metadata().map_err(Error::io("inspect", path))?;
        if std::os::unix::fs::MetadataExt::nlink(&found) == 0 {
            let reason = "it was removed while it was being written";
            return Err(Error::io("persist", path)(io::Error::other(reason)));
        }
    }
    Ok(())
}

/// A lock that the file system cannot give is not one that somebody else holds.
fn cannot_lock(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| match is_without_locks(&source) {
        true => {
            let file_system = FileSystem::of(path.parent().unwrap_or(&path)).name;
            Error::LocksUnsupported { path, file_system, source }
        }
        false => Error::io("lock", &path)(source),
    }
}

/// `ENOSYS` and `EOPNOTSUPP` are unsupported to the standard library; `ENOLCK` it does not know.
fn is_without_locks(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(libc::ENOLCK) {
        return true;
    }
    error.kind() == io::ErrorKind::Unsupported
}

/// Fails if files cannot be locked where this one is. Asks with a file that nobody locks otherwise,
/// and leaves it unlocked.
pub(crate) fn check_locks(path: &Path) -> Result<()> {
    let file = open(path).map_err(Error::io("open", path))?;
    FileExt::try_lock_shared(&file).map_err(cannot_lock(path))
}

/// Room on the disk of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) used_bytes: u64,
    /// What an unprivileged user can still write.
    pub(crate) free_bytes: u64,
    /// How many files can still be made; none where the file system does not count them.
    pub(crate) free_files: Option<u64>,
}

/// Asks how much room there is.
pub(crate) fn space(path: &Path) -> Result<Space> {
    let found = fs2::statvfs(path).map_err(Error::io("ask for the free space of", path))?;
    Ok(Space {
        used_bytes: found.total_space().saturating_sub(found.free_space()),
        free_bytes: found.available_space(),
        free_files: free_files(path),
    })
}

#[cfg(unix)]
fn free_files(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    (found.f_files > 0).then_some(found.f_favail)
}

#[cfg(not(unix))]
fn free_files(_path: &Path) -> Option<u64> {
    None
}

/// Bytes that an unprivileged user can still write on the disk of `path`.
pub(crate) fn free_bytes(path: &Path) -> Result<u64> {
    fs2::available_space(path).map_err(Error::io("ask for the free space of", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_never_replaces_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert!(write_new(&path, b"first").unwrap());
        assert!(!write_new(&path, b"second").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_lock_is_held_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = LockedFile::try_lock(create_new(&path).unwrap(), &path).unwrap();
        assert!(first.is_some());
        let again = File::open(&path).unwrap();
        assert!(LockedFile::try_lock(again, &path).unwrap().is_none());
    }

    #[cfg(unix)]
    #[test]
    fn neither_links_nor_pipes_nor_folders_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "outside").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        std::os::unix::fs::symlink(path("nothing"), path("dangling")).unwrap();
        let pipe = std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        assert!(pipe.success() && open(&path("file")).is_ok());
        for (name, reason) in
            [("link", "link"), ("dangling", "link"), ("pipe", "regular"), ("", "regular")]
        {
            let error = open(&path(name)).unwrap_err().to_string();
            assert!(error.contains(reason), "{name}: {error}");
        }
        assert!(truncate(&path("link"), 0).is_err());
        assert_eq!(fs::read(path("file")).unwrap(), b"outside");
    }

    #[cfg(unix)]
    #[test]
    fn files_and_folders_belong_to_their_user_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        create_folder(&inner).unwrap();
        write_new(&inner.join("f"), b"").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&inner), mode(&inner.join("f"))), (0o700, 0o600));
    }
}
