//! `tidelog-sync wait`

use std::thread;
use std::time::{Duration, Instant};

use clap::{ArgMatches, Args};
use tidelog_sync::config::Period;
use tidelog_sync::wait::Condition;
use tidelog_sync::{Status, Target, status};

use super::{Failure, PlaceArgs, print};

/// Between two looks: at first, and at most.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(2);

/// Waits until the replica is as near as asked for, as at the end of training
///
/// It only looks: an agent must be running. Exits with 0 when every condition holds, and with 75 at
/// the timeout.
#[derive(Debug, Args)]
pub(super) struct Wait {
    #[command(flatten)]
    place: PlaceArgs,
    /// What to wait for: lag-lines=0, lag-bytes<1000, lag-seconds<5, session=ID (ended and sent), or
    /// segment=FILE (sent). Given again, all must hold
    #[arg(long, value_name = "CONDITION", default_value = "lag-lines=0")]
    until: Vec<Condition>,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "60s")]
    timeout: Period,
}

impl Wait {
    pub(super) fn run(&self, matches: &ArgMatches) -> Result<(), Failure> {
        let config = self.place.config(matches)?;
        let target = config.target()?;
        let until = Instant::now() + self.timeout.0;
        let mut interval = LOOK_INTERVAL;
        loop {
            let reason = match self.unreached(&config.all_stores(), &target) {
                None => return print("reached"),
                Some(reason) => reason,
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::NotReached { seconds: self.timeout.0.as_secs(), reason });
            }
            thread::sleep(interval.min(left));
            interval = LOOK_INTERVAL_MAX.min(interval * 2);
        }
    }

    /// What is still in the way; a store that is not there yet is, too.
    fn unreached(&self, stores: &[std::path::PathBuf], target: &Target) -> Option<String> {
        let mut found: Vec<(String, Status)> = Vec::new();
        for folder in stores {
            match status(folder, Some(target)) {
                Ok(status) => found.push((folder.display().to_string(), status)),
                Err(error) => return Some(error.to_string()),
            }
        }
        if found.is_empty() {
            return Some("there is no store yet".to_owned());
        }
        self.until.iter().find_map(|condition| condition.check(&found).err())
    }
}
