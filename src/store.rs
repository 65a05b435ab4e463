//! One folder that holds everything: opening it, and what belongs to no session.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use crate::disk;
use crate::durability::SessionOptions;
use crate::entry::{Action, Body, CheckpointAction, EndedPart, Entry, Outcome, SessionEnded};
use crate::error::{Error, Result};
use crate::fork::Process;
use crate::ids::{CheckpointId, SessionId, StoreId};
use crate::index::Index;
use crate::journal::recovery::{self, Recovered};
use crate::journal::{FORMAT_VERSION, discover};
use crate::persister::Persister;
use crate::recorder::Recorder;
use crate::status::{self, Status};
use crate::timestamp::Timestamp;
use crate::value::Value;

/// A store: one folder with a journal, checkpoints and an index.
///
/// Any number of processes may open the same store at once; they do not wait for each other.
/// Cheap to clone: clones are the same store.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
    /// The index that all queries ask, if this is a snapshot.
    pub(crate) pinned: Option<Pinned>,
}

/// An index within one reading transaction. A forked child must not use its parent's connection.
#[derive(Debug, Clone)]
pub(crate) struct Pinned {
    index: Arc<Mutex<Index>>,
    process: Process,
}

impl Pinned {
    pub(crate) fn new(index: Index) -> Self {
        Self { index: Arc::new(Mutex::new(index)), process: Process::this() }
    }

    pub(crate) fn lock(&self) -> Result<MutexGuard<'_, Index>> {
        if self.process.is_this() {
            return Ok(lock(&self.index));
        }
        let reason = "a snapshot belongs to the process that took it; take another after a fork";
        Err(Error::Query(reason.into()))
    }
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    id: StoreId,
    /// None: open for reading only.
    persister: Option<Persister>,
    /// The store's own journal, begun at its first entry.
    journal: Mutex<Option<Recorder>>,
    /// The store as a forked child opened it: threads and locks are its parent's.
    forked: OnceLock<Store>,
}

/// Every folder that a store may have.
pub(crate) const FOLDERS: [&str; 7] = [
    "active",
    "checkpoints",
    "logs",
    "logs/emergency",
    "logs/import",
    "logs/store",
    "logs/telemetry",
];

/// Longest `store.json` that is read; one has about a hundred bytes.
const STORE_FILE_BYTES_MAX: u64 = 64 << 10;

/// `store.json`, which makes a folder a store.
#[derive(Debug, Serialize, Deserialize)]
struct StoreFile {
    #[serde(rename = "tidelog")]
    format_version: u32,
    store: StoreId,
    created_at: Timestamp,
}

