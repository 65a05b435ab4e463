//! Writes a segment whose entries all exist already, as those of an import do.
//!
//! On disk, in this order: the entries in a file without a name; header and entries under a
//! temporary name, persisted; the final name; the folder. A crash at any place leaves the whole
//! segment or none. It is sealed from the beginning, so there is no marker in `active/`.

use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use tempfile::SpooledTempFile;

use super::cursor::SEGMENT_LINES_MAX;
use super::segment::{self, Header};
use crate::disk::{self, NewFile};
use crate::entry::Entry;
use crate::entry::line;
use crate::error::{Error, Result};

/// Entries up to this size together stay in memory.
const MEMORY_BYTES_MAX: usize = 1 << 20;

/// A segment about to be written, without its header, which may depend on the entries.
pub(crate) struct WholeSegment {
    /// None: entries are only checked, as for a dry run.
    body: Option<SpooledTempFile>,
    folder: PathBuf,
    entries: u32,
    buffer: Vec<u8>,
}

impl WholeSegment {
    /// Begins a segment of a session.
    pub(crate) fn of_session(root: &Path) -> Result<Self> {
        Self::begin(segment::telemetry_folder(root))
    }

    /// Begins a segment of the store's own.
    pub(crate) fn of_store(root: &Path) -> Result<Self> {
        Self::begin(segment::store_folder(root))
    }

    /// Checks entries as if they were written, and keeps none.
    pub(crate) fn checked_only() -> Self {
        Self { body: None, folder: PathBuf::new(), entries: 0, buffer: Vec::new() }
    }

    fn begin(folder: PathBuf) -> Result<Self> {
        disk::create_folder(&folder)?;
        let body = tempfile::spooled_tempfile_in(MEMORY_BYTES_MAX, &folder);
        Ok(Self { body: Some(body), folder, entries: 0, buffer: Vec::new() })
    }

    /// How many entries it holds.
    pub(crate) fn entries(&self) -> u32 {
        self.entries
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// An entry that is too long or cannot be written as JSON is not added; others may follow.
    pub(crate) fn append(&mut self, entry: &Entry) -> Result<()> {
        if self.entries >= SEGMENT_LINES_MAX - 1 {
            let path = self.folder.clone();
            return Err(Error::SegmentFull { path, limit: SEGMENT_LINES_MAX });
        }
        self.buffer.clear();
        line::write_checked(entry, &mut self.buffer)?;
        if let Some(body) = &mut self.body {
            body.write_all(&self.buffer).map_err(Error::io("write a new file in", &self.folder))?;
        }
        self.entries += 1;
        Ok(())
    }

    /// Writes the segment under the first free name of its header; persisted on return.
    ///
    /// # Errors
    /// The disk refused, or both names are taken; nothing stays then.
    pub(crate) fn finish(self, header: &Header) -> Result<()> {
        let Some(mut body) = self.body else { return Ok(()) };
        let [plain, with_id] = header.file_names().map(|name| self.folder.join(name));
        let mut file = NewFile::begin(&plain)?;
        let mut line_0 = Vec::new();
        line::write(header, &mut line_0)
            .map_err(|error| Error::io("write", &plain)(io::Error::other(error)))?;
        file.writer()
            .write_all(&line_0)
            .and_then(|()| body.rewind())
            .and_then(|()| io::copy(&mut body, file.writer()))
            .map_err(Error::io("write", &plain))?;
        let Some(mut unfinished) = file.finish()? else { return Ok(()) };
        unfinished.rename(with_id.clone());
        match unfinished.finish()? {
            None => Ok(()),
            Some(_) => Err(Error::io("create", &with_id)(io::ErrorKind::AlreadyExists.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LINE_BYTES_MAX;
    use crate::entry::Body;
    use crate::ids::{SessionId, StoreId};
    use crate::journal::{BatchLimits, Cursor, SegmentReader, discover};
    use crate::timestamp::Timestamp;

    fn entry() -> Entry {
        Entry { timestamp: Timestamp::now(), body: Body::Unknown { event: "x".into() } }
    }

    fn header() -> Header {
        Header::new(StoreId::random(), Some((SessionId::new("run-7").unwrap(), 1)))
    }

    fn names(folder: &Path) -> usize {
        std::fs::read_dir(folder.join("logs/telemetry")).unwrap().count()
    }

    #[test]
    fn a_whole_segment_reads_as_any_other() {
        let store = tempfile::tempdir().unwrap();
        let mut segment = WholeSegment::of_session(store.path()).unwrap();
        segment.append(&entry()).unwrap();
        segment.append(&entry()).unwrap();
        segment.finish(&header()).unwrap();
        let listing = discover(store.path()).unwrap();
        let mut reader = SegmentReader::open(&listing.segments[0].path, Cursor::START).unwrap();
        let limits = BatchLimits { lines_max: 10, bytes_max: 1000 };
        assert_eq!(reader.next_batch(limits).unwrap().unwrap().lines().len(), 2);
    }

    #[test]
    fn a_taken_name_is_not_replaced() {
        let store = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let mut segment = WholeSegment::of_session(store.path()).unwrap();
            segment.append(&entry()).unwrap();
            segment.finish(&header()).unwrap();
        }
        assert_eq!(discover(store.path()).unwrap().segments.len(), 2);
    }

    #[test]
    fn a_segment_that_is_not_finished_leaves_nothing() {
        let store = tempfile::tempdir().unwrap();
        let mut segment = WholeSegment::of_session(store.path()).unwrap();
        for _ in 0..20_000 {
            segment.append(&entry()).unwrap(); // more than stays in memory
        }
        drop(segment);
        assert_eq!(names(store.path()), 0);
    }

    #[test]
    fn an_entry_that_is_too_long_leaves_the_others() {
        let mut segment = WholeSegment::checked_only();
        let event = "x".repeat(LINE_BYTES_MAX);
        let long = Entry { timestamp: Timestamp::now(), body: Body::Unknown { event } };
        assert!(matches!(segment.append(&long), Err(Error::LineTooLong { .. })));
        segment.append(&entry()).unwrap();
        assert_eq!(segment.entries(), 1);
    }
}
