//! `tls` tables: the files of a server's and a client's side.

use std::path::PathBuf;
use std::time::Duration;

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsConfig {
    /// Certificates, chosen by server name; the first serves every other name.
    pub certificates: Vec<CertificateFiles>,
    /// Whether clients show a certificate, and whose.
    pub client_certificates: ClientCertificates,
    /// Whether TLS 1.2 is spoken beside 1.3.
    pub tls12: bool,
    /// Longest handshake.
    pub handshake_timeout: Duration,
}

/// A certificate chain and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Whether clients of a listener show a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Not asked for.
    Off,
    /// Checked when shown.
    Optional {
        /// Whose certificates are believed.
        ca: PathBuf,
    },
    /// A connection without one is refused.
    Required {
        /// Whose certificates are believed.
        ca: PathBuf,
    },
}

/// TLS towards a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTlsConfig {
    /// Whose certificates are believed; the system's when absent.
    pub ca: Option<PathBuf>,
    /// Our own certificate, where the server asks for one.
    pub identity: Option<CertificateFiles>,
}
