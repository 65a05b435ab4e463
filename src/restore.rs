//! A store's files made again, from what another place kept of them.
//!
//! Nothing is overwritten. A file that is there already and holds the same counts as restored, so a
//! restore that was killed goes on when it is called again; one that holds anything else is an error.
//!
//! Order on disk: each file under a temporary name, persisted, then its own name, then its folder;
//! `store.json` comes last. Until then the folder is no store, and nobody follows half of one.

use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::checkpoint;
use crate::disk::{self, NewFile};
use crate::emergency;
use crate::entry::line;
use crate::entry::{Body, Entry};
use crate::error::{Error, Result};
use crate::hex::hex;
use crate::ids::{SegmentId, SessionId, StoreId};
use crate::journal::marker::HeldMarker;
use crate::journal::{self, Cursor, SegmentReader, discover};
use crate::store;
use crate::timestamp::Timestamp;

/// A store that is being restored.
#[derive(Debug)]
pub struct Restore {
    root: PathBuf,
    store: StoreId,
}

/// A segment as somebody else knows it.
#[derive(Debug, Clone)]
pub struct SegmentPlace {
    /// Its id, which the header line must name.
    pub segment: SegmentId,
    /// The session it belongs to; none for the store's own journal.
    pub session: Option<SessionId>,
    /// The name it had, without folders.
    pub file_name: String,
    /// The place behind its last line.
    pub end: Cursor,
}

/// A file that is being restored. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct SegmentFile {
    file: NewFile,
    path: PathBuf,
    cursor: Cursor,
}

/// As [`SegmentFile`].
#[derive(Debug)]
pub struct CheckpointFile {
    file: NewFile,
    path: PathBuf,
    size_bytes: u64,
    sha256: String,
    written_bytes: u64,
    hasher: Sha256,
}

impl Restore {
    /// Begins in this folder, which is made if it is missing.
    ///
    /// # Errors
    /// The folder is another store, or cannot be written.
    pub fn begin(root: &Path, store: StoreId) -> Result<Self> {
        let root = std::path::absolute(root).map_err(Error::io("find", root))?;
        if let Some(found) = store::id_of(&root)?.filter(|found| *found != store) {
            let path = root.join("store.json");
            return Err(Error::InTheWay {
                path,
                reason: format!("says that this is store {found}"),
            });
        }
        disk::create_folder(&root)?;
        store::refuse_linked_folders(&root)?;
        Ok(Self { root, store })
    }

    /// Begins the file of a segment; `None` if it is there already, up to its `end` at least.
    ///
    /// The name of another segment's file gets this segment's id.
    ///
    /// # Errors
    /// The name is no plain name of a segment, or the folder cannot be written.
    pub fn segment(&self, place: &SegmentPlace) -> Result<Option<SegmentFile>> {
        let path = self.path_of(place)?;
        if path.exists() && holds(&path, &place.end)? {
            return Ok(None);
        }
        path.parent().map_or(Ok(()), disk::create_folder)?;
        Ok(Some(SegmentFile { file: NewFile::begin(&path)?, path, cursor: Cursor::START }))
    }

    fn path_of(&self, place: &SegmentPlace) -> Result<PathBuf> {
        let name = &place.file_name;
        let is_plain = Path::new(name).file_name().is_some_and(|plain| plain == name.as_str());
        if !is_plain || !name.ends_with(".jsonl") || name.contains('\0') {
            let reason = format!("{name:?} is no plain name that ends with .jsonl");
            return Err(Error::InvalidValue { what: "name of a segment", reason });
        }
        let folder = match place.session {
            Some(_) => journal::telemetry_folder(&self.root),
            None => journal::store_folder(&self.root),
        };
        let mut path = folder.join(name);
        if let Ok(Some(header)) = journal::read_header(&path)
            && header.segment != place.segment
        {
            path.set_extension(format!("{}.jsonl", place.segment));
        }
        Ok(path)
    }

    /// Says of a restored segment that its writer never ended it: the next opening of the store for
    /// writing seals it as that of a dead writer. Nothing is said in a folder that is a store already.
    ///
    /// # Errors
    /// The marker cannot be written.
    pub fn mark_unended(&self, place: &SegmentPlace) -> Result<()> {
        let marker = self.root.join("active").join(format!("{}.json", place.segment));
        if marker.exists() || store::id_of(&self.root)?.is_some() {
            return Ok(());
        }
        let path = self.path_of(place)?;
        let Ok(Some(header)) = journal::read_header(&path) else { return Ok(()) };
        let file = path.strip_prefix(&self.root).unwrap_or(&path).to_string_lossy().into_owned();
        HeldMarker::create(&self.root, &header, file).map(drop)
    }

