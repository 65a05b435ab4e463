//! What is removed on purpose.

use crate::checkpoint;
use crate::disk;
use crate::entry::{Action, Body, CheckpointAction};
use crate::error::Result;
use crate::ids::CheckpointId;
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
}
