//! All segments of a store, visited in turn.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tidelog::journal::{Cursor, Segment};
use tidelog::{SegmentId, Store, StoreId};

use crate::agent::Report;
use crate::breaker::Breaker;
use crate::error::SyncError;
use crate::follow::{Follower, Look};
use crate::gaps;
use crate::insert::Method;
use crate::listing;
use crate::memory::{Memory, NotKept, Sent};
use crate::progress::Progress;
use crate::replica::{Replica, SegmentRow};
use crate::ship::{Sealed, Shipped, Shipper, Visit};
use crate::state::{Notice, SegmentState};
use crate::wake::FolderTimes;

/// Told of each change.
type Tell<'a> = &'a mut dyn FnMut(&Notice);

/// What the agent knows of a store, across connections.
pub(crate) struct Pass {
    root: PathBuf,
    store_id: StoreId,
    followers: BTreeMap<SegmentId, Follower>,
    folders: FolderTimes,
    progress: Arc<Progress>,
    /// Files that were reported as no segments.
    refused: HashSet<PathBuf>,
    /// Of these, files that the system does not let us read.
    unreadable: Vec<PathBuf>,
    shipper: Shipper,
    pub(crate) memory: Memory,
}

impl Pass {
    pub(crate) fn new(store: &Store, method: Method) -> Self {
        Self {
            root: store.root().to_owned(),
            store_id: store.id(),
            followers: BTreeMap::new(),
            folders: FolderTimes::default(),
            progress: Arc::default(),
            refused: HashSet::new(),
            unreadable: Vec::new(),
            memory: Memory::default(),
            shipper: Shipper {
                method,
                report: Report::default(),
                breaker: Breaker::default(),
                until: None,
                touched: BTreeSet::new(),
                sealed: Vec::new(),
            },
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn store_id(&self) -> StoreId {
        self.store_id
    }

    /// Where the segments stand, for others to watch.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Transactions so far.
    pub(crate) fn batches(&self) -> u64 {
        self.shipper.report.batches
    }

    /// Sessions that were written to since their statistics were up to date.
    pub(crate) fn touched(&mut self) -> &mut BTreeSet<String> {
        &mut self.shipper.touched
    }

    pub(crate) fn report(&self) -> Report {
        let mut unreadable = self.unreadable.clone();
        unreadable.extend(self.paths(SegmentState::Unreadable));
        unreadable.sort();
        unreadable.dedup();
        Report {
            segments: self.followers.len(),
            unreadable,
            forked: self.paths(SegmentState::Forked).collect(),
            gaps: self.paths(SegmentState::Gap).collect(),
            ..self.shipper.report.clone()
        }
    }

    /// Files of the segments in this state.
    fn paths(&self, state: SegmentState) -> impl Iterator<Item = PathBuf> {
        let followers = self.followers.values().filter(move |follower| follower.state == state);
        followers.map(|follower| follower.segment.path.clone())
    }

    pub(crate) fn limit_poison(&mut self, lines: u32) {
        self.shipper.breaker = Breaker::new(lines);
    }

    /// Leaves what is not sent by then.
    pub(crate) fn give_up_at(&mut self, until: Option<Instant>) {
        self.shipper.until = until;
    }

    /// Learns from a new connection where every segment stands.
    pub(crate) fn connect(
        &mut self,
        replica: &mut Replica,
        tell: Tell<'_>,
    ) -> Result<(), SyncError> {
        let segments: Vec<&Segment> = self.followers.values().map(|f| &f.segment).collect();
        let rows = replica.register(&segments)?;
        let memory = &self.memory;
        for row in &rows {
            if let Some(follower) = self.followers.get_mut(&row.segment) {
                connect(follower, row, memory, tell);
            }
        }
        self.connect_tails(&rows);
        let followers = &self.followers;
        let is_there = |segment: &SegmentId| followers.contains_key(segment);
        // A tail is in its parent's file, or in that of another clone.
        let is_absent = |row: &&SegmentRow| row.parent.is_none() && !is_there(&row.segment);
        let absent: Vec<&SegmentRow> = rows.iter().filter(is_absent).collect();
        gaps::tell_of_absent(replica, &absent, is_there, &self.memory, &self.unreadable, tell)?;
        let sealed = absent.iter().filter(|row| row.sealed).map(|row| {
            let (lines, file_name) = (row.cursor.next_line, row.file_name.clone());
            (row.segment, Sent { lines, file_name })
        });
        tell_if_forgotten(self.memory.keep_sent(sealed), tell);
        self.progress.note(&self.followers);
        Ok(())
    }

    /// Tells followers which tails parted from their segments.
    fn connect_tails(&mut self, rows: &[SegmentRow]) {
        for row in rows {
            if let Some((parent, _)) = &row.parent
                && let Some(follower) = self.followers.get_mut(parent)
            {
                follower.tails.push(row.clone());
            }
        }
    }

    /// Writes down which segments are complete.
    fn seal(&mut self, replica: &mut Replica, tell: Tell<'_>) -> Result<(), SyncError> {
        let sealed = std::mem::take(&mut self.shipper.sealed);
        if sealed.is_empty() {
            return Ok(());
        }
        let cursors: Vec<(i32, Cursor)> = sealed.iter().map(|s| (s.segment_no, s.cursor)).collect();
        replica.seal(&cursors)?;
        let sent =
            |s: Sealed| (s.segment, Sent { lines: s.cursor.next_line, file_name: s.file_name });
        let whole = sealed.into_iter().filter(|sealed| !sealed.is_tail).map(sent);
        tell_if_forgotten(self.memory.keep_sent(whole), tell);
        Ok(())
    }

    /// Visits every segment once. What fails for one segment only is returned when the others had
    /// their turn.
    pub(crate) fn once_over(
        &mut self,
        replica: &mut Replica,
        tell: Tell<'_>,
    ) -> Result<Shipped, SyncError> {
        if self.folders.changed(&self.root) {
            self.discover(tell)?;
            self.register_new(replica, tell)?;
        }
        let mut shipped = Shipped::Everything;
        let mut first_failure = None;
        for (id, follower) in &mut self.followers {
            let Some(known) = follower.known.clone() else { continue };
            let mut visit = Visit { root: &self.root, follower, known, replica, notice: tell };
            let outcome = self.shipper.visit(&mut visit);
            let known = visit.known;
            follower.known = Some(known);
            self.progress.note([(id, &*follower)]);
            match outcome {
                Ok(Shipped::Part) => shipped = Shipped::Part,
                Ok(Shipped::Everything) => {}
                Err(error) if error.leaves_others() => {
                    first_failure = first_failure.or(Some(error))
                }
                Err(error) => return Err(error),
            }
        }
        self.seal(replica, tell)?;
        first_failure.map_or(Ok(shipped), Err)
    }

    /// Lists the files. A segment keeps its follower, also when its file was renamed.
    pub(crate) fn discover(&mut self, tell: Tell<'_>) -> Result<(), SyncError> {
        let is_read = |segment: &Segment| {
            let follower = self.followers.get(&segment.header.segment);
            follower.is_some_and(|follower| follower.segment.path == segment.path)
        };
        let listing = listing::list(&self.root, is_read)?;
        let at: HashMap<PathBuf, SegmentId> =
            listing.segments.iter().map(|s| (s.path.clone(), s.header.segment)).collect();
        for segment in listing.segments {
            let id = segment.header.segment;
            let bytes = segment.path.metadata().map_or(0, |found| found.len());
            let follower =
                self.followers.entry(id).or_insert_with(|| Follower::new(segment.clone()));
            follower.segment = segment;
            follower.bytes_seen = follower.bytes_seen.max(bytes);
        }
        for (id, follower) in &mut self.followers {
            follower.is_displaced = at.get(&follower.segment.path).is_some_and(|other| other != id);
        }
        let paths = listing.refused.iter().map(|file| file.path.clone());
        self.unreadable = paths.filter(|path| listing::is_unreadable(path)).collect();
        for file in listing.refused {
            if self.refused.insert(file.path.clone()) {
                tell(&Notice::Refused { path: file.path, reason: file.reason });
            }
        }
        Ok(())
    }

    /// Whether the files hold nothing that was not sent. Asks no database.
    pub(crate) fn is_at_rest(&self) -> bool {
        !self.folders.differ(&self.root)
            && self.followers.values().all(|follower| {
                let known = follower.known.as_ref();
                known.is_some_and(|known| {
                    known.stopped.is_some()
                        || !matches!(follower.look(&self.root, known), Ok(Look::Behind { .. }))
                })
            })
    }

    fn register_new(&mut self, replica: &mut Replica, tell: Tell<'_>) -> Result<(), SyncError> {
        let is_new = |follower: &&Follower| follower.known.is_none();
        let new: Vec<&Segment> =
            self.followers.values().filter(is_new).map(|follower| &follower.segment).collect();
        if new.is_empty() {
            return Ok(());
        }
        for row in replica.register(&new)? {
            if let Some(follower) = self.followers.get_mut(&row.segment)
                && follower.known.is_none()
            {
                connect(follower, &row, &self.memory, tell);
            }
        }
        Ok(())
    }
}

fn connect(follower: &mut Follower, row: &SegmentRow, memory: &Memory, tell: Tell<'_>) {
    if let Some((from_line, to_line)) = follower.connect(row) {
        let path = follower.segment.path.clone();
        tell(&Notice::Rewound { path, from_line, to_line });
    }
    // A clone of this machine may have sealed it, with as many bytes of its own.
    let is_remembered = !memory.is_kept() || memory.sent().contains_key(&row.segment);
    let is_proven = is_remembered || !follower.is_unread();
    if let Some(known) = &mut follower.known {
        known.is_proven = is_proven;
    }
}

/// What is not remembered is told, and stops nothing.
pub(crate) fn tell_if_forgotten(kept: Result<(), NotKept>, tell: Tell<'_>) {
    if let Err(NotKept { folder, reason }) = kept {
        tell(&Notice::Forgetful { folder, reason });
    }
}
