//! A store's folder made again from the database alone.
//!
//! Files come back byte for byte: a segment's lines are made of their rows and of the lines that were
//! kept whole, and the chain hash that the agent's cursor has proves them. So the agent goes on with
//! the restored folder as if nothing had happened. Checkpoint files are proven by their SHA-256.
//!
//! Not everything can come back: what was deleted in the database, files that were never sent. That
//! is named in the report, and everything else is restored.

mod lines;
mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;
use tidelog::restore::{Restore, SegmentFile, SegmentPlace};
use tidelog::{Body, Entry, Store, StoreId, Timestamp};

use crate::connect::Target;
use crate::error::SyncError;
use source::{KeptFile, KeptSegment, Source};

/// What was restored. The names of the fields are a contract of `--json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Restored {
    /// The store's id.
    pub store_id: StoreId,
    /// Segments that were written.
    pub segments: u64,
    /// Segments that were there already.
    pub segments_there: u64,
    /// Lines of all of these.
    pub lines: u64,
    /// Checkpoint files that were written.
    pub checkpoint_files: u64,
    /// Checkpoint files that were there already.
    pub checkpoint_files_there: u64,
    /// Bytes of all checkpoint files that were written.
    pub checkpoint_bytes: u64,
    /// Segments of deleted sessions, which do not come back.
    pub segments_deleted: u64,
    /// Segments that could not be made as they were.
    pub segments_inexact: Vec<Inexact>,
    /// Checkpoints whose files are not in the database.
    pub checkpoints_missing: Vec<MissingFile>,
}

/// A segment that is not what was sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inexact {
    /// Its file name.
    pub file: String,
    /// Lines in whose place there is one that says so.
    pub lines_missing: u64,
    /// In words.
    pub reason: String,
}

/// A checkpoint whose file is not restored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MissingFile {
    /// The checkpoint.
    pub checkpoint_id: String,
    /// Its file name.
    pub file: String,
    /// In words.
    pub reason: String,
}

impl Restored {
    fn nothing(store_id: StoreId) -> Self {
        Self {
            store_id,
            segments: 0,
            segments_there: 0,
            lines: 0,
            checkpoint_files: 0,
            checkpoint_files_there: 0,
            checkpoint_bytes: 0,
            segments_deleted: 0,
            segments_inexact: Vec::new(),
            checkpoints_missing: Vec::new(),
        }
    }

    /// Whether everything came back that was not deleted on purpose.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.segments_inexact.is_empty() && self.checkpoints_missing.is_empty()
    }
}

/// How far a restore has come. Its text is a line for a person.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Restoring {
    /// A segment is next.
    Segment {
        /// Its file name.
        file: String,
        /// Lines that it has.
        lines: u32,
    },
    /// A checkpoint file is next.
    CheckpointFile {
        /// Its name.
        file: String,
        /// Bytes that it has.
        bytes: u64,
    },
}

impl fmt::Display for Restoring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment { file, lines } => write!(f, "{file}: {lines} lines"),
            Self::CheckpointFile { file, bytes } => write!(f, "{file}: {bytes} bytes"),
        }
    }
}

/// The event of a line that stands where one is missing, so that the others keep their numbers.
const MISSING_LINE: &str = "line_not_restored";

/// Makes the folder of a store from the database. Without an id it is the store that the folder is
/// already, or the only one in the database.
///
/// It may be called again after it was interrupted; files that are there are compared, and nothing is
/// overwritten. Memory does not grow with the store. `tell` is told of each file.
///
/// # Errors
/// The database is not reached, or has not this store; a file that holds anything else is in the way.
pub fn restore(
    root: &Path,
    target: &Target,
    store: Option<StoreId>,
    tell: &mut dyn FnMut(&Restoring),
) -> Result<Restored, SyncError> {
    let named = match store {
        None if root.join("store.json").exists() => Some(Store::open_read_only(root)?.id()),
        named => named,
    };
    let mut source = Source::open(target, named)?;
    let files = Restore::begin(root, source.store())?;
    let mut restored = Restored::nothing(source.store());
    for segment in source.segments()? {
        if segment.is_deleted {
            restored.segments_deleted += 1;
            continue;
        }
        let (file, lines) = (segment.place.file_name.clone(), segment.place.end.next_line);
        tell(&Restoring::Segment { file, lines });
        restore_segment(&mut source, &files, &segment, &mut restored)?;
        if !segment.is_sealed {
            files.mark_unended(&segment.place)?;
        }
    }
    for file in source.files()? {
        let bytes = file.size_bytes;
        tell(&Restoring::CheckpointFile { file: file.file.clone(), bytes });
        restore_file(&mut source, &files, file, &mut restored)?;
    }
    files.finish()?;
    Ok(restored)
}

