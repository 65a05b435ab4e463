//! What `run` is told: by flags, the environment, a file, and defaults, in this order of precedence.
//!
//! An option is declared once, in [`Options`]: its flag, its variable and its key in the file have the
//! same name and the same values.

mod file;
mod period;
mod size;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ArgMatches;
use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;
use serde::Deserialize;

pub use file::ConfigError;
pub use period::Period;
pub use size::Size;

use crate::connect::{Target, TargetError};
use crate::service::log::{Format, Level};
use crate::{BlobPolicy, NewTarget};

/// A connection beyond these could find no place among those of the process.
const CONNECTIONS_MAX: usize = 24;

/// Every option of `run`; none where nothing is said.
#[derive(Debug, Clone, Default, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Options {
    /// Folder of a store [default: tidelog]; give it again for each other store
    #[arg(long, value_name = "DIR", env = "TIDELOG_STORE")]
    pub store: Vec<PathBuf>,
    /// Folder whose child folders are stores, also those that come later; may be given again
    #[arg(long, value_name = "DIR", env = "TIDELOG_SYNC_STORES_IN")]
    pub stores_in: Vec<PathBuf>,
    /// Most stores that are followed [default: 256]
    #[arg(long, value_name = "NUMBER", env = "TIDELOG_SYNC_STORES_MAX")]
    pub stores_max: Option<usize>,
    /// Most connections to the database; more stores take turns [default: 8]
    #[arg(long, value_name = "NUMBER", env = "TIDELOG_SYNC_CONNECTIONS")]
    pub connections: Option<usize>,
    /// Connection string as for psql. Others can read it in the process list: prefer the
    /// environment variable, --database-url-file, or the PG* variables and a password file
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<Secret>,
    /// File that holds the connection string, as secrets are mounted
    #[arg(long, value_name = "FILE", env = "TIDELOG_SYNC_DATABASE_URL_FILE")]
    pub database_url_file: Option<PathBuf>,
    /// Send everything to a database that has nothing of the store, although another one was sent to
    /// before
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = BoolishValueParser::new(), value_name = "BOOL", env = "TIDELOG_SYNC_ACCEPT_NEW_TARGET")]
    pub accept_new_target: Option<bool>,
    /// Folder in which the agent remembers which database it sent to; else $STATE_DIRECTORY, as
    /// systemd gives it, or $XDG_STATE_HOME/tidelog, or ~/.local/state/tidelog
    #[arg(long, value_name = "DIR", env = "TIDELOG_SYNC_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Stop writing a segment of which the server refuses more than so many of 20 times as many lines
    /// for one reason [default: 100]
    #[arg(long, value_name = "LINES", env = "TIDELOG_SYNC_POISON_LIMIT")]
    pub poison_limit: Option<u32>,
    /// Largest checkpoint file that is sent, in bytes or with KiB, MiB, GiB; `status` names larger
    /// ones [default: 1GiB]
    #[arg(long, value_name = "SIZE", env = "TIDELOG_SYNC_BLOB_MAX_SIZE")]
    pub blob_max_size: Option<Size>,
    /// Send no checkpoint files, only what the journal says of them
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = BoolishValueParser::new(), value_name = "BOOL", env = "TIDELOG_SYNC_NO_BLOBS")]
    pub no_blobs: Option<bool>,
    /// Longest random wait before the first connection, so that a fleet does not come at once
    /// [default: 15s]
    #[arg(long, value_name = "TIME", env = "TIDELOG_SYNC_START_DELAY")]
    pub start_delay: Option<Period>,
    /// Asked to stop, how long to go on sending what is there [default: 25s]
    #[arg(long, value_name = "TIME", env = "TIDELOG_SYNC_DRAIN_TIMEOUT")]
    pub drain_timeout: Option<Period>,
    /// Serve /livez, /readyz and /metrics here, as 127.0.0.1:9187; nothing is served unless given
    #[arg(long, value_name = "ADDRESS", env = "TIDELOG_SYNC_LISTEN")]
    pub listen: Option<Listen>,
    /// Not ready while the oldest line that is not sent is older than this [default: 5m]
    #[arg(long, value_name = "TIME", env = "TIDELOG_SYNC_READY_LAG")]
    pub ready_lag: Option<Period>,
    /// Not alive when a loop is later than this; waits for the database are no delay [default: 2m]
    #[arg(long, value_name = "TIME", env = "TIDELOG_SYNC_LIVE_TIMEOUT")]
    pub live_timeout: Option<Period>,
    /// Form of the log [default: text]
    #[arg(long, value_name = "FORMAT", env = "TIDELOG_SYNC_LOG_FORMAT")]
    pub log_format: Option<Format>,
    /// Least important lines of the log [default: info]
    #[arg(long, value_name = "LEVEL", env = "TIDELOG_SYNC_LOG_LEVEL")]
    pub log_level: Option<Level>,
}

