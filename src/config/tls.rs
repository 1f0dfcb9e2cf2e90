//! The `tls` tables of listeners and of client connections.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::limits;
use super::settings::SettingsTable;

/// The TLS settings of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsConfig {
    /// The certificates. They are selected by the server name that the client requests. The first
    /// certificate is also used for unknown names.
    pub certificates: Vec<CertificateFiles>,
    /// Whether clients must or may send a certificate, and the CA that must have signed it.
    pub client_auth: ClientAuth,
    /// Whether TLS 1.2 is accepted in addition to TLS 1.3.
    pub tls12: bool,
    /// The maximum duration of a handshake.
    pub handshake_timeout: Duration,
}

/// The PEM files of a certificate chain and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate chain, beginning with the leaf.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Whether a listener requests a certificate from its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate is requested.
    Off,
    /// A client may send a certificate. If it does, the certificate must be valid.
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

/// The TLS settings of a connection to a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTlsConfig {
    /// The file with the trusted authorities. If absent, the system's authorities are trusted.
    pub ca: Option<PathBuf>,
    /// The client certificate for servers that request one.
    pub identity: Option<CertificateFiles>,
}

impl ServerTlsConfig {
    pub(super) fn read(table: &mut SettingsTable<'_>) -> Self {
        let mut certificates = table.list_of_tables("certificates", CertificateFiles::read);
        if table.has("certificate") || table.has("key") || certificates.is_empty() {
            certificates.insert(0, CertificateFiles::read(table));
        } else {
            // The keys are looked up anyway, so that they are recorded as known.
            CertificateFiles::read_optional(table);
        }
        Self {
            certificates,
            client_auth: ClientAuth::read(table),
            tls12: table.get_or("tls12", true),
            handshake_timeout: table.get_limited("handshake_timeout", limits::HANDSHAKE_TIMEOUT),
        }
    }
}

impl CertificateFiles {
    fn read(table: &mut SettingsTable<'_>) -> Self {
        table.require("certificate", "a PEM file with the certificate chain");
        table.require("key", "a PEM file with the private key");
        Self {
            certificate: table.get_file("certificate").unwrap_or_default(),
            key: table.get_secret_file("key").unwrap_or_default(),
        }
    }

    /// Reads the paths of the two files. Both must be set, or neither.
    fn read_optional(table: &mut SettingsTable<'_>) -> Option<Self> {
        if table.has("certificate") || table.has("key") {
            return Some(Self::read(table));
        }
        let (certificate, key) = (table.get_file("certificate"), table.get_secret_file("key"));
        Some(Self { certificate: certificate?, key: key? })
    }
}

impl ClientAuth {
    fn read(table: &mut SettingsTable<'_>) -> Self {
        let choices = [("off", 0), ("optional", 1), ("required", 2)];
        let choice = table.get_choice("client_certificates", &choices, "off").unwrap_or_default();
        let ca = table.get_file("client_ca");
        if choice == 0 {
            if ca.is_some() {
                let expected =
                    "expected only with client_certificates = \"optional\" or \"required\"";
                table.error("client_ca", expected.to_owned());
            }
            return Self::Off;
        }
        table.require(
            "client_ca",
            "a PEM file with the CA certificates that sign client certificates",
        );
        let ca = ca.unwrap_or_default();
        if choice == 1 { Self::Optional { ca } } else { Self::Required { ca } }
    }
}

impl ClientTlsConfig {
    pub(super) fn read(table: &mut SettingsTable<'_>) -> Self {
        Self { ca: table.get_file("ca"), identity: CertificateFiles::read_optional(table) }
    }

    /// Returns the paths of all files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let identity = self.identity.iter().flat_map(|files| [&files.certificate, &files.key]);
        self.ca.iter().chain(identity).map(PathBuf::as_path)
    }
}
