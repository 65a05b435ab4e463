//! Statistics of sessions and the ranking of checkpoints, outside the transactions of batches.
//!
//! What is out of date is computed from the database. So a crash between a batch and its statistics
//! leaves nothing behind that the next look would not find.

use std::time::{Duration, Instant};

use crate::error::SyncError;
use crate::replica::Replica;

/// The shortest pause between two refreshes.
const PAUSE_MIN: Duration = Duration::from_secs(5);
/// A refresh takes at most this part of the time: one in …
const TIME_SHARE: u32 = 10;

/// When the next refresh may be.
#[derive(Debug)]
pub(crate) struct Refresh {
    due: Instant,
    /// Number of batches at the last refresh; none before the first.
    batches: Option<u64>,
}

impl Default for Refresh {
    fn default() -> Self {
        Self { due: Instant::now(), batches: None }
    }
}

impl Refresh {
    /// Brings everything up to date.
    pub(crate) fn all(&mut self, replica: &mut Replica) -> Result<(), SyncError> {
        for stale in replica.stale_sessions()? {
            replica.refresh_session(stale)?;
        }
        replica.refresh_rankings()?;
        Ok(())
    }

    /// Brings everything up to date if batches were applied since, and the last time is long ago.
    pub(crate) fn if_due(&mut self, replica: &mut Replica, batches: u64) -> Result<(), SyncError> {
        let start = Instant::now();
        if self.batches == Some(batches) || start < self.due {
            return Ok(());
        }
        self.all(replica)?;
        self.batches = Some(batches);
        self.due = start + PAUSE_MIN.max(start.elapsed() * TIME_SHARE);
        Ok(())
    }
}
