//! A minimal HTTPS client based on hyper.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use clap::ValueEnum;
use fjord::lifecycle::Tasks;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The HTTP version of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
pub(crate) enum BenchHttp {
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
}

/// The number of connections that share the HTTP/2 streams.
const H2_CONNECTIONS: usize = 4;

/// Returns a TLS configuration that trusts one authority.
fn connector(ca: &Path, http: BenchHttp) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(ca).expect("the CA certificate can be read");
    roots.add(certificate).expect("a certificate");
    let mut config =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = match http {
        BenchHttp::H1 => vec![b"http/1.1".to_vec()],
        BenchHttp::H2 => vec![b"h2".to_vec()],
    };
    TlsConnector::from(Arc::new(config))
}

/// Opens connections to one address.
#[derive(Clone)]
pub(crate) struct HttpsConnector {
    connector: TlsConnector,
    address: SocketAddr,
    path: String,
}

impl HttpsConnector {
    pub(crate) fn new(address: SocketAddr, ca: &Path, http: BenchHttp, path: String) -> Self {
        Self { connector: connector(ca, http), address, path }
    }

    async fn stream(&self) -> TokioIo<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await.expect("the server listens");
        stream.set_nodelay(true).expect("the socket option can be set");
        let name = self.address.ip().into();
        TokioIo::new(self.connector.connect(name, stream).await.expect("a handshake"))
    }

    fn request(&self, version: Version) -> Request<Empty<Bytes>> {
        let host = self.address;
        let request = match version {
            Version::HTTP_2 => Request::get(format!("https://{host}{}", self.path)),
            _ => Request::get(self.path.as_str()).header("host", host.to_string()),
        };
        request.version(version).body(Empty::new()).expect("a request")
    }

    /// Opens an HTTP/1.1 connection.
    pub(crate) async fn one(&self) -> BenchConnection {
        let (sender, connection) =
            http1::handshake(self.stream().await).await.expect("a connection");
        drop(Tasks::new().spawn(connection));
        BenchConnection { connector: self.clone(), sender: HttpSender::One(sender) }
    }

    async fn two(&self) -> BenchConnection {
        let made = http2::handshake(TokioExecutor::new(), self.stream().await).await;
        let (sender, connection) = made.expect("a connection");
        drop(Tasks::new().spawn(connection));
        BenchConnection { connector: self.clone(), sender: HttpSender::Two(sender) }
    }

    /// Opens connections for this number of concurrent requests.
    pub(crate) async fn connections(&self, http: BenchHttp, number: usize) -> Vec<BenchConnection> {
        let mut made = Vec::with_capacity(number);
        match http {
            BenchHttp::H1 => {
                for _ in 0..number {
                    made.push(self.one().await);
                }
            }
            BenchHttp::H2 => {
                let mut shared = Vec::new();
                for _ in 0..number.min(H2_CONNECTIONS) {
                    shared.push(self.two().await);
                }
                let streams = shared.iter().filter_map(BenchConnection::sharing);
                let streams: Vec<BenchConnection> = streams.collect();
                for index in 0..number {
                    made.extend(
                        streams.get(index % streams.len()).and_then(BenchConnection::sharing),
                    );
                }
            }
        }
        made
    }
}

enum HttpSender {
    One(http1::SendRequest<Empty<Bytes>>),
    Two(http2::SendRequest<Empty<Bytes>>),
}

/// A connection or stream that sends one request at a time.
pub(crate) struct BenchConnection {
    connector: HttpsConnector,
    sender: HttpSender,
}

impl BenchConnection {
    fn sharing(&self) -> Option<Self> {
        let HttpSender::Two(sender) = &self.sender else { return None };
        Some(Self { connector: self.connector.clone(), sender: HttpSender::Two(sender.clone()) })
    }

    /// Sends a request. Returns whether a complete 200 arrived, or `None` if the connection failed.
    pub(crate) async fn ask(&mut self) -> Option<bool> {
        let response = match &mut self.sender {
            HttpSender::One(sender) => {
                sender.ready().await.ok()?;
                sender.send_request(self.connector.request(Version::HTTP_11)).await
            }
            HttpSender::Two(sender) => {
                sender.send_request(self.connector.request(Version::HTTP_2)).await
            }
        };
        let response = response.ok()?;
        let is_good = response.status() == StatusCode::OK;
        response.into_body().collect().await.ok()?;
        Some(is_good)
    }
}
