use std::ops::ControlFlow;

use clap::Args;
use serde::Serialize;
use tidelog::{GapRow, SessionId, SessionStats, SqlValue, Store};

use crate::chart;
use crate::context::Context;
use crate::error::CliError;
use crate::output::Output;
use crate::rows::Rows;
use crate::text;

/// Points that a chart is drawn from; of longer sessions every n-th record is taken.
const CHART_POINTS_MAX: u64 = 20_000;

/// Gaps that are shown.
const GAPS_MAX: usize = 10;

/// A session's records in the journal's order, whatever the clock did.
const RECORDS: &str = "index_segments CROSS JOIN telemetry_records USING (segment_no, session_id)";

/// Show one session: statistics, what belongs to it, and phi as a chart.
#[derive(Args)]
pub(crate) struct Show {
    /// The session, as `tidelog sessions` lists it
    #[arg(value_name = "ID")]
    session: SessionId,
}

/// What `--json` prints; the lists hold objects with the columns of their tables.
#[derive(Serialize)]
struct Document {
    stats: SessionStats,
    #[serde(flatten)]
    sections: Sections,
}

/// The newest or best rows of what belongs to a session.
#[derive(Serialize)]
struct Sections {
    parts: Rows,
    missed_records: u64,
    gap_count: usize,
    gaps: Vec<GapRow>,
    emergencies: Rows,
    checkpoints: Rows,
    last_records: Rows,
}

impl Show {
    pub(crate) fn run(self, context: &Context, output: &mut Output) -> Result<(), CliError> {
        let store = context.open_snapshot()?;
        if !context.json {
            return print(&store, &self.session, output);
        }
        let stats = store.get_session_stats(&self.session)?;
        let sections = sections(&store, &self.session)?;
        Ok(output.json(&Document { stats, sections })?)
    }
}

/// Everything about a session, for people.
pub(crate) fn print(store: &Store, id: &SessionId, output: &mut Output) -> Result<(), CliError> {
    let stats = store.get_session_stats(id)?;
    let sections = sections(store, id)?;
    print_stats(&stats, sections.missed_records, output)?;
    print_gaps(&sections, output)?;
    for (title, rows) in [
        ("parts, one for each segment", &sections.parts),
        ("emergencies, newest first", &sections.emergencies),
        ("checkpoints, best first", &sections.checkpoints),
        ("last records", &sections.last_records),
    ] {
        if !rows.is_empty() {
            output.line(format!("\n{title}"))?;
            output.lines(rows.table())?;
        }
    }
    let stride = stats.total_steps / CHART_POINTS_MAX + 1;
    let chart = chart::draw(&phi_by_step(store, id, stride)?);
    if !chart.is_empty() {
        let of = if stride > 1 { format!(", one record in {stride}") } else { String::new() };
        output.line(format!("\nphi over steps{of}"))?;
        output.lines(chart)?;
    }
    Ok(())
}

fn print_stats(
    stats: &SessionStats,
    missed_records: u64,
    output: &mut Output,
) -> std::io::Result<()> {
    output.line(format!("session {}: {}", stats.session_id, stats.status))?;
    output.fields(&[
        ("started", text::optional(stats.started_at.map(text::time))),
        ("ended", text::optional(stats.ended_at.map(text::time))),
        ("duration", text::optional(stats.duration_seconds.map(text::duration))),
        ("records", records(stats.total_steps, missed_records)),
        (
            "phi",
            format!(
                "avg {}  max {}  min {}",
                text::number(stats.avg_phi),
                text::number(stats.max_phi),
                text::number(stats.min_phi)
            ),
        ),
        ("kappa", format!("avg {}", text::number(stats.avg_kappa))),
        ("emergencies", stats.emergency_count.to_string()),
        (
            "checkpoints",
            format!(
                "{}, best phi {}",
                stats.checkpoint_count,
                text::number(stats.best_checkpoint_phi)
            ),
        ),
    ])
}

/// "200", or "200, and 3 missing"
fn records(there: u64, missed: u64) -> String {
    match missed {
        0 => there.to_string(),
        missed => format!("{there}, and {missed} missing"),
    }
}

