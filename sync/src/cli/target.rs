//! Is this the database that was sent to before?

use std::env;
use std::path::PathBuf;

use clap::Args;
use tidelog_sync::{Agent, NewTarget};

/// What the agent remembers of the database it sent to.
#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    /// Send everything to a database that has nothing of the store, although another one was sent
    /// to before
    #[arg(long)]
    accept_new_target: bool,
    /// Folder in which the agent remembers which database it sent to; else $STATE_DIRECTORY, as
    /// systemd gives it, or $XDG_STATE_HOME/tidelog, or ~/.local/state/tidelog
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl TargetArgs {
    /// Gives the agent its memory, if there is a place for it.
    pub(super) fn apply(&self, agent: Agent) -> Agent {
        let new_target = if self.accept_new_target { NewTarget::Accept } else { NewTarget::Refuse };
        let folder = self.state_dir.clone().or_else(|| default_folder(&|name| env::var(name).ok()));
        match folder {
            Some(folder) => agent.remembering(&folder, new_target),
            None => agent,
        }
    }
}

/// Relative folders count as none, as the XDG specification says.
fn default_folder(variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    // systemd separates several folders by colons.
    let first = |list: String| list.split(':').next().map(PathBuf::from);
    let systemd = variable("STATE_DIRECTORY").and_then(first).and_then(absolute);
    let xdg = || variable("XDG_STATE_HOME").map(PathBuf::from).and_then(absolute);
    let home = || Some(PathBuf::from(variable("HOME")?).join(".local/state")).and_then(absolute);
    systemd.or_else(|| Some(xdg().or_else(home)?.join("tidelog")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_where_the_system_keeps_state() {
        let folder = |variables: &[(&str, &str)]| {
            default_folder(&|name| {
                let found = variables.iter().find(|(known, _)| *known == name)?;
                Some(found.1.to_owned())
            })
        };
        let home = ("HOME", "/home/u");
        assert_eq!(folder(&[home]), Some("/home/u/.local/state/tidelog".into()));
        assert_eq!(folder(&[home, ("XDG_STATE_HOME", "/s")]), Some("/s/tidelog".into()));
        assert_eq!(folder(&[home, ("XDG_STATE_HOME", "s")]), folder(&[home]));
        assert_eq!(folder(&[home, ("STATE_DIRECTORY", "/a:/b")]), Some("/a".into()));
        assert_eq!(folder(&[]), None);
    }
}
