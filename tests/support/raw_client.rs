//! A TLS connection without an HTTP library, for requests that no library would send.

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

use super::certs::{Certs, PemFiles};
use super::client::install_provider;

/// A TLS connection to a gateway.
#[derive(Debug)]
pub(crate) struct RawClient {
    stream: TlsStream<TcpStream>,
}

impl RawClient {
    /// Connects and offers the protocols in `alpn`, e.g. `http/1.1` or `h2`.
    pub(crate) async fn connect(gateway: SocketAddr, certs: &Certs, alpn: &[&str]) -> Self {
        Self::connect_as(gateway, certs, alpn, None).await
    }

    /// Connects like `connect`, with a client certificate if `identity` is given.
    pub(crate) async fn connect_as(
        gateway: SocketAddr,
        certs: &Certs,
        alpn: &[&str],
        identity: Option<&PemFiles>,
    ) -> Self {
        install_provider();
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(&certs.ca).expect("the CA certificate can be read");
        roots.add(ca).expect("the CA certificate is valid");
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let chain = CertificateDer::pem_file_iter(&files.certificate)
                    .expect("the PEM file can be read");
                let chain =
                    chain.collect::<Result<Vec<_>, _>>().expect("the file contains certificates");
                let key =
                    PrivateKeyDer::from_pem_file(&files.key).expect("the file contains a key");
                builder
                    .with_client_auth_cert(chain, key)
                    .expect("the key belongs to the certificate")
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let tcp = TcpStream::connect(gateway).await.expect("the gateway listens");
        let name = ServerName::try_from("localhost").expect("the server name is valid");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
        Self { stream: stream.expect("the TLS handshake succeeds") }
    }

    /// Returns the TLS stream, for use with an HTTP library.
    pub(crate) fn into_stream(self) -> TlsStream<TcpStream> {
        self.stream
    }

    /// Sends bytes. Fails if the peer has closed the connection.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Returns the TCP connection below TLS.
    pub(crate) fn tcp(&self) -> &TcpStream {
        self.stream.get_ref().0
    }

    /// Closes the sending side (TLS `close_notify` and FIN). The client can still read.
    pub(crate) async fn finish(&mut self) -> std::io::Result<()> {
        self.stream.shutdown().await
    }

    /// Reads until the peer closes the connection or sends nothing for `quiet`. Returns the bytes,
    /// and whether the peer closed the connection.
    pub(crate) async fn read(&mut self, quiet: Duration) -> (Vec<u8>, bool) {
        let mut read = Vec::new();
        let mut chunk = [0; 16 * 1024];
        loop {
            match timeout(quiet, self.stream.read(&mut chunk)).await {
                Err(_silent) => return (read, false),
                // A reset or an end of stream without `close_notify` also counts as closed.
                Ok(Err(_) | Ok(0)) => return (read, true),
                Ok(Ok(count)) => read.extend_from_slice(&chunk[..count]),
            }
        }
    }
}