/// What the disk refused comes before what it took.
fn print_gaps(sections: &Sections, output: &mut Output) -> std::io::Result<()> {
    let which = match (sections.gap_count, sections.gaps.len()) {
        (0, _) => return Ok(()),
        (all, shown) if all > shown => format!("the newest {shown} of {all} gaps"),
        _ => "gaps, newest first".into(),
    };
    output.line(format!("\n{which}"))?;
    output.lines(sections.gaps.iter().map(|gap| format!("  {}", gap_text(gap))))
}

/// "3 records missing, steps 7–9, since 2026-01-05 09:30:00Z: no space left on device"
fn gap_text(gap: &GapRow) -> String {
    let steps = match (gap.first_step, gap.last_step) {
        (Some(first), Some(last)) if first == last => format!(", step {first}"),
        (Some(first), Some(last)) => format!(", steps {first}–{last}"),
        _ => String::new(),
    };
    let (records, since) = (text::count(gap.records, "record"), text::time(gap.since));
    format!("{records} missing{steps}, since {since}: {}", text::clean(&gap.reason))
}

/// An id has no character that ends a text in SQL, so it may stand in one.
fn sections(store: &Store, id: &SessionId) -> Result<Sections, CliError> {
    let rows = |columns: &str, table: &str, order: &str| {
        let query = format!("SELECT {columns} FROM {table} WHERE session_id = '{id}' {order}");
        Rows::query(store, &query)
    };
    let mut gaps = store.gaps(Some(id))?;
    let gap_count = gaps.len();
    let missed_records = gaps.iter().fold(0_u64, |sum, gap| sum.saturating_add(gap.records));
    gaps.truncate(GAPS_MAX);
    Ok(Sections {
        missed_records,
        gap_count,
        gaps,
        parts: rows(
            "attempt, status, started_at, ended_at, reason",
            "session_parts",
            "ORDER BY attempt, started_at LIMIT 100",
        )?,
        emergencies: rows(
            "timestamp, step, severity, reason, metric, value, threshold, event_id",
            "emergency_events",
            "ORDER BY timestamp DESC LIMIT 10",
        )?,
        checkpoints: rows(
            "rank, checkpoint_id, step, phi, kappa, regime, size_bytes, state",
            "checkpoints",
            "ORDER BY rank IS NULL, rank LIMIT 10",
        )?,
        last_records: rows(
            "timestamp, step, phi, kappa_eff, regime, basin_distance, emergency",
            RECORDS,
            "ORDER BY attempt DESC, created_at DESC, segment_no DESC, line_no DESC LIMIT 5",
        )?,
    })
}

fn phi_by_step(store: &Store, id: &SessionId, stride: u64) -> Result<Vec<(i64, f64)>, CliError> {
    let query = format!(
        "SELECT step, phi FROM {RECORDS} WHERE session_id = '{id}' AND line_no % {stride} = 0
         ORDER BY attempt, created_at, segment_no, line_no"
    );
    let mut points = Vec::new();
    store.sql(
        &query,
        |_| {},
        |row| {
            if let [SqlValue::Integer(step), SqlValue::Real(phi)] = row {
                points.push((*step, *phi));
            }
            ControlFlow::Continue(())
        },
    )?;
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_tells_how_many_which_steps_since_when_and_why() {
        let gap = |first_step, last_step| GapRow {
            session_id: SessionId::new("run-7").unwrap(),
            timestamp: "2026-01-05T09:31:00Z".parse().unwrap(),
            records: 3,
            first_step,
            last_step,
            since: "2026-01-05T09:30:00Z".parse().unwrap(),
            reason: "no space left on device".into(),
        };
        let since = "since 2026-01-05 09:30:00Z: no space left on device";
        let missing = "3 records missing";
        assert_eq!(gap_text(&gap(Some(7), Some(9))), format!("{missing}, steps 7–9, {since}"));
        assert_eq!(gap_text(&gap(Some(7), Some(7))), format!("{missing}, step 7, {since}"));
        assert_eq!(gap_text(&gap(None, None)), format!("{missing}, {since}"));
    }
}
