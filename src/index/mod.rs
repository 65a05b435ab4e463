//! How is it found fast?
//!
//! The **index** is SQLite in `index.sqlite`: the tables and views that a person queries. It is a
//! **follower** of the journal: [`follow`] reads each segment on from its **cursor** in batches,
//! and [`apply`] turns a few into rows and moves the cursor, in one transaction. So a
//! **rebuild** is reading from the first line again, and gives the same rows.
//!
//! The files are the truth. An index of another version or a broken one is thrown away and rebuilt;
//! nothing is ever migrated. So is one that has read other bytes than lie before a cursor: this is
//! looked at when a file's length changes, and a file of the length that was read is not even opened
//! ([`targets`]). Rows of a segment whose file is gone stay until the next rebuild. Recording never touches the index;
//! every query lets it catch up first. Any number of processes may do so at the same time: each
//! batch is applied by whichever is first, and the others go on behind it.
//!
//! On a network file system the processes come to terms by locks instead of shared memory
//! ([`connection`]), so there readers and writers wait for each other.
//!
//! The result does not depend on the order in which segments are read: sessions are folded from
//! their parts ([`sessions`]), and of two facts about one checkpoint the newer wins
//! ([`checkpoints`]). Rows never hold what SQLite would change ([`columns`]).

mod apply;
mod batches;
mod bulk;
mod checkpoints;
pub(crate) mod columns;
mod connection;
mod follow;
pub(crate) mod rebuild;
mod records;
mod sessions;
mod targets;

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::disk;
use crate::error::{Error, Result};
use crate::ids::StoreId;
use connection::Sharing;

pub(crate) use batches::first_crc;
pub(crate) use connection::{is_full, open_to_look};
pub use follow::Progress;
pub(crate) use follow::cursor as read_cursor;

/// A connection to the index of one store.
#[derive(Debug)]
pub(crate) struct Index {
    db: Connection,
    path: PathBuf,
    root: PathBuf,
    store: StoreId,
    sharing: Sharing,
}

/// What there is of an index, before anybody brings it up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Missing,
    /// Of another version, another store or another program.
    Other,
    Behind {
        /// Of the journal, that it has not read.
        bytes: u64,
    },
}

impl Index {
    /// Looks at the store's index and leaves it as it is.
    pub(crate) fn state(root: &Path, store: StoreId) -> Result<State> {
        let path = root.join("index.sqlite");
        if !disk::is_file(&path) {
            return Ok(State::Missing);
        }
        let failed = |source| Error::Index { path: path.clone(), source };
        let db = open_to_look(&path).map_err(failed)?;
        if !rebuild::is_current(&db, &store).map_err(failed)? {
            return Ok(State::Other);
        }
        let index = Self { db, path, root: root.into(), store, sharing: Sharing::Private };
        let targets = index.targets()?;
        let bytes = targets.bytes_total().saturating_sub(targets.bytes_done());
        Ok(State::Behind { bytes })
    }

    /// The index with everything in it that was written before the call.
    pub(crate) fn caught_up(
        root: &Path,
        store: StoreId,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self> {
        let mut sharing = Sharing::on(root);
        loop {
            match Self::caught_up_by(sharing, root, store, progress) {
                Err(error) => sharing = sharing.instead(&error).ok_or(error)?,
                caught_up => return caught_up,
            }
        }
    }

    fn caught_up_by(
        sharing: Sharing,
        root: &Path,
        store: StoreId,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self> {
        let mut index = Self::open(root, store, sharing)?;
        match index.catch_up(progress) {
            Err(Error::Index { source, .. }) if connection::is_broken(&source) => {
                // the damage was not in the pages that opening it reads
                index.start_over()?;
                index.catch_up(progress)?;
            }
            result => result?,
        }
        Ok(index)
    }

    /// Reads the whole journal again.
    pub(crate) fn rebuild(
        root: &Path,
        store: StoreId,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let mut index = Self::open(root, store, Sharing::on(root))?;
        if index.sharing.is_private() {
            disk::check_locks(&root.join("store.json"))?;
            let denied = std::io::ErrorKind::PermissionDenied.into();
            return Err(Error::io("write", &index.path)(denied));
        }
        index.start_over()?;
        index.catch_up(progress)
    }

    fn start_over(&mut self) -> Result<()> {
        match rebuild::start_over(&mut self.db, &self.store) {
            Err(error) if connection::is_broken(&error) => {
                // not even its tables can be dropped
                connection::empty_broken(&self.db).map_err(self.failed())?;
                *self = Self::open(&self.root, self.store, self.sharing)?;
                Ok(())
            }
            result => result.map_err(self.failed()),
        }
    }

    /// For queries of this library, which only read.
    pub(crate) fn db(&self) -> &Connection {
        &self.db
    }

    /// The same index as it is now, on a connection that cannot write: what others add later is not
    /// seen, and statements of a user change nothing.
    pub(crate) fn pinned(mut self) -> Result<Self> {
        if !self.sharing.is_private() {
            self.db =
                connection::open_read_only(&self.path, self.sharing).map_err(self.failed())?;
        }
        // the transaction begins with its first read
        let begin = "BEGIN; SELECT count(*) FROM index_meta";
        self.db.execute_batch(begin).map_err(self.failed())?;
        Ok(self)
    }

    /// Names the file that an error of SQLite is about.
    pub(crate) fn failed(&self) -> impl FnOnce(rusqlite::Error) -> Error + use<> {
        let path = self.path.clone();
        move |source| Error::Index { path, source }
    }
}
