//! What is removed on purpose.
//!
//! A deletion is an entry. Segments are never changed, so the lines of a deleted session stay in their
//! files, where nobody shows them: index and replica pass over every line of it, whenever and from
//! wherever they read it. For as long as there are such lines, the segment with the deletion must stay.

use crate::checkpoint;
use crate::disk;
use crate::entry::{Action, Body, CheckpointAction};
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, SessionId};
use crate::journal::is_deleted;
use crate::journal::marker::{self, Seen};
use crate::store::Store;
use crate::timestamp::Timestamp;

impl Store {
    /// Removes a checkpoint's file and journals it; the journal and the tables keep what is known
    /// of the checkpoint. Pruning a pruned one does no harm.
    ///
    /// The journal comes first: a crash in between leaves a file that no present checkpoint owns,
    /// and pruning again removes it. On return both are persisted.
    ///
    /// # Errors
    /// [`Error::CheckpointUnknown`](crate::Error::CheckpointUnknown), the store is open for
    /// reading only, or the journal or the file cannot be written.
    pub fn prune_checkpoint(&self, id: &CheckpointId) -> Result<()> {
        self.persister()?;
        let checkpoint = self.get_checkpoint(id)?;
        let path = checkpoint::path_of(self.root(), &checkpoint.file)?;
        // again where an earlier try did not get to the end: its entry may not be persisted
        if !checkpoint.is_pruned() || disk::is_file(&path) {
            // never before the creation, though the clock went back: the newer fact counts
            let timestamp = Timestamp::now().max(checkpoint.created_at);
            let (checkpoint_id, action) = (id.clone(), Action::Pruned);
            let pruned = CheckpointAction { checkpoint_id, action, details: None };
            self.append_at(timestamp, Body::Checkpoint(pruned))?;
        }
        disk::remove(&path)
    }

    /// Deletes a session: no query shows anything of it any more, here, after a rebuild, or in a
    /// replica. The files of its checkpoints are removed; its segments stay as they are, and so do
    /// the copies of its emergency events. Its id is used up, here and in every replica of this store.
    /// Deleting a deleted one does no harm.
    ///
    /// The files go first, each after an entry of its own: a crash in between leaves a session with
    /// pruned checkpoints, and deleting again ends it. On return everything is persisted.
    ///
    /// Do not delete a session while another process starts it: what that one writes may be hidden.
    ///
    /// # Errors
    /// [`Error::SessionUnknown`]; [`Error::SessionLive`] while it is written, by whatever process;
    /// the store is open for reading only, or the journal or a file cannot be written.
    pub fn delete_session(&self, id: &SessionId) -> Result<()> {
        self.persister()?;
        if is_deleted(self.root(), id)? {
            return Ok(());
        }
        self.get_session_stats(id)?;
        self.check_not_live(id)?;
        for checkpoint in self.list_checkpoints(usize::MAX)? {
            if checkpoint.session_id.as_ref() == Some(id) {
                self.prune_checkpoint(&checkpoint.checkpoint_id)?;
            }
        }
        self.append(Body::SessionDeleted { session_id: id.clone() })
    }

    fn check_not_live(&self, id: &SessionId) -> Result<()> {
        for seen in marker::look(self.root())?.seen {
            if let Seen::Live(marker) = seen
                && marker.session.as_ref() == Some(id)
            {
                let (pid, host) = (marker.writer.pid, marker.writer.host);
                return Err(Error::SessionLive { id: id.clone(), pid, host });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::NewCheckpoint;
    use crate::entry::Outcome;
    use crate::telemetry::Telemetry;
    use crate::value::Value;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    fn id() -> SessionId {
        SessionId::new("run-7").unwrap()
    }

    fn record(store: &Store) -> CheckpointId {
        let session = store.start_session(id()).unwrap();
        session.record_telemetry(1, &Telemetry::default()).unwrap();
        let saved = session.save_checkpoint(NewCheckpoint::new(Value::Dict(Vec::new()), 0.5));
        session.end(Outcome::Completed).unwrap();
        saved.unwrap()
    }

    #[test]
    fn a_deleted_session_is_hidden_and_stays_so_after_a_rebuild() {
        let (folder, store) = store();
        let checkpoint = record(&store);
        store.delete_session(&id()).unwrap();
        store.delete_session(&id()).unwrap();
        for _ in 0..2 {
            assert!(store.sessions().unwrap().is_empty());
            assert!(store.get_checkpoint(&checkpoint).is_err());
            store.rebuild_index(&mut |_| {}).unwrap();
        }
        let left = std::fs::read_dir(folder.path().join("checkpoints")).unwrap().count();
        assert_eq!(left, 0);
        assert!(
            Store::open(folder.path()).unwrap().verify(&mut |_| {}).unwrap().findings.is_empty()
        );
    }

    #[test]
    fn a_session_that_is_written_is_not_deleted() {
        let (_folder, store) = store();
        let session = store.start_session(id()).unwrap();
        let error = store.delete_session(&id()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        session.end(Outcome::Completed).unwrap();
        store.delete_session(&id()).unwrap();
    }

    #[test]
    fn the_id_of_a_deleted_session_is_used_up() {
        let (folder, store) = store();
        record(&store);
        store.delete_session(&id()).unwrap();
        for store in [store, Store::open(folder.path()).unwrap()] {
            let error = store.start_session(id()).unwrap_err();
            assert!(matches!(error, Error::SessionDeleted { .. }), "{error}");
        }
    }

    #[test]
    fn a_session_that_is_not_there_is_not_deleted() {
        let (_folder, store) = store();
        let error = store.delete_session(&id()).unwrap_err();
        assert!(matches!(error, Error::SessionUnknown { .. }), "{error}");
    }
}