    /// Writes the copy of an emergency event, if this is the line of one. A copy that is there stays.
    ///
    /// # Errors
    /// The copy cannot be written.
    pub fn emergency_copy(&self, place: &SegmentPlace, line_no: u32, line: &[u8]) -> Result<()> {
        let Ok(Entry { timestamp, body: Body::Emergency(mut event) }) = line::read(line) else {
            return Ok(());
        };
        let id = event.event_id.clone();
        event.session_id = event.session_id.or_else(|| place.session.clone());
        let entry = Entry { timestamp, body: Body::Emergency(event) };
        let name = format!("{}-{line_no}", place.segment.short());
        emergency::write_copy_once(&self.root, &id, &entry, &name)
    }

    /// Begins the file of a checkpoint; `None` if it is there already.
    ///
    /// # Errors
    /// Another file has its name, or the name leads out of the folder.
    pub fn checkpoint(
        &self,
        file: &str,
        size_bytes: u64,
        sha256: &str,
    ) -> Result<Option<CheckpointFile>> {
        let path = checkpoint::path_of(&self.root, file)?;
        if path.exists() {
            return match checkpoint::size_and_hash(&path)? {
                (size, hash) if size == size_bytes && hash == sha256 => Ok(None),
                (_, hash) => {
                    let reason = format!("has SHA-256 {hash}, not {sha256}");
                    Err(Error::InTheWay { path, reason })
                }
            };
        }
        path.parent().map_or(Ok(()), disk::create_folder)?;
        Ok(Some(CheckpointFile {
            file: NewFile::begin(&path)?,
            path,
            size_bytes,
            sha256: sha256.to_owned(),
            written_bytes: 0,
            hasher: Sha256::new(),
        }))
    }

    /// Makes the folder a store. Persisted on return.
    ///
    /// # Errors
    /// `store.json` cannot be written.
    pub fn finish(self) -> Result<()> {
        let oldest = discover(&self.root)?.segments.into_iter().next();
        let created_at = oldest.map_or_else(Timestamp::now, |segment| segment.header.created_at);
        store::write_store_file(&self.root.join("store.json"), self.store, created_at)
    }
}

impl SegmentFile {
    /// Appends a line, given without its newline.
    ///
    /// # Errors
    /// The disk refused it.
    pub fn write(&mut self, line: &[u8]) -> Result<()> {
        let line = [line, b"\n"].concat();
        self.file.writer().write_all(&line).map_err(Error::io("write", &self.path))?;
        self.cursor = self.cursor.after(&line);
        Ok(())
    }

    /// The place behind the last line.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Gives the file its name, persisted on return; `false` if it is there already.
    ///
    /// # Errors
    /// Another file has the name.
    pub fn finish(self) -> Result<bool> {
        let Self { file, path, cursor } = self;
        if file.finish()?.is_none() {
            return Ok(true);
        }
        match holds(&path, &cursor)? {
            true => Ok(false),
            false => Err(Error::InTheWay { path, reason: "holds other lines".to_owned() }),
        }
    }
}

/// Whether a file begins with exactly the lines before `end`.
fn holds(path: &Path, end: &Cursor) -> Result<bool> {
    Ok(SegmentReader::chain_at(path, end.next_line)?.as_ref() == Some(end))
}

