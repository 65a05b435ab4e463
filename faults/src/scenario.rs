//! The program under test: calls of the store's public API, each told once it has returned.
//!
//! What is called is decided beforehand by the [`plan`](plan()), from a name and a seed alone. So
//! the oracle knows what was asked for, and what a record, a point or a state holds: all of it
//! comes from the seed and the step or the id. The words on standard output, one line a call:
//!
//! ```text
//! ok open 0b5e…                the store's id
//! ok start run-7-1 1            the attempt
//! ok record 17
//! ok checkpoint c-7-1 9f1c…     SHA-256 of the file
//! err persist cannot persist …
//! missed 17                     counted by the store, not written
//! unpersisted 17                written, but not persisted as it was asked for
//! ok missed 1                   as many as the session says that it missed
//! ```

mod plan;
mod values;
mod writer;

use std::fmt;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
pub use tidelog::Durability;
use tidelog::OnMissed;

use crate::Result;

pub use plan::{Operation, plan};
pub use values::{basin_point, emergency, new_checkpoint, state_dict, telemetry};

/// What the program under test does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// One session: records, points of the basin, a persist in the middle.
    Records,
    /// One session with checkpoints, emergencies and persists between its records.
    Checkpoints,
    /// Checkpoints that are removed again.
    Prune,
    /// A predecessor's folder comes in.
    Import,
    /// Sessions one after another, one of them resumed, the store closed and opened between.
    Resume,
    /// Facts that belong to no session: loads and prunes, in the store's own journal.
    Store,
    /// One session over many small segments, with an emergency and a checkpoint.
    Rotate,
    /// Records while another thread persists all the time.
    Background,
    /// Something of everything but the import, drawn from the seed.
    Mixed,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// How the program under test records.
#[derive(Debug, Clone, clap::Args)]
pub struct Manner {
    /// What values are drawn from
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// What a returned call of a record promises
    #[arg(long, default_value_t = Durability::Written)]
    pub durability: Durability,
    /// From this size on a segment is full
    #[arg(long, default_value_t = tidelog::SEGMENT_BYTES_MAX)]
    pub segment_bytes_max: u64,
    /// Between two persists in the background
    #[arg(long, default_value_t = LONG_MS)]
    pub persist_interval_ms: u64,
    /// A record that the disk refuses is an error
    #[arg(long)]
    pub raise: bool,
}

/// An hour: no background thread makes two runs of one seed different.
const LONG_MS: u64 = 3_600_000;

impl Manner {
    pub(crate) fn of(task: &Task) -> Self {
        let (segment_bytes_max, persist_interval_ms) = match task.scenario {
            Scenario::Rotate => (4096, LONG_MS),
            Scenario::Background => (64 << 10, 1),
            _ => (tidelog::SEGMENT_BYTES_MAX, LONG_MS),
        };
        let Task { seed, durability, .. } = *task;
        Self { seed, durability, segment_bytes_max, persist_interval_ms, raise: false }
    }

    fn options(&self) -> tidelog::SessionOptions {
        tidelog::SessionOptions {
            durability: self.durability,
            segment_bytes_max: self.segment_bytes_max,
            persist_interval: Duration::from_millis(self.persist_interval_ms),
            on_missed: if self.raise { OnMissed::Raise } else { OnMissed::Count },
            ..Default::default()
        }
    }
}

/// What one run of the program under test is to do.
///
/// Ids hold the seed: runs of different seeds may follow each other in one store.
#[derive(Debug, Clone, clap::Args)]
pub struct Task {
    /// What to do
    #[arg(long)]
    pub scenario: Scenario,
    /// What ids, values and choices are drawn from
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// What a returned call of a record promises
    #[arg(long, default_value_t = Durability::Written)]
    pub durability: Durability,
    /// About how many records
    #[arg(long, default_value_t = 20)]
    pub records: usize,
}

impl Task {
    /// The arguments that make the program do this in a store.
    pub fn arguments(&self, store: &std::path::Path) -> Vec<std::ffi::OsString> {
        let Self { scenario, seed, durability, records } = self;
        let text = format!(
            "write --scenario {scenario} --seed {seed} --durability {durability} --records {records} --store"
        );
        text.split(' ').map(Into::into).chain([store.into()]).collect()
    }

    /// The calls, in order.
    pub fn plan(&self) -> Vec<Operation> {
        plan(self.scenario, self.seed, self.records)
    }
}

/// How a call is told that came back in this way: `ok record 17`.
pub(crate) fn plan_line(how: &str, operation: &Operation) -> String {
    format!("{how} {operation}")
}

/// Runs the scenario in the store of this folder, and tells each call as it returns.
///
/// # Errors
/// The words cannot be written. A call that fails is told, and the next one follows.
pub fn write(task: &Task, store: PathBuf, told: impl Write) -> Result<()> {
    write_as(Manner::of(task), task, store, told)
}

/// As [`write()`], in another manner.
pub(crate) fn write_as(
    manner: Manner,
    task: &Task,
    store: PathBuf,
    told: impl Write,
) -> Result<()> {
    let mut writer = writer::Writer::new(manner, store, told);
    task.plan().iter().try_for_each(|operation| writer.perform(operation))
}

/// Does what the lines of `asked` say, each once the one before it was told.
///
/// # Errors
/// A line is no operation, or the words cannot be written.
pub fn obey(manner: Manner, store: PathBuf, asked: impl BufRead, told: impl Write) -> Result<()> {
    let mut writer = writer::Writer::new(manner, store, told);
    for line in asked.lines() {
        writer.perform(&line?.parse()?)?;
    }
    Ok(())
}

/// How many entries are there after an import, whoever imported them. Files that it could not read
/// are missing, and its report says so.
pub(crate) fn entries_there(report: &tidelog::import::Report) -> u64 {
    let kinds = [&report.telemetry, &report.emergencies, &report.checkpoints];
    kinds.iter().map(|counts| counts.taken + counts.already_there).sum()
}

/// The predecessor's folder that the import reads.
pub fn predecessor() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/predecessor"))
}