impl Store {
    /// Opens the store in this folder for writing, and creates it if there is none.
    ///
    /// Segments whose writer died are sealed on the way: a torn last line is cut, and their
    /// sessions are marked as aborted. Segments of live writers are not touched. A `store.json`
    /// that is gone is made again with the id that the segments name.
    ///
    /// # Errors
    /// The folder cannot be created or written, or a newer tidelog wrote it; it has no `store.json`,
    /// and its segments name several stores.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        disk::create_folder(root)?;
        let path = root.join("store.json");
        if !path.exists() {
            create_store_file(root, &path)?;
        }
        let persister = Persister::start().map_err(Error::io("start a thread for", root))?;
        let store = Self::with(root, Some(persister))?;
        recovery::recover(store.root(), |dead| store.seal_dead(dead))?;
        Ok(store)
    }

    /// Opens an existing store for reading: no file of the journal is created or changed. The
    /// index may be brought up to date.
    ///
    /// # Errors
    /// The folder holds no store, or a newer tidelog wrote it.
    pub fn open_read_only(root: impl AsRef<Path>) -> Result<Self> {
        Self::with(root.as_ref(), None)
    }

    fn with(root: &Path, persister: Option<Persister>) -> Result<Self> {
        // a program that changes its folder later still writes here
        let root = std::path::absolute(root).map_err(Error::io("find", root))?;
        let id = read_store_file(&root)?.store;
        refuse_linked_folders(&root)?;
        let (journal, forked) = (Mutex::new(None), OnceLock::new());
        let inner = Arc::new(Inner { root, id, persister, journal, forked });
        Ok(Self { inner, pinned: None })
    }

    /// The store's id, born with it.
    pub fn id(&self) -> StoreId {
        self.inner.id
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Counts, sizes, and who is writing.
    ///
    /// # Errors
    /// A folder of the store cannot be listed.
    pub fn status(&self) -> Result<Status> {
        status::status(self.root(), self.id())
    }

    /// Journals what happened to a checkpoint; persisted on return.
    pub(crate) fn note_checkpoint(
        &self,
        id: &CheckpointId,
        action: Action,
        details: Option<Value>,
    ) -> Result<()> {
        let checkpoint_id = id.clone();
        self.append(Body::Checkpoint(CheckpointAction { checkpoint_id, action, details }))
    }

    /// Appends to the store's own segment and persists.
    pub(crate) fn append(&self, body: Body) -> Result<()> {
        self.append_at(Timestamp::now(), body)
    }

    /// As [`append`](Self::append), for what did not happen now.
    pub(crate) fn append_at(&self, timestamp: Timestamp, body: Body) -> Result<()> {
        self.persister()?;
        let here = self.here()?;
        let entry = Entry { timestamp, body };
        let mut journal = lock(&here.inner.journal);
        if let Some(recorder) = journal.as_ref() {
            let appended = recorder.append(&entry)?;
            return recorder.persist_line(&appended.handle);
        }
        let options = SessionOptions::default();
        let root = here.root().to_owned();
        *journal = Some(Recorder::begin(root, here.id(), None, options, &[entry])?);
        Ok(())
    }

    /// This store, or what takes its place in a forked child.
    pub(crate) fn here(&self) -> Result<Store> {
        if self.inner.is_of_this_process() {
            return Ok(self.clone());
        }
        if let Some(child) = self.inner.forked.get() {
            return child.here();
        }
        let child = Store::open(self.root())?;
        // no lock, which another fork could leave locked
        self.inner.forked.get_or_init(|| child).here()
    }

    /// Hands what this process buffers to the operating system, where every reader finds it.
    pub(crate) fn flush(&self) {
        if let Some(persister) = self.inner.persister.as_ref().filter(|p| p.is_of_this_process()) {
            persister.flush();
        }
    }

    /// The persister, which only a store open for writing has.
    pub(crate) fn persister(&self) -> Result<&Persister> {
        self.inner.persister.as_ref().ok_or_else(|| Error::ReadOnly { path: self.root().into() })
    }

    /// Writes down that a dead writer's session was aborted, then drops its marker. A crash in
    /// between writes it twice with the same time, which followers fold into one.
    fn seal_dead(&self, dead: Recovered) -> Result<()> {
        if let (Some(session), false) = (&dead.marker.session, dead.ended) {
            self.append_at(dead.last_seen, aborted(&dead, session))?;
        }
        dead.held.remove()
    }
}

impl Inner {
    /// A store for reading has nothing that a fork could break.
    fn is_of_this_process(&self) -> bool {
        self.persister.as_ref().is_none_or(Persister::is_of_this_process)
    }
}

impl Drop for Inner {
    /// Seals the store's own segment, unless it is a forked parent's. Its entries are persisted
    /// already.
    fn drop(&mut self) {
        if !self.is_of_this_process() {
            return;
        }
        if let Some(recorder) = lock(&self.journal).take() {
            recorder.end(None).ok(); // the next open seals what could not be sealed here
        }
    }
}

