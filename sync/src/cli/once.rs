//! `tidelog-sync once`

use std::time::Duration;

use clap::Args;
use tidelog_sync::Agent;

use super::blobs::BlobArgs;
use super::target::TargetArgs;
use super::{DatabaseArgs, Failure, PoisonArgs, StoreArgs, log, print_report};

/// Sends everything that is in the store now, then exits
#[derive(Debug, Args)]
pub(super) struct Once {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    memory: TargetArgs,
    #[command(flatten)]
    poison: PoisonArgs,
    #[command(flatten)]
    blobs: BlobArgs,
    /// How long to try again after a failure that may pass, counted from the last progress
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    retry_for: u64,
}

impl Once {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let agent = Agent::new(&self.store.store, self.database.target()?, log)?
            .with_poison_limit(self.poison.poison_limit)
            .with_blobs(self.blobs.policy());
        let mut agent = self.memory.apply(agent);
        print_report(&agent.once(Duration::from_secs(self.retry_for))?)
    }
}
