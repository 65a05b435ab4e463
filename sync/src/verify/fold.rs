//! What lines of several segments say together: checkpoints, parts of sessions, tombstones.
//!
//! Of a checkpoint only its newest creation's place and digest are kept, so memory grows with the number
//! of checkpoints and sessions, not with that of records.

use std::collections::{BTreeMap, BTreeSet};

use tidelog::{SegmentId, SessionId, Timestamp};

use super::canonical::{Canonical, RowDigest};
use crate::field::Field;
use crate::part::{PartEnd, PartStart};
use crate::rows::{BatchRows, CheckpointRow};
use crate::table;

/// Everything of a store's lines that is decided by more than one of them.
pub(super) struct Fold {
    canonical: Canonical,
    store_no: Option<i32>,
    pub(super) parts: BTreeMap<SegmentId, Part>,
    pub(super) checkpoints: BTreeMap<String, Newest>,
    /// Newest pruning of each checkpoint.
    pruned: BTreeMap<String, Timestamp>,
    /// Every creation of a checkpoint.
    pub(super) creations: BTreeSet<Mark>,
    /// Every deletion of a session.
    pub(super) deletions: BTreeSet<Mark>,
}

/// A line that says something about one thing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) key: String,
    pub(super) time: Timestamp,
    pub(super) segment_no: i32,
    pub(super) line_no: i32,
}

/// A session's part in one segment.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// Session and attempt by the header, once the segment has a line.
    pub(super) own: Option<(SessionId, i32)>,
    pub(super) start: Option<PartStart>,
    pub(super) end: Option<PartEnd>,
}

/// The newest creation of a checkpoint.
#[derive(Debug)]
pub(super) struct Newest {
    pub(super) version: (Timestamp, String),
    pub(super) session: Option<String>,
    pub(super) segment_no: i32,
    pub(super) line_no: i32,
    pub(super) digest: RowDigest,
}

impl Fold {
    pub(super) fn new(canonical: Canonical, store_no: Option<i32>) -> Self {
        Self {
            canonical,
            store_no,
            parts: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            pruned: BTreeMap::new(),
            creations: BTreeSet::new(),
            deletions: BTreeSet::new(),
        }
    }

    /// Adds the lines of a range, those of deleted sessions, too.
    pub(super) fn add(&mut self, range: &BatchRows) {
        if let (Some(start), Some(session)) = (&range.start, &range.place.session) {
            let part = self.parts.entry(range.place.segment).or_default();
            part.own = Some((session.clone(), range.place.attempt.unwrap_or(1)));
            // The first start counts.
            if part.start.as_ref().is_none_or(|known| known.started_at.is_none()) {
                part.start = Some(start.clone());
            }
        }
        for (segment, end) in &range.ends {
            let part = self.parts.entry(*segment).or_default();
            part.end = part.end.take().max(Some(end.clone()));
        }
        if self.store_no == Some(range.place.store_no) {
            self.add_of_store(range);
        }
    }

    fn add_of_store(&mut self, range: &BatchRows) {
        let segment_no = range.place.segment_no;
        for (key, burial) in &range.deletions {
            let (key, time, line_no) = (key.clone(), burial.time, burial.line_no);
            self.deletions.insert(Mark { key, time, segment_no, line_no });
        }
        for row in range.history.iter() {
            let [_, Field::Int4(line), Field::Text(id), Field::Text(action), Field::Time(time), ..] =
                row
            else {
                continue;
            };
            let (key, time, line_no) = (id.clone(), *time, *line);
            match action.as_str() {
                "created" => drop(self.creations.insert(Mark { key, time, segment_no, line_no })),
                "pruned" => {
                    let newest = self.pruned.entry(key).or_insert(time);
                    *newest = time.max(*newest);
                }
                _ => {}
            }
        }
        for (id, row) in &range.checkpoints {
            if self.checkpoints.get(id).is_none_or(|known| known.version < row.version) {
                self.checkpoints.insert(id.clone(), self.newest(segment_no, row));
            }
        }
    }

    fn newest(&self, segment_no: i32, row: &CheckpointRow) -> Newest {
        let session = match &row.fields[4] {
            Field::Text(session) => Some(session.clone()),
            _ => None,
        };
        Newest {
            version: row.version.clone(),
            session,
            segment_no,
            line_no: row.line_no,
            digest: self.canonical.digest(&table::CHECKPOINTS, &row.fields),
        }
    }

    /// Every session that a part, a checkpoint or a deletion names.
    pub(super) fn sessions(&self) -> BTreeSet<String> {
        let own = self.parts.values().filter_map(|part| part.own.as_ref());
        let ended = self.parts.values().filter_map(|part| part.end.as_ref());
        let saved = self.checkpoints.values().filter_map(|newest| newest.session.clone());
        own.map(|(session, _)| session.to_string())
            .chain(ended.map(|end| end.session.clone()))
            .chain(saved)
            .chain(self.deletions.iter().map(|mark| mark.key.clone()))
            .collect()
    }

    /// Takes away what belongs to deleted sessions; gives the newest creations that are void by that.
    pub(super) fn bury(&mut self, deleted: &BTreeSet<String>) -> Vec<(String, Timestamp)> {
        let is_deleted = |session: &str| deleted.contains(session);
        for part in self.parts.values_mut() {
            if part.own.as_ref().is_some_and(|(session, _)| is_deleted(session.as_str())) {
                (part.own, part.start) = (None, None);
            }
            if part.end.as_ref().is_some_and(|end| is_deleted(&end.session)) {
                part.end = None;
            }
        }
        self.parts.retain(|_, part| part.own.is_some() || part.end.is_some());
        let mut void = Vec::new();
        self.checkpoints.retain(|id, newest| {
            let is_void = newest.session.as_deref().is_some_and(is_deleted);
            if is_void {
                void.push((id.clone(), newest.version.0));
            }
            !is_void
        });
        void
    }

    /// The state that a checkpoint of this age is in.
    pub(super) fn state(&self, id: &str, newest: &Newest) -> &'static str {
        match self.pruned.get(id) {
            Some(time) if *time >= newest.version.0 => "pruned",
            _ => "present",
        }
    }
}
