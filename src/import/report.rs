//! What did an import do, and what did it not take?

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::disk::{self, NewFile};
use crate::error::{Error, Result};
use crate::timestamp::Timestamp;

/// How many findings [`Report::first_findings`] holds.
pub const FIRST_FINDINGS_MAX: usize = 20;

/// How many findings the report file holds; those beyond are counted only.
const REPORT_LINES_MAX: u64 = 1_000_000;

/// What an import did, or a dry run would do.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The folder that was read.
    pub folder: String,
    /// Nothing was written; the counts say what would be.
    pub dry_run: bool,
    /// Sessions that got new records.
    pub sessions: u64,
    /// Telemetry files; an entry is a record.
    pub telemetry: Counts,
    /// Emergency files; an entry is an event.
    pub emergencies: Counts,
    /// Checkpoint files; an entry is a checkpoint.
    pub checkpoints: Counts,
    /// Local times that happened twice; the first of both was taken.
    pub ambiguous_times: u64,
    /// Local times that a clock change left out; read as if it had not.
    pub nonexistent_times: u64,
    /// Findings that are no refusals: something was missing and was made up for.
    pub notes: u64,
    /// The first findings.
    pub first_findings: Vec<Finding>,
    /// All findings, one JSON object a line; none if there are none, or in a dry run.
    pub report_file: Option<PathBuf>,
}

/// Files and entries of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Files that were looked at.
    pub files: u64,
    /// Entries that are new in the store.
    pub taken: u64,
    /// Entries that an earlier import took.
    pub already_there: u64,
    /// Lines and whole files that were not taken; each is a [`Finding`].
    pub refused: u64,
}

/// One line of the report file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether something was not taken.
    pub kind: FindingKind,
    /// The file.
    pub file: String,
    /// The line, counted from 0; none if it is about the whole file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Offset of the line's first byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte: Option<u64>,
    /// Why.
    pub reason: String,
}

/// What a finding says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingKind {
    /// A line or a file was not taken.
    Refused,
    /// It was taken, and something about it should be known.
    Note,
}

/// Which of the counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Area {
    Telemetry,
    Emergencies,
    Checkpoints,
}

impl Report {
    /// Everything that was not taken: lines and whole files.
    pub fn refused(&self) -> u64 {
        [self.telemetry, self.emergencies, self.checkpoints].iter().map(|area| area.refused).sum()
    }

    /// Every entry that is new in the store.
    pub fn taken(&self) -> u64 {
        [self.telemetry, self.emergencies, self.checkpoints].iter().map(|area| area.taken).sum()
    }

    pub(super) fn counts(&mut self, area: Area) -> &mut Counts {
        match area {
            Area::Telemetry => &mut self.telemetry,
            Area::Emergencies => &mut self.emergencies,
            Area::Checkpoints => &mut self.checkpoints,
        }
    }
}

/// Counts, and writes the report file.
pub(super) struct Recorder {
    pub(super) report: Report,
    /// The store's folder.
    root: PathBuf,
    /// Begun at the first finding.
    file: Option<(NewFile, PathBuf)>,
    lines: u64,
}

impl Recorder {
    pub(super) fn new(root: &Path, folder: &Path, dry_run: bool) -> Self {
        let report = Report {
            folder: folder.display().to_string(),
            dry_run,
            sessions: 0,
            telemetry: Counts::default(),
            emergencies: Counts::default(),
            checkpoints: Counts::default(),
            ambiguous_times: 0,
            nonexistent_times: 0,
            notes: 0,
            first_findings: Vec::new(),
            report_file: None,
        };
        Self { report, root: root.to_owned(), file: None, lines: 0 }
    }

    /// A whole file was not taken.
    pub(super) fn refuse(&mut self, area: Area, file: &Path, reason: String) -> Result<()> {
        self.refuse_at(area, file, None, reason)
    }

    /// Something was not taken; `place` is line and offset.
    pub(super) fn refuse_at(
        &mut self,
        area: Area,
        file: &Path,
        place: Option<(u64, u64)>,
        reason: String,
    ) -> Result<()> {
        self.report.counts(area).refused += 1;
        self.add(FindingKind::Refused, file, place, reason)
    }

    /// Something should be known.
    pub(super) fn note(&mut self, file: &Path, reason: String) -> Result<()> {
        self.report.notes += 1;
        self.add(FindingKind::Note, file, None, reason)
    }

    fn add(
        &mut self,
        kind: FindingKind,
        file: &Path,
        place: Option<(u64, u64)>,
        reason: String,
    ) -> Result<()> {
        let (line, byte) = place.unzip();
        let finding = Finding { kind, file: file.display().to_string(), line, byte, reason };
        if !self.report.dry_run && self.lines < REPORT_LINES_MAX {
            self.lines += 1;
            self.write(&finding)?;
        }
        if self.report.first_findings.len() < FIRST_FINDINGS_MAX {
            self.report.first_findings.push(finding);
        }
        Ok(())
    }

    fn write(&mut self, finding: &Finding) -> Result<()> {
        let (mut file, path) = match self.file.take() {
            Some(begun) => begun,
            None => self.begin()?,
        };
        serde_json::to_writer(file.writer(), finding)
            .map_err(std::io::Error::from)
            .and_then(|()| file.writer().write_all(b"\n"))
            .map_err(Error::io("write", &path))?;
        self.file = Some((file, path));
        Ok(())
    }

    fn begin(&self) -> Result<(NewFile, PathBuf)> {
        let folder = folder(&self.root);
        disk::create_folder(&folder)?;
        let time = Timestamp::now().to_jiff().strftime("%Y%m%dT%H%M%S%6fZ").to_string();
        let path = folder.join(format!("{time}.jsonl"));
        Ok((NewFile::begin(&path)?, path))
    }

    /// The report; its file is persisted.
    pub(super) fn finish(mut self) -> Result<Report> {
        if let Some((file, path)) = self.file.take() {
            match file.finish()? {
                None => self.report.report_file = Some(path),
                Some(_) => return Err(Error::io("create", &path)(exists())),
            }
        }
        Ok(self.report)
    }
}

fn exists() -> std::io::Error {
    std::io::ErrorKind::AlreadyExists.into()
}

/// Where report files lie: beside the journal, and read by nothing.
pub(super) fn folder(root: &Path) -> PathBuf {
    root.join("logs").join("import")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_is_a_line_and_the_first_ones_are_in_the_report() {
        let root = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::new(root.path(), Path::new("old"), false);
        for line in 0..30 {
            let file = Path::new("old/a.jsonl");
            recorder.refuse_at(Area::Telemetry, file, Some((line, 7)), "is odd".into()).unwrap();
        }
        let report = recorder.finish().unwrap();
        let text = std::fs::read_to_string(report.report_file.as_ref().unwrap()).unwrap();
        assert_eq!(text.lines().count(), 30);
        let first =
            r#"{"kind":"refused","file":"old/a.jsonl","line":0,"byte":7,"reason":"is odd"}"#;
        assert_eq!(text.lines().next(), Some(first));
        assert_eq!((report.refused(), report.first_findings.len()), (30, FIRST_FINDINGS_MAX));
    }

    #[test]
    fn nothing_found_leaves_no_file() {
        let root = tempfile::tempdir().unwrap();
        let report = Recorder::new(root.path(), Path::new("old"), false).finish().unwrap();
        assert_eq!(report.report_file, None);
        assert!(!folder(root.path()).exists());
    }
}
