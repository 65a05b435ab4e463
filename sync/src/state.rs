//! States of the agent and of segments, and the notices that tell of their changes.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::applied::AppliedBatch;
use tidelog::SegmentId;
use uuid::Uuid;

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
    /// Waits until the agent that follows the store ends.
    Standby {
        /// Its process id, where the system tells.
        holder: Option<u32>,
    },
    /// Connects to this database (no password).
    Connecting(String),
    /// Follows the store.
    Ready,
    /// Has left its connection to the agents of other stores, until there is something to send.
    Resting,
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

impl AgentState {
    /// The word in logs and metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Starting { .. } => "starting",
            Self::AwaitingStore(_) => "awaiting_store",
            Self::Standby { .. } => "standby",
            Self::Connecting(_) => "connecting",
            Self::Ready => "ready",
            Self::Resting => "resting",
            Self::Backoff { .. } => "backoff",
            Self::Blocked { .. } => "blocked",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
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
    /// The file is gone before its end was sent. Whether it had more lines nobody here knows.
    Missing,
    /// The file is gone, and with it lines that the replica wants. They are written down in
    /// `sync_gaps`.
    Gap,
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
            Self::Gap => "gap",
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
    /// This is another database than the one that was sent to before.
    Replaced {
        /// Id of the one before.
        before: Uuid,
        /// Id of this one.
        now: Uuid,
    },
    /// The file's lines from there on are another writer's than those that were sent. They are sent
    /// as a segment of their own.
    Rehomed {
        /// The file.
        path: PathBuf,
        /// The first of these lines.
        line: u32,
        /// Their segment.
        segment: SegmentId,
    },
    /// Entries that an older agent kept for a newer one became rows.
    Reprocessed {
        /// Their kinds.
        kinds: Vec<String>,
        /// How many lines.
        lines: u64,
    },
    /// What the agent should remember is forgotten when it ends.
    Forgetful {
        /// The folder that cannot be written.
        folder: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another agent sends this segment, too, and was faster. Told once a connection.
    Overtaken {
        /// The segment's file.
        path: PathBuf,
        /// The first line that this agent would have sent.
        line: u32,
    },
    /// A batch was applied.
    Batch {
        /// The segment's file.
        path: PathBuf,
        /// What it was.
        batch: AppliedBatch,
    },
    /// Rows of a batch were there before its cursor; they were left as they are.
    Conflict {
        /// The segment's file.
        path: PathBuf,
        /// The batch's first line.
        first_line: u32,
    },
    /// The store cannot be locked here, so another agent would not wait. Both are exact even so,
    /// because a batch moves the cursor only from where it begins.
    Unlocked {
        /// The store's folder.
        path: PathBuf,
        /// As the system names the file system.
        file_system: &'static str,
        /// Why not.
        reason: String,
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

impl Notice {
    /// What happened, in one word for metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Agent(_) => "agent_state",
            Self::Segment { .. } => "segment_state",
            Self::Rewound { .. } => "replica_rewound",
            Self::Replaced { .. } => "target_replaced",
            Self::Rehomed { .. } => "tail_rehomed",
            Self::Reprocessed { .. } => "entries_reprocessed",
            Self::Forgetful { .. } => "state_not_kept",
            Self::Overtaken { .. } => "batch_overtaken",
            Self::Conflict { .. } => "batch_conflict",
            Self::Refused { .. } => "file_refused",
            Self::CheckpointFile { .. } => "checkpoint_file_not_sent",
            Self::Batch { .. } => "batch_applied",
            Self::Unlocked { .. } => "store_unlocked",
        }
    }
}

impl fmt::Display for AgentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting { wait } => write!(f, "starting in {:.1} s", wait.as_secs_f64()),
            Self::AwaitingStore(folder) => {
                write!(f, "waiting until {} is a store", folder.display())
            }
            Self::Standby { holder: Some(pid) } => {
                write!(f, "standby: process {pid} follows this store")
            }
            Self::Standby { holder: None } => {
                f.write_str("standby: another agent follows this store")
            }
            Self::Connecting(target) => write!(f, "connecting to {target}"),
            Self::Ready => f.write_str("ready"),
            Self::Resting => f.write_str("resting: other stores have the connection"),
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
            Self::Replaced { before, now } => {
                write!(f, "another database ({now}) than before ({before})")
            }
            Self::Rehomed { path, line, segment } => write!(
                f,
                "{}: parts at line {line} from what was sent; its lines from there on are sent as \
                 segment {segment}",
                path.display()
            ),
            Self::Reprocessed { kinds, lines } => {
                write!(
                    f,
                    "{lines} entries became rows that were kept until now: {}",
                    kinds.join(", ")
                )
            }
            Self::Forgetful { folder, reason } => write!(
                f,
                "{} cannot be written ({reason}): the next start will not know which database was \
                 sent to; --state-dir names another folder",
                folder.display()
            ),
            Self::Overtaken { path, line } => {
                write!(f, "{}: another agent sent line {line} before this one", path.display())
            }
            Self::Batch { path, batch } => write!(
                f,
                "{}: {} lines from line {} by {} in {} ms",
                path.display(),
                batch.lines,
                batch.first_line,
                batch.way,
                batch.duration.as_millis()
            ),
            Self::Conflict { path, first_line } => write!(
                f,
                "{}: rows of the batch from line {first_line} were there before its cursor; kept",
                path.display()
            ),
            Self::Unlocked { path, file_system, reason } => write!(
                f,
                "{}: no lock on {file_system}: {reason}; a second agent here does no harm, but the \
                 work twice",
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
        assert_eq!(notice.as_str(), "segment_state");
        let (wait, reason) = (Duration::from_millis(1500), "no route".to_owned());
        let backoff = Notice::Agent(AgentState::Backoff { wait, reason });
        assert_eq!(backoff.to_string(), "agent: backoff 1.5 s: no route");
    }

    #[test]
    fn a_state_is_logged_by_its_word() {
        let wait = Duration::ZERO;
        for state in [
            AgentState::Starting { wait },
            AgentState::Connecting("d".into()),
            AgentState::Ready,
            AgentState::Backoff { wait, reason: String::new() },
            AgentState::Blocked { wait, reason: String::new() },
            AgentState::Draining,
            AgentState::Stopped,
        ] {
            assert!(state.to_string().starts_with(state.as_str()), "{state}");
        }
    }
}
