//! Every rustls configuration of fjord: one provider, TLS 1.2 and 1.3, errors that name the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

mod client;
mod client_certificate;
mod dial;
mod names;
mod pem;
mod reload;
mod server;
mod trust_any;

pub use client::client_config;
pub use client_certificate::{ClientCertificate, Distrust};
pub use dial::{ClientStream, Connector};
pub use reload::WATCH_INTERVAL;
pub use server::{Accepted, Asks, NewFiles, ServerTls};

/// A file that TLS cannot use. Says which, and what was expected of it; never what is in it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {kind}", file.display())]
pub struct TlsError {
    /// The file; for the system's certificates, what it stands for.
    pub file: PathBuf,
    /// What is wrong with it.
    pub kind: TlsErrorKind,
    /// The cause, for the log. Absent where it could quote the file.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What is wrong with a file of TLS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsErrorKind {
    /// It cannot be read.
    #[error("cannot be read")]
    Unreadable,
    /// It is larger than any certificate file is.
    #[error("is larger than {} bytes: expected PEM certificates or a key", pem::FILE_BYTES_MAX)]
    TooLarge,
    /// It has no certificate.
    #[error("expected PEM certificates (BEGIN CERTIFICATE), found none that can be read")]
    NoCertificate,
    /// One of its certificates cannot be understood.
    #[error("expected X.509 certificates, leaf first; one cannot be understood")]
    BadCertificate,
    /// It has no private key.
    #[error("expected one PEM private key (PKCS#8, PKCS#1 or SEC1, not encrypted), found none")]
    NoKey,
    /// The key is of a kind that is not supported.
    #[error("expected an RSA, ECDSA (P-256, P-384, P-521) or Ed25519 key")]
    BadKey,
    /// The key belongs to another certificate.
    #[error("the key does not belong to the certificate in {}", certificate.display())]
    KeyMismatch {
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The certificate has ended.
    #[error("the certificate ended on {0}")]
    Expired(String),
    /// A CA that can be believed is missing.
    #[error("expected CA certificates to believe, found none")]
    NoRoots,
    /// The configuration names no certificate.
    #[error("expected at least one certificate with its key")]
    NoneConfigured,
    /// The pieces are good, together they are not.
    #[error("cannot be used together with the rest of the TLS configuration")]
    Unusable,
}

impl TlsError {
    fn new(file: &Path, kind: TlsErrorKind) -> Self {
        Self { file: file.to_owned(), kind, source: None }
    }

    fn caused_by(
        file: &Path,
        kind: TlsErrorKind,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { file: file.to_owned(), kind, source: Some(source.into()) }
    }
}

/// The one provider. It is passed to every builder, so that no process-wide default decides.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests;
