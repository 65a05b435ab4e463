//! Which segments have a writer, or had one that died? Asked anew where it decides something.

use std::collections::HashMap;
use std::path::Path;

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
    /// And the files that are no markers.
    pub(super) fn look(root: &Path) -> Result<(Self, Vec<Finding>)> {
        let mut writers = Self::default();
        let look = marker::look(root)?;
        for seen in look.seen {
            let (marker, state) = match seen {
                Seen::Live(marker) => (marker, WriterState::Live),
                Seen::Dead(dead) => (dead.0, WriterState::Dead),
            };
            writers.segments.insert(marker.segment, state);
            writers.files.insert(marker.file, state);
        }
        Ok((writers, look.unreadable.iter().map(|path| invalid_marker(path)).collect()))
    }

    pub(super) fn of(&self, segment: &SegmentId) -> WriterState {
        self.segments.get(segment).copied().unwrap_or(WriterState::Sealed)
    }

    /// By the file's path relative to the store, for files that have no header yet.
    pub(super) fn of_file(&self, file: &str) -> WriterState {
        self.files.get(file).copied().unwrap_or(WriterState::Sealed)
    }
}

fn invalid_marker(path: &Path) -> Finding {
    let reason = "is not a marker of a live segment".into();
    let remedy = "if no program writes to this store, remove the file";
    Finding::new(FindingKind::MarkerInvalid, path, reason, remedy)
}
