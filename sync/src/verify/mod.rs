//! Is the replica what the files say?
//!
//! Each segment is walked in ranges of lines. The rows that a range means are made as for sending, and
//! brought to one byte form, `record_send(ROW(…))`, in which every bit of every value counts; the server
//! makes the same form of what it holds. Only SHA-256 digests travel: one a table and range while all is
//! well, one a row of a range that differs, and then the row itself, to name its columns.
//!
//! Everything is read in transactions that cannot write, each of which sees the database at one
//! moment: lines before the cursor of that moment are compared, so agents and writers may go on
//! meanwhile. First each segment has a transaction of its own, so that none lasts long; then one more looks
//! at what came since, and at everything that several segments decide together.
//!
//! Not compared, because no file tells it: when the agent did something, how often, in which version and
//! state, and what the server said when it refused a line.

mod canonical;
mod derived;
mod fold;
mod jsonb;
mod narrow;
mod report;
mod segment;
mod snapshot;
mod together;

pub use report::{
    DIFFERENCES_MAX, Difference, DifferenceKind, SegmentVerification, Verdict, Verification,
};

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tidelog::journal::{Listing, Segment};
use tidelog::{SegmentId, Store};

use crate::connect::Target;
use crate::error::SyncError;
use crate::listing;
use crate::replica::{SegmentRow, file_name};
use derived::Behind;
use fold::Fold;
use report::Findings;
use segment::{Compared, Look};
use snapshot::Snapshot;

/// How far a comparison has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyProgress {
    /// The segment's file.
    pub file: String,
    /// Lines of it that were compared.
    pub lines: u64,
    /// Lines of it that are in the replica.
    pub lines_total: u64,
}

/// Compares a store with its replica, or only one segment of it. Writes nothing on either side.
///
/// It reads every line of the files and every row of the store. It works while writers and agents do.
///
/// # Errors
/// The folder holds no store, the database is not reached, or the replica was restored to an earlier
/// state meanwhile. A difference is no error but a part of the answer.
pub fn verify(
    root: &Path,
    target: &Target,
    only: Option<SegmentId>,
    mut tell: impl FnMut(&VerifyProgress),
) -> Result<Verification, SyncError> {
    let store = Store::open_read_only(root)?;
    let snapshot = Snapshot::connect(target, store.id())?;
    let fold = Fold::new(snapshot.canonical, snapshot.store_no);
    let mut comparison = Comparison {
        store,
        only,
        snapshot,
        findings: Findings::default(),
        fold,
        compared: BTreeMap::new(),
    };
    for segment in comparison.list()?.segments {
        comparison.snapshot.begin()?;
        let rows = comparison.snapshot.segments(std::slice::from_ref(&segment))?;
        comparison.walk(&segment, &rows, &mut tell).or_else(is_of_file)?;
        comparison.snapshot.end()?;
    }
    comparison.finish(&mut tell)
}

struct Comparison {
    store: Store,
    only: Option<SegmentId>,
    snapshot: Snapshot,
    findings: Findings,
    fold: Fold,
    compared: BTreeMap<SegmentId, Compared>,
}

impl Comparison {
    fn list(&self) -> Result<Listing, SyncError> {
        let mut listing = listing::list(self.store.root(), |_| false)?;
        listing.segments.retain(|s| self.only.is_none_or(|only| only == s.header.segment));
        Ok(listing)
    }

