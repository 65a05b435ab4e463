//! Everything that the journal of a store holds, read as any program would.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tidelog::journal::{self, BatchLimits, Content, Cursor, Header, SegmentReader};
use tidelog::{Action, BasinPoint, Body, CheckpointCreated, Emergency, Entry, Gap, Record};

use crate::Result;

const LIMITS: BatchLimits = BatchLimits { lines_max: 1000, bytes_max: 1 << 20 };

/// What the journal holds that the oracle compares.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// With the session of the segment.
    pub(super) records: Vec<(String, Record)>,
    pub(super) basins: Vec<(String, BasinPoint)>,
    pub(super) starts: Vec<(String, u32)>,
    pub(super) emergencies: Vec<Emergency>,
    pub(super) created: Vec<CheckpointCreated>,
    pub(super) actions: Vec<(String, Action)>,
    pub(super) gaps: Vec<Gap>,
    /// Lines that are no entries, and files that are no segments: where, and why.
    pub(super) invalid: Vec<String>,
    pub(super) refused: Vec<String>,
    /// Segments whose steps do not count up.
    pub(super) out_of_order: Vec<PathBuf>,
}

/// Reads the whole journal.
pub(super) fn read(root: &Path) -> Result<Journal> {
    let mut journal = Journal::default();
    let listing = journal::discover(root)?;
    for refused in listing.refused {
        journal.refused.push(format!("{}: {}", refused.path.display(), refused.reason));
    }
    for segment in listing.segments.iter().filter(|segment| segment.header.source.is_none()) {
        let before = journal.records.len();
        journal.read_segment(&segment.path, &segment.header)?;
        let new = journal.records.get(before..).unwrap_or_default();
        let pairs = new.iter().zip(new.iter().skip(1));
        if pairs.into_iter().any(|((_, one), (_, next))| one.step >= next.step) {
            journal.out_of_order.push(segment.path.clone());
        }
    }
    Ok(journal)
}

impl Journal {
    fn read_segment(&mut self, path: &Path, header: &Header) -> Result<()> {
        let session = header.session.as_ref().map(ToString::to_string).unwrap_or_default();
        each_line(path, |number, content| match content {
            Content::Entry(entry) => self.add(&session, entry),
            Content::Invalid(error) => {
                self.invalid.push(format!("{} line {number}: {error}", path.display()));
            }
        })
    }

    fn add(&mut self, session: &str, entry: &Entry) {
        match &entry.body {
            Body::Record(record) => self.records.push((session.to_owned(), record.clone())),
            Body::Basin(point) => self.basins.push((session.to_owned(), point.clone())),
            Body::SessionStarted(start) => self.starts.push((session.to_owned(), start.attempt)),
            Body::Emergency(emergency) => self.emergencies.push((**emergency).clone()),
            Body::CheckpointCreated(created) => self.created.push((**created).clone()),
            Body::Checkpoint(action) => {
                self.actions.push((action.checkpoint_id.to_string(), action.action));
            }
            Body::Gap(gap) => self.gaps.push(gap.clone()),
            _ => {}
        }
    }
}

fn each_line(path: &Path, mut each: impl FnMut(u32, &Content)) -> Result<()> {
    let mut reader = SegmentReader::open(path, Cursor::START)?;
    while let Some(batch) = reader.next_batch(LIMITS)? {
        batch.lines().iter().for_each(|line| each(line.number, &line.content));
    }
    Ok(())
}

/// How many entries of each kind a store has that no program under test writes: those that an
/// import took, by file and by id.
pub(super) fn imported(root: &Path) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for segment in journal::discover(root)?.segments {
        let source = segment.header.source.map(|source| source.file);
        each_line(&segment.path, |_, content| {
            let name = match content {
                Content::Entry(Entry { body: Body::Emergency(event), .. }) => {
                    Some(event.event_id.to_string())
                }
                Content::Entry(Entry { body: Body::CheckpointCreated(created), .. }) => {
                    Some(created.checkpoint_id.to_string())
                }
                _ => source.clone(),
            };
            if let Some(name) = name {
                *counts.entry(name).or_default() += 1;
            }
        })?;
    }
    Ok(counts)
}
