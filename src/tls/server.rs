//! TLS for a listener, with files that can be replaced while connections stay open.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::tls::{ClientAuth, ServerTlsConfig};
use crate::file_version::FileVersion;

use super::TlsErrors;
use super::client_certificate::ClientCertificate;
use super::server_state::{HTTP2, ServerTlsState};

/// The TLS configuration of a listener. Cloning it is cheap, and a reload takes effect in all clones.
#[derive(Clone, Debug)]
pub struct ServerTls {
    current: Arc<ArcSwap<ServerTlsState>>,
    /// Held from the time at which the files are read until the result is in use.
    reload_lock: Arc<Mutex<()>>,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct AcceptedTls<IO> {
    /// The decrypted stream.
    pub stream: TlsStream<IO>,
    /// Whether HTTP/2 was negotiated. Otherwise, the protocol is HTTP/1.1.
    pub is_http2: bool,
    /// The client's certificate, if it sent one. The handshake has verified it.
    pub certificate: Option<ClientCertificate>,
}

/// TLS files that have been read and validated but are not in use yet. This value holds the reload lock until it is
/// applied or dropped.
#[derive(Debug)]
#[must_use = "the new files are not used before they are applied"]
pub struct PreparedReload<'a> {
    tls: &'a ServerTls,
    state: Arc<ServerTlsState>,
    _reload_lock: MutexGuard<'a, ()>,
}

impl PreparedReload<'_> {
    pub(super) fn store(self) {
        self.tls.current.store(self.state);
    }
}

impl ServerTls {
    /// Reads all files and checks that they fit together.
    ///
    /// # Errors
    /// Returns `TlsErrors`, which names each unusable file and the expected contents.
    pub fn load(config: &ServerTlsConfig) -> Result<Self, TlsErrors> {
        let state = ServerTlsState::load(config, 0)?;
        Ok(Self { current: Arc::new(ArcSwap::from_pointee(state)), reload_lock: Arc::default() })
    }

    /// Returns the configuration for the next handshake.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// Returns the settings that name the files in use.
    #[must_use]
    pub fn files(&self) -> ServerTlsConfig {
        self.current.load().files.clone()
    }

    /// Returns the settings that name the files in use, together with the versions that the files had before they were
    /// read. If a file changed while it was read, its version no longer matches.
    pub(super) fn files_and_versions(&self) -> (ServerTlsConfig, Vec<Option<FileVersion>>) {
        let current = self.current.load();
        (current.files.clone(), current.versions.clone())
    }

    /// Returns the maximum duration of a handshake.
    #[must_use]
    pub fn handshake_timeout(&self) -> Duration {
        self.current.load().files.handshake_timeout
    }

    /// Reads the given files, or the current ones again. Applying them does not affect open connections, except that
    /// client certificates are verified again (`ClientCertificate::check`).
    pub(super) fn read(
        &self,
        files: Option<&ServerTlsConfig>,
    ) -> Result<PreparedReload<'_>, TlsErrors> {
        // A signal and the file watch can trigger reloads concurrently. With the lock, the last reload wins.
        let lock = self.reload_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current.load_full();
        let files = files.unwrap_or(&before.files);
        let state = ServerTlsState::load(files, before.generation + 1)?;
        Ok(PreparedReload { tls: self, state: Arc::new(state), _reload_lock: lock })
    }

    /// Returns whether clients are asked for a certificate.
    #[must_use]
    pub fn asks_for_certificates(&self) -> bool {
        !matches!(self.current.load().files.client_auth, ClientAuth::Off)
    }

    /// Returns whether clients must send a certificate.
    #[must_use]
    pub fn requires_certificates(&self) -> bool {
        matches!(self.current.load().files.client_auth, ClientAuth::Required { .. })
    }

    /// Performs the handshake. The caller must set a deadline. Cancel safe: dropping the future closes the connection.
    ///
    /// # Errors
    /// Returns the reason why the handshake failed. The client has received an alert.
    pub async fn accept<IO>(&self, io: IO) -> io::Result<AcceptedTls<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let state = self.current.load_full();
        let stream = TlsAcceptor::from(Arc::clone(&state.config)).accept(io).await?;
        let (_, session) = stream.get_ref();
        let is_http2 = session.alpn_protocol() == Some(HTTP2);
        let certificate = session.peer_certificates().and_then(|chain| {
            ClientCertificate::new(chain, Arc::clone(&self.current), state.generation)
        });
        Ok(AcceptedTls { stream, is_http2, certificate })
    }
}