fn restore_segment(
    source: &mut Source,
    files: &Restore,
    segment: &KeptSegment,
    restored: &mut Restored,
) -> Result<(), SyncError> {
    let end = segment.place.end;
    restored.lines += u64::from(end.next_line);
    let Some(file) = files.segment(&segment.place)? else {
        restored.segments_there += 1;
        return Ok(());
    };
    let mut writing =
        Writing { files, place: &segment.place, file, missing: 0, time: lines::epoch() };
    while writing.file.cursor().next_line < end.next_line {
        let from = writing.file.cursor().next_line;
        let page = source.lines(segment, from)?;
        if from == 0 && !page.lines.contains_key(&0) {
            restored.segments_inexact.push(headless(segment));
            return Ok(());
        }
        writing.page(page.until, page.lines, page.last_time)?;
    }
    let (missing, is_exact) = (writing.missing, writing.file.cursor() == end);
    match writing.file.finish()? {
        true => restored.segments += 1,
        false => restored.segments_there += 1,
    }
    if !is_exact {
        restored.segments_inexact.push(inexact(segment, missing));
    }
    Ok(())
}

/// A segment's file on its way.
struct Writing<'a> {
    files: &'a Restore,
    place: &'a SegmentPlace,
    file: SegmentFile,
    /// Lines that the database has not.
    missing: u64,
    /// Of a record before the next line; another run finds the same.
    time: Timestamp,
}

impl Writing<'_> {
    /// Writes the lines before `until`.
    fn page(
        &mut self,
        until: u32,
        mut lines: BTreeMap<u32, source::Kept>,
        last_time: Option<Timestamp>,
    ) -> Result<(), SyncError> {
        while self.file.cursor().next_line < until {
            let number = self.file.cursor().next_line;
            match lines.remove(&number) {
                Some(source::Kept::Made(line)) => self.file.write(&line)?,
                Some(source::Kept::Whole(line)) => {
                    self.files.emergency_copy(self.place, number, &line)?;
                    self.file.write(&line)?;
                }
                None => self.write_missing()?,
            }
        }
        self.time = last_time.unwrap_or(self.time);
        Ok(())
    }

    fn write_missing(&mut self) -> Result<(), SyncError> {
        self.missing += 1;
        let timestamp = self.time;
        let body = Body::Unknown { event: MISSING_LINE.to_owned() };
        let mut line = Vec::new();
        Entry { timestamp, body }.write_line(&mut line)?;
        line.pop();
        Ok(self.file.write(&line)?)
    }
}

fn headless(segment: &KeptSegment) -> Inexact {
    Inexact {
        file: segment.place.file_name.clone(),
        lines_missing: u64::from(segment.place.end.next_line),
        reason: "its header line is not in the database, so no file was made".to_owned(),
    }
}

fn inexact(segment: &KeptSegment, lines_missing: u64) -> Inexact {
    let reason = match lines_missing {
        0 => "its rows were changed in the database since they were sent".to_owned(),
        count => format!(
            "{count} of its lines were deleted in the database or too long for it; in place of each \
             stands one with the event {MISSING_LINE}"
        ),
    };
    Inexact { file: segment.place.file_name.clone(), lines_missing, reason }
}

fn restore_file(
    source: &mut Source,
    files: &Restore,
    kept: KeptFile,
    restored: &mut Restored,
) -> Result<(), SyncError> {
    let file = match files.checkpoint(&kept.file, kept.size_bytes, &kept.sha256) {
        // The name is none: that is said of this checkpoint, and the others go on.
        Err(error @ tidelog::Error::InvalidValue { .. }) => {
            restored.checkpoints_missing.push(kept.missing(error.to_string()));
            return Ok(());
        }
        file => file?,
    };
    let Some(mut file) = file else {
        restored.checkpoint_files_there += 1;
        return Ok(());
    };
    let Some(blob_no) = kept.blob_no else {
        let reason = kept.problem.clone().unwrap_or_else(|| "it was not sent".to_owned());
        restored.checkpoints_missing.push(kept.missing(reason));
        return Ok(());
    };
    let mut chunk_no = 0;
    while let Some(bytes) = source.chunk(blob_no, chunk_no)? {
        file.write(&bytes)?;
        chunk_no += 1;
    }
    match file.finish() {
        Ok(()) => {
            restored.checkpoint_files += 1;
            restored.checkpoint_bytes += kept.size_bytes;
        }
        Err(error @ tidelog::Error::CheckpointDamaged { .. }) => {
            restored.checkpoints_missing.push(kept.missing(error.to_string()));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
