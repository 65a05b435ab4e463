//! What does the store hold already? Read from the journal, not from the index: an import asks
//! before it writes, and the answer must be exact.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::entry::{Body, Emergency, Entry};
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, EventId, SessionId};
use crate::journal::{BatchLimits, Content, Cursor, Segment, SegmentReader, Source, discover};
use crate::store::Store;
use crate::timestamp::Timestamp;

/// Most events, checkpoints and sessions together that are remembered, about 50 bytes each.
const REMEMBERED_MAX: usize = 4_000_000;

const BATCH: BatchLimits = BatchLimits { lines_max: 4096, bytes_max: 1 << 20 };

/// Ids are kept as the first bytes of their BLAKE3 hash.
type Key = [u8; 16];

/// Sessions with their spans, events with their content, checkpoints.
#[derive(Debug, Default)]
pub(super) struct Known {
    spans: BTreeMap<SessionId, Span>,
    events: HashMap<Key, Key>,
    checkpoints: HashSet<Key>,
}

/// First and last moment of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
}

impl Span {
    pub(super) fn at(moment: Timestamp) -> Self {
        Self { first: moment, last: moment }
    }

    /// The shortest span that holds both.
    pub(super) fn with(self, other: Span) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    fn covers(self, moment: Timestamp) -> bool {
        self.first <= moment && moment <= self.last
    }
}

