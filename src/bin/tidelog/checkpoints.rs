use clap::Args;
use tidelog::CheckpointRow;

use crate::context::Context;
use crate::error::CliError;
use crate::output::Output;
use crate::table::{self, Side};
use crate::text;

/// List the checkpoints: present ones by rank, then pruned ones.
#[derive(Args)]
pub(crate) struct Checkpoints {
    /// How many at most
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: u32,
}

impl Checkpoints {
    pub(crate) fn run(self, context: &Context, output: &mut Output) -> Result<(), CliError> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let checkpoints = context.open_snapshot()?.list_checkpoints(limit)?;
        if context.json {
            return Ok(output.json(&checkpoints)?);
        }
        let headings = [
            ("rank", Side::Right),
            ("checkpoint", Side::Left),
            ("session", Side::Left),
            ("step", Side::Right),
            ("phi", Side::Right),
            ("kappa", Side::Right),
            ("regime", Side::Left),
            ("created", Side::Left),
            ("size", Side::Right),
            ("state", Side::Left),
        ];
        Ok(output.lines(table::lines(&headings, checkpoints.iter().map(cells).collect()))?)
    }
}

fn cells(checkpoint: &CheckpointRow) -> Vec<String> {
    vec![
        text::optional(checkpoint.rank),
        checkpoint.checkpoint_id.to_string(),
        text::optional(checkpoint.session_id.as_ref()),
        text::optional(checkpoint.step),
        text::number(checkpoint.phi),
        text::number(checkpoint.kappa),
        text::optional(checkpoint.regime.as_ref()),
        text::time(checkpoint.created_at),
        text::bytes(checkpoint.size_bytes),
        checkpoint.state.clone(),
    ]
}
