//! Statistics of sessions and the ranking of checkpoints, outside the transactions of batches.
//!
//! What is out of date is computed from the database. So a crash between a batch and its statistics
//! leaves nothing behind that the next full look would not find.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::error::SyncError;
use crate::replica::Replica;
use crate::sqlstate::Class;

/// The shortest pause between two refreshes.
const PAUSE_MIN: Duration = Duration::from_secs(5);
/// A refresh takes at most this part of the time: one in …
const TIME_SHARE: u32 = 10;
/// How long one statement may take when nothing waits for it.
const LIMIT: Duration = Duration::from_secs(600);
/// How long one statement may take at first while lines wait, doubled when it was too short.
const BRIEF: Duration = Duration::from_secs(2);
const BRIEF_MAX: Duration = Duration::from_secs(30);

/// Batches after which their records are merged again.
const MERGE_BATCHES: u64 = 1000;

/// Refreshes between batches.
#[derive(Debug)]
pub(crate) struct Refresh {
    due: Instant,
    /// Number of batches at the last complete refresh; none before the first, which looks at every
    /// session. Later ones look at those that this agent wrote to.
    batches: Option<u64>,
    /// Number of batches when their records were merged last.
    merged: u64,
    limit: Duration,
}

impl Default for Refresh {
    fn default() -> Self {
        Self { due: Instant::now(), batches: None, merged: 0, limit: BRIEF }
    }
}

/// Brings everything up to date, however long it takes.
pub(crate) fn all(replica: &mut Replica) -> Result<(), SyncError> {
    replica.refresh_rankings(LIMIT)?;
    replica.merge_batches(LIMIT)?;
    for stale in replica.stale_sessions(None, LIMIT)? {
        replica.refresh_session(stale, LIMIT)?;
    }
    Ok(())
}

impl Refresh {
    /// Brings up to date what it can in short time, if batches were applied since and the last time
    /// is long ago. `touched` holds the sessions that were written to since it was complete.
    pub(crate) fn if_due(
        &mut self,
        replica: &mut Replica,
        batches: u64,
        touched: &mut BTreeSet<String>,
    ) -> Result<(), SyncError> {
        let start = Instant::now();
        if self.batches == Some(batches) || start < self.due {
            return Ok(());
        }
        let outcome = self.brief(replica, touched).and_then(|is_complete| {
            self.merge(replica, batches)?;
            Ok(is_complete)
        });
        self.due = start + PAUSE_MIN.max(start.elapsed() * TIME_SHARE);
        match outcome {
            Ok(true) => {
                touched.clear();
                self.batches = Some(batches);
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) if error.class() == Some(Class::Retry) => {
                self.limit = BRIEF_MAX.min(self.limit * 2);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps the records of batches few while an agent runs for long.
    fn merge(&mut self, replica: &mut Replica, batches: u64) -> Result<(), SyncError> {
        if batches.saturating_sub(self.merged) >= MERGE_BATCHES {
            replica.merge_batches(self.limit)?;
            self.merged = batches;
        }
        Ok(())
    }

    /// Brings up to date what it can in short time; whether that was everything.
    pub(crate) fn brief(
        &self,
        replica: &mut Replica,
        touched: &BTreeSet<String>,
    ) -> Result<bool, SyncError> {
        let start = Instant::now();
        replica.refresh_rankings(self.limit)?;
        let only = self.batches.map(|_| touched.iter().cloned().collect());
        for stale in replica.stale_sessions(only, self.limit)? {
            if start.elapsed() > self.limit {
                return Ok(false);
            }
            replica.refresh_session(stale, self.limit)?;
        }
        Ok(true)
    }
}
