//! TLS towards a server over any stream: for drivers that bring their own connection.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::reload::{Stamp, stamp};
use super::{TlsError, client_config, trust_any};
use crate::config::tls::ClientTlsConfig;

/// The encrypted side of a dialled connection.
pub type ClientStream<IO> = tokio_rustls::client::TlsStream<IO>;

/// Makes client sessions. New files are taken by the next session; files that cannot be used change nothing.
pub struct Connector {
    /// What is believed and shown; none when any certificate is believed.
    files: Option<ClientTlsConfig>,
    current: Mutex<Current>,
}

/// What was made of the files, and of which versions of them.
struct Current {
    connector: TlsConnector,
    stamps: Vec<Stamp>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// Checks the server's certificate and name.
    ///
    /// # Errors
    /// `TlsError` when a file cannot be used.
    pub fn new(config: &ClientTlsConfig) -> Result<Self, TlsError> {
        // The versions first: a file that changes meanwhile is read once more.
        let stamps = stamps(config);
        let connector = TlsConnector::from(Arc::new(client_config(config)?));
        let current = Mutex::new(Current { connector, stamps });
        Ok(Self { files: Some(config.clone()), current })
    }

    /// Encrypts, and believes any certificate: only for `insecure_trust_any = true`.
    ///
    /// # Errors
    /// `TlsError` when the provider has no common protocol version: impossible for ours.
    pub fn trusting_any() -> Result<Self, TlsError> {
        let connector = TlsConnector::from(Arc::new(trust_any::client_config()?));
        let current = Mutex::new(Current { connector, stamps: Vec::new() });
        Ok(Self { files: None, current })
    }

    /// The connector of the files as they are now; the one before when they cannot be used.
    fn current(&self) -> TlsConnector {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = &self.files {
            let now = stamps(files);
            if now != current.stamps {
                match client_config(files) {
                    Ok(config) => {
                        current.connector = TlsConnector::from(Arc::new(config));
                        current.stamps = now;
                        tracing::info!("took new TLS files for connections to a server");
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot take new TLS files; the old ones stay in use");
                    }
                }
            }
        }
        current.connector.clone()
    }

    /// Shakes hands. The certificate must be for `name`. The caller sets the deadline.
    ///
    /// # Errors
    /// What the handshake failed of.
    pub async fn connect<IO>(&self, name: &str, io: IO) -> io::Result<ClientStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let connector = self.current();
        connector.connect(name, io).await
    }
}

/// The versions of the files that are named. The system's own certificates are read at the start alone.
fn stamps(files: &ClientTlsConfig) -> Vec<Stamp> {
    let identity = files.identity.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
    files.ca.iter().chain(identity).map(|file| stamp(file)).collect()
}
