//! What a connection must prove before a password goes over it.
//!
//! Stricter than libpq in two places: `require` checks the certificate and the name unless
//! `sslverify=off` says otherwise, and without an `sslmode` (or with `prefer` or `allow`) only
//! loopback addresses and Unix sockets may be used without a checked certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::WebPkiServerVerifier,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::TargetError;

/// libpq's six modes; [`SslMode::Prefer`] also stands for none given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Who can read along between us and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    UnixSocket,
    Loopback,
    Network,
}

/// What one connection does about TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protection {
    /// No TLS.
    Plaintext,
    /// TLS without a check when the server has it, plaintext otherwise.
    Opportunistic,
    /// TLS, whoever answers.
    Unchecked,
    /// TLS; the certificate chains to a trusted root, whatever name it bears.
    Chain,
    /// TLS; the certificate chains to a trusted root and bears the host's name.
    Full,
}

impl SslMode {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "disable" => Some(Self::Disable),
            "allow" => Some(Self::Allow),
            "prefer" => Some(Self::Prefer),
            "require" => Some(Self::Require),
            "verify-ca" => Some(Self::VerifyCa),
            "verify-full" => Some(Self::VerifyFull),
            _ => None,
        }
    }

    /// PostgreSQL speaks no TLS over a Unix socket, in any mode.
    pub(super) fn protection(self, reach: Reach, verify_off: bool) -> Protection {
        match (self, reach) {
            (_, Reach::UnixSocket) | (Self::Disable, _) => Protection::Plaintext,
            (Self::Allow | Self::Prefer, Reach::Loopback) => Protection::Opportunistic,
            (Self::Require, _) if verify_off => Protection::Unchecked,
            (Self::VerifyCa, _) => Protection::Chain,
            (Self::Allow | Self::Prefer | Self::Require | Self::VerifyFull, _) => Protection::Full,
        }
    }
}

/// Protection and the files it needs, which are read anew for every connection: certificates are
/// renewed while an agent runs.
#[derive(Clone)]
pub(crate) struct Policy {
    pub(super) protection: Protection,
    /// CA certificates as PEM; the system's when there is none.
    pub(super) roots: Option<PathBuf>,
    /// Client certificate chain and private key, as PEM.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    /// TLS from the first byte (`sslnegotiation=direct`).
    pub(super) direct: bool,
}

impl Policy {
    /// Makes the connector; nothing when the connection is plaintext.
    pub(crate) fn connector(&self) -> Result<Option<MakeRustlsConnect>, TargetError> {
        if self.protection == Protection::Plaintext {
            return Ok(None);
        }
        let provider = Arc::new(crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TargetError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(provider)?);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder
                .with_client_auth_cert(certificates(chain)?, private_key(key)?)
                .map_err(TargetError::Tls)?,
        };
        if self.direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(Some(MakeRustlsConnect::new(config)))
    }

    fn verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, TargetError> {
        match self.protection {
            Protection::Full => {
                let roots = Arc::new(self.root_store()?);
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|error| TargetError::Tls(Error::General(error.to_string())))?;
                Ok(verifier)
            }
            Protection::Chain => {
                Ok(Arc::new(NamelessVerifier { roots: Some(self.root_store()?), provider }))
            }
            Protection::Plaintext | Protection::Opportunistic | Protection::Unchecked => {
                Ok(Arc::new(NamelessVerifier { roots: None, provider }))
            }
        }
    }

    fn root_store(&self) -> Result<RootCertStore, TargetError> {
        let mut store = RootCertStore::empty();
        match &self.roots {
            Some(path) => {
                for certificate in certificates(path)? {
                    store.add(certificate).map_err(TargetError::Tls)?;
                }
            }
            None => {
                let system = rustls_native_certs::load_native_certs();
                store.add_parsable_certificates(system.certs);
            }
        }
        if store.is_empty() { Err(TargetError::NoSystemRoots) } else { Ok(store) }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TargetError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| pem_error(path, &error))?;
    if certificates.is_empty() {
        return Err(TargetError::Pem { path: path.to_owned(), reason: "no certificate".into() });
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TargetError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| pem_error(path, &error))
}

fn pem_error(path: &Path, error: &rustls::pki_types::pem::Error) -> TargetError {
    TargetError::Pem { path: path.to_owned(), reason: error.to_string() }
}

/// Checks that the server holds the key of its certificate, and the chain if there are roots; but
/// never the name.
#[derive(Debug)]
struct NamelessVerifier {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for NamelessVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_protects_as_documented() {
        use Protection::{Chain, Full, Opportunistic, Plaintext, Unchecked};
        for (text, on_loopback, on_network, with_verify_off) in [
            ("disable", Plaintext, Plaintext, Plaintext),
            ("allow", Opportunistic, Full, Full),
            ("prefer", Opportunistic, Full, Full),
            ("require", Full, Full, Unchecked),
            ("verify-ca", Chain, Chain, Chain),
            ("verify-full", Full, Full, Full),
        ] {
            let mode = SslMode::parse(text).unwrap();
            assert_eq!(mode.protection(Reach::Loopback, false), on_loopback, "{text}");
            assert_eq!(mode.protection(Reach::Network, false), on_network, "{text}");
            assert_eq!(mode.protection(Reach::Network, true), with_verify_off, "{text}");
            assert_eq!(mode.protection(Reach::UnixSocket, false), Plaintext, "{text}");
        }
    }

    #[test]
    fn bad_certificate_files_are_errors_that_name_them() {
        let folder = tempfile::tempdir().unwrap();
        let (missing, empty) = (folder.path().join("missing.pem"), folder.path().join("empty.pem"));
        std::fs::write(&empty, "no certificate here").unwrap();
        for path in [missing, empty] {
            let policy = Policy {
                protection: Protection::Chain,
                roots: Some(path.clone()),
                identity: None,
                direct: false,
            };
            let error = policy.connector().err().unwrap().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
