//! `tidelog-sync migrate`

use std::time::Duration;

use clap::Args;
use tidelog_sync::{SyncError, database::Database, schema};

use super::{DatabaseArgs, Failure, print};

/// An index on a large table may take a while.
const LIMIT: Duration = Duration::from_secs(3600);

/// Brings the schema of the database up to date; again is harmless
#[derive(Debug, Args)]
pub(super) struct Migrate {
    #[command(flatten)]
    database: DatabaseArgs,
}

impl Migrate {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut database = Database::connect(&self.database.target()?)?;
        let applied = database
            .run(LIMIT, "migrating", |client| schema::migrate(client).map_err(SyncError::from))?;
        for migration in &applied {
            print(&format!("applied {}", migration.file))?;
        }
        if applied.is_empty() {
            print(&format!("the schema is at version {} already", schema::VERSION))?;
        }
        Ok(())
    }
}
