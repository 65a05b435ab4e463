//! Checkpoint files on their way into the database, so that a store can be restored from it alone.
//!
//! The journal goes first: files are sent while it is caught up, a slice at a time, and never in the
//! transaction of a batch. What is left to send is computed from the database, as cursors are: a
//! checkpoint that is present and whose file is not complete there. So a crash, a second agent and a
//! restored backup need nothing of their own. One piece of a file is one transaction; whoever is
//! stopped in the middle goes on behind the last piece.
//!
//! What is sent is what the journal names: a file with another hash is told, and never complete.

mod file;
mod table;

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::SyncError;
use crate::replica::Replica;
use crate::state::Notice;
use file::{Sending, Sent};
use table::Wanted;

pub(crate) use table::MissingFiles;

/// Which checkpoint files are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobPolicy {
    /// None.
    Never,
    /// Those of at most so many bytes; larger ones are named by [`status`](crate::status()).
    UpTo {
        /// The limit.
        bytes_max: u64,
    },
}

impl Default for BlobPolicy {
    /// Files of at most 1 GiB.
    fn default() -> Self {
        Self::UpTo { bytes_max: 1 << 30 }
    }
}

/// How long new lines of the journal wait for files at most; one piece is always sent.
const SLICE: Duration = Duration::from_millis(20);
/// The shortest pause between two looks for new files.
const LOOK_PAUSE: Duration = Duration::from_secs(5);
/// After how long a file that could not be sent is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(600);

/// Sends the checkpoint files of one store.
#[derive(Debug, Default)]
pub(crate) struct Blobs {
    policy: BlobPolicy,
    wanted: VecDeque<Wanted>,
    sending: Option<Sending>,
    looked: Option<Looked>,
    /// Files that became complete.
    completed: u64,
}

/// The last look for files to send on this connection.
#[derive(Debug, Clone, Copy)]
struct Looked {
    at: Instant,
    /// Batches that were applied before it.
    batches: u64,
    /// It found nothing to send.
    is_done: bool,
}

impl Blobs {
    pub(crate) fn new(policy: BlobPolicy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// Files that became complete.
    pub(crate) fn completed(&self) -> u64 {
        self.completed
    }

    /// On a new connection everything is looked at anew: the database may be another one.
    pub(crate) fn reconnected(&mut self) {
        *self = Self { completed: self.completed, ..Self::new(self.policy) };
    }

    /// Sends files for a moment; whether there are more to send right now. `batches` counts those
    /// that were applied so far: without new ones there is nothing new to look for.
    ///
    /// # Errors
    /// The database failed. A file that cannot be sent is no error: it is told, and noted there.
    pub(crate) fn slice(
        &mut self,
        root: &Path,
        replica: &mut Replica,
        batches: u64,
        tell: &mut dyn FnMut(&Notice),
    ) -> Result<bool, SyncError> {
        let BlobPolicy::UpTo { bytes_max } = self.policy else { return Ok(false) };
        let start = Instant::now();
        while start.elapsed() < SLICE {
            if self.sending.is_none() && self.wanted.is_empty() {
                if !self.is_due(batches) {
                    return Ok(false);
                }
                self.look(replica, bytes_max, batches)?;
            }
            self.step(root, replica, tell)?;
        }
        Ok(self.sending.is_some() || !self.wanted.is_empty() || self.is_due(batches))
    }

    fn is_due(&self, batches: u64) -> bool {
        match &self.looked {
            None => true,
            Some(looked) if !looked.is_done => true,
            Some(looked) if looked.batches != batches => looked.at.elapsed() >= LOOK_PAUSE,
            Some(looked) => looked.at.elapsed() >= RETRY_PAUSE,
        }
    }

    fn look(
        &mut self,
        replica: &mut Replica,
        bytes_max: u64,
        batches: u64,
    ) -> Result<(), SyncError> {
        // The first look of a connection tries everything.
        let retry_after = self.looked.map_or(Duration::ZERO, |_| RETRY_PAUSE);
        self.wanted = table::wanted(replica, bytes_max, retry_after)?.into();
        let is_done = self.wanted.is_empty();
        self.looked = Some(Looked { at: Instant::now(), batches, is_done });
        Ok(())
    }

    /// One piece of the file at hand, or the beginning of the next one.
    fn step(
        &mut self,
        root: &Path,
        replica: &mut Replica,
        tell: &mut dyn FnMut(&Notice),
    ) -> Result<(), SyncError> {
        let Some(mut sending) = self.sending.take() else { return self.begin(root, replica, tell) };
        match sending.next_piece(replica) {
            Ok(Sent::Piece) => self.sending = Some(sending),
            Ok(Sent::Complete) => self.completed += 1,
            Ok(Sent::Anew) => self.wanted.push_front(sending.wanted),
            // Another agent sends it, or it was deleted: the next look tells.
            Ok(Sent::Elsewhere) => self.leave_for_now(),
            Err(SyncError::Store(error)) => {
                refuse(replica, &sending.wanted, error.to_string(), tell)?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn begin(
        &mut self,
        root: &Path,
        replica: &mut Replica,
        tell: &mut dyn FnMut(&Notice),
    ) -> Result<(), SyncError> {
        let Some(wanted) = self.wanted.pop_front() else { return Ok(()) };
        match Sending::begin(root, replica, wanted.clone()) {
            Ok(sending) => self.sending = sending,
            Err(SyncError::Store(error)) => refuse(replica, &wanted, error.to_string(), tell)?,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn leave_for_now(&mut self) {
        self.wanted.clear();
        if let Some(looked) = &mut self.looked {
            // No number of batches: the next look is soon.
            *looked = Looked { is_done: true, batches: u64::MAX, ..*looked };
        }
    }
}

/// Tells, and writes down for whoever looks at the database, that a file is not sent.
fn refuse(
    replica: &mut Replica,
    wanted: &Wanted,
    reason: String,
    tell: &mut dyn FnMut(&Notice),
) -> Result<(), SyncError> {
    table::note_problem(replica, wanted, reason.clone())?;
    tell(&Notice::CheckpointFile { reason });
    Ok(())
}