fn key(text: &[u8]) -> Key {
    let [key @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *blake3::hash(text).as_bytes();
    key
}

/// What an event says, whoever it belongs to and whatever time zone it was read in.
fn content(emergency: &Emergency) -> Key {
    let emergency = Emergency { session_id: None, ..emergency.clone() };
    let timestamp = Timestamp::from_micros(0).unwrap_or_else(|_| Timestamp::now());
    let entry = Entry { timestamp, body: Body::Emergency(Box::new(emergency)) };
    key(&serde_json::to_vec(&entry).unwrap_or_default())
}

impl Known {
    /// Reads every segment of the store once.
    ///
    /// # Errors
    /// A segment cannot be read, or the store holds more than [`REMEMBERED_MAX`] ids.
    pub(super) fn read(store: &Store) -> Result<Self> {
        let mut known = Self::default();
        for segment in discover(store.root())?.segments {
            known.read_segment(&segment)?;
        }
        Ok(known)
    }

    fn read_segment(&mut self, segment: &Segment) -> Result<()> {
        let mut reader = SegmentReader::open(&segment.path, Cursor::START)?;
        let mut span: Option<Span> = None;
        while let Some(batch) = reader.next_batch(BATCH)? {
            for line in batch.lines() {
                if let Content::Entry(entry) = &line.content {
                    let moment = Span::at(entry.timestamp);
                    span = Some(span.map_or(moment, |span| span.with(moment)));
                    self.add_body(&entry.body);
                }
            }
            self.check_limit(store_of(segment))?;
        }
        if let (Some(session), Some(span)) = (&segment.header.session, span) {
            self.add_session(session, span);
        }
        Ok(())
    }

    fn add_body(&mut self, body: &Body) {
        match body {
            Body::Emergency(emergency) => self.add_event(emergency),
            Body::CheckpointCreated(created) => self.add_checkpoint(&created.checkpoint_id),
            _ => {}
        }
    }

    fn check_limit(&self, store: &std::path::Path) -> Result<()> {
        if self.spans.len() + self.events.len() + self.checkpoints.len() <= REMEMBERED_MAX {
            return Ok(());
        }
        Err(Error::InvalidValue {
            what: "import",
            reason: format!(
                "takes no emergencies or checkpoints into {}: it holds more than {REMEMBERED_MAX} \
                 already; import into another store",
                store.display()
            ),
        })
    }

    /// A session, or more of one.
    pub(super) fn add_session(&mut self, session: &SessionId, span: Span) {
        let known = self.spans.entry(session.clone()).or_insert(span);
        *known = known.with(span);
    }

    pub(super) fn add_event(&mut self, emergency: &Emergency) {
        self.events.insert(key(emergency.event_id.as_str().as_bytes()), content(emergency));
    }

    pub(super) fn add_checkpoint(&mut self, id: &CheckpointId) {
        self.checkpoints.insert(key(id.as_str().as_bytes()));
    }

    /// Whether an event of this id is there, and if so, whether it says the same.
    pub(super) fn same_event(&self, id: &EventId, emergency: &Emergency) -> Option<bool> {
        let known = self.events.get(&key(id.as_str().as_bytes()))?;
        Some(*known == content(emergency))
    }

    pub(super) fn has_checkpoint(&self, id: &CheckpointId) -> bool {
        self.checkpoints.contains(&key(id.as_str().as_bytes()))
    }

    /// The session whose span covers the moment, if it is exactly one.
    pub(super) fn session_at(&self, moment: Timestamp) -> Option<SessionId> {
        let mut covering = self.spans.iter().filter(|(_, span)| span.covers(moment));
        match (covering.next(), covering.next()) {
            (Some((session, _)), None) => Some(session.clone()),
            _ => None,
        }
    }
}

fn store_of(segment: &Segment) -> &std::path::Path {
    segment.path.ancestors().nth(3).unwrap_or(&segment.path)
}

/// What earlier imports took of each telemetry file, by the file's name and session.
#[derive(Debug, Default)]
pub(super) struct EarlierImports {
    files: HashMap<(String, SessionId), Earlier>,
    /// The highest attempt of each session, imported or not.
    attempts: HashMap<SessionId, u32>,
}

/// How far a file was imported.
#[derive(Debug, Clone)]
pub(super) struct Earlier {
    pub(super) source: Source,
    pub(super) attempt: u32,
}

impl EarlierImports {
    pub(super) fn read(store: &Store) -> Result<Self> {
        let mut earlier = Self::default();
        for Segment { header, .. } in discover(store.root())?.segments {
            let Some(session) = header.session else { continue };
            let attempt = header.attempt.unwrap_or(1);
            let highest = earlier.attempts.entry(session.clone()).or_default();
            *highest = attempt.max(*highest);
            if let Some(source) = header.source {
                earlier.add(session, Earlier { source, attempt });
            }
        }
        Ok(earlier)
    }

    /// Remembers the import that came furthest.
    pub(super) fn add(&mut self, session: SessionId, import: Earlier) {
        let key = (import.source.file.clone(), session);
        let known = self.files.entry(key).or_insert_with(|| import.clone());
        if known.source.next_line < import.source.next_line {
            *known = import;
        }
    }

    pub(super) fn of(&self, file: &str, session: &SessionId) -> Option<&Earlier> {
        self.files.get(&(file.to_owned(), session.clone()))
    }

    /// The attempt of a file's next segment: that of the earlier ones, else a new one.
    pub(super) fn attempt(&self, file: &str, session: &SessionId) -> u32 {
        let highest = self.attempts.get(session).copied().unwrap_or(0);
        self.of(file, session).map_or(highest.saturating_add(1), |earlier| earlier.attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000).unwrap()
    }

    fn span(first: i64, last: i64) -> Span {
        Span { first: moment(first), last: moment(last) }
    }

    #[test]
    fn a_moment_belongs_to_a_session_only_if_no_other_covers_it() {
        let mut known = Known::default();
        let [a, b] = ["a", "b"].map(|id| SessionId::new(id).unwrap());
        known.add_session(&a, span(0, 10));
        known.add_session(&b, span(8, 20));
        assert_eq!(known.session_at(moment(0)), Some(a));
        assert_eq!(known.session_at(moment(9)), None);
        assert_eq!(known.session_at(moment(20)), Some(b));
        assert_eq!(known.session_at(moment(21)), None);
    }

    #[test]
    fn an_event_is_the_same_whatever_session_it_was_matched_to() {
        let mut known = Known::default();
        let mut event = Emergency::new(EventId::new("e").unwrap(), "collapse", "high");
        assert_eq!(known.same_event(&event.event_id, &event), None);
        known.add_event(&event);
        event.session_id = Some(SessionId::new("a").unwrap());
        assert_eq!(known.same_event(&event.event_id, &event), Some(true));
        event.severity = "low".into();
        assert_eq!(known.same_event(&event.event_id, &event), Some(false));
    }
}
