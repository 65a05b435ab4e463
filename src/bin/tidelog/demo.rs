use clap::Args;
use serde::Serialize;
use tidelog::{SessionId, Store};

use crate::context::Context;
use crate::demo_run::{self, Written};
use crate::error::CliError;
use crate::output::Output;
use crate::show;
use crate::text;

/// How often a name that is taken is tried with another number.
const NAMES_TRIED_MAX: u32 = 10_000;

/// Record a made-up training run, and show what can be seen of it.
///
/// A model warms up, grows, breaks down and recovers; the session holds records, emergency events,
/// checkpoints and basin points. Equal steps and seed give equal values.
#[derive(Args)]
pub(crate) struct Demo {
    /// How many steps are recorded
    #[arg(long, default_value_t = 1_000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    steps: u32,
    /// What the made-up values begin from
    #[arg(long, default_value_t = 42, value_name = "S")]
    seed: u64,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    store: String,
    session_id: &'a SessionId,
    records: u32,
    basin_points: u32,
    emergencies: u32,
    checkpoints: u32,
}

impl Demo {
    pub(crate) fn run(self, context: &Context, output: &mut Output) -> Result<(), CliError> {
        let store = context.open_for_writing()?;
        let id = free_id(&store, self.seed)?;
        let session = store.start_session(id.clone())?;
        let written = demo_run::record(session, self.steps, self.seed)?;
        if context.json {
            return Ok(output.json(&document(context, &id, &written))?);
        }
        print_written(context, &id, &written, output)?;
        show::print(&store, &id, output)?;
        Ok(print_next(context, &id, output)?)
    }
}

/// `demo-42`, or the next free one of `demo-42-2`, `demo-42-3`, …
fn free_id(store: &Store, seed: u64) -> Result<SessionId, CliError> {
    let taken: Vec<SessionId> =
        store.sessions()?.into_iter().map(|session| session.session_id).collect();
    for number in 1..NAMES_TRIED_MAX {
        let name = match number {
            1 => format!("demo-{seed}"),
            _ => format!("demo-{seed}-{number}"),
        };
        let id = SessionId::new(name).map_err(tidelog::Error::from)?;
        if !taken.contains(&id) {
            return Ok(id);
        }
    }
    Err(CliError::usage("the store is full of demos of this seed; take another --seed"))
}

fn document<'a>(context: &Context, id: &'a SessionId, written: &Written) -> Document<'a> {
    Document {
        store: context.store_path().display().to_string(),
        session_id: id,
        records: written.records,
        basin_points: written.basin_points,
        emergencies: written.emergencies,
        checkpoints: written.checkpoints,
    }
}

fn print_written(
    context: &Context,
    id: &SessionId,
    written: &Written,
    output: &mut Output,
) -> std::io::Result<()> {
    let store = context.store_path().display();
    output.line(format!(
        "recorded {id} into {store}: {}, {}, {}, {}",
        text::count(written.records.into(), "record"),
        text::count(written.emergencies.into(), "emergency event"),
        text::count(written.checkpoints.into(), "checkpoint"),
        text::count(written.basin_points.into(), "basin point"),
    ))?;
    let logs = format!("{store}/logs");
    output.fields(&[
        (&format!("{logs}/telemetry/session_{id}.jsonl"), "every entry, one a line".into()),
        (&format!("{logs}/emergency/"), "a copy of each emergency event".into()),
        (&format!("{store}/checkpoints/"), "model states, for numpy.load".into()),
    ])?;
    output.line("")
}

fn print_next(context: &Context, id: &SessionId, output: &mut Output) -> std::io::Result<()> {
    output.line("")?;
    output.line("go on with:")?;
    let sql = "sql \"SELECT regime, count(*), avg(phi) FROM telemetry_records GROUP BY regime\"";
    let commands =
        ["best".into(), format!("tail {id}"), sql.into(), "status".into(), "verify".into()];
    output.lines(
        commands.iter().map(|arguments: &String| format!("  {}", context.command(arguments))),
    )
}
