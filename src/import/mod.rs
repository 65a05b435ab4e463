//! How do a predecessor's files get into the store? They are read in place and become journal.
//!
//! A telemetry file becomes a sealed segment of its session; emergency events and checkpoints
//! become entries of the store's own segments, a checkpoint also a file of tidelog's own form.
//! Each segment appears whole or not at all, so an import that was killed is simply started
//! again. Importing again takes what is new and nothing twice.
//!
//! Whatever is not taken is a [`Finding`], with file, line and reason. Nothing of the old files is
//! run: pickled objects are decoded by [`pickle`].

mod archive;
mod checkpoints;
mod emergencies;
mod fields;
mod folder;
mod json;
mod known;
mod lines;
pub mod pickle;
mod report;
mod telemetry;
mod time;

use std::fs;
use std::path::Path;

use jiff::tz::TimeZone;

use self::folder::Found;
use self::known::{EarlierImports, Known, Span};
use self::report::Recorder;
use self::time::LocalTimes;
use crate::disk::{self, LockedFile};
use crate::error::{Error, Result};
use crate::ids::SessionId;
use crate::store::Store;

pub use self::report::{Counts, FIRST_FINDINGS_MAX, Finding, FindingKind, Report};
pub use self::time::time_zone;

/// How to import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// Where times without an offset were written; [`time_zone`] finds one by name.
    pub timezone: TimeZone,
    /// Reads and reports everything, writes nothing.
    pub dry_run: bool,
}

impl Default for ImportOptions {
    /// UTC, and not dry.
    fn default() -> Self {
        Self { timezone: TimeZone::UTC, dry_run: false }
    }
}

/// How far an import is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The file that is being read.
    pub file: &'a Path,
    /// Bytes read so far, of all files.
    pub bytes: u64,
    /// Bytes of all files.
    pub bytes_total: u64,
}

/// One import on its way.
struct Run<'a> {
    store: &'a Store,
    dry_run: bool,
    times: LocalTimes,
    recorder: Recorder,
    progress: &'a mut dyn FnMut(Progress<'_>),
    /// Size of the files that are done, and of all.
    bytes: u64,
    bytes_total: u64,
}

impl Run<'_> {
    /// Tells that so many bytes of this file are read.
    fn tell(&mut self, file: &Path, bytes: u64) {
        let bytes = self.bytes.saturating_add(bytes);
        (self.progress)(Progress { file, bytes, bytes_total: self.bytes_total });
    }

    fn file_done(&mut self, file: &Path) {
        self.bytes += fs::metadata(file).map_or(0, |found| found.len());
        self.tell(file, 0);
    }
}

/// Imports a predecessor's folder: `logs/telemetry/session_*.jsonl`, `logs/emergency/*.json` or
/// `emergency_logs/*.json`, and `checkpoints/*.npz` with their metadata and index; or a folder
/// that holds such files itself. The folder is only read. Persisted on return.
///
/// Again is harmless: what was imported before is counted as already there. A telemetry file that
/// grew gives its new lines; one whose beginning changed is refused. `progress` is called now and
/// then.
///
/// Memory: one line or one JSON file of at most 16 MiB, one checkpoint, and about 50 bytes for
/// each event and checkpoint of the store.
///
/// # Errors
/// The folder cannot be listed, holds none of these files, or is itself a store; another import
/// into the store is running; the store cannot be written. What is wrong with a file or a line is
/// no error: it stands in the report.
pub fn import(
    store: &Store,
    folder: &Path,
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Report> {
    let dry_run = options.dry_run;
    if folder.join("store.json").exists() {
        let reason = format!("{} is a tidelog store, not a predecessor's folder", folder.display());
        return Err(Error::InvalidValue { what: "import", reason });
    }
    let _lock = if dry_run { None } else { Some(lock(store)?) };
    let mut recorder = Recorder::new(store.root(), folder, dry_run);
    let found = folder::look(folder, &mut recorder)?;
    let times = LocalTimes::new(options.timezone.clone());
    let bytes_total = found.bytes();
    let mut run = Run { store, dry_run, times, recorder, progress, bytes: 0, bytes_total };
    run.import(&found)?;
    run.recorder.report.ambiguous_times = run.times.ambiguous;
    run.recorder.report.nonexistent_times = run.times.nonexistent;
    run.recorder.finish()
}

impl Run<'_> {
    /// Telemetry first: events and checkpoints find their sessions by it.
    fn import(&mut self, found: &Found) -> Result<()> {
        let spans = self.import_telemetry(found)?;
        if found.emergencies.is_empty() && found.checkpoints.is_empty() {
            return Ok(());
        }
        let mut known = Known::read(self.store)?;
        for (session, span) in spans {
            known.add_session(&session, span); // a dry run did not write them
        }
        let emergencies = found.emergencies.iter().map(AsRef::as_ref);
        emergencies::import_files(self, &mut known, emergencies)?;
        let checkpoints = found.checkpoints.iter().map(AsRef::as_ref);
        checkpoints::import_files(self, &mut known, checkpoints)
    }

    fn import_telemetry(&mut self, found: &Found) -> Result<Vec<(SessionId, Span)>> {
        let mut earlier = EarlierImports::read(self.store)?;
        let mut spans = Vec::new();
        for path in &found.telemetry {
            spans.extend(telemetry::import_file(self, &mut earlier, path)?);
            self.file_done(path);
        }
        Ok(spans)
    }
}

/// One import at a time: two at once could both find that a file is new.
fn lock(store: &Store) -> Result<LockedFile> {
    store.persister()?; // a store open for reading takes no import
    let folder = report::folder(store.root());
    disk::create_folder(&folder)?;
    let path = folder.join("lock");
    disk::write_new(&path, b"")?;
    let file = disk::open(&path).map_err(Error::io("open", &path))?;
    LockedFile::try_lock(file, &path)?.ok_or_else(|| Error::InvalidValue {
        what: "import",
        reason: format!(
            "is running in another process; wait until it has ended ({} is locked)",
            path.display()
        ),
    })
}
