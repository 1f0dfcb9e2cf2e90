//! `tls` tables: the files of a server's and a client's side.

use std::path::PathBuf;
use std::time::Duration;

use super::limits;
use super::settings::Table;

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsConfig {
    /// Certificates, chosen by server name; the first serves every other name.
    pub certificates: Vec<CertificateFiles>,
    /// Whether clients send a certificate, and which CA must have signed it.
    pub client_auth: ClientAuth,
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

/// Whether a listener asks its clients for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Clients are not asked for a certificate.
    Off,
    /// A client may send a certificate, which must then be valid.
    Optional {
        /// The file with the CA certificates.
        ca: PathBuf,
    },
    /// Connections without a valid certificate are refused.
    Required {
        /// The file with the CA certificates.
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

impl ServerTlsConfig {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        let mut certificates = table.list_of_tables("certificates", CertificateFiles::read);
        if table.has("certificate") || table.has("key") || certificates.is_empty() {
            certificates.insert(0, CertificateFiles::read(table));
        } else {
            // Asked for all the same, so that they are known.
            CertificateFiles::read_optional(table);
        }
        Self {
            certificates,
            client_auth: ClientAuth::read(table),
            tls12: table.get_or("tls12", true),
            handshake_timeout: table.limited("handshake_timeout", limits::HANDSHAKE_TIMEOUT),
        }
    }
}

impl CertificateFiles {
    fn read(table: &mut Table<'_>) -> Self {
        table.require("certificate", "a PEM file with the certificate chain");
        table.require("key", "a PEM file with the private key");
        Self {
            certificate: table.file("certificate").unwrap_or_default(),
            key: table.secret_file("key").unwrap_or_default(),
        }
    }

    /// Both or neither.
    fn read_optional(table: &mut Table<'_>) -> Option<Self> {
        if table.has("certificate") || table.has("key") {
            return Some(Self::read(table));
        }
        let (certificate, key) = (table.file("certificate"), table.secret_file("key"));
        Some(Self { certificate: certificate?, key: key? })
    }
}

impl ClientAuth {
    fn read(table: &mut Table<'_>) -> Self {
        let words = [("off", 0), ("optional", 1), ("required", 2)];
        let choice = table.choice("client_certificates", &words, "off").unwrap_or_default();
        let ca = table.file("client_ca");
        if choice == 0 {
            if ca.is_some() {
                let expected =
                    "expected client_certificates = \"optional\" or \"required\" beside it";
                table.error("client_ca", expected.to_owned());
            }
            return Self::Off;
        }
        table.require("client_ca", "a PEM file with the authorities of client certificates");
        let ca = ca.unwrap_or_default();
        if choice == 1 { Self::Optional { ca } } else { Self::Required { ca } }
    }
}

impl ClientTlsConfig {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        Self { ca: table.file("ca"), identity: CertificateFiles::read_optional(table) }
    }
}