/// Where settings come from: a file, and what is said beside it.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// Settings in TOML, with the names of these options; flags and environment win over it
    #[arg(long, value_name = "FILE", env = "TIDELOG_SYNC_CONFIG")]
    pub config: Option<PathBuf>,
    /// What is said beside the file.
    #[command(flatten)]
    pub options: Options,
}

/// A text that is not shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

/// An address to listen at, which is spelled out: a port alone is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "an address and a port, such as 127.0.0.1:9187 or [::1]:9187";
        text.parse().map(Self).map_err(|_| format!("`{text}` is not {expected}"))
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Who said what a setting is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag,
    /// A variable of the environment.
    Environment,
    /// The configuration file.
    File,
    /// Nobody.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}

/// The settings that count, all of them.
#[derive(Debug, Clone)]
pub struct Config {
    options: Options,
    /// The keys that are said, and by whom.
    origins: Vec<(String, Origin)>,
}

impl Config {
    /// Puts together what `arguments` say, as parsed into `matches`, and the file that they name.
    ///
    /// # Errors
    /// The file cannot be used, or a value is out of its range.
    pub fn gather(arguments: &ConfigArgs, matches: &ArgMatches) -> Result<Self, ConfigError> {
        let (filed, filed_keys) = match &arguments.config {
            Some(path) => file::read(path)?,
            None => Default::default(),
        };
        let origins = Self::of(Options::default(), Vec::new())
            .shown()
            .into_iter()
            .map(|(key, ..)| (key.to_owned(), origin(key, &filed_keys, matches)))
            .collect();
        let config = Self::of(arguments.options.clone().or(filed), origins);
        config.check()?;
        Ok(config)
    }

    fn of(options: Options, origins: Vec<(String, Origin)>) -> Self {
        Self { options, origins }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let connections = self.connections();
        if !(1..=CONNECTIONS_MAX).contains(&connections) {
            let (key, expected) = ("connections", "a number from 1 to 24");
            return Err(ConfigError::Value { key, value: connections.to_string(), expected });
        }
        if self.stores_max() == 0 {
            let (key, expected) = ("stores-max", "a number from 1 on");
            return Err(ConfigError::Value { key, value: "0".to_owned(), expected });
        }
        Ok(())
    }

    /// The stores that are named one by one.
    #[must_use]
    pub fn stores(&self) -> Vec<PathBuf> {
        match self.options.store.is_empty() && self.options.stores_in.is_empty() {
            true => vec![PathBuf::from("tidelog")],
            false => self.options.store.clone(),
        }
    }

    /// Folders of stores.
    #[must_use]
    pub fn stores_in(&self) -> &[PathBuf] {
        &self.options.stores_in
    }

    /// The stores that are there now, and those that are named.
    #[must_use]
    pub fn all_stores(&self) -> Vec<PathBuf> {
        let found = self.stores_in().iter().filter_map(|parent| stores_in(parent).ok()).flatten();
        self.stores().into_iter().chain(found).collect()
    }

    /// Most stores that are followed.
    #[must_use]
    pub fn stores_max(&self) -> usize {
        self.options.stores_max.unwrap_or(256)
    }

