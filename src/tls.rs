//! All of fjord's rustls configurations: one crypto provider, TLS 1.3, and TLS 1.2 unless disabled.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

mod client;
mod client_certificate;
mod connector;
mod names;
mod pem;
mod reload;
mod server;
mod server_files;
mod server_state;
mod throwaway;
mod trust_any;

pub use client::{check_files, client_config};
pub use client_certificate::{ClientCertificate, ClientCertificateError};
pub use connector::{ClientStream, Connector};
pub use reload::WATCH_INTERVAL;
pub use server::{AcceptedTls, PreparedReload, ServerTls};
pub use throwaway::{ThrowawayCertificates, ThrowawayError};

/// The error for an unusable TLS file. It names the file and the expected contents without quoting
/// the file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {kind}", file.display())]
pub struct TlsError {
    /// The file, or a description of the system's certificates.
    pub file: PathBuf,
    /// The problem with the file.
    pub kind: TlsErrorKind,
    /// The cause, for the log. `None` if the cause could quote the file.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A problem with a TLS file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsErrorKind {
    /// The file cannot be read.
    #[error("cannot be read")]
    Unreadable,
    /// The file is larger than `pem::FILE_BYTES_MAX`.
    #[error("is larger than {} bytes: expected PEM certificates or a key", pem::FILE_BYTES_MAX)]
    TooLarge,
    /// The file is empty.
    #[error("is empty: expected PEM certificates or a key")]
    Empty,
    /// The file is in a binary format.
    #[error(
        "is binary (DER or PKCS #12): expected PEM, as written by openssl x509, openssl pkey or openssl pkcs12 -nodes"
    )]
    Binary,
    /// The file is encoded in UTF-16.
    #[error("is UTF-16: expected PEM in ASCII")]
    Utf16,
    /// The file contains no certificate.
    #[error("expected PEM certificates (BEGIN CERTIFICATE), found none that can be read")]
    NoCertificate,
    /// The file contains a private key instead of certificates.
    #[error(
        "expected PEM certificates (BEGIN CERTIFICATE), found a private key: are the certificate and the key swapped?"
    )]
    KeyAsCertificate,
    /// One of the certificates cannot be parsed.
    #[error("expected X.509 certificates, with the leaf first, but one of them cannot be parsed")]
    BadCertificate,
    /// The file contains no private key.
    #[error("expected one PEM private key (PKCS#8, PKCS#1 or SEC1, not encrypted), found none")]
    NoKey,
    /// The file contains certificates instead of a private key.
    #[error(
        "expected one PEM private key, found a certificate: are the certificate and the key swapped?"
    )]
    CertificateAsKey,
    /// The private key is encrypted with a passphrase.
    #[error(
        "the private key is encrypted: expected one without a passphrase (openssl pkey -in ENCRYPTED -out KEY)"
    )]
    EncryptedKey,
    /// The type of the key is not supported.
    #[error("expected an RSA (2048 to 8192 bits), ECDSA (P-256, P-384, P-521) or Ed25519 key")]
    BadKey,
    /// The RSA key is too short.
    #[error("the RSA key is too short: expected at least 2048 bits, found {bits}")]
    ShortKey {
        /// The length of the key in bits.
        bits: usize,
    },
    /// The key belongs to a later certificate in the file.
    #[error(
        "the key belongs to certificate {number} of the file: expected that one first, then the CAs that signed it"
    )]
    LeafNotFirst {
        /// The position of the certificate, counted from 1.
        number: usize,
    },
    /// The key belongs to another certificate.
    #[error("the key does not belong to the certificate in {}", certificate.display())]
    KeyMismatch {
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The certificate has expired.
    #[error("the certificate expired on {0}")]
    Expired(String),
    /// There is no CA certificate.
    #[error("expected CA certificates, found none")]
    NoRoots,
    /// The configuration names no certificate.
    #[error("expected at least one certificate with its key")]
    NoneConfigured,
    /// The file is valid, but does not fit the rest of the configuration.
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

/// The errors for all unusable files of a TLS configuration.
#[derive(Debug, Default, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct TlsErrors(pub Vec<TlsError>);

impl TlsErrors {
    /// Returns the value, or adds the errors.
    fn add<T>(&mut self, result: Result<T, impl Into<Self>>) -> Option<T> {
        result.map_err(|errors| self.0.extend(errors.into().0)).ok()
    }

    /// Returns the value if there are no errors.
    fn or<T>(self, value: Option<T>) -> Result<T, Self> {
        value.filter(|_| self.0.is_empty()).ok_or(self)
    }
}

impl From<TlsError> for TlsErrors {
    fn from(error: TlsError) -> Self {
        Self(vec![error])
    }
}

/// Returns the crypto provider. Every builder receives it explicitly, so that no process-wide
/// default is used.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests;
