//! `tidelog-sync once`

use clap::Args;
use tidelog_sync::Agent;
use tidelog_sync::config::Period;

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
    #[arg(long, value_name = "TIME", default_value = "60s")]
    retry_for: Period,
}

impl Once {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let agent = Agent::new(&self.store.store, self.database.target()?, log)?
            .with_poison_limit(self.poison.poison_limit)
            .with_blobs(self.blobs.policy());
        let mut agent = self.memory.apply(agent);
        print_report(&agent.once(self.retry_for.0)?)
    }
}
