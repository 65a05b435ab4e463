//! Where does a file part from what was sent of it, and why?
//!
//! A process that was cloned while it ran, as by a snapshot of its machine, or a store that was
//! copied under it, leaves two writers of one segment. Both went on, so both files are right: they
//! agree up to a line, and from there on no line of one is a line of the other. A file that was
//! edited, or whose disk failed, is wrong in places and right after them.
//!
//! The last batch whose digest the file still has is common to both. From there on each line is held
//! against what the replica has of it: its rows, or its bytes where they were kept. The lines that
//! say nothing there (starts, ends, deletions) belong to the common part if a common line follows.
//! The file **parted** if
//!
//! - the replica differs at a line, or the batch before is common to its end, and
//! - no line after that is the same again, and
//! - every line of the file after the common batch is valid and carries its CRC.
//!
//! In all other cases it was **changed** in place. One case cannot be told: somebody who changes the
//! very last line that was sent and gives it a right CRC made a fork; then both versions are kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use sha2::Digest as _;
use sha2::Sha256;
use tidelog::SegmentId;
use tidelog::journal::{Batch, Content, Cursor, Line, SegmentReader};
use uuid::{Builder, Variant, Version};

use crate::error::SyncError;
use crate::follow::{Known, LIMITS};
use crate::replica::{Digest, Replica};
use crate::rows;

/// What a file that does not agree with its cursor is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fork {
    /// Everything it has was sent, and more than it has.
    Behind,
    /// The common part ends here; what follows are entries of another writer.
    Parted(Tail),
    /// Bytes of what was sent changed.
    Changed,
}

/// The lines of a file after the common part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tail {
    /// Where they begin, with the hash of the common part.
    pub(crate) from: Cursor,
    /// The segment that they are from now on. It depends on nothing but the file, so that every agent
    /// that finds the fork gives the same one.
    pub(crate) segment: SegmentId,
}

/// What the replica has of some lines.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// Rows of the file's lines, as the server writes them.
    pub(crate) ours: BTreeMap<i32, Vec<String>>,
    /// Rows of the replica's lines.
    pub(crate) theirs: BTreeMap<i32, Vec<String>>,
    /// SHA-256 of lines that were kept whole.
    pub(crate) raw: BTreeMap<i32, Vec<u8>>,
}

/// Whether a line is the one that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sameness {
    Same,
    Other,
    /// The replica has nothing of this line.
    Untold,
}

impl Evidence {
    fn of(&self, line_no: i32, raw: &[u8]) -> Sameness {
        let is_same = match (self.raw.get(&line_no), self.theirs.get(&line_no)) {
            (Some(hash), _) => hash.as_slice() == Sha256::digest(raw).as_slice(),
            (None, Some(theirs)) => self.ours.get(&line_no) == Some(theirs),
            (None, None) => return Sameness::Untold,
        };
        if is_same { Sameness::Same } else { Sameness::Other }
    }
}

/// What was found on the way from the common batch to the end of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seam {
    /// Everything before this line is proven by a digest.
    proven: u32,
    /// The line after the last one that is the same.
    common: u32,
    /// The line after the last one of the file.
    end: u32,
    /// A line is another one.
    differs: bool,
    /// After that a line is the same again, or a line of the file is damaged.
    is_changed: bool,
}

impl Seam {
    fn at(line: u32) -> Self {
        let line = line.max(1);
        Self { proven: line, common: line, end: line, differs: false, is_changed: false }
    }

    fn add(&mut self, line_no: u32, sameness: Sameness, is_valid: bool) {
        self.end = line_no + 1;
        match sameness {
            Sameness::Same => {
                self.is_changed |= self.differs;
                self.common = line_no + 1;
            }
            Sameness::Other => self.differs = true,
            Sameness::Untold => {}
        }
        self.is_changed |= !is_valid && sameness != Sameness::Same;
    }

