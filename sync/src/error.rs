//! Why the agent stopped, in words for a person.

use std::io;
use std::path::PathBuf;

use tidelog::StoreId;
use uuid::Uuid;

use crate::breaker::TooMuch;
use crate::connect::TargetError;
use crate::database::DatabaseError;
use crate::schema::SchemaError;
use crate::sqlstate::{self, Class};

/// Why a call of this library failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// A file of the store cannot be read, or the folder is no store.
    #[error(transparent)]
    Store(#[from] tidelog::Error),
    /// The connection string cannot be used.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The database was not reached, or refused.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The database has another schema than this agent.
    #[error("{source}{}", cause(.source))]
    Schema {
        /// Which one.
        source: SchemaError,
    },
    /// The agent sent to another database before, and this one has nothing of the store.
    #[error(
        "this database ({now}) has nothing of store {store}, which was sent to database {before} \
         before; if this is the right one, start once with --accept-new-target to send everything"
    )]
    AnotherDatabase {
        /// The store.
        store: StoreId,
        /// Id of the database that was sent to before.
        before: Uuid,
        /// Id of this database.
        now: Uuid,
    },
    /// A segment with more lines than a replica can number.
    #[error("{} has more than {} lines, which no tidelog writes", path.display(), i32::MAX)]
    TooManyLines {
        /// The file.
        path: PathBuf,
    },
    /// The server refuses a line as rows, and then as a row of the quarantine.
    #[error(
        "{} line {line}: not even sync_quarantine takes it: {source}; look for triggers and \
         constraints that tidelog-sync migrate did not make",
        path.display()
    )]
    Quarantine {
        /// The file.
        path: PathBuf,
        /// The line's number, the first is 0.
        line: u32,
        /// What the server said.
        source: DatabaseError,
    },
    /// The server refuses so many lines for one reason that the reason is hardly in the lines.
    #[error(
        "{} line {line}: {source}; the server refused {too_much} for this reason, so nothing more \
         goes to quarantine and this segment waits: look at tidelog-sync quarantine list --reason \
         {state}, change the database, then run tidelog-sync quarantine retry --all --reason \
         {state}; or, if the lines are to blame, start the agent with --poison-limit above {}",
        path.display(), too_much.limit, state = too_much.sqlstate
    )]
    TooMuchPoison {
        /// The file.
        path: PathBuf,
        /// The line's number, the first is 0. It is the first one that is not sent.
        line: u32,
        /// How much it was, and why.
        too_much: Box<TooMuch>,
        /// What the server said of this line.
        source: DatabaseError,
    },
    /// The database knows no store of this id.
    #[error("the database has no store {store}; it has: {known}")]
    StoreUnknown {
        /// The id asked for.
        store: StoreId,
        /// Some that it has.
        known: String,
    },
    /// The database has no store, or several, and none was named.
    #[error("name the store with --store-id; the database has: {}", or_none(.known))]
    StoreNotNamed {
        /// Some that it has.
        known: String,
    },
    /// The thread that reads a segment panicked.
    #[error("reading {} ended unexpectedly; please report it", path.display())]
    Reader {
        /// The file.
        path: PathBuf,
    },
    /// While a segment was compared, its cursor moved back or its file changed.
    #[error(
        "{}: replica or file went back while they were compared; run verify again",
        path.display()
    )]
    WentBack {
        /// The file.
        path: PathBuf,
    },
    /// Asked to stop, the agent could not send everything in time. The rest is sent at the next
    /// start.
    #[error("stopped after {seconds} s with lines left to send; start again to send them")]
    NotDrained {
        /// The limit.
        seconds: u64,
    },
}

impl From<SchemaError> for SyncError {
    fn from(source: SchemaError) -> Self {
        Self::Schema { source }
    }
}

/// Stores that are listed where one must be chosen.
const LISTED_MAX: usize = 20;

/// Some of the stores of a database.
pub(crate) fn listed(known: impl Iterator<Item = impl ToString>) -> String {
    known.take(LISTED_MAX).map(|store| store.to_string()).collect::<Vec<_>>().join(", ")
}

impl SyncError {
    pub(crate) fn store_unknown(
        store: StoreId,
        known: impl Iterator<Item = impl ToString>,
    ) -> Self {
        Self::StoreUnknown { store, known: listed(known) }
    }

    /// What the agent does next; none if waiting would not help.
    #[must_use]
    pub fn class(&self) -> Option<Class> {
        match self {
            Self::Database(error) => Some(error.class()),
            Self::Schema {
                source: SchemaError::Apply { source, .. } | SchemaError::Read(source),
            } => Some(sqlstate::classify(source)),
            Self::Schema { .. }
            | Self::Quarantine { .. }
            | Self::AnotherDatabase { .. }
            | Self::TooMuchPoison { .. } => Some(Class::Blocked),
            // A folder that cannot be listed now may be there again later.
            Self::Store(tidelog::Error::Io { .. }) => Some(Class::Retry),
            _ => None,
        }
    }

    /// Whether it is about a segment's file: the database has nothing to do with it.
    pub(crate) fn is_of_file(&self) -> bool {
        matches!(self, Self::Store(_) | Self::TooManyLines { .. } | Self::Reader { .. })
    }

    /// Whether the file is gone.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Store(tidelog::Error::Io { source, .. })
            if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether one segment met it, and the next one may pass on the same connection.
    pub(crate) fn leaves_others(&self) -> bool {
        matches!(self.class(), Some(Class::Retry | Class::Blocked))
    }
}

fn or_none(known: &str) -> &str {
    if known.is_empty() { "no store at all" } else { known }
}

/// What the server said, where the error itself does not.
fn cause(error: &SchemaError) -> String {
    match error {
        SchemaError::Apply { source, .. } | SchemaError::Read(source) => {
            format!(": {}", sqlstate::explain(source))
        }
        _ => String::new(),
    }
}
