//! `tidelog-sync check-config`

use std::path::Path;
use std::time::Duration;

use clap::{ArgMatches, Args};
use tidelog_sync::config::{Config, ConfigArgs};
use tidelog_sync::database::{Database, DatabaseError};
use tidelog_sync::{SyncError, rights, schema};

use super::{Failure, print};

/// How long the database may take for an answer.
const LIMIT: Duration = Duration::from_secs(30);

/// Shows what `run` would do with these settings, and who said each of them
///
/// It takes the options of `run`. Exits with 0 if all is well, 1 if a store cannot be used, 2 if a
/// setting is wrong, and 4 if the database is not reached, has another schema, or lacks a right.
#[derive(Debug, Args)]
pub(super) struct CheckConfig {
    #[command(flatten)]
    config: ConfigArgs,
    /// Connect to the database, and check its schema and the rights of this login
    #[arg(long)]
    connect: bool,
}

impl CheckConfig {
    pub(super) fn run(&self, matches: &ArgMatches) -> Result<(), Failure> {
        let config = Config::gather(&self.config, matches).map_err(Failure::Config)?;
        if let Some(file) = &self.config.config {
            print(&format!("# from {}", file.display()))?;
        }
        for (key, value, origin) in config.shown() {
            print(&format!("{key} = {value}  # {origin}"))?;
        }
        for folder in config.all_stores() {
            check_store(&folder)?;
        }
        // A wrong connection string is an error also where nobody connects.
        let target = config.target()?;
        if self.connect {
            let mut database = Database::connect(&target)?;
            database.run(LIMIT, "checking the schema", |client| {
                schema::check(client).map_err(SyncError::from)
            })?;
            print("database: reached, its schema is current")?;
            let missing = database.run(LIMIT, "asking for rights", |client| {
                Ok::<_, DatabaseError>(rights::missing(client)?)
            })?;
            if !missing.is_empty() {
                return Err(Failure::Rights(missing));
            }
            print("rights: all that sending takes")?;
        }
        Ok(())
    }
}

/// A store that is not there yet is fine: `run` waits for it.
fn check_store(folder: &Path) -> Result<(), Failure> {
    match tidelog::Store::open_read_only(folder) {
        Ok(store) => print(&format!("store {}: {}", folder.display(), store.id())),
        Err(tidelog::Error::NotAStore { .. }) => {
            print(&format!("store {}: not there yet, run waits for it", folder.display()))
        }
        Err(error) => Err(error.into()),
    }
}