    /// What it means for a file of which `sent` lines were sent.
    fn verdict(&self, sent: u32) -> Verdict {
        let is_told = self.differs || self.common == self.proven;
        match () {
            () if self.is_changed => Verdict::Changed,
            () if self.end < sent && !self.differs => Verdict::Behind,
            () if is_told && self.common < sent && self.common < self.end => Verdict::Parted,
            () => Verdict::Changed,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Behind,
    Parted,
    Changed,
}

/// Reads a file that does not agree with its cursor, from the last batch on that it agrees with.
///
/// # Errors
/// The file cannot be read, or the database not be asked.
pub(crate) fn locate(replica: &mut Replica, path: &Path, known: &Known) -> Result<Fork, SyncError> {
    let digests = replica.digests(known.place.segment_no)?;
    let from = last_common(path, &digests)?;
    let seam = follow_seam(replica, path, known, from)?;
    Ok(match seam.verdict(known.cursor.next_line) {
        Verdict::Behind => Fork::Behind,
        Verdict::Changed => Fork::Changed,
        Verdict::Parted => {
            tail(path, known, from, seam.common)?.map_or(Fork::Changed, Fork::Parted)
        }
    })
}

/// The end of the last batch that the file still has.
fn last_common(path: &Path, digests: &[Digest]) -> Result<Cursor, SyncError> {
    let mut at = Cursor::START;
    for digest in digests {
        match SegmentReader::chain_from(path, at, digest.next_line)? {
            Some(found) if found.chain == digest.chain => at = found,
            _ => break,
        }
    }
    Ok(at)
}

fn follow_seam(
    replica: &mut Replica,
    path: &Path,
    known: &Known,
    from: Cursor,
) -> Result<Seam, SyncError> {
    let mut seam = Seam::at(from.next_line);
    let mut reader = SegmentReader::open(path, from)?;
    while let Some(batch) = reader.next_batch(LIMITS)? {
        let evidence = evidence(replica, path, known, &batch)?;
        for line in batch.lines() {
            let raw = batch.raw(line);
            let line_no = i32::try_from(line.number).unwrap_or(i32::MAX);
            let sameness = match line.number < known.cursor.next_line {
                true => evidence.of(line_no, raw),
                false => Sameness::Untold,
            };
            seam.add(line.number, sameness, is_proven(line, raw));
        }
    }
    Ok(seam)
}

fn evidence(
    replica: &mut Replica,
    path: &Path,
    known: &Known,
    batch: &Batch,
) -> Result<Evidence, SyncError> {
    if batch.from().next_line >= known.cursor.next_line {
        return Ok(Evidence::default());
    }
    let ours = rows::from_batch(&known.place, *batch.from(), batch)
        .map_err(|_| SyncError::TooManyLines { path: path.to_owned() })?;
    Ok(replica.evidence(Arc::new(ours))?)
}

/// Whether a line is an entry whose CRC says so; entries without one are valid, but prove nothing.
fn is_proven(line: &Line, raw: &[u8]) -> bool {
    const CRC: usize = r#","crc":"9f1c2a77"}"#.len();
    let raw = raw.trim_ascii_end();
    let tail = raw.len().checked_sub(CRC).and_then(|at| raw.get(at..)).unwrap_or_default();
    matches!(line.content, Content::Entry(_)) && tail.starts_with(b",\"crc\":\"")
}

fn tail(path: &Path, known: &Known, from: Cursor, line: u32) -> Result<Option<Tail>, SyncError> {
    let Some(from) = SegmentReader::chain_from(path, from, line)? else { return Ok(None) };
    let Some(first) = SegmentReader::chain_from(path, from, line + 1)? else { return Ok(None) };
    Ok(Some(Tail { from, segment: segment_after(known.place.segment, &first) }))
}

/// Names the tail of a segment by its first line and everything before it.
fn segment_after(parent: SegmentId, first: &Cursor) -> SegmentId {
    let mut hasher = Sha256::new();
    hasher.update(b"tidelog fork");
    hasher.update(parent.as_uuid().as_bytes());
    hasher.update(first.next_line.to_be_bytes());
    hasher.update(first.chain.as_bytes());
    let mut bytes = [0; 16];
    std::iter::zip(&mut bytes, hasher.finalize()).for_each(|(byte, hashed)| *byte = hashed);
    let builder = Builder::from_bytes(bytes);
    builder.with_version(Version::Custom).with_variant(Variant::RFC4122).into_uuid().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: bool = true;

    /// The verdict on lines that follow a proven first one: `s`ame, `o`ther, `u`ntold, `d`amaged;
    /// after the bar those that were not sent.
    fn verdict(lines: &str) -> (Verdict, u32) {
        let mut seam = Seam::at(1);
        let sent = lines.find('|').map_or(9, |at| 1 + u32::try_from(at).unwrap());
        for (line, what) in (1..).zip(lines.replace('|', "").chars()) {
            match what {
                's' => seam.add(line, Sameness::Same, VALID),
                'o' => seam.add(line, Sameness::Other, VALID),
                'd' => seam.add(line, Sameness::Other, !VALID),
                _ => seam.add(line, Sameness::Untold, VALID),
            }
        }
        (seam.verdict(sent), seam.common)
    }

    #[test]
    fn a_tail_of_which_no_line_was_sent_parted_where_it_begins() {
        assert_eq!(verdict("sso|uu"), (Verdict::Parted, 3));
        assert_eq!(verdict("ssuo|u"), (Verdict::Parted, 3));
        assert_eq!(verdict("sso"), (Verdict::Parted, 3));
        assert_eq!(verdict("uu|u"), (Verdict::Parted, 1));
    }

    #[test]
    fn a_change_between_lines_that_stayed_is_no_fork() {
        assert_eq!(verdict("sos|u").0, Verdict::Changed);
        assert_eq!(verdict("sss|u").0, Verdict::Changed);
        assert_eq!(verdict("ssu|u").0, Verdict::Changed);
    }

    #[test]
    fn a_damaged_line_is_no_entry_of_another_writer() {
        assert_eq!(verdict("sd|u").0, Verdict::Changed);
        assert_eq!(verdict("so|d").0, Verdict::Changed);
    }

    #[test]
    fn a_file_of_sent_lines_is_behind() {
        assert_eq!(verdict("ss").0, Verdict::Behind);
        assert_eq!(verdict("").0, Verdict::Behind);
    }

    #[test]
    fn a_tail_has_the_same_id_whoever_finds_it_and_another_tail_another_one() {
        let parent = SegmentId::random();
        let first = Cursor { next_line: 7, ..Cursor::START };
        assert_eq!(segment_after(parent, &first), segment_after(parent, &first));
        let other = Cursor { next_line: 8, ..first };
        assert_ne!(segment_after(parent, &first), segment_after(parent, &other));
    }
}
