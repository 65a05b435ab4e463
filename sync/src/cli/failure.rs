//! Why a command failed: what it says, and its exit code.

use std::io;
use std::process::ExitCode;

use tidelog_sync::SyncError;
use tidelog_sync::config::ConfigError;

use super::say;

/// As sysexits.h calls a failure that may pass.
const NOT_IN_TIME: u8 = 75;
const WRONG_USAGE: u8 = 2;
const DIFFERENT: u8 = 3;
const DATABASE: u8 = 4;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Sync(SyncError),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("{0} segments are not sent, because sent lines changed since")]
    Forked(usize),
    #[error("{0} segments are not sent, because they cannot be read")]
    Unreadable(usize),
    #[error("not everything could be restored; what is named above is missing")]
    NotWhole,
    #[error("replica and files are not the same")]
    Different,
    #[error("cannot wait for SIGTERM and SIGINT: {0}")]
    Signals(io::Error),
    #[error("line {line} of segment {segment} is not in quarantine")]
    NotQuarantined { segment: uuid::Uuid, line: u32 },
    #[error("{0} lines are still refused, and stay in quarantine")]
    StillRefused(u64),
    #[error("--all drops every line of every store")]
    DropsEverything,
    /// What would be done, and was not.
    #[error("{0}; add --yes to do it")]
    Unconfirmed(String),
    #[error(transparent)]
    Config(ConfigError),
    #[error("cannot listen at {}: {}", .0.as_deref().unwrap_or("the network"), .1)]
    Listen(Option<String>, io::Error),
    #[error("not everything was sent in time; the rest is sent at the next start")]
    NotDrained,
    #[error("this login lacks {}", .0.join(", "))]
    Rights(Vec<String>),
    #[error("not reached within {seconds} s: {reason}")]
    NotReached { seconds: u64, reason: String },
}

impl<T: Into<SyncError>> From<T> for Failure {
    fn from(error: T) -> Self {
        Self::Sync(error.into())
    }
}

impl Failure {
    /// Says what went wrong and what to try.
    pub(super) fn report(&self) -> ExitCode {
        if matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS; // whoever read it has seen enough
        }
        say(&format!("error: {self}"));
        if let Some(hint) = self.hint() {
            say(&format!("  try: {hint}"));
        }
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::DropsEverything
            | Self::Unconfirmed(_)
            | Self::Sync(SyncError::Target(_)) => WRONG_USAGE,
            Self::Different => DIFFERENT,
            Self::Rights(_)
            | Self::Sync(
                SyncError::Database(_)
                | SyncError::Schema { .. }
                | SyncError::Quarantine { .. }
                | SyncError::AnotherDatabase { .. }
                | SyncError::TooMuchPoison { .. },
            ) => DATABASE,
            Self::NotReached { .. } | Self::NotDrained => NOT_IN_TIME,
            _ => 1,
        }
    }

    /// What to try, where the text itself does not say it.
    fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Listen(..) => "another --listen, such as 127.0.0.1:9188",
            Self::Rights(_) => "GRANT them to it, or log in as the owner of the tables",
            Self::Forked(_) => {
                "tidelog verify; a copy of the file from a backup goes on where it was"
            }
            Self::Unreadable(_) => {
                "tidelog verify; look at the rights of the files, and at the disk"
            }
            Self::Different => "sending the lines again, or the files from a backup",
            Self::NotQuarantined { .. } => "tidelog-sync quarantine list",
            Self::StillRefused(_) => "tidelog-sync quarantine list, which tells why",
            Self::DropsEverything => "--reason, --segment or --store-id, to say which",
            Self::Sync(SyncError::Database(_)) => "psql \"$DATABASE_URL\" -c 'SELECT 1'",
            Self::Sync(SyncError::Target(_)) => {
                "DATABASE_URL=postgresql://user@host/database tidelog-sync status"
            }
            _ => return None,
        })
    }
}
