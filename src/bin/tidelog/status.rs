use std::ops::ControlFlow;

use clap::Args;
use serde::Serialize;
use tidelog::{LiveWriter, SqlValue, Store};

use crate::context::Context;
use crate::error::CliError;
use crate::output::Output;
use crate::progress::Bar;
use crate::rows::Rows;
use crate::table::{self, Side};
use crate::text;

const ACTIVE_SESSIONS: &str = "SELECT session_id, started_at, total_steps, avg_phi, emergency_count
     FROM telemetry_sessions WHERE status = 'active' ORDER BY started_at DESC LIMIT 20";

/// As a float, for a sum of integers that overflows is an error.
const MISSED_RECORDS: &str = "SELECT CAST(total(records) AS INTEGER) FROM telemetry_gaps";

/// One more than are named.
const SESSIONS_WITH_GAPS: &str = "SELECT session_id FROM telemetry_gaps
     GROUP BY session_id ORDER BY max(timestamp) DESC LIMIT 4";

/// Show the store at a glance: sizes, who writes, what is active.
#[derive(Args)]
pub(crate) struct Status {}

/// What `--json` prints.
#[derive(Serialize)]
struct Document {
    store: String,
    #[serde(flatten)]
    status: tidelog::Status,
    #[serde(flatten)]
    indexed: Option<Indexed>,
}

/// What the index tells.
#[derive(Serialize)]
struct Indexed {
    index_lag_bytes: u64,
    missed_records: u64,
    /// The newest ones, for people.
    #[serde(skip)]
    sessions_with_gaps: Vec<String>,
    active_sessions: Rows,
}

impl Status {
    pub(crate) fn run(self, context: &Context, output: &mut Output) -> Result<(), CliError> {
        let store = context.open()?;
        // first, for it may make the index
        let indexed = Indexed::of(&store);
        let status = store.status()?;
        let (indexed, failed) = match indexed {
            Ok(indexed) => (Some(indexed), None),
            Err(error) => (None, Some(error)),
        };
        let store = context.store_path().display().to_string();
        let document = Document { store, status, indexed };
        match context.json {
            true => output.json(&document)?,
            false => print(&document, output)?,
        }
        output.flush()?;
        failed.map_or(Ok(()), Err)
    }
}

impl Indexed {
    fn of(store: &Store) -> Result<Self, CliError> {
        let (store, index_lag_bytes) = snapshot(store)?;
        Ok(Self {
            index_lag_bytes,
            missed_records: missed_records(&store)?,
            sessions_with_gaps: sessions_with_gaps(&store)?,
            active_sessions: Rows::query(&store, ACTIVE_SESSIONS)?,
        })
    }
}

/// The store as it is now; how many bytes of the journal the index had to read for it.
fn snapshot(store: &Store) -> Result<(Store, u64), CliError> {
    let bar = Bar::new("reading");
    let mut lag_bytes = None;
    let snapshot = store.snapshot(&mut |progress| {
        lag_bytes.get_or_insert(progress.bytes_total.saturating_sub(progress.bytes_done));
        bar.show(progress);
    })?;
    Ok((snapshot, lag_bytes.unwrap_or_default()))
}

/// Records that the disk refused, as far as their writers could write that down.
fn missed_records(store: &Store) -> Result<u64, CliError> {
    let mut missed = 0;
    store.sql(
        MISSED_RECORDS,
        |_| {},
        |row| {
            if let [SqlValue::Integer(records)] = row {
                missed = records.cast_unsigned();
            }
            ControlFlow::Break(())
        },
    )?;
    Ok(missed)
}

fn sessions_with_gaps(store: &Store) -> Result<Vec<String>, CliError> {
    let mut sessions = Vec::new();
    store.sql(
        SESSIONS_WITH_GAPS,
        |_| {},
        |row| {
            if let [SqlValue::Text(session)] = row {
                sessions.push(session.clone());
            }
            ControlFlow::Continue(())
        },
    )?;
    Ok(sessions)
}

/// "a, b, c and others"
fn named(sessions: &[String]) -> String {
    match sessions {
        [first, second, third, _, ..] => format!("{first}, {second}, {third} and others"),
        few => few.join(", "),
    }
}

fn print(document: &Document, output: &mut Output) -> std::io::Result<()> {
    let status = &document.status;
    output.line(format!("store {} ({})", document.store, status.store_id))?;
    let sized = |count: usize, one: &str, bytes: u64| {
        format!("{}, {}", text::count(count as u64, one), text::bytes(bytes))
    };
    let index = match document.indexed.as_ref().map_or(0, |indexed| indexed.index_lag_bytes) {
        0 => text::bytes(status.index_bytes),
        lag => format!("{}, was {} behind", text::bytes(status.index_bytes), text::bytes(lag)),
    };
    output.fields(&[
        ("journal", sized(status.segments, "segment", status.journal_bytes)),
        ("checkpoints", sized(status.checkpoint_files, "file", status.checkpoint_bytes)),
        ("index", index),
        ("disk", format!("{} free", text::bytes(status.free_bytes))),
    ])?;
    if let Some(indexed) = &document.indexed {
        print_indexed(indexed, output)?;
    }
    writers("being written now", &status.writers, output)?;
    writers(
        "abandoned by writers that died; sealed by the next writer",
        &status.abandoned,
        output,
    )?;
    if status.leftover_files > 0 {
        let leftovers = sized(status.leftover_files, "file", status.leftover_bytes);
        output
            .line(format!("\nleft by killed programs: {leftovers}; `tidelog verify` names them"))?;
    }
    if !status.refused_files.is_empty() {
        output.line("\nfiles that are no segments; `tidelog verify` says more")?;
    }
    for file in &status.refused_files {
        output.line(format!("  {}: {}", text::clean(&file.path), text::clean(&file.reason)))?;
    }
    Ok(())
}

fn print_indexed(indexed: &Indexed, output: &mut Output) -> std::io::Result<()> {
    if indexed.missed_records > 0 {
        let missed = text::count(indexed.missed_records, "record");
        output.line(format!(
            "\nmissing because the disk refused them: {missed}, of {}; `tidelog show ID` says which",
            named(&indexed.sessions_with_gaps)
        ))?;
    }
    if !indexed.active_sessions.is_empty() {
        output.line("\nactive sessions")?;
        output.lines(indexed.active_sessions.table())?;
    }
    Ok(())
}

fn writers(title: &str, writers: &[LiveWriter], output: &mut Output) -> std::io::Result<()> {
    if writers.is_empty() {
        return Ok(());
    }
    let headings = [
        ("session", Side::Left),
        ("pid", Side::Right),
        ("host", Side::Left),
        ("since", Side::Left),
        ("segment", Side::Left),
    ];
    let cells = |writer: &LiveWriter| {
        let session = writer.session_id.as_ref().map_or("(the store)".into(), ToString::to_string);
        let (pid, host) = (writer.pid.to_string(), text::clean(&writer.host));
        vec![session, pid, host, text::time(writer.since), writer.segment.to_string()]
    };
    output.line(format!("\n{title}"))?;
    output.lines(table::lines(&headings, writers.iter().map(cells).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_sessions_are_named_and_more_are_others() {
        let sessions: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).into();
        assert_eq!(named(&sessions[..2]), "a, b");
        assert_eq!(named(&sessions), "a, b, c and others");
    }
}