    /// Most connections at once.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.options.connections.unwrap_or(8)
    }

    /// What to do with a database that has nothing of the store.
    #[must_use]
    pub fn new_target(&self) -> NewTarget {
        match self.options.accept_new_target {
            Some(true) => NewTarget::Accept,
            _ => NewTarget::Refuse,
        }
    }

    /// Where the agent's memory lies, if there is a place for it.
    #[must_use]
    pub fn state_dir(&self) -> Option<PathBuf> {
        self.options.state_dir.clone().or_else(crate::state_folder)
    }

    /// How many refused lines are too many.
    #[must_use]
    pub fn poison_limit(&self) -> u32 {
        self.options.poison_limit.unwrap_or(crate::POISON_LIMIT)
    }

    /// Which checkpoint files are sent.
    #[must_use]
    pub fn blobs(&self) -> BlobPolicy {
        match (self.options.no_blobs, self.options.blob_max_size) {
            (Some(true), _) => BlobPolicy::Never,
            (_, Some(size)) => BlobPolicy::UpTo { bytes_max: size.0 },
            (_, None) => BlobPolicy::default(),
        }
    }

    /// Longest wait before the first connection.
    #[must_use]
    pub fn start_delay(&self) -> Period {
        self.options.start_delay.unwrap_or(Period::seconds(15))
    }

    /// How long to go on sending once asked to stop.
    #[must_use]
    pub fn drain_timeout(&self) -> Period {
        self.options.drain_timeout.unwrap_or(Period(crate::DRAIN_TIMEOUT))
    }

    /// Where to serve probes and metrics.
    #[must_use]
    pub fn listen(&self) -> Option<SocketAddr> {
        self.options.listen.map(|listen| listen.0)
    }

    /// The oldest unsent line of an agent that is ready.
    #[must_use]
    pub fn ready_lag(&self) -> Period {
        self.options.ready_lag.unwrap_or(Period::seconds(300))
    }

    /// How late a loop may be.
    #[must_use]
    pub fn live_timeout(&self) -> Period {
        self.options.live_timeout.unwrap_or(Period::seconds(120))
    }

    /// Form of the log.
    #[must_use]
    pub fn log_format(&self) -> Format {
        self.options.log_format.unwrap_or_default()
    }

    /// Least important lines of the log.
    #[must_use]
    pub fn log_level(&self) -> Level {
        self.options.log_level.unwrap_or_default()
    }

    /// The database. The URL is that of the flag, the environment, the file that holds it, or the
    /// configuration file; the `PG*` variables fill up what it leaves out.
    ///
    /// # Errors
    /// None is named, it cannot be read, or it is wrong.
    pub fn target(&self) -> Result<Target, TargetError> {
        let url = match self.url_file() {
            Some(path) => Some(url_in(path)?),
            None => self.options.database_url.as_ref().map(|url| url.0.clone()),
        };
        Target::from_environment(url.as_deref())
    }

    /// The file of the URL, unless flag or environment say it themselves.
    fn url_file(&self) -> Option<&Path> {
        let said = self.said_by("database-url");
        let is_said_beside = matches!(said, Origin::Flag | Origin::Environment);
        self.options.database_url_file.as_deref().filter(|_| !is_said_beside)
    }

    /// Who said what counts for this key.
    fn origin(&self, key: &str) -> Origin {
        match self.url_file() {
            Some(_) if key == "database-url" => self.said_by("database-url-file"),
            _ => self.said_by(key),
        }
    }

    fn said_by(&self, key: &str) -> Origin {
        let said = self.origins.iter().find(|(said, _)| said == key);
        said.map_or(Origin::Default, |(_, origin)| *origin)
    }

    /// Every setting, its value and who said it. No password.
    #[must_use]
    pub fn shown(&self) -> Vec<(&'static str, String, Origin)> {
        let database =
            || self.target().map_or_else(|error| error.to_string(), |t| t.redacted().into());
        let values = [
            ("store", paths(&self.stores())),
            ("stores-in", paths(self.stores_in())),
            ("stores-max", self.stores_max().to_string()),
            ("connections", self.connections().to_string()),
            ("database-url", if self.origins.is_empty() { String::new() } else { database() }),
            ("database-url-file", paths(self.options.database_url_file.as_slice())),
            ("accept-new-target", (self.new_target() == NewTarget::Accept).to_string()),
            ("state-dir", paths(self.state_dir().as_slice())),
            ("poison-limit", self.poison_limit().to_string()),
            ("blob-max-size", self.options.blob_max_size.unwrap_or(Size(1 << 30)).to_string()),
            ("no-blobs", (self.blobs() == BlobPolicy::Never).to_string()),
            ("start-delay", self.start_delay().to_string()),
            ("drain-timeout", self.drain_timeout().to_string()),
            ("listen", self.listen().map_or("off".to_owned(), |address| address.to_string())),
            ("ready-lag", self.ready_lag().to_string()),
            ("live-timeout", self.live_timeout().to_string()),
            ("log-format", self.log_format().to_string()),
            ("log-level", self.log_level().to_string()),
        ];
        values.into_iter().map(|(key, value)| (key, value, self.origin(key))).collect()
    }
}

impl Options {
    /// What these leave open, `other` says.
    fn or(self, other: Self) -> Self {
        let or = |ours: Vec<PathBuf>, theirs| if ours.is_empty() { theirs } else { ours };
        let database_url = self.database_url.filter(|url| !url.0.is_empty());
        Self {
            store: or(self.store, other.store),
            stores_in: or(self.stores_in, other.stores_in),
            stores_max: self.stores_max.or(other.stores_max),
            connections: self.connections.or(other.connections),
            database_url: database_url.or(other.database_url),
            database_url_file: self.database_url_file.or(other.database_url_file),
            accept_new_target: self.accept_new_target.or(other.accept_new_target),
            state_dir: self.state_dir.or(other.state_dir),
            poison_limit: self.poison_limit.or(other.poison_limit),
            blob_max_size: self.blob_max_size.or(other.blob_max_size),
            no_blobs: self.no_blobs.or(other.no_blobs),
            start_delay: self.start_delay.or(other.start_delay),
            drain_timeout: self.drain_timeout.or(other.drain_timeout),
            listen: self.listen.or(other.listen),
            ready_lag: self.ready_lag.or(other.ready_lag),
            live_timeout: self.live_timeout.or(other.live_timeout),
            log_format: self.log_format.or(other.log_format),
            log_level: self.log_level.or(other.log_level),
        }
    }
}

