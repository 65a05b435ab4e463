//! Where each segment of a store stands, for whoever watches an agent at work.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidelog::SegmentId;
use tidelog::journal::Cursor;

use crate::follow::Follower;
use crate::state::SegmentState;

/// The segments of a store as its agent knows them.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<BTreeMap<SegmentId, Standing>>);

/// Where a segment stands.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) path: PathBuf,
    /// Everything before it is in the replica; none before the first connection.
    pub(crate) cursor: Option<Cursor>,
    pub(crate) state: SegmentState,
}

impl Progress {
    /// Takes over what is known of some segments.
    pub(crate) fn note<'a>(
        &self,
        followers: impl IntoIterator<Item = (&'a SegmentId, &'a Follower)>,
    ) {
        let mut standings = self.lock();
        for (id, follower) in followers {
            standings.insert(*id, Standing::of(follower));
        }
    }

    /// As it is now.
    pub(crate) fn standings(&self) -> BTreeMap<SegmentId, Standing> {
        self.lock().clone()
    }

    /// Each write is one step, so a thread that panicked left nothing half done.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SegmentId, Standing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    fn of(follower: &Follower) -> Self {
        Self {
            path: follower.segment.path.clone(),
            cursor: follower.known.as_ref().map(|known| known.cursor),
            state: follower.state,
        }
    }
}
