//! What a connection accepts of a server, and shows it, against a real TLS: PgBouncer's.
//!
//! Needs pgbouncer and openssl. Root without them fails; others are told that they skip.

use std::time::Duration;

use tidelog_faults::agent::{ClientCertificates, Pooler};
use tidelog_sync::Target;
use tidelog_sync::database::{Database, DatabaseError};

use crate::support::{is_root, say};

/// A name that the server's certificate does not bear.
const OTHER_NAME: &str = "db.example.com";

fn pooler(asked: ClientCertificates) -> Option<Pooler> {
    match Pooler::start(asked) {
        Ok(pooler) => Some(pooler),
        Err(reason) if is_root() => panic!("{reason}; apt-get install pgbouncer openssl"),
        Err(reason) => {
            say(&format!("SKIPPED: TLS of a connection: {reason}"));
            None
        }
    }
}

/// Connects and asks something.
fn outcome(url: &str) -> Result<(), String> {
    let target = Target::parse(Some(url), &|_| None).map_err(|error| error.to_string())?;
    let ask = |client: &mut postgres::Client| -> Result<(), DatabaseError> {
        Ok(client.batch_execute("SELECT 1")?)
    };
    let mut database = Database::connect(&target).map_err(|error| error.to_string())?;
    database.run(Duration::from_secs(10), "asking", ask).map_err(|error| error.to_string())
}

#[test]
fn each_mode_accepts_exactly_the_certificates_that_it_says() {
    let Some(pooler) = pooler(ClientCertificates::NotAsked) else { return };
    let other = format!("&sslrootcert={}", pooler.file("other.pem").display());
    for (host, mode, more, is_accepted) in [
        ("localhost", "verify-full", "", true),
        (OTHER_NAME, "verify-full", "", false),
        ("localhost", "verify-full", other.as_str(), false),
        ("localhost", "verify-ca", "", true),
        (OTHER_NAME, "verify-ca", "", true),
        (OTHER_NAME, "verify-ca", &other, false),
        ("localhost", "require", "", true),
        (OTHER_NAME, "require", "", false),
        ("localhost", "require", &other, false),
        (OTHER_NAME, "require", &format!("&sslverify=off{other}"), true),
        ("localhost", "prefer", &other, true),
        (OTHER_NAME, "prefer", "&hostaddr=127.0.0.1", true),
    ] {
        let outcome = outcome(&pooler.url(host, mode, more));
        assert_eq!(outcome.is_ok(), is_accepted, "{host} {mode} {more}: {outcome:?}");
        if let Err(text) = outcome {
            assert!(text.contains("sslrootcert=FILE"), "{host} {mode} {more}: {text}");
        }
    }
}

#[test]
fn a_server_that_wants_tls_is_not_reached_without_it() {
    let Some(pooler) = pooler(ClientCertificates::NotAsked) else { return };
    let text = outcome(&pooler.url("localhost", "disable", "")).unwrap_err();
    assert!(text.contains("SSL required"), "{text}");
}

#[test]
fn a_server_that_wants_a_certificate_gets_the_one_that_is_named() {
    let Some(pooler) = pooler(ClientCertificates::Required) else { return };
    let with = |name: &str| {
        let (chain, key) =
            (pooler.file(&format!("{name}.pem")), pooler.file(&format!("{name}.key")));
        let more = format!("&sslcert={}&sslkey={}", chain.display(), key.display());
        outcome(&pooler.url("localhost", "verify-full", &more))
    };
    with("client").unwrap();
    with("other").unwrap_err();
    outcome(&pooler.url("localhost", "verify-full", "")).unwrap_err();
}
