//! States of the agent and of segments, and the notices that tell of their changes.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What the agent is doing.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum AgentState {
    /// Waits a random moment, so that many agents do not begin at once.
    Starting {
        /// Until the first attempt.
        wait: Duration,
    },
    /// Waits until there is a store in this folder.
    AwaitingStore(PathBuf),
    /// Connects to this database (no password).
    Connecting(String),
    /// Follows the store.
    Ready,
    /// Waits after a failure that may pass.
    Backoff {
        /// Until the next attempt.
        wait: Duration,
        /// What failed.
        reason: String,
    },
    /// Waits for somebody to act.
    Blocked {
        /// Until it looks again.
        wait: Duration,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Was asked to stop and sends what is there.
    Draining,
    /// Is done.
    Stopped,
}

/// Where a segment is on its way to the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SegmentState {
    /// Its file was found.
    Discovered,
    /// What was sent before is compared with the file.
    Verifying,
    /// New lines are sent as they come.
    Streaming,
    /// Its writer is done and every line is in the replica.
    Sealed,
    /// The file is not the one that was sent: bytes before the cursor changed. Nothing is written.
    Forked,
    /// The file is shorter than what was sent, as after a power cut. Nothing is written.
    LocalBehind,
    /// The file is gone before its end was sent.
    Missing,
    /// The file cannot be read; it is tried again after a while.
    Unreadable,
}

impl SegmentState {
    /// The word in logs and in `sync_segments.state`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Discovered => "discovered",
            Self::Verifying => "verifying",
            Self::Streaming => "streaming",
            Self::Sealed => "sealed",
            Self::Forked => "forked",
            Self::LocalBehind => "local_behind",
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Something that is worth a line in the log. Its text is that line.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Notice {
    /// The agent is in another state.
    Agent(AgentState),
    /// A segment is in another state.
    Segment {
        /// Its file.
        path: PathBuf,
        /// The state before.
        from: SegmentState,
        /// The state now.
        to: SegmentState,
        /// More about it; may be empty.
        detail: String,
    },
    /// The replica has fewer lines than it had: it was restored to an earlier state. They are sent
    /// again.
    Rewound {
        /// The segment's file.
        path: PathBuf,
        /// The next line that the agent would have sent.
        from_line: u32,
        /// The next line that the replica wants.
        to_line: u32,
    },
    /// Rows of a batch were there before its cursor; they were left as they are.
    Conflict {
        /// The segment's file.
        path: PathBuf,
        /// The batch's first line.
        first_line: u32,
    },
    /// A file among the segments is none.
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A checkpoint's file is not sent; it is tried again later.
    CheckpointFile {
        /// Which file, and why.
        reason: String,
    },
}

impl fmt::Display for AgentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting { wait } => write!(f, "starting in {:.1} s", wait.as_secs_f64()),
            Self::AwaitingStore(folder) => {
                write!(f, "waiting until {} is a store", folder.display())
            }
            Self::Connecting(target) => write!(f, "connecting to {target}"),
            Self::Ready => f.write_str("ready"),
            Self::Backoff { wait, reason } => {
                write!(f, "backoff {:.1} s: {reason}", wait.as_secs_f64())
            }
            Self::Blocked { wait, reason } => {
                write!(f, "blocked, looking again in {:.1} s: {reason}", wait.as_secs_f64())
            }
            Self::Draining => f.write_str("draining"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(state) => write!(f, "agent: {state}"),
            Self::Segment { path, from, to, detail } => {
                let (from, to) = (from.as_str(), to.as_str());
                write!(f, "{}: {from} -> {to}", path.display())?;
                if detail.is_empty() { Ok(()) } else { write!(f, ": {detail}") }
            }
            Self::Rewound { path, from_line, to_line } => write!(
                f,
                "{}: the replica went back from line {from_line} to line {to_line}; sending again",
                path.display()
            ),
            Self::Conflict { path, first_line } => write!(
                f,
                "{}: rows of the batch from line {first_line} were there before its cursor; kept",
                path.display()
            ),
            Self::Refused { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::CheckpointFile { reason } => write!(f, "not sent: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transition_is_one_line() {
        let notice = Notice::Segment {
            path: "a.jsonl".into(),
            from: SegmentState::Verifying,
            to: SegmentState::Forked,
            detail: "lines 1 to 4".into(),
        };
        assert_eq!(notice.to_string(), "a.jsonl: verifying -> forked: lines 1 to 4");
        let (wait, reason) = (Duration::from_millis(1500), "no route".to_owned());
        let backoff = Notice::Agent(AgentState::Backoff { wait, reason });
        assert_eq!(backoff.to_string(), "agent: backoff 1.5 s: no route");
    }
}
