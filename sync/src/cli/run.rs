//! `tidelog-sync run`

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{ArgMatches, Args};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use tidelog_sync::config::{Config, ConfigArgs};
use tidelog_sync::service::{Ending, Service};
use tidelog_sync::{Report, SyncError};

use super::{Failure, print_report, say};

/// Follows stores and sends what comes, until SIGTERM or SIGINT
///
/// It waits for a store that is not there yet, and while another agent follows it.
/// Asked to stop, it finishes the batch in flight and sends what is there, for at most the drain
/// timeout; it exits with 75 if that was too short.
/// A second signal ends it at once; nothing is lost by that either.
///
/// Each option is a flag, a variable of the environment and a key of the file of --config, which has
/// the option's name without dashes. Flags win over the environment, that over the file.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    config: ConfigArgs,
}

impl Run {
    pub(super) fn run(&self, matches: &ArgMatches) -> Result<(), Failure> {
        let stop = stop_on_signals().map_err(Failure::Signals)?;
        let config = Config::gather(&self.config, matches).map_err(Failure::Config)?;
        let target = config.target().map_err(SyncError::from)?;
        let listen = config.listen();
        let service = Service::start(config, target)
            .map_err(|error| Failure::Listen(listen.map(|at| at.to_string()), error))?;
        report(service.run(&stop))
    }
}

/// Adds up what was sent; the worst ending counts.
fn report(endings: Vec<(std::path::PathBuf, Option<Ending>)>) -> Result<(), Failure> {
    let mut total = Report::default();
    let mut failure = None;
    for (folder, ending) in endings {
        match ending {
            Some(Ending::Drained(report)) => add(&mut total, report),
            Some(Ending::NothingToDo) => {}
            Some(Ending::Failed(error)) if error.class().is_none() && !is_late(&error) => {
                tell(&folder, &error.to_string());
                failure = Some(Failure::Sync(error));
            }
            Some(Ending::Failed(error)) => {
                tell(&folder, &error.to_string());
                failure = failure.or(Some(Failure::NotDrained));
            }
            None => {
                tell(&folder, "did not stop in time");
                failure = failure.or(Some(Failure::NotDrained));
            }
        }
    }
    let reported = print_report(&total);
    failure.map_or(reported, Err)
}

fn is_late(error: &SyncError) -> bool {
    matches!(error, SyncError::NotDrained { .. })
}

fn tell(folder: &Path, reason: &str) {
    say(&format!("error: {}: {reason}", folder.display()));
}

fn add(total: &mut Report, report: Report) {
    total.segments += report.segments;
    total.lines += report.lines;
    total.quarantined += report.quarantined;
    total.batches += report.batches;
    total.conflicts += report.conflicts;
    total.unreadable.extend(report.unreadable);
    total.forked.extend(report.forked);
    total.gaps.extend(report.gaps);
    total.checkpoint_files += report.checkpoint_files;
}

/// A flag that the first signal sets; the second one ends the process, with the code that a shell
/// gives to a process that a signal ended.
fn stop_on_signals() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}
