use clap::Args;
use serde::Serialize;
use tidelog::{CheckpointId, CheckpointRow, SessionId, Store};

use crate::context::Context;
use crate::error::CliError;
use crate::output::Output;
use crate::text;

/// Delete a session for good, or the file of one checkpoint.
///
/// No query and no replica shows a deleted session any more, also after a rebuild and when everything
/// is sent again. The files of its checkpoints are removed; its lines stay in their files, where nobody
/// shows them. Its id is used up.
#[derive(Args)]
pub(crate) struct Delete {
    /// The session, as `tidelog sessions` lists it
    #[arg(value_name = "ID", required_unless_present = "checkpoint")]
    session: Option<SessionId>,
    /// Remove the file of this checkpoint instead; what is known of it stays
    #[arg(long, value_name = "ID", conflicts_with = "session")]
    checkpoint: Option<CheckpointId>,
    /// Do it; without, it only says what would be deleted
    #[arg(long)]
    yes: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Deleted {
    session_id: Option<SessionId>,
    checkpoint_id: Option<CheckpointId>,
    records: Option<u64>,
    checkpoints: usize,
    checkpoint_bytes: u64,
}

impl Delete {
    pub(crate) fn run(self, context: &Context, output: &mut Output) -> Result<(), CliError> {
        let found = self.look(&context.open()?)?;
        let what = described(&found);
        if !self.yes {
            return Err(CliError::usage(format!("{what} would be deleted; add --yes to do it")));
        }
        let store = context.open_for_writing()?;
        if let Some(session) = &self.session {
            store.delete_session(session)?;
        }
        if let Some(checkpoint) = &self.checkpoint {
            store.prune_checkpoint(checkpoint)?;
        }
        match context.json {
            true => Ok(output.json(&found)?),
            false => Ok(output.line(format!("deleted {what}"))?),
        }
    }

    /// What would go.
    fn look(&self, store: &Store) -> Result<Deleted, CliError> {
        let records = match &self.session {
            Some(session) => Some(store.get_session_stats(session)?.total_steps),
            None => None,
        };
        let mut checkpoints = match &self.checkpoint {
            Some(checkpoint) => vec![store.get_checkpoint(checkpoint)?],
            None => store.list_checkpoints(usize::MAX)?,
        };
        if self.session.is_some() {
            checkpoints.retain(|checkpoint| checkpoint.session_id == self.session);
        }
        checkpoints.retain(|checkpoint| !checkpoint.is_pruned());
        Ok(Deleted {
            session_id: self.session.clone(),
            checkpoint_id: self.checkpoint.clone(),
            records,
            checkpoints: checkpoints.len(),
            checkpoint_bytes: bytes(&checkpoints),
        })
    }
}

fn bytes(checkpoints: &[CheckpointRow]) -> u64 {
    checkpoints.iter().fold(0, |sum, checkpoint| sum.saturating_add(checkpoint.size_bytes))
}

fn described(found: &Deleted) -> String {
    let files = text::count(found.checkpoints as u64, "checkpoint file");
    let size = text::bytes(found.checkpoint_bytes);
    match (&found.session_id, &found.checkpoint_id) {
        (Some(session), _) => {
            let records = text::count(found.records.unwrap_or_default(), "record");
            format!("session {session} with {records} and {files} ({size})")
        }
        (None, Some(checkpoint)) => format!("{files} ({size}) of checkpoint {checkpoint}"),
        (None, None) => files,
    }
}
