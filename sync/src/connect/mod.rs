//! Where is the replica, and how is it reached safely?
//!
//! A [`Target`] is read from libpq's spellings (URL or keywords, `PG*` variables, password file),
//! because the driver knows only some of libpq's options and refuses the others. What differs from
//! libpq:
//!
//! - `sslmode=require` checks the server's certificate and name, unless `sslverify=off` is written
//!   beside it. Plaintext over a network must be spelled out as `sslmode=disable`.
//! - Without `sslrootcert` the system's roots count.
//! - The host defaults to `localhost`, and a password file that others can read is an error.
//! - `pgbouncer=true|false` says whether a transaction pooler answers; without it the pooler
//!   hosts of Neon and port 6543 of Supabase are recognised.
//!
//! No error, log or debug output shows a password, nor any value of an option.

mod host;
mod passfile;
mod settings;
mod tls;
mod url;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use postgres::config::{SslMode as DriverSslMode, SslNegotiation, TargetSessionAttrs};

use host::Host;
use passfile::Login;
use settings::Settings;
use tls::{Policy, Protection};

const CONNECT_SECONDS: u64 = 10;
/// Ends connections whose peer machine is gone, also those that nobody waits for any more.
const PEER_SILENT: Duration = Duration::from_secs(30);

/// A database to connect to: one or more hosts, login, and what the connection must prove.
#[derive(Clone)]
pub struct Target {
    pub(crate) endpoints: Vec<Endpoint>,
    /// The bound of one attempt on one host: DNS, TCP, TLS and authentication together.
    pub(crate) connect_timeout: Duration,
    transaction_pooler: bool,
    redacted: String,
}

/// One host of a target.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) config: postgres::Config,
    pub(crate) tls: Policy,
    /// `host:port`.
    pub(crate) name: String,
}

