//! Bytes as they are: a TLS connection without an HTTP library, for requests that none would send.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certs::{Certs, Files};
use super::client::install_provider;

/// A connection to a gateway.
#[derive(Debug)]
pub(crate) struct RawClient {
    stream: TlsStream<TcpStream>,
}

impl RawClient {
    /// Connects; `alpn` is what is offered, e.g. `http/1.1` or `h2`.
    pub(crate) async fn connect(gateway: SocketAddr, certs: &Certs, alpn: &[&str]) -> Self {
        Self::connect_as(gateway, certs, alpn, None).await
    }

    /// Connects and shows a certificate.
    pub(crate) async fn connect_as(
        gateway: SocketAddr,
        certs: &Certs,
        alpn: &[&str],
        identity: Option<&Files>,
    ) -> Self {
        install_provider();
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(&certs.ca).expect("the authority's certificate");
        roots.add(ca).expect("a certificate of an authority");
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let chain = CertificateDer::pem_file_iter(&files.certificate).expect("a file");
                let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
                let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("a certificate with its key")
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let tcp = TcpStream::connect(gateway).await.expect("the gateway listens");
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
        Self { stream: stream.expect("a handshake") }
    }

    /// The connection itself, for a library of its own.
    pub(crate) fn into_stream(self) -> TlsStream<TcpStream> {
        self.stream
    }

    /// Sends bytes, which the other side may refuse to read.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The connection below TLS.
    pub(crate) fn tcp(&self) -> &TcpStream {
        self.stream.get_ref().0
    }

    /// Says that nothing more is sent, and goes on reading.
    pub(crate) async fn finish(&mut self) -> std::io::Result<()> {
        self.stream.shutdown().await
    }

    /// Reads until the other side closes or is silent for `quiet`; what came, and whether it closed.
    pub(crate) async fn read(&mut self, quiet: Duration) -> (Vec<u8>, bool) {
        let mut read = Vec::new();
        let mut piece = [0; 16 * 1024];
        loop {
            match timeout(quiet, self.stream.read(&mut piece)).await {
                Err(_silent) => return (read, false),
                // A reset, or an end without TLS's goodbye, is an end too.
                Ok(Err(_) | Ok(0)) => return (read, true),
                Ok(Ok(count)) => read.extend_from_slice(&piece[..count]),
            }
        }
    }
}
