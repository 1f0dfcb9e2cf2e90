//! TLS towards a server over any stream: for drivers that bring their own connection.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::{TlsError, client_config, trust_any};
use crate::config::tls::ClientTlsConfig;

/// The encrypted side of a dialled connection.
pub type ClientStream<IO> = tokio_rustls::client::TlsStream<IO>;

/// Makes client sessions. Cheap to clone.
#[derive(Clone)]
pub struct Connector(TlsConnector);

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
        Ok(Self(TlsConnector::from(Arc::new(client_config(config)?))))
    }

    /// Encrypts, and believes any certificate: only for `insecure_trust_any = true`.
    ///
    /// # Errors
    /// `TlsError` when the provider has no common protocol version: impossible for ours.
    pub fn trusting_any() -> Result<Self, TlsError> {
        Ok(Self(TlsConnector::from(Arc::new(trust_any::client_config()?))))
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
        self.0.connect(name, io).await
    }
}
