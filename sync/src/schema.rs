//! Which migrations there are, and which of them a database has.
//!
//! Each file of `migrations/` is applied in one transaction together with its row in
//! `tidelog_migrations` (version, name, SHA-256 of the file). Files that somebody applied with
//! `psql -f` have no row; as every file may be applied again without harm, they are applied again
//! and recorded. A released file never changes, so another checksum is an error.

use std::time::Duration;

use postgres::error::SqlState;
use postgres::types::Type;
use postgres::{Client, GenericClient, Transaction};
use sha2::{Digest, Sha256};

use crate::connect::Target;
use crate::database::Database;
use crate::error::SyncError;

const MIGRATIONS: [Migration; 2] = [
    Migration {
        version: 2,
        file: "002_telemetry_checkpoints_schema.sql",
        sql: include_str!("../migrations/002_telemetry_checkpoints_schema.sql"),
    },
    Migration {
        version: 3,
        file: "003_replica.sql",
        sql: include_str!("../migrations/003_replica.sql"),
    },
];

/// Schema version this agent works with.
pub const VERSION: i32 = 3;

/// Held by whoever applies a migration; "tidelog" in ASCII.
const MIGRATION_LOCK: i64 = 0x74_69_64_65_6c_6f_67;

const CREATE_MIGRATIONS_TABLE: &str = "
    CREATE TABLE IF NOT EXISTS tidelog_migrations (
        version    integer PRIMARY KEY,
        name       text NOT NULL,
        sha256     text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )";

struct Migration {
    version: i32,
    file: &'static str,
    sql: &'static str,
}

impl Migration {
    fn sha256(&self) -> String {
        format!("{:x}", Sha256::digest(self.sql))
    }
}

/// A migration that [`migrate`] applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Schema version the database has with it.
    pub version: i32,
    /// Name of the file in `migrations/`.
    pub file: &'static str,
}

/// Why a database cannot be used as it is, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// No migration is recorded.
    #[error("the database has no tidelog schema; run `tidelog-sync migrate`")]
    Missing,
    /// The agent is newer than the schema.
    #[error(
        "the database schema is at version {found}, this agent needs version {VERSION}; \
         run `tidelog-sync migrate`"
    )]
    Older {
        /// Version of the database.
        found: i32,
    },
    /// The schema is newer than the agent.
    #[error(
        "the database schema is at version {found}, this agent knows only version {VERSION}; \
         install a newer tidelog-sync"
    )]
    Newer {
        /// Version of the database.
        found: i32,
    },
    /// A migration was applied from a file with other contents.
    #[error(
        "the database has another {file} (sha256 {recorded}) than this agent ({expected}); \
         use the tidelog-sync that applied it, or one released later"
    )]
    Changed {
        /// Name of the file.
        file: &'static str,
        /// SHA-256 in the database.
        recorded: String,
        /// SHA-256 of the file in this agent.
        expected: String,
    },
    /// The server has no pgvector to enable.
    #[error(
        "pgvector is not installed on the database server; install its package (on Debian and \
         Ubuntu postgresql-<major version>-pgvector), then run `tidelog-sync migrate` again"
    )]
    VectorUnavailable,
    /// The role may not enable pgvector.
    #[error(
        "this role may not create the extension pgvector; let a superuser run \
         `CREATE EXTENSION vector` in this database, then run `tidelog-sync migrate` again"
    )]
    VectorForbidden,
    /// The server refused a migration; nothing of that file is left behind.
    #[error("cannot apply {file}")]
    Apply {
        /// Name of the file.
        file: &'static str,
        /// The server's answer.
        #[source]
        source: postgres::Error,
    },
    /// The server did not tell which migrations it has.
    #[error("cannot read which migrations the database has")]
    Read(#[source] postgres::Error),
}

/// Brings the schema to [`VERSION`] and returns what had to be applied, in order; nothing if it was
/// there already.
///
/// Safe to call from several agents at once: one applies, the others wait and find it done.
///
/// # Errors
/// - [`SchemaError::Newer`], [`SchemaError::Changed`]: the database belongs to another release.
/// - [`SchemaError::VectorUnavailable`], [`SchemaError::VectorForbidden`]: pgvector is missing.
/// - [`SchemaError::Apply`], [`SchemaError::Read`]: the server refused or the connection broke.
///   Files before the refused one stay applied.
pub fn migrate(client: &mut Client) -> Result<Vec<Applied>, SchemaError> {
    let mut applied = Vec::new();
    for migration in &MIGRATIONS {
        if apply(client, migration)? {
            applied.push(Applied { version: migration.version, file: migration.file });
        }
    }
    Ok(applied)
}

/// Connects, and checks the schema, each within a time of its own: the target's, and `deadline`.
///
/// # Errors
/// The database is not reached, or as [`check`].
pub(crate) fn connect(target: &Target, deadline: Duration) -> Result<Database, SyncError> {
    let mut database = Database::connect(target)?;
    database
        .run(deadline, "checking the schema", |client| check(client).map_err(SyncError::from))?;
    Ok(database)
}

/// Checks that the database has exactly the schema of this agent. Changes nothing.
///
/// # Errors
/// [`SchemaError::Missing`], [`SchemaError::Older`], [`SchemaError::Newer`] and
/// [`SchemaError::Changed`] say what to run; [`SchemaError::Read`] if the server does not answer.
pub fn check(client: &mut Client) -> Result<(), SchemaError> {
    compare(&recorded(client)?)
}

