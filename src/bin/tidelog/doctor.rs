use clap::Args;
use tidelog::doctor::{self, Finding, Level, Report};

use crate::agent_lag;
use crate::context::Context;
use crate::error::CliError;
use crate::output::Output;
use crate::text;

/// Explain the environment: disk, file system, permissions, limits, clock, versions, agent.
///
/// Says what could keep the store from recording, and what to do. `tidelog verify` reads the
/// files. Changes nothing; to measure the disk, a file comes into the store's folder and goes
/// again. Ends with exit code 1 if there is a problem.
#[derive(Args)]
pub(crate) struct Doctor {}

impl Doctor {
    pub(crate) fn run(self, context: &Context, output: &mut Output) -> Result<(), CliError> {
        let mut report = doctor::examine(context.store_path());
        if is_store(&report) {
            report.add(agent_lag::finding(context.store_path()));
        }
        match context.json {
            true => output.json(&report)?,
            false => print(&report, output)?,
        }
        match report.problem_count {
            0 => Ok(()),
            _ => {
                output.flush()?;
                Err(CliError::problems())
            }
        }
    }
}

/// Whether there is something that an agent could know of.
fn is_store(report: &Report) -> bool {
    report.findings.iter().any(|finding| finding.check == "store" && finding.level == Level::Ok)
}

fn print(report: &Report, output: &mut Output) -> std::io::Result<()> {
    output.line(format!("store {}", text::clean(&report.store.display().to_string())))?;
    let width = report.findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    for finding in &report.findings {
        print_finding(finding, width, output)?;
    }
    output.line(match (report.problem_count, report.warning_count) {
        (0, 0) => "all is well".into(),
        (0, warnings) => text::count(warnings as u64, "warning"),
        (problems, 0) => text::count(problems as u64, "problem"),
        (problems, warnings) => format!(
            "{}, {}",
            text::count(problems as u64, "problem"),
            text::count(warnings as u64, "warning")
        ),
    })
}

fn print_finding(finding: &Finding, width: usize, output: &mut Output) -> std::io::Result<()> {
    let (level, check) = (word(finding.level), finding.check.replace('_', " "));
    output.line(format!("  {level:7}  {check:width$}  {}", text::clean(&finding.found)))?;
    let indent = " ".repeat(width + 13);
    if let Some(meaning) = &finding.meaning {
        output.line(format!("{indent}{}", text::clean(meaning)))?;
    }
    match &finding.remedy {
        Some(remedy) => output.line(format!("{indent}try: {}", text::clean(remedy))),
        None => Ok(()),
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Note => "note",
        Level::Warning => "warning",
        Level::Problem => "problem",
    }
}
