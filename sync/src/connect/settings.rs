//! Collects the options from the connection string and, where it is silent, from the environment.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::TargetError;
use super::passfile::Passfile;
use super::tls::SslMode;
use super::url;

/// Every option that is understood, with the variable that stands in for it.
///
/// `pgbouncer` and `connection_limit` are Prisma's; providers put them into the strings that they
/// show. There is one connection whatever `connection_limit` says.
const OPTIONS: [(&str, Option<&str>); 26] = [
    ("application_name", Some("PGAPPNAME")),
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("connection_limit", None),
    ("dbname", Some("PGDATABASE")),
    ("host", Some("PGHOST")),
    ("hostaddr", Some("PGHOSTADDR")),
    ("keepalives", None),
    ("keepalives_count", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("load_balance_hosts", Some("PGLOADBALANCEHOSTS")),
    ("options", Some("PGOPTIONS")),
    ("passfile", Some("PGPASSFILE")),
    ("password", Some("PGPASSWORD")),
    ("pgbouncer", None),
    ("port", Some("PGPORT")),
    ("sslcert", Some("PGSSLCERT")),
    ("sslkey", Some("PGSSLKEY")),
    ("sslmode", Some("PGSSLMODE")),
    ("sslnegotiation", Some("PGSSLNEGOTIATION")),
    ("sslrootcert", Some("PGSSLROOTCERT")),
    ("sslverify", None),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    ("tcp_user_timeout", None),
    ("user", Some("PGUSER")),
];

/// Options that the driver reads itself, under its own names.
const DRIVER_OPTIONS: [(&str, &str); 10] = [
    ("application_name", "application_name"),
    ("channel_binding", "channel_binding"),
    ("dbname", "dbname"),
    ("keepalives", "keepalives"),
    ("keepalives_count", "keepalives_retries"),
    ("keepalives_idle", "keepalives_idle"),
    ("keepalives_interval", "keepalives_interval"),
    ("options", "options"),
    ("sslnegotiation", "sslnegotiation"),
    ("user", "user"),
];

/// The options that were given, none of them empty.
pub(super) struct Settings(BTreeMap<&'static str, String>);

impl Settings {
    pub(super) fn gather(
        text: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, TargetError> {
        let mut values = BTreeMap::new();
        for (key, value) in url::parse(text)? {
            let known = OPTIONS.iter().find(|(option, _)| *option == key);
            let (option, _) = known.ok_or_else(|| unknown(key, text))?;
            values.insert(*option, value);
        }
        for (option, name) in OPTIONS {
            if let Some(value) = name.and_then(variable) {
                values.entry(option).or_insert(value);
            }
        }
        values.retain(|_, value| !value.is_empty());
        if let Some(user) = variable("USER").filter(|user| !user.is_empty()) {
            values.entry("user").or_insert(user);
        }
        Ok(Self(values))
    }

    pub(super) fn get(&self, option: &str) -> Option<&str> {
        self.0.get(option).map(String::as_str)
    }

    /// The comma-separated values of an option; one that is not given has none.
    pub(super) fn list(&self, option: &str) -> Vec<&str> {
        self.get(option).map_or_else(Vec::new, |values| values.split(',').collect())
    }

    pub(super) fn path(&self, option: &str) -> Option<PathBuf> {
        self.get(option).map(PathBuf::from)
    }

    pub(super) fn number(
        &self,
        option: &'static str,
        range: RangeInclusive<u64>,
        expected: &'static str,
    ) -> Result<Option<u64>, TargetError> {
        let parse = |text: &str| {
            let number = text.parse().ok().filter(|number| range.contains(number));
            number.ok_or(TargetError::Value { option, expected })
        };
        self.get(option).map(parse).transpose()
    }

    pub(super) fn switch(&self, option: &'static str) -> Result<Option<bool>, TargetError> {
        match self.get(option) {
            None => Ok(None),
            Some("true" | "on" | "1") => Ok(Some(true)),
            Some("false" | "off" | "0") => Ok(Some(false)),
            Some(_) => Err(TargetError::Value { option, expected: "on or off" }),
        }
    }

    /// The mode, and whether `sslverify=off` takes the check out of `require`.
    pub(super) fn ssl_mode(&self) -> Result<(SslMode, bool), TargetError> {
        let mode = match self.get("sslmode") {
            Some(text) => SslMode::parse(text).ok_or(TargetError::Value {
                option: "sslmode",
                expected: "disable, allow, prefer, require, verify-ca or verify-full",
            })?,
            // As in libpq, where a wish for the system's roots is a wish for the full check.
            None if self.get("sslrootcert") == Some("system") => SslMode::VerifyFull,
            None => SslMode::Prefer,
        };
        let verify_off = self.switch("sslverify")? == Some(false);
        if verify_off && mode != SslMode::Require {
            let expected = "left out unless sslmode is require";
            return Err(TargetError::Value { option: "sslverify", expected });
        }
        Ok((mode, verify_off))
    }

    /// Client certificate and key, which come together.
    pub(super) fn identity(&self) -> Result<Option<(PathBuf, PathBuf)>, TargetError> {
        let expected = "given together with its counterpart (sslcert and sslkey)";
        match (self.path("sslcert"), self.path("sslkey")) {
            (Some(chain), Some(key)) => Ok(Some((chain, key))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(TargetError::Value { option: "sslcert", expected }),
            (None, Some(_)) => Err(TargetError::Value { option: "sslkey", expected }),
        }
    }

    pub(super) fn passfile(&self, home: Option<String>) -> Option<Passfile> {
        let usual = || home.map(|home| Passfile::Usual(PathBuf::from(home).join(".pgpass")));
        self.path("passfile").map(Passfile::Named).or_else(usual)
    }

    /// The driver's configuration with the options that it reads itself.
    pub(super) fn driver_config(&self) -> Result<postgres::Config, TargetError> {
        let mut text = String::from("application_name=tidelog-sync ");
        for (option, driver_option) in DRIVER_OPTIONS {
            let Some(value) = self.get(option) else { continue };
            let value = value.replace('\\', r"\\").replace('\'', r"\'");
            text.push_str(&format!("{driver_option}='{value}' "));
            if text.parse::<postgres::Config>().is_err() {
                let expected = "a value that libpq's documentation names";
                return Err(TargetError::Value { option, expected });
            }
        }
        text.parse().map_err(|_| TargetError::Syntax("the driver refuses it"))
    }
}

/// Names the key, except where it may be the end of a password with a space or `&` in it.
fn unknown(key: String, text: &str) -> TargetError {
    let a_name = key.len() <= 40
        && key.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    if a_name && !text.contains("password") {
        TargetError::UnknownOption(key)
    } else {
        TargetError::UnknownOptionHidden
    }
}
