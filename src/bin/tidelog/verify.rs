use clap::Args;
use tidelog::Store;
use tidelog::verify::{Finding, VerifyReport};

use crate::context::Context;
use crate::error::CliError;
use crate::output::Output;
use crate::progress::Bar;
use crate::text;

/// Read everything in the store and list what is damaged.
///
/// Checks every line (checksum and content), every checkpoint (size, SHA-256, content), the
/// copies of emergency events, and the index against the files. Changes nothing. Ends with exit
/// code 3 if it found damage.
#[derive(Args)]
pub(crate) struct Verify {
    /// Parse every line again, also those that the index has read, and compare the chain of hashes
    #[arg(long)]
    thorough: bool,
}

impl Verify {
    pub(crate) fn run(self, context: &Context, output: &mut Output) -> Result<(), CliError> {
        let store =
            Store::open_read_only(context.store_path()).map_err(CliError::damage_on_open)?;
        let bar = Bar::new("verifying");
        let mut show = |progress| bar.show(progress);
        let report = match self.thorough {
            true => store.verify_thoroughly(&mut show)?,
            false => store.verify(&mut show)?,
        };
        drop(bar);
        match context.json {
            true => output.json(&report)?,
            false => print(&report, output)?,
        }
        match report.is_sound() {
            true => Ok(()),
            false => {
                output.flush()?;
                Err(CliError::damage())
            }
        }
    }
}

fn print(report: &VerifyReport, output: &mut Output) -> std::io::Result<()> {
    for finding in &report.findings {
        output.line(headline(finding))?;
        output.line(format!("        try: {}", text::clean(&finding.remedy)))?;
    }
    let found = report.damage_count + report.note_count;
    match found.saturating_sub(report.findings.len() as u64) {
        0 => {}
        more => output.line(format!("… and {} more", text::count(more, "finding")))?,
    }
    output.line(format!(
        "verified: {}, {} ({}), {} ({})",
        text::count(report.segments, "segment"),
        text::count(report.entries, "line"),
        text::bytes(report.journal_bytes),
        text::count(report.checkpoints, "checkpoint"),
        text::bytes(report.checkpoint_bytes),
    ))?;
    output.line(match (report.damage_count, report.note_count) {
        (0, 0) => "sound: nothing to report".into(),
        (0, notes) => format!("sound, with {} about harmless things", text::count(notes, "note")),
        (damage, _) => format!("damage found in {}", text::count(damage, "place")),
    })
}

fn headline(finding: &Finding) -> String {
    let heading = if finding.damage { "damage" } else { "note  " };
    let path = text::clean(&finding.path.display().to_string());
    let place = match (finding.line, finding.byte) {
        (Some(line), Some(byte)) => format!(" line {line} (byte {byte})"),
        _ => String::new(),
    };
    format!("{heading}  {path}{place}: {}", text::clean(&finding.reason))
}