/// A row of `tidelog_migrations`.
struct Recorded {
    version: i32,
    sha256: String,
}

fn compare(recorded: &[Recorded]) -> Result<(), SchemaError> {
    refuse_foreign(recorded)?;
    match recorded.iter().map(|row| row.version).max() {
        None => Err(SchemaError::Missing),
        Some(found) if found < VERSION => Err(SchemaError::Older { found }),
        Some(_) => Ok(()),
    }
}

/// Refuses what was applied by another release than one this agent continues.
fn refuse_foreign(recorded: &[Recorded]) -> Result<(), SchemaError> {
    for row in recorded {
        if row.version > VERSION {
            return Err(SchemaError::Newer { found: row.version });
        }
        let known = MIGRATIONS.iter().find(|migration| migration.version == row.version);
        if let Some(migration) = known
            && migration.sha256() != row.sha256
        {
            return Err(SchemaError::Changed {
                file: migration.file,
                recorded: row.sha256.clone(),
                expected: migration.sha256(),
            });
        }
    }
    Ok(())
}

/// Newest first. Unnamed statements only, so that it works through a transaction pooler.
fn recorded(client: &mut impl GenericClient) -> Result<Vec<Recorded>, SchemaError> {
    let exists = client
        .query_typed("SELECT to_regclass('tidelog_migrations') IS NOT NULL", &[])
        .and_then(|rows| rows.first().map_or(Ok(false), |row| row.try_get(0)))
        .map_err(SchemaError::Read)?;
    if !exists {
        return Ok(Vec::new());
    }
    client
        .query_typed("SELECT version, sha256 FROM tidelog_migrations ORDER BY version DESC", &[])
        .and_then(|rows| {
            rows.iter()
                .map(|row| Ok(Recorded { version: row.try_get(0)?, sha256: row.try_get(1)? }))
                .collect()
        })
        .map_err(SchemaError::Read)
}

/// Applies and records one file, unless it is recorded already. Returns whether it did.
fn apply(client: &mut Client, migration: &Migration) -> Result<bool, SchemaError> {
    let mut transaction = client.transaction().map_err(SchemaError::Read)?;
    transaction
        .batch_execute(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
        .map_err(SchemaError::Read)?;
    let recorded = recorded(&mut transaction)?;
    refuse_foreign(&recorded)?;
    if recorded.iter().any(|row| row.version == migration.version) {
        return Ok(false);
    }
    enable_vector(&mut transaction, migration.file)?;
    run(transaction, migration)
        .map_err(|source| SchemaError::Apply { file: migration.file, source })?;
    Ok(true)
}

fn run(mut transaction: Transaction<'_>, migration: &Migration) -> Result<(), postgres::Error> {
    transaction.batch_execute(migration.sql)?;
    transaction.batch_execute(CREATE_MIGRATIONS_TABLE)?;
    transaction.query_typed(
        "INSERT INTO tidelog_migrations (version, name, sha256) VALUES ($1, $2, $3)",
        &[
            (&migration.version, Type::INT4),
            (&migration.file, Type::TEXT),
            (&migration.sha256(), Type::TEXT),
        ],
    )?;
    transaction.commit()
}

/// The files begin with `CREATE EXTENSION`, too; here a refusal can be told from others.
fn enable_vector(transaction: &mut Transaction<'_>, file: &'static str) -> Result<(), SchemaError> {
    let mut found = |sql| {
        transaction.query_typed(sql, &[]).map(|rows| !rows.is_empty()).map_err(SchemaError::Read)
    };
    if found("SELECT FROM pg_extension WHERE extname = 'vector'")? {
        return Ok(());
    }
    if !found("SELECT FROM pg_available_extensions WHERE name = 'vector'")? {
        return Err(SchemaError::VectorUnavailable);
    }
    transaction.batch_execute("CREATE EXTENSION vector").map_err(|source| match source.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => SchemaError::VectorForbidden,
        _ => SchemaError::Apply { file, source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_recorded() -> Vec<Recorded> {
        MIGRATIONS
            .iter()
            .map(|migration| Recorded { version: migration.version, sha256: migration.sha256() })
            .collect()
    }

    #[test]
    fn own_version_is_accepted() {
        assert!(compare(&all_recorded()).is_ok());
        assert_eq!(MIGRATIONS.last().unwrap().version, VERSION);
    }

    #[test]
    fn empty_database_is_missing_its_schema() {
        assert!(matches!(compare(&[]), Err(SchemaError::Missing)));
    }

    #[test]
    fn older_schema_says_to_migrate() {
        let error = compare(&all_recorded()[..1]).unwrap_err();
        assert!(matches!(error, SchemaError::Older { found: 2 }));
        assert!(error.to_string().contains("`tidelog-sync migrate`"));
    }

    #[test]
    fn newer_schema_is_refused() {
        let mut rows = all_recorded();
        rows.push(Recorded { version: 4, sha256: String::new() });
        assert!(matches!(compare(&rows), Err(SchemaError::Newer { found: 4 })));
    }

    #[test]
    fn edited_migration_is_refused() {
        let mut rows = all_recorded();
        rows[0].sha256 = "0".repeat(64);
        let Err(SchemaError::Changed { file, .. }) = compare(&rows) else { panic!("accepted") };
        assert_eq!(file, "002_telemetry_checkpoints_schema.sql");
    }
}
