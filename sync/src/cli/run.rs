//! `tidelog-sync run`

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use tidelog_sync::Agent;
use tidelog_sync::backoff::Backoff;

use super::blobs::BlobArgs;
use super::{DatabaseArgs, Failure, StoreArgs, log, print_report};

/// Follows the store and sends what comes, until SIGTERM or SIGINT
///
/// It waits for a store that is not there yet.
/// Asked to stop, it finishes the batch in flight and sends what is there, for at most 25 seconds.
/// A second signal ends it at once; nothing is lost by that either.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    blobs: BlobArgs,
}

impl Run {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let stop = stop_on_signals().map_err(Failure::Signals)?;
        let target = self.database.target()?;
        let Some(agent) = Agent::await_store(&self.store.store, target, log, &stop)? else {
            return Ok(());
        };
        let mut agent = agent.with_blobs(self.blobs.policy());
        let first_delay = Backoff::first_delay(fastrand::u16(..));
        print_report(&agent.run(first_delay, &stop)?)
    }
}

/// A flag that the first signal sets; the second one ends the process.
fn stop_on_signals() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}
