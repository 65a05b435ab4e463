//! The hosts of a target, and what their names tell.

use std::fmt;
use std::net::IpAddr;

use super::TargetError;
use super::settings::Settings;
use super::tls::Reach;

/// The most hosts in one target.
const HOSTS_MAX: usize = 16;

/// A host as it was given.
pub(super) struct Host {
    /// Name, address or folder of a Unix socket; also the name that a certificate must bear.
    pub(super) name: String,
    /// Where to connect instead of asking the DNS.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.name, self.port)
    }
}

impl Host {
    pub(super) fn reach(&self) -> Reach {
        if self.name.starts_with('/') {
            return Reach::UnixSocket;
        }
        match self.address.or_else(|| self.name.parse().ok()) {
            Some(address) if address.is_loopback() => Reach::Loopback,
            None if self.name == "localhost" => Reach::Loopback,
            _ => Reach::Network,
        }
    }

    pub(super) fn is_known_pooler(&self) -> bool {
        let neon = self.name.contains("-pooler.");
        let supabase = self.name.ends_with(".supabase.com") || self.name.ends_with(".supabase.co");
        neon || (supabase && self.port == 6543)
    }
}

/// Pairs the lists of hosts, addresses and ports; one port may serve all hosts.
pub(super) fn list(settings: &Settings) -> Result<Vec<Host>, TargetError> {
    let addresses = settings.list("hostaddr");
    let mut names = settings.list("host");
    if names.is_empty() {
        names = if addresses.is_empty() { vec!["localhost"] } else { addresses.clone() };
    }
    let ports = settings.list("port");
    if names.len() > HOSTS_MAX || names.iter().any(|name| name.is_empty() || name.contains('@')) {
        let expected = "1 to 16 names without `@`, separated by commas";
        return Err(TargetError::Value { option: "host", expected });
    }
    if !addresses.is_empty() && addresses.len() != names.len() {
        return Err(TargetError::Value { option: "hostaddr", expected: "one for each host" });
    }
    if ports.len() > 1 && ports.len() != names.len() {
        return Err(TargetError::Value { option: "port", expected: "one, or one for each host" });
    }
    let pair = |(index, name): (usize, &&str)| {
        Ok(Host {
            name: (*name).to_owned(),
            address: addresses.get(index).map(|text| address(text)).transpose()?,
            port: port(ports.get(index).or(ports.first()).copied().unwrap_or_default())?,
        })
    };
    names.iter().enumerate().map(pair).collect()
}

fn address(text: &str) -> Result<IpAddr, TargetError> {
    text.parse().map_err(|_| TargetError::Value { option: "hostaddr", expected: "an IP address" })
}

fn port(text: &str) -> Result<u16, TargetError> {
    let port = if text.is_empty() { Some(5432) } else { text.parse().ok() };
    let error = TargetError::Value { option: "port", expected: "a number from 1 to 65535" };
    port.filter(|port| *port > 0).ok_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, port: u16) -> Host {
        Host { name: name.to_owned(), address: None, port }
    }

    #[test]
    fn only_loopback_and_sockets_are_not_a_network() {
        for (name, reach) in [
            ("/run/postgresql", Reach::UnixSocket),
            ("localhost", Reach::Loopback),
            ("127.8.0.1", Reach::Loopback),
            ("::1", Reach::Loopback),
            ("localhost.example", Reach::Network),
            ("10.0.0.1", Reach::Network),
        ] {
            assert_eq!(host(name, 5432).reach(), reach, "{name}");
        }
        let moved = Host { address: "10.0.0.1".parse().ok(), ..host("localhost", 5432) };
        assert_eq!(moved.reach(), Reach::Network);
    }

    #[test]
    fn poolers_of_neon_and_supabase_are_known() {
        for (name, port, pooler) in [
            ("ep-cool-1-pooler.eu-central-1.aws.neon.tech", 5432, true),
            ("ep-cool-1.eu-central-1.aws.neon.tech", 5432, false),
            ("aws-0-eu.pooler.supabase.com", 6543, true),
            ("aws-0-eu.pooler.supabase.com", 5432, false),
            ("db.abc.supabase.co", 6543, true),
            ("db.example", 6543, false),
        ] {
            assert_eq!(host(name, port).is_known_pooler(), pooler, "{name}:{port}");
        }
    }
}