    fn look<'a>(&'a mut self, segment: &'a Segment, row: &'a SegmentRow) -> Look<'a> {
        Look {
            snapshot: &mut self.snapshot,
            findings: &mut self.findings,
            fold: &mut self.fold,
            segment,
            row,
            compared: self.compared.entry(segment.header.segment).or_default(),
        }
    }

    /// Compares what is new of a segment; nothing if the replica does not know it.
    fn walk(
        &mut self,
        segment: &Segment,
        rows: &[SegmentRow],
        tell: &mut impl FnMut(&VerifyProgress),
    ) -> Result<(), SyncError> {
        let Some(row) = row_of(segment, rows) else { return Ok(()) };
        let file = file_name(segment);
        let lines_total = u64::from(row.cursor.next_line.saturating_sub(1));
        self.look(segment, row).walk(&mut |compared| {
            tell(&VerifyProgress { file: file.clone(), lines: compared.lines(), lines_total });
        })
    }

    /// Compares what came since, and everything that segments decide together, in one snapshot.
    fn finish(mut self, tell: &mut impl FnMut(&VerifyProgress)) -> Result<Verification, SyncError> {
        self.snapshot.begin()?;
        let listing = self.list()?;
        let rows = self.snapshot.segments(&listing.segments)?;
        let mut segments = Vec::new();
        for segment in &listing.segments {
            let verdict = self.verdict(segment, &rows, tell)?;
            segments.push(self.told(segment.header.segment, file_name(segment), verdict));
        }
        for row in self.missing(&listing, &rows) {
            let verdict = Verdict::Missing { sealed: row.sealed };
            segments.push(self.told(row.segment, row.file_name.clone(), verdict));
        }
        let folds_left_out = self.why_no_folds(&segments);
        let mut behind = Behind::default();
        if folds_left_out.is_none() {
            let numbers = listing.segments.iter().filter_map(|segment| {
                let row = row_of(segment, &rows)?;
                Some((row.segment_no, (segment, row)))
            });
            let sessions = self.fold.sessions();
            let (snapshot, findings) = (&mut self.snapshot, &mut self.findings);
            together::compare(snapshot, findings, &mut self.fold, &numbers.collect())?;
            behind = derived::compare(snapshot, findings, &sessions)?;
        }
        self.snapshot.end()?;
        Ok(self.report(segments, folds_left_out, &behind))
    }

    fn verdict(
        &mut self,
        segment: &Segment,
        rows: &[SegmentRow],
        tell: &mut impl FnMut(&VerifyProgress),
    ) -> Result<Verdict, SyncError> {
        let (store, own) = (self.store.id(), self.snapshot.store_no);
        let outcome = self.walk(segment, rows, tell).and_then(|()| match row_of(segment, rows) {
            Some(row) => self.look(segment, row).judge(store, own),
            None => segment::unknown(segment),
        });
        match outcome {
            Err(error) if error.is_of_file() => {
                Ok(Verdict::Unreadable { reason: error.to_string() })
            }
            outcome => outcome,
        }
    }

    fn told(&self, segment: SegmentId, file: String, verdict: Verdict) -> SegmentVerification {
        let lines = self.compared.get(&segment).map_or(0, Compared::lines);
        SegmentVerification { segment, file, lines, verdict }
    }

    /// Segments of which the replica has lines, and this folder no file.
    fn missing<'a>(&self, listing: &Listing, rows: &'a [SegmentRow]) -> Vec<&'a SegmentRow> {
        let here: BTreeSet<SegmentId> =
            listing.segments.iter().map(|segment| segment.header.segment).collect();
        let is_asked = |row: &SegmentRow| self.only.is_none_or(|only| only == row.segment);
        // A tail is in the file that it parted from, which is forked.
        let is_here = |row: &SegmentRow| {
            here.contains(&row.segment)
                || row.parent.as_ref().is_some_and(|(parent, _)| here.contains(parent))
        };
        rows.iter()
            .filter(|row| row.cursor.next_line > 0 && !is_here(row) && is_asked(row))
            .collect()
    }

    /// What several segments decide needs every line of all of them.
    fn why_no_folds(&self, segments: &[SegmentVerification]) -> Option<String> {
        if self.only.is_some() {
            return Some("only one segment was asked for".to_owned());
        }
        let is_partial = |verdict: &Verdict| {
            use Verdict::{Ahead, Forked, Missing, Unreadable};
            matches!(verdict, Ahead { .. } | Forked { .. } | Missing { .. } | Unreadable { .. })
        };
        let partial = segments.iter().find(|segment| is_partial(&segment.verdict))?;
        Some(format!("{} is {}", partial.file, partial.verdict.as_str()))
    }

    fn report(
        self,
        segments: Vec<SegmentVerification>,
        folds_left_out: Option<String>,
        behind: &Behind,
    ) -> Verification {
        let worst = segments.iter().map(|segment| &segment.verdict).max_by_key(|v| v.weight());
        let is_behind = behind.statistics > 0 || behind.ranks;
        let verdict = match worst {
            _ if !self.findings.differences.is_empty() && !is_forked(worst) => "different",
            Some(worst) if worst.weight() > 0 => worst.as_str(),
            _ if is_behind => "behind",
            _ => "equal",
        };
        Verification {
            store_id: self.store.id(),
            verdict,
            lines: self.compared.values().map(Compared::lines).sum(),
            rows: self.compared.values().map(|compared| compared.rows).sum(),
            segments,
            differences: self.findings.differences,
            has_more: self.findings.has_more,
            folds_left_out,
            statistics_behind: behind.statistics,
            ranks_behind: behind.ranks,
        }
    }
}

/// A fork comes with differences of its own; its word says more than theirs.
fn is_forked(worst: Option<&Verdict>) -> bool {
    matches!(worst, Some(Verdict::Forked { .. }))
}

fn row_of<'a>(segment: &Segment, rows: &'a [SegmentRow]) -> Option<&'a SegmentRow> {
    rows.iter().find(|row| row.segment == segment.header.segment)
}

/// A file that cannot be read now is told at the end.
fn is_of_file(error: SyncError) -> Result<(), SyncError> {
    if error.is_of_file() { Ok(()) } else { Err(error) }
}