/// Why a connection string cannot be used. It never shows a value, which may be a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Neither a connection string nor a host or database in the environment.
    #[error("no database is named: pass --database-url, or set DATABASE_URL or PGHOST")]
    Missing,
    /// A URL of something else.
    #[error("a database URL begins with postgresql:// or postgres://")]
    Scheme,
    /// A `@` that belongs to a password would make its end a host name.
    #[error("the database URL has an `@` too many: write `@` in a password as %40")]
    UnescapedAt,
    /// The text is not a connection string.
    #[error("the connection string is malformed: {0}")]
    Syntax(&'static str),
    /// An option that is not known here; its name.
    #[error("the connection string has an unknown option `{0}`")]
    UnknownOption(String),
    /// An option that is not known here; its name may be a part of a password.
    #[error("the connection string has an unknown option; quote or escape the password")]
    UnknownOptionHidden,
    /// An option with a value that it cannot have.
    #[error("the database option `{option}` must be {expected}")]
    Value {
        /// The option's name.
        option: &'static str,
        /// What its value must be.
        expected: &'static str,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A password file that others can read.
    #[error("the password file {} is open to others: chmod 600 it", path.display())]
    PassfileMode {
        /// The file.
        path: PathBuf,
    },
    /// A certificate or key file without a usable certificate or key.
    #[error("cannot use {} as PEM: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// This system has no CA certificates.
    #[error("this system has no CA certificates: install them, or give sslrootcert=FILE")]
    NoSystemRoots,
    /// A certificate, key or root that TLS cannot use.
    #[error("cannot set up TLS: {0}")]
    Tls(rustls::Error),
}

impl Target {
    /// Reads the target from `text` (of `--database-url`) or else `DATABASE_URL`, and fills it up
    /// from the `PG*` variables and the password file. It does not connect.
    ///
    /// # Errors
    /// When nothing names a database, or an option or a file is wrong.
    pub fn from_environment(text: Option<&str>) -> Result<Self, TargetError> {
        Self::parse(text, &|name| std::env::var(name).ok())
    }

    /// As [`Self::from_environment`], with `variable` for the environment.
    ///
    /// # Errors
    /// When nothing names a database, or an option or a file is wrong.
    pub fn parse(
        text: Option<&str>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, TargetError> {
        let given = text.filter(|text| !text.is_empty()).map(str::to_owned);
        let text = given.or_else(|| variable("DATABASE_URL")).unwrap_or_default();
        let settings = Settings::gather(text.trim(), variable)?;
        if ["host", "hostaddr", "dbname"].iter().all(|option| settings.get(option).is_none()) {
            return Err(TargetError::Missing);
        }
        let hosts = host::list(&settings)?;
        let names: Vec<_> = hosts.iter().map(Host::to_string).collect();
        let user = settings.get("user").unwrap_or_default();
        let dbname = settings.get("dbname").unwrap_or(user);
        let named_pooler = settings.switch("pgbouncer")?;
        let timeout = settings.number("connect_timeout", 1..=600, "1 to 600 seconds")?;
        let connect_timeout = Duration::from_secs(timeout.unwrap_or(CONNECT_SECONDS));
        Ok(Self {
            connect_timeout,
            transaction_pooler: named_pooler.unwrap_or(hosts.iter().any(Host::is_known_pooler)),
            redacted: format!("{user}@{}/{dbname}", names.join(",")),
            endpoints: endpoints(&settings, &hosts, connect_timeout, variable("HOME"))?,
        })
    }

    /// `user@host:port/database`, for logs and messages.
    #[must_use]
    pub fn redacted(&self) -> &str {
        &self.redacted
    }

    /// Whether a pooler in transaction mode answers: only unnamed statements inside explicit
    /// transactions work there, and no COPY.
    #[must_use]
    pub fn transaction_pooler(&self) -> bool {
        self.transaction_pooler
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.redacted)
    }
}

fn endpoints(
    settings: &Settings,
    hosts: &[Host],
    connect_timeout: Duration,
    home: Option<String>,
) -> Result<Vec<Endpoint>, TargetError> {
    let shared = shared_config(settings, connect_timeout)?;
    let (mode, verify_off) = settings.ssl_mode()?;
    let policy = Policy {
        protection: Protection::Full,
        roots: settings.path("sslrootcert").filter(|path| path.as_os_str() != "system"),
        identity: settings.identity()?,
        direct: shared.get_ssl_negotiation() == SslNegotiation::Direct,
    };
    let passwords = match (settings.get("password"), settings.passfile(home)) {
        (None, Some(passfile)) => passfile.read()?,
        _ => String::new(),
    };
    let endpoint = |host: &Host| {
        let protection = mode.protection(host.reach(), verify_off);
        let mut config = shared.clone();
        config.host(&host.name).port(host.port).ssl_mode(protection.into());
        if let Some(address) = host.address {
            config.hostaddr(address);
        }
        let password = settings.get("password").map(str::to_owned);
        if let Some(password) = password.or_else(|| filed_password(&passwords, settings, host)) {
            config.password(password);
        }
        Endpoint { config, tls: Policy { protection, ..policy.clone() }, name: host.to_string() }
    };
    let mut endpoints: Vec<_> = hosts.iter().map(endpoint).collect();
    if load_balanced(settings)? {
        fastrand::shuffle(&mut endpoints);
    }
    Ok(endpoints)
}

impl From<Protection> for DriverSslMode {
    fn from(protection: Protection) -> Self {
        match protection {
            Protection::Plaintext => Self::Disable,
            Protection::Opportunistic => Self::Prefer,
            Protection::Unchecked | Protection::Chain | Protection::Full => Self::Require,
        }
    }
}

fn filed_password(passwords: &str, settings: &Settings, host: &Host) -> Option<String> {
    let user = settings.get("user")?;
    let dbname = settings.get("dbname").unwrap_or(user);
    let login = Login { host: &host.name, port: host.port, dbname, user };
    passfile::find(passwords, &login)
}

/// What all hosts have in common.
fn shared_config(
    settings: &Settings,
    connect_timeout: Duration,
) -> Result<postgres::Config, TargetError> {
    let mut config = settings.driver_config()?;
    // Half, so that a dead first address of a name leaves time for the second.
    config.connect_timeout(connect_timeout / 2);
    let silent = settings.number("tcp_user_timeout", 1..=3_600_000, "1 to 3600000 milliseconds")?;
    config.tcp_user_timeout(silent.map_or(PEER_SILENT, Duration::from_millis));
    if settings.get("keepalives_idle").is_none() {
        config.keepalives_idle(PEER_SILENT);
    }
    config.target_session_attrs(match settings.get("target_session_attrs") {
        None | Some("any" | "prefer-standby") => TargetSessionAttrs::Any,
        Some("read-write" | "primary") => TargetSessionAttrs::ReadWrite,
        Some("read-only" | "standby") => TargetSessionAttrs::ReadOnly,
        Some(_) => {
            let expected = "any, read-write, read-only, primary, standby or prefer-standby";
            return Err(TargetError::Value { option: "target_session_attrs", expected });
        }
    });
    Ok(config)
}

fn load_balanced(settings: &Settings) -> Result<bool, TargetError> {
    match settings.get("load_balance_hosts") {
        None | Some("disable") => Ok(false),
        Some("random") => Ok(true),
        Some(_) => {
            let expected = "disable or random";
            Err(TargetError::Value { option: "load_balance_hosts", expected })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "c4narY";

    fn parse(text: &str) -> Result<Target, TargetError> {
        Target::parse(Some(text), &|_| None)
    }

    #[test]
    fn strings_of_providers_work_unmodified() {
        for (text, redacted, pooler) in [
            (
                "postgresql://u:p@ep-x-pooler.eu.aws.neon.tech/db?sslmode=require&channel_binding=require",
                "u@ep-x-pooler.eu.aws.neon.tech:5432/db",
                true,
            ),
            (
                "postgres://postgres.ref:p@aws-0-eu.pooler.supabase.com:6543/postgres?pgbouncer=true&connection_limit=1",
                "postgres.ref@aws-0-eu.pooler.supabase.com:6543/postgres",
                true,
            ),
            (
                "postgresql://postgres:p@db.ref.supabase.co:5432/postgres",
                "postgres@db.ref.supabase.co:5432/postgres",
                false,
            ),
        ] {
            let target = parse(text).unwrap();
            assert_eq!(target.redacted(), redacted);
            assert_eq!(target.transaction_pooler(), pooler);
            assert_eq!(target.endpoints[0].tls.protection, Protection::Full);
        }
    }

    #[test]
    fn each_host_has_its_own_port_password_and_protection() {
        let folder = tempfile::tempdir().unwrap();
        let passfile = folder.path().join(".pgpass");
        std::fs::write(&passfile, "h:1:d:u:one\n*:*:*:*:other\n").unwrap();
        set_mode(&passfile, 0o600);
        let home = folder.path().to_str().unwrap().to_owned();
        let variable = |name: &str| (name == "HOME").then(|| home.clone());
        let target =
            Target::parse(Some("host=h,/run/pg,localhost port=1,2,3 dbname=d user=u"), &variable)
                .unwrap();
        let found: Vec<_> = target
            .endpoints
            .iter()
            .map(|at| (at.name.as_str(), at.tls.protection, at.config.get_password().unwrap()))
            .collect();
        assert_eq!(
            found,
            [
                ("h:1", Protection::Full, b"one".as_slice()),
                ("/run/pg:2", Protection::Plaintext, b"other"),
                ("localhost:3", Protection::Opportunistic, b"other"),
            ]
        );
        set_mode(&passfile, 0o640);
        let error = Target::parse(Some("host=h"), &variable).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    fn set_mode(path: &std::path::Path, mode: u32) {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, permissions).unwrap();
    }

    #[test]
    fn environment_fills_what_the_string_leaves_out() {
        let variable = |name: &str| {
            let values = [("PGHOST", "e"), ("PGPORT", "7"), ("PGUSER", "eu"), ("PGPASSWORD", "ep")];
            values.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let target = Target::parse(Some("postgres://h/d"), &variable).unwrap();
        assert_eq!(target.redacted(), "eu@h:7/d");
        assert_eq!(target.endpoints[0].config.get_password(), Some(b"ep".as_slice()));
        assert_eq!(Target::parse(Some(""), &variable).unwrap().redacted(), "eu@e:7/eu");
        assert!(matches!(parse(""), Err(TargetError::Missing)));
        let variable =
            |name: &str| (name == "DATABASE_URL").then(|| "postgres://u@h/d\n".to_owned());
        assert_eq!(Target::parse(None, &variable).unwrap().redacted(), "u@h:5432/d");
    }

    #[test]
    fn options_reach_the_driver() {
        let text = "host=h connect_timeout=4 application_name='a b' keepalives_count=3 \
                    target_session_attrs=primary options='-c a=\\'b' sslmode=disable";
        let target = parse(text).unwrap();
        let config = &target.endpoints[0].config;
        assert_eq!(target.connect_timeout, Duration::from_secs(4));
        assert_eq!(config.get_application_name(), Some("a b"));
        assert_eq!(config.get_keepalives_retries(), Some(3));
        assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        assert_eq!(config.get_options(), Some("-c a='b"));
        assert_eq!(config.get_ssl_mode(), DriverSslMode::Disable);
        let unasked = parse("host=h").unwrap();
        assert_eq!(unasked.endpoints[0].config.get_ssl_mode(), DriverSslMode::Require);
    }

    #[test]
    fn wrong_options_are_named() {
        for (text, expected) in [
            ("mysql://u@h/d", "postgresql://"),
            ("postgresql+asyncpg://u@h/d", "postgresql://"),
            ("postgres://u:p@h/d?sslmod=require", "`sslmod`"),
            ("host=h service=x", "`service`"),
            ("host=h sslmode=full", "`sslmode` must be disable, allow"),
            ("host=h port=99999", "`port`"),
            ("host=h,i port=1,2,3", "`port`"),
            ("host=h hostaddr=x", "`hostaddr`"),
            ("host=h connect_timeout=0", "`connect_timeout`"),
            ("host=h channel_binding=x", "`channel_binding`"),
            ("host=h target_session_attrs=x", "`target_session_attrs`"),
            ("host=h sslcert=/x", "`sslcert`"),
            ("host=h sslverify=off", "`sslverify`"),
            ("host=h passfile=/no/such", "/no/such"),
            ("host=x@h", "`host`"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn no_error_or_debug_output_shows_the_password() {
        for text in [
            "postgres://u:@c4narY@h/d",
            "postgres://u:c4narY/x@h/d",
            "postgres://u:1/c4narY@h/d",
            "postgres://u:1?c4narY=@h/d",
            "postgres://u:c4narY",
            "postgres://u:%c4narY@h",
            "postgres://u:c4narY@h:x",
            "postgres://u:c4narY@[h",
            "postgres://h?password=a&c4narY=b",
            "postgres://h?password=a&c4narY",
            "postgres://u:c4narY@h?x=y",
            "password=a c4narY host=h",
            "password=a c4narY=b host=h",
            "password='c4narY host=h",
            "host=h port=c4narY",
            "host=h sslmode=c4narY",
            "host=h password=c4narY sslrootcert",
            "c4narY://u@h",
        ] {
            let error = parse(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(CANARY), "{text}: {error}");
        }
        let target = parse("postgres://u:c4narY@h:1/d").unwrap();
        assert_eq!(format!("{target:?} {}", target.redacted()), "u@h:1/d u@h:1/d");
    }
}
