//! Which segments have a writer, or had one that died? Asked anew where it decides something.

use std::collections::HashMap;
use std::path::Path;

use super::Verification;
use super::report::{Finding, FindingKind};
use crate::error::Result;
use crate::ids::SegmentId;
use crate::journal::marker::{self, Seen};

/// What is known of a segment's writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriterState {
    Live,
    Dead,
    /// There is no marker: the segment was sealed.
    Sealed,
}

/// The markers at one moment.
#[derive(Debug, Default)]
pub(super) struct Writers {
    segments: HashMap<SegmentId, WriterState>,
    files: HashMap<String, WriterState>,
}

impl Writers {
    pub(super) fn look(root: &Path) -> Result<Self> {
        let mut writers = Self::default();
        for seen in marker::look(root)?.seen {
            let (marker, state) = match seen {
                Seen::Live(marker) => (marker, WriterState::Live),
                Seen::Dead(dead) => (dead.0, WriterState::Dead),
                Seen::Invalid(_) => continue,
            };
            writers.segments.insert(marker.segment, state);
            writers.files.insert(marker.file, state);
        }
        Ok(writers)
    }

    pub(super) fn of(&self, segment: &SegmentId) -> WriterState {
        self.segments.get(segment).copied().unwrap_or(WriterState::Sealed)
    }

    /// By the file's path relative to the store, for files that have no header yet.
    pub(super) fn of_file(&self, file: &str) -> WriterState {
        self.files.get(file).copied().unwrap_or(WriterState::Sealed)
    }
}

impl Verification<'_> {
    /// Markers that cannot be read: the segments that they stand for may have a writer or not.
    pub(super) fn markers(&mut self) -> Result<()> {
        for seen in marker::look(self.root)?.seen {
            if let Seen::Invalid(marker) = seen {
                let remedy = "if no program writes to this store, remove the file";
                let kind = FindingKind::MarkerInvalid;
                self.found(Finding::new(kind, &marker.path, marker.reason, remedy));
            }
        }
        Ok(())
    }
}