impl CheckpointFile {
    /// Appends bytes.
    ///
    /// # Errors
    /// The disk refused them.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.writer().write_all(bytes).map_err(Error::io("write", &self.path))?;
        self.hasher.update(bytes);
        self.written_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Gives the file its name if it is the one that the journal names. Persisted on return.
    ///
    /// # Errors
    /// Size or SHA-256 are others, after which nothing is left of it; or the disk failed.
    pub fn finish(self) -> Result<()> {
        let Self { file, path, .. } = self;
        let found = hex(&self.hasher.finalize());
        if self.written_bytes != self.size_bytes || found != self.sha256 {
            let reason = format!(
                "would have {} bytes of SHA-256 {found}, the journal says {} of {}",
                self.written_bytes, self.size_bytes, self.sha256
            );
            return Err(Error::CheckpointDamaged { path, reason });
        }
        match file.finish()? {
            None => Ok(()),
            Some(_) => {
                Err(Error::InTheWay { path, reason: "was written by somebody else".to_owned() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{Outcome, Store, Telemetry};

    const LINES: [&[u8]; 3] = [b"{\"header\":1}", b"one", b"two"];

    fn place(name: &str) -> SegmentPlace {
        let end =
            LINES.iter().fold(Cursor::START, |at, line| at.after(&[line, &b"\n"[..]].concat()));
        let session = Some(SessionId::new("s").unwrap());
        SegmentPlace { segment: SegmentId::random(), session, file_name: name.into(), end }
    }

    fn begin() -> (tempfile::TempDir, Restore) {
        let folder = tempfile::tempdir().unwrap();
        let restore = Restore::begin(&folder.path().join("store"), StoreId::random()).unwrap();
        (folder, restore)
    }

    fn write(restore: &Restore, place: &SegmentPlace) -> Result<bool> {
        let Some(mut file) = restore.segment(place)? else { return Ok(false) };
        LINES.iter().try_for_each(|line| file.write(line))?;
        assert_eq!(file.cursor(), place.end);
        file.finish()
    }

    #[test]
    fn a_segment_is_written_once() {
        let (_folder, restore) = begin();
        let place = place("session_s.jsonl");
        assert!(write(&restore, &place).unwrap());
        assert!(!write(&restore, &place).unwrap());
        let path = restore.root.join("logs/telemetry/session_s.jsonl");
        assert_eq!(fs::read(&path).unwrap(), b"{\"header\":1}\none\ntwo\n");
        // Its writer went on.
        fs::write(&path, b"{\"header\":1}\none\ntwo\nthree\n").unwrap();
        assert!(!write(&restore, &place).unwrap());
    }

    #[test]
    fn a_file_with_other_lines_stays_and_is_named() {
        let (_folder, restore) = begin();
        let path = restore.root.join("logs/telemetry/session_s.jsonl");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, b"mine\n").unwrap();
        let error = write(&restore, &place("session_s.jsonl")).unwrap_err().to_string();
        assert!(error.contains("session_s.jsonl is there already"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"mine\n");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_name_cannot_lead_out_of_the_store() {
        let (_folder, restore) = begin();
        for name in ["../a.jsonl", "/a.jsonl", "a/b.jsonl", "..", "", "store.json", ".jsonl/"] {
            assert!(restore.segment(&place(name)).is_err(), "{name}");
            assert!(restore.checkpoint(&format!("../{name}"), 0, "").is_err(), "{name}");
        }
    }

    #[test]
    fn another_segment_of_the_same_name_is_put_beside() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let session = store.start_session(SessionId::new("s").unwrap()).unwrap();
        session.record_telemetry(1, &Telemetry::default()).unwrap();
        session.end(Outcome::Completed).unwrap();
        let restore = Restore::begin(folder.path(), store.id()).unwrap();
        let place = place("session_s.jsonl");
        assert!(write(&restore, &place).unwrap());
        assert!(!write(&restore, &place).unwrap());
        assert_eq!(fs::read_dir(folder.path().join("logs/telemetry")).unwrap().count(), 2);
    }

    #[test]
    fn a_checkpoint_file_of_another_hash_leaves_nothing() {
        let (_folder, restore) = begin();
        let sha256 = hex(&Sha256::digest(b"good"));
        for (bytes, is_good) in [(&b"evil"[..], false), (b"goo", false), (b"good", true)] {
            let mut file = restore.checkpoint("c.npz", 4, &sha256).unwrap().unwrap();
            file.write(bytes).unwrap();
            assert_eq!(file.finish().is_ok(), is_good);
            let left = fs::read_dir(restore.root.join("checkpoints")).unwrap().count();
            assert_eq!(left, usize::from(is_good));
        }
        assert!(restore.checkpoint("c.npz", 4, &sha256).unwrap().is_none());
        assert!(restore.checkpoint("c.npz", 4, "00").is_err());
    }

    #[test]
    fn a_folder_that_is_another_store_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let error = Restore::begin(folder.path(), StoreId::random()).unwrap_err().to_string();
        assert!(error.contains(&format!("this is store {}", store.id())), "{error}");
        Restore::begin(folder.path(), store.id()).unwrap().finish().unwrap();
        assert_eq!(Store::open(folder.path()).unwrap().id(), store.id());
    }
}
