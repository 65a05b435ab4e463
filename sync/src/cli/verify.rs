//! `tidelog-sync verify`

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Args;
use tidelog::SegmentId;
use tidelog_sync::{Verification, VerifyProgress, verify};
use uuid::Uuid;

use super::{DatabaseArgs, Failure, StoreArgs, print};

/// How often the progress is shown.
const SHOWN_EVERY: Duration = Duration::from_millis(200);

/// Compares every row of the replica with the lines of the files, and names what differs
///
/// Writers and agents may go on meanwhile: what is not sent yet is "behind", which is no difference.
/// It writes nothing. Exit code: 0 if everything that was sent is equal, 3 if not.
#[derive(Debug, Args)]
pub(super) struct Verify {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Write one JSON object, whose fields are listed in the README of tidelog-sync
    #[arg(long)]
    json: bool,
    /// Compare this segment only, and nothing that several segments decide together
    #[arg(long, value_name = "ID")]
    segment: Option<Uuid>,
}

impl Verify {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut shown = Shown::new();
        let target = self.database.target()?;
        let segment = self.segment.map(SegmentId::from);
        let found = verify(&self.store.store, &target, segment, |progress| shown.show(progress));
        shown.clear();
        let found = found?;
        if self.json {
            let json = serde_json::to_string(&found)
                .map_err(|error| Failure::Output(io::Error::other(error)))?;
            print(&json)?;
        } else {
            lines(&found).iter().try_for_each(|line| print(line))?;
        }
        match found.verdict {
            "equal" | "behind" => Ok(()),
            _ => Err(Failure::Different),
        }
    }
}

fn lines(found: &Verification) -> Vec<String> {
    let mut lines = vec![format!("store     {}", found.store_id)];
    let segments = found.segments.iter();
    lines.extend(
        segments.map(|s| format!("  {}: {}, {} lines compared", s.file, s.verdict, s.lines)),
    );
    lines.extend(found.differences.iter().map(ToString::to_string));
    if found.has_more {
        lines.push("and more".to_owned());
    }
    if let Some(reason) = &found.folds_left_out {
        lines.push(format!("checkpoints and sessions were not compared: {reason}"));
    }
    if found.statistics_behind > 0 {
        let count = found.statistics_behind;
        lines.push(format!("statistics of {count} sessions are older than their rows"));
    }
    if found.ranks_behind {
        lines.push("ranks of checkpoints are older than the checkpoints".to_owned());
    }
    lines.push(format!("compared  {} rows of {} lines", found.rows, found.lines));
    lines.push(format!("verdict   {}", found.verdict));
    lines
}

/// The progress on standard error, if that is a terminal.
struct Shown {
    is_terminal: bool,
    last: Instant,
}

impl Shown {
    fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), last: Instant::now() }
    }

    fn show(&mut self, progress: &VerifyProgress) {
        if self.is_terminal && self.last.elapsed() >= SHOWN_EVERY {
            self.last = Instant::now();
            let VerifyProgress { file, lines, lines_total } = progress;
            // There is nobody to tell when that fails.
            write!(io::stderr(), "\r\x1b[K{file}: {lines} of {lines_total} lines").ok();
        }
    }

    fn clear(&self) {
        if self.is_terminal {
            write!(io::stderr(), "\r\x1b[K").ok();
        }
    }
}
