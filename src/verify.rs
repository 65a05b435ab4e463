//! Is everything in the store what it should be? Reads all of it and changes nothing.
//!
//! Every byte of every segment is read: its lines are parsed and their checksums compared, unless the
//! index has done so and they are still the same bytes. Every checkpoint file is compared with its
//! journal entry and read, and the index is compared with the files. What is
//! not as it should be is a [`Finding`] with file, line, byte, reason and remedy; one finding
//! never hides another. Nothing is repaired here.

mod checkpoints;
mod index;
mod known;
mod links;
mod report;
mod segments;
mod writers;

pub use report::{FINDINGS_MAX, Finding, FindingKind, VerifyReport};

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::ids::StoreId;
use crate::index::Progress;
use crate::journal::{Listing, discover};
use crate::leftovers::leftovers;
use crate::store::Store;
use checkpoints::Checkpoints;
use index::IndexView;

/// What one verification carries from file to file.
struct Verification<'a> {
    root: &'a Path,
    store: StoreId,
    report: VerifyReport,
    checkpoints: Checkpoints,
    index: IndexView,
    /// Lines that the index has read, and that a CRC-32 knows again, are not parsed.
    trusts_index: bool,
    bytes_total: u64,
    bytes_done: u64,
    progress: &'a mut dyn FnMut(Progress),
}

impl Store {
    /// Reads the whole store and lists what is not as it should be. Changes nothing.
    ///
    /// Other processes may write meanwhile: the unfinished last line of a live writer is no
    /// finding. Memory: one array of a checkpoint, a few batches of lines, a few hundred bytes for each
    /// checkpoint and segment, and at most [`FINDINGS_MAX`] findings.
    ///
    /// # Errors
    /// A folder of the store cannot be listed. Damage is no error but a finding.
    pub fn verify(&self, progress: &mut dyn FnMut(Progress)) -> Result<VerifyReport> {
        self.verify_with(true, progress)
    }

    /// As [`verify`](Self::verify), and takes no word of the index for it: every line is parsed, and
    /// the chain of hashes over all lines compared with the index. Ten times as long.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub fn verify_thoroughly(&self, progress: &mut dyn FnMut(Progress)) -> Result<VerifyReport> {
        self.verify_with(false, progress)
    }

    fn verify_with(
        &self,
        trusts_index: bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<VerifyReport> {
        let root = self.root();
        let mut report = VerifyReport::default();
        // files first, entries after: a checkpoint that is saved meanwhile is no orphan
        let checkpoints = Checkpoints::list(root)?;
        let index = IndexView::open(root, &self.id(), &mut report);
        let listing = discover(root)?;
        let mut verification = Verification {
            root,
            store: self.id(),
            bytes_total: checkpoints.bytes_total() + segments_bytes(&listing),
            report,
            checkpoints,
            index,
            trusts_index,
            bytes_done: 0,
            progress,
        };
        verification.links()?;
        verification.markers()?;
        verification.segments(listing)?;
        verification.checkpoint_files();
        verification.leftovers()?;
        Ok(verification.report)
    }
}

impl Verification<'_> {
    fn advance(&mut self, bytes: u64) {
        self.bytes_done += bytes;
        (self.progress)(Progress {
            lines_done: self.report.entries,
            bytes_done: self.bytes_done,
            bytes_total: self.bytes_total.max(self.bytes_done),
        });
    }

    fn leftovers(&mut self) -> Result<()> {
        for leftover in leftovers(self.root)? {
            let reason = format!("is {} bytes that a killed program left", leftover.bytes);
            let remedy = "remove it if no program writes to this store; nothing reads it";
            let kind = FindingKind::TemporaryLeftover;
            self.found(Finding::new(kind, &leftover.path, reason, remedy));
        }
        Ok(())
    }

    fn relative<'p>(&self, path: &'p Path) -> &'p Path {
        path.strip_prefix(self.root).unwrap_or(path)
    }

    fn found(&mut self, finding: Finding) {
        self.report.add(finding.relative_to(self.root));
    }

    /// A file that cannot be read is a finding, and the next file is looked at.
    fn failed(&mut self, path: &Path, error: &Error) {
        let remedy = "check the disk and the file's permissions, then verify again";
        self.found(Finding::new(FindingKind::FileUnreadable, path, error.to_string(), remedy));
    }
}

fn segments_bytes(listing: &Listing) -> u64 {
    let length = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
    listing.segments.iter().map(|segment| length(&segment.path)).sum()
}

#[cfg(test)]
mod tests;
