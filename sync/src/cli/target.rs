//! Is this the database that was sent to before?

use std::path::PathBuf;

use clap::Args;
use tidelog_sync::{Agent, NewTarget, state_folder};

/// What the agent remembers of the database it sent to.
#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    /// Send everything to a database that has nothing of the store, although another one was sent
    /// to before
    #[arg(long, env = "TIDELOG_SYNC_ACCEPT_NEW_TARGET")]
    accept_new_target: bool,
    /// Folder in which the agent remembers which database it sent to; else $STATE_DIRECTORY, as
    /// systemd gives it, or $XDG_STATE_HOME/tidelog, or ~/.local/state/tidelog
    #[arg(long, value_name = "DIR", env = "TIDELOG_SYNC_STATE_DIR")]
    state_dir: Option<PathBuf>,
}

impl TargetArgs {
    /// Gives the agent its memory, if there is a place for it.
    pub(super) fn apply(&self, agent: Agent) -> Agent {
        let new_target = if self.accept_new_target { NewTarget::Accept } else { NewTarget::Refuse };
        match self.state_dir.clone().or_else(state_folder) {
            Some(folder) => agent.remembering(&folder, new_target),
            None => agent,
        }
    }
}
