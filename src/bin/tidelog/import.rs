use std::path::PathBuf;

use clap::Args;
use tempfile::TempDir;
use tidelog::Store;
use tidelog::import::{self, Counts, Finding, FindingKind, ImportOptions, Report};

use crate::context::Context;
use crate::error::CliError;
use crate::output::Output;
use crate::progress::Bar;
use crate::table::{self, Side};
use crate::text;

/// Take over the files of a predecessor: telemetry, emergency events, checkpoints.
///
/// The folder is only read. Importing again takes what is new and nothing twice. What is not taken
/// is listed in a report file with file, line and reason; that alone is no failure.
#[derive(Args)]
pub(crate) struct Import {
    /// The predecessor's folder, with `logs/telemetry`, `logs/emergency` and `checkpoints`
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Where times without an offset were written, such as Europe/Berlin or +01:00
    #[arg(long, default_value = "UTC", value_name = "TZ")]
    timezone: String,
    /// Read and report everything, write nothing of it
    #[arg(long)]
    dry_run: bool,
}

impl Import {
    pub(crate) fn run(self, context: &Context, output: &mut Output) -> Result<(), CliError> {
        let timezone = import::time_zone(&self.timezone)?;
        let (store, _scratch) = self.store(context)?;
        let bar = Bar::new("importing");
        let options = ImportOptions { timezone, dry_run: self.dry_run };
        let report = import::import(&store, &self.folder, &options, &mut |progress| {
            bar.show_bytes(progress.bytes, progress.bytes_total);
        })?;
        drop(bar);
        match context.json {
            true => Ok(output.json(&report)?),
            false => Ok(print(&report, output)?),
        }
    }
}

impl Import {
    /// A dry run where there is no store yet compares with an empty one, which is gone afterwards.
    fn store(&self, context: &Context) -> Result<(Store, Option<TempDir>), CliError> {
        if !self.dry_run {
            return Ok((context.open_for_writing()?, None));
        }
        match Store::open_read_only(context.store_path()) {
            Err(tidelog::Error::NotAStore { .. }) => {
                let scratch = tempfile::tempdir().map_err(|error| {
                    CliError::failure("cannot create a temporary folder").because(error)
                })?;
                Ok((Store::open(scratch.path())?, Some(scratch)))
            }
            store => Ok((store?, None)),
        }
    }
}

fn print(report: &Report, output: &mut Output) -> std::io::Result<()> {
    let done = if report.dry_run { "would be imported" } else { "imported" };
    let sessions = text::count(report.sessions, "session");
    output.line(format!("{done} from {}, {sessions}", text::clean(&report.folder)))?;
    let headings = [
        ("", Side::Left),
        ("files", Side::Right),
        ("taken", Side::Right),
        ("already there", Side::Right),
        ("refused", Side::Right),
    ];
    let rows = vec![
        cells("records", report.telemetry),
        cells("emergencies", report.emergencies),
        cells("checkpoints", report.checkpoints),
    ];
    output.lines(table::lines(&headings, rows))?;
    if report.ambiguous_times + report.nonexistent_times > 0 {
        output.line(format!(
            "times that a clock change makes unsure: {} happened twice (the first was taken), {} \
             never",
            report.ambiguous_times, report.nonexistent_times
        ))?;
    }
    output.lines(report.first_findings.iter().map(line))?;
    let shown = report.first_findings.len() as u64;
    match (report.refused() + report.notes).saturating_sub(shown) {
        0 => {}
        more => output.line(format!("… and {} more", text::count(more, "finding")))?,
    }
    match &report.report_file {
        Some(file) => output.line(format!("all findings: {}", file.display())),
        None => Ok(()),
    }
}

fn cells(what: &str, counts: Counts) -> Vec<String> {
    let numbers = [counts.files, counts.taken, counts.already_there, counts.refused];
    std::iter::once(what.to_owned()).chain(numbers.map(|number| number.to_string())).collect()
}

fn line(finding: &Finding) -> String {
    let heading = match finding.kind {
        FindingKind::Refused => "refused",
        FindingKind::Note => "note   ",
    };
    let place = finding.line.map_or(String::new(), |line| format!(" line {line}"));
    let (file, reason) = (text::clean(&finding.file), text::clean(&finding.reason));
    format!("{heading}  {file}{place}: {reason}")
}
