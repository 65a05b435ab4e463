use clap::Args;
use serde::Serialize;
use tidelog::{Checkpoint, CheckpointId, SessionId, Timestamp};

use crate::context::Context;
use crate::error::CliError;
use crate::output::Output;
use crate::text;
use crate::tree::{self, Leaf};

/// How many leaves of the state people are shown; programs get all of them.
const LEAVES_SHOWN: usize = 40;

/// Read the best checkpoint and tell what is in it.
///
/// The best one has the highest phi of those that are present. Its file is compared with the
/// journal by size and SHA-256 and read whole; nothing is journaled.
#[derive(Args)]
pub(crate) struct Best {}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    checkpoint_id: &'a CheckpointId,
    session_id: Option<&'a SessionId>,
    step: Option<i64>,
    created_at: Timestamp,
    phi: Option<f64>,
    kappa: Option<f64>,
    regime: Option<&'a str>,
    path: String,
    size_bytes: u64,
    sha256: &'a str,
    state: Vec<Leaf>,
}

impl Best {
    pub(crate) fn run(self, context: &Context, output: &mut Output) -> Result<(), CliError> {
        let store = context.open_snapshot()?;
        let checkpoint = store.get_best_checkpoint()?;
        let document = document(&checkpoint, context);
        match context.json {
            true => Ok(output.json(&document)?),
            false => Ok(print(&document, output)?),
        }
    }
}

fn document<'a>(checkpoint: &'a Checkpoint, context: &Context) -> Document<'a> {
    let created = &checkpoint.created;
    let path = context.store_path().join("checkpoints").join(&created.file);
    Document {
        checkpoint_id: &created.checkpoint_id,
        session_id: created.session_id.as_ref(),
        step: created.step,
        created_at: checkpoint.created_at,
        phi: created.phi,
        kappa: created.kappa,
        regime: created.regime.as_deref(),
        path: path.display().to_string(),
        size_bytes: created.size_bytes,
        sha256: &created.sha256,
        state: tree::leaves(&checkpoint.state_dict),
    }
}

fn print(best: &Document<'_>, output: &mut Output) -> std::io::Result<()> {
    output.line(format!("best checkpoint: {}", best.checkpoint_id))?;
    output.fields(&[
        ("phi", text::number(best.phi)),
        ("kappa", text::number(best.kappa)),
        ("regime", text::optional(best.regime)),
        ("session", text::optional(best.session_id)),
        ("step", text::optional(best.step)),
        ("created", text::time(best.created_at)),
        ("file", best.path.clone()),
        ("size", text::bytes(best.size_bytes)),
        ("sha256", best.sha256.to_owned()),
    ])?;
    let arrays = best.state.iter().filter(|leaf| leaf.kind == "array").count();
    let bytes: usize = best.state.iter().filter_map(|leaf| leaf.size_bytes).sum();
    let size = text::bytes(bytes as u64);
    output.line(format!("state: {} leaves, {arrays} of them arrays, {size}", best.state.len()))?;
    output.lines(best.state.iter().take(LEAVES_SHOWN).map(|leaf| format!("  {}", leaf.line())))?;
    match best.state.len().saturating_sub(LEAVES_SHOWN) {
        0 => Ok(()),
        more => output.line(format!("  … and {more} more; --json lists all")),
    }
}
