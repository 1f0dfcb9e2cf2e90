//! TLS over any stream, for drivers that open their own connections.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::{TlsError, TlsErrors, client_config, trust_any};
use crate::config::tls::ClientTlsConfig;
use crate::file_version::FileVersion;

/// A client connection after its handshake.
pub type ClientStream<IO> = tokio_rustls::client::TlsStream<IO>;

/// The client side of TLS handshakes. Each handshake uses the current files if they are valid, and their last valid
/// versions otherwise.
pub struct Connector {
    /// The CA and client certificates. `None` if any server certificate is accepted.
    files: Option<ClientTlsConfig>,
    current: Mutex<LoadedConnector>,
}

/// A connector and the versions of the files from which it was built.
struct LoadedConnector {
    connector: TlsConnector,
    versions: Vec<Option<FileVersion>>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// Creates a connector that verifies the server's certificate and name.
    ///
    /// # Errors
    /// Returns `TlsErrors` if files cannot be used.
    pub fn new(config: &ClientTlsConfig) -> Result<Self, TlsErrors> {
        // The versions are read first. If a file changes after that, it will be read again.
        let versions = versions(config);
        let connector = TlsConnector::from(Arc::new(client_config(config)?));
        let current = Mutex::new(LoadedConnector { connector, versions });
        Ok(Self { files: Some(config.clone()), current })
    }

    /// Creates a connector that accepts any certificate, for `insecure_trust_any = true`.
    ///
    /// # Errors
    /// Returns `TlsError` if the provider supports no TLS version. This cannot happen with aws-lc-rs.
    pub fn trusting_any() -> Result<Self, TlsError> {
        let connector = TlsConnector::from(Arc::new(trust_any::client_config()?));
        let current = Mutex::new(LoadedConnector { connector, versions: Vec::new() });
        Ok(Self { files: None, current })
    }

    /// Returns a connector for the current files, or the previous connector if they are invalid.
    fn current(&self) -> TlsConnector {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = &self.files {
            let now = versions(files);
            if now != current.versions {
                match client_config(files) {
                    Ok(config) => {
                        current.connector = TlsConnector::from(Arc::new(config));
                        current.versions = now;
                        tracing::info!("using new TLS files for connections to a server");
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot use new TLS files; the old ones stay in use");
                    }
                }
            }
        }
        current.connector.clone()
    }

    /// Performs the handshake with a server named `name`. The caller must set a deadline.
    ///
    /// # Errors
    /// Returns the reason why the handshake failed.
    pub async fn connect<IO>(&self, name: &str, io: IO) -> io::Result<ClientStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.connect_with_alpn(name, Vec::new(), io).await
    }

    /// Performs the handshake like `connect`, but also offers application protocols (ALPN).
    ///
    /// # Errors
    /// Returns the reason why the handshake failed.
    pub async fn connect_with_alpn<IO>(
        &self,
        name: &str,
        protocols: Vec<Vec<u8>>,
        io: IO,
    ) -> io::Result<ClientStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let connector = self.current();
        connector.with_alpn(protocols).connect(name, io).await
    }
}

/// Returns the versions of the configured files. Changes to the system's certificates are ignored.
fn versions(files: &ClientTlsConfig) -> Vec<Option<FileVersion>> {
    let identity = files.identity.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
    files.ca.iter().chain(identity).map(|file| FileVersion::read(file)).collect()
}