fn aborted(dead: &Recovered, session: &SessionId) -> Body {
    let torn = match dead.torn_bytes {
        0 => String::new(),
        bytes => format!(", {bytes} bytes of an unfinished line were cut"),
    };
    Body::SessionEnded(SessionEnded {
        outcome: Outcome::Aborted,
        reason: Some(format!("process {} went away{torn}", dead.marker.writer.pid)),
        of: Some(EndedPart { segment: dead.marker.segment, session_id: session.clone() }),
    })
}

/// A thread that panicked under a lock leaves data that is still whole: every change is one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two processes may create the same store at once: one file wins, both read it afterwards.
fn create_store_file(root: &Path, path: &Path) -> Result<()> {
    let (store, created_at) =
        named_by_segments(root, path)?.unwrap_or_else(|| (StoreId::random(), Timestamp::now()));
    write_store_file(path, store, created_at)
}

/// Writes a `store.json`; one that is there stays.
pub(crate) fn write_store_file(path: &Path, store: StoreId, created_at: Timestamp) -> Result<()> {
    let file = StoreFile { format_version: FORMAT_VERSION, store, created_at };
    let mut bytes = serde_json::to_vec_pretty(&file)
        .map_err(|error| Error::io("write", path)(io::Error::other(error)))?;
    bytes.push(b'\n');
    disk::write_new(path, &bytes).map(|_| ())
}

/// The store that all segments name, of a folder that lost its `store.json`, and the time of the
/// oldest; none if there are no segments.
fn named_by_segments(root: &Path, path: &Path) -> Result<Option<(StoreId, Timestamp)>> {
    let segments = discover(root)?.segments;
    let Some(first) = segments.first().map(|oldest| &oldest.header) else { return Ok(None) };
    match segments.iter().find(|other| other.header.store != first.store) {
        None => Ok(Some((first.store, first.created_at))),
        Some(other) => Err(Error::Damaged {
            path: path.to_owned(),
            line: 0,
            byte: 0,
            reason: format!(
                "is gone, and the segments name several stores, such as {} and {}; copy it back \
                 from a backup",
                first.store, other.header.store
            ),
        }),
    }
}

/// A folder that is a link would lead every reader and writer out of the store.
pub(crate) fn refuse_linked_folders(root: &Path) -> Result<()> {
    match FOLDERS.iter().map(|folder| root.join(folder)).find(|path| disk::is_link(path)) {
        Some(link) => Err(Error::io("open", &link)(io::Error::other(disk::LINK))),
        None => Ok(()),
    }
}

/// Fails if the folder is no longer the store that was opened.
pub(crate) fn check_still_there(root: &Path, id: StoreId) -> Result<()> {
    match read_store_file(root) {
        Ok(file) if file.store == id => Ok(()),
        Ok(_) | Err(Error::NotAStore { .. }) => Err(Error::StoreGone { path: root.to_owned() }),
        Err(error) => Err(error),
    }
}

/// The id of the store in this folder; none if it has no `store.json`.
pub(crate) fn id_of(root: &Path) -> Result<Option<StoreId>> {
    match read_store_file(root) {
        Err(Error::NotAStore { .. }) => Ok(None),
        file => Ok(Some(file?.store)),
    }
}

fn read_store_file(root: &Path) -> Result<StoreFile> {
    let path = root.join("store.json");
    let file = match disk::open(&path) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Err(Error::NotAStore { path: root.to_owned() });
        }
        file => file.map_err(Error::io("open", &path))?,
    };
    let mut bytes = Vec::new();
    file.take(STORE_FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
    let file: StoreFile = serde_json::from_slice(&bytes).map_err(|error| Error::Damaged {
        path: path.clone(),
        line: 0,
        byte: 0,
        reason: format!(
            "is not a store.json: {error}; copy it back from a backup, or remove it: the next \
             program that records here makes it again from its segments"
        ),
    })?;
    if file.format_version > FORMAT_VERSION {
        let (found, supported) = (file.format_version.into(), FORMAT_VERSION.into());
        return Err(Error::FormatVersion { path, found, supported });
    }
    Ok(file)
}
