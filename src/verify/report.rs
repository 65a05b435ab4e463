//! What a verification found.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// Most findings that a report lists; the others are counted.
pub const FINDINGS_MAX: usize = 1_000;

/// What kind of thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    /// A line is not a valid entry: checksum, JSON, length.
    LineInvalid,
    /// A file among the segments has no valid header.
    FileRefused,
    /// A segment ends in a line without a newline, and no writer's death explains it.
    TailTorn,
    /// The same, left by a writer that died; the next writing open cuts it. No damage.
    TailUnrecovered,
    /// Two files are the same segment.
    SegmentTwice,
    /// A segment names another store: it was copied here, or `store.json` was replaced.
    SegmentForeign,
    /// A file cannot be read.
    FileUnreadable,
    /// A symbolic link lies among the store's files; nothing follows it.
    LinkRefused,
    /// A marker of a live segment is not one.
    MarkerInvalid,
    /// A journal entry names a checkpoint file that is not there and was not pruned.
    CheckpointMissing,
    /// A checkpoint file is not what its journal entry says, or cannot be read.
    CheckpointDamaged,
    /// A checkpoint file that no entry names, as a crash leaves it. No damage.
    CheckpointOrphan,
    /// The file of a pruned checkpoint is still there. No damage.
    CheckpointUnremoved,
    /// A temporary file of a process that was killed while it wrote. No damage.
    TemporaryLeftover,
    /// The standalone copy of an emergency event is gone; the journal has it. No damage.
    EmergencyCopyMissing,
    /// The index cannot be read; the next query makes it anew. No damage.
    IndexUnreadable,
    /// The index does not hold what the files say.
    IndexDiffers,
}

impl FindingKind {
    /// Whether something is not as it was written.
    pub fn is_damage(self) -> bool {
        !matches!(
            self,
            Self::TailUnrecovered
                | Self::CheckpointOrphan
                | Self::CheckpointUnremoved
                | Self::TemporaryLeftover
                | Self::EmergencyCopyMissing
                | Self::IndexUnreadable
        )
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// Whether something is not as it was written; otherwise it is worth knowing and harmless.
    pub damage: bool,
    /// The file, relative to the store's folder.
    pub path: PathBuf,
    /// Line number, the first is 0.
    pub line: Option<u64>,
    /// Offset of the line's first byte.
    pub byte: Option<u64>,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    /// A finding about a whole file.
    pub(super) fn new(kind: FindingKind, path: &Path, reason: String, remedy: &str) -> Self {
        Self {
            kind,
            damage: kind.is_damage(),
            path: path.to_owned(),
            line: None,
            byte: None,
            reason,
            remedy: remedy.to_owned(),
        }
    }

    pub(super) fn at(mut self, line: u32, byte: u64) -> Self {
        self.line = Some(line.into());
        self.byte = Some(byte);
        self
    }

    pub(super) fn relative_to(mut self, root: &Path) -> Self {
        if let Ok(relative) = self.path.strip_prefix(root) {
            self.path = relative.to_owned();
        }
        self
    }
}

/// What was read, and what of it is not as it should be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct VerifyReport {
    /// Segments read.
    pub segments: u64,
    /// Valid entries in them.
    pub entries: u64,
    /// Telemetry records among the entries.
    pub records: u64,
    /// Bytes of all segments.
    pub journal_bytes: u64,
    /// Checkpoint files compared with their entries and read.
    pub checkpoints: u64,
    /// Bytes of these files.
    pub checkpoint_bytes: u64,
    /// Findings that are damage.
    pub damage_count: u64,
    /// Findings that are worth knowing and harmless.
    pub note_count: u64,
    /// The first [`FINDINGS_MAX`] of them.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    /// Whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.damage_count == 0
    }

    pub(super) fn add(&mut self, finding: Finding) {
        match finding.damage {
            true => self.damage_count += 1,
            false => self.note_count += 1,
        }
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}
