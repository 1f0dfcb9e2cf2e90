//! TLS towards SQL Server: the configured CA, or in so many words any certificate.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::socket::Socket;
use crate::config::procedures::MssqlEncryption;
use crate::procedures::{BackendError, BackendErrorKind};

mod files;
mod trust_any;

/// Makes TLS sessions as the database's configuration wants them.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the configured files.
    pub(super) fn new(encryption: &MssqlEncryption) -> Result<Self, BackendError> {
        let config: ClientConfig = match encryption {
            MssqlEncryption::Required(files) => files::client_config(files)
                .map_err(|error| BackendError::caused_by(BackendErrorKind::Unavailable, error))?,
            MssqlEncryption::TrustAny => trust_any::client_config()
                .map_err(|error| BackendError::caused_by(BackendErrorKind::Unavailable, error))?,
        };
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Shakes hands over a socket. The certificate must be for `name`.
    pub(super) async fn connect(
        &self,
        name: &str,
        socket: Socket,
    ) -> io::Result<TlsStream<Socket>> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.0.connect(name, socket).await
    }
}