fn origin(key: &str, filed: &[String], matches: &ArgMatches) -> Origin {
    let id = key.replace('-', "_");
    // A command may take some of the options only.
    let source = matches.ids().find(|known| **known == id).and_then(|_| matches.value_source(&id));
    match source {
        Some(ValueSource::CommandLine) => Origin::Flag,
        Some(ValueSource::EnvVariable) => Origin::Environment,
        _ if filed.iter().any(|filed| filed == key) => Origin::File,
        _ => Origin::Default,
    }
}

/// Folders that are stores among the children of `parent`, in order.
///
/// # Errors
/// The folder cannot be listed.
pub(crate) fn stores_in(parent: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut stores = Vec::new();
    for entry in std::fs::read_dir(parent)? {
        let folder = entry?.path();
        if folder.join("store.json").is_file() {
            stores.push(folder);
        }
    }
    stores.sort();
    Ok(stores)
}

/// The connection string that a file holds.
///
/// # Errors
/// The file cannot be read, or is too long for one.
pub fn url_in(path: &Path) -> Result<String, TargetError> {
    match file::read_short(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(ConfigError::Read { path, source }) => Err(TargetError::File { path, source }),
        Err(_) => Err(TargetError::Missing),
    }
}

fn paths(paths: &[PathBuf]) -> String {
    let texts: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn gather(arguments: &[&str]) -> Result<Config, ConfigError> {
        let command = ConfigArgs::augment_args(Command::new("run").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments).unwrap();
        Config::gather(&ConfigArgs::from_arg_matches(&matches).unwrap(), &matches)
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn children_that_are_stores_are_found() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b", "a"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("store.json"), "").unwrap();
        }
        std::fs::create_dir(folder.path().join("no-store")).unwrap();
        let found = stores_in(folder.path()).unwrap();
        assert_eq!(found, [folder.path().join("a"), folder.path().join("b")]);
        assert!(stores_in(&folder.path().join("nowhere")).is_err());
    }

    #[test]
    fn every_option_is_shown() {
        let command = ConfigArgs::augment_args(Command::new("run"));
        let options = command.get_arguments().filter_map(|option| option.get_long());
        let mut shown: Vec<_> = Config::of(Options::default(), Vec::new())
            .shown()
            .into_iter()
            .map(|(key, ..)| key)
            .collect();
        shown.insert(0, "config");
        assert_eq!(options.collect::<Vec<_>>(), shown);
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let filed = file("drain-timeout = \"7s\"\nready-lag = 9\nstore = [\"/a\"]");
        let path = filed.path().to_str().unwrap();
        let config = gather(&["--config", path, "--drain-timeout", "3s"]).unwrap();
        let of = |key| {
            let (_, value, origin) =
                config.shown().into_iter().find(|(shown, ..)| *shown == key).unwrap();
            (value, origin)
        };
        assert_eq!(of("drain-timeout"), ("3s".to_owned(), Origin::Flag));
        assert_eq!(of("ready-lag"), ("9s".to_owned(), Origin::File));
        assert_eq!(of("live-timeout"), ("120s".to_owned(), Origin::Default));
        assert_eq!(config.stores(), [PathBuf::from("/a")]);
        assert!(gather(&[]).unwrap().stores() == [PathBuf::from("tidelog")]);
    }

    #[test]
    fn values_out_of_range_are_named() {
        let error = gather(&["--connections", "99"]).unwrap_err().to_string();
        assert_eq!(error, "`connections` is 99, which must be a number from 1 to 24");
        assert!(gather(&["--stores-max", "0"]).is_err());
    }

    #[test]
    fn the_url_of_a_file_is_used_and_shown_without_its_password() {
        let url = file("postgres://u:c4narY@h:7/d\n");
        let config = gather(&["--database-url-file", url.path().to_str().unwrap()]).unwrap();
        assert_eq!(config.target().unwrap().redacted(), "u@h:7/d");
        assert!(!format!("{:?} {config:?}", config.shown()).contains("c4narY"));
        let config = gather(&["--database-url", "postgres://u:c4narY@i/d"]).unwrap();
        assert!(!format!("{:?} {config:?}", config.shown()).contains("c4narY"));
    }
}
