//! An HTTPS client with nothing between it and hyper.

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

/// Which HTTP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
pub(crate) enum Http {
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
}

/// Connections that HTTP/2 spreads its streams over.
const H2_CONNECTIONS: usize = 4;

/// A TLS configuration that believes one authority.
fn connector(ca: &Path, http: Http) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(ca).expect("the authority's certificate");
    roots.add(certificate).expect("a certificate");
    let mut config =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = match http {
        Http::H1 => vec![b"http/1.1".to_vec()],
        Http::H2 => vec![b"h2".to_vec()],
    };
    TlsConnector::from(Arc::new(config))
}

/// Makes connections to one address.
#[derive(Clone)]
pub(crate) struct Dialler {
    connector: TlsConnector,
    address: SocketAddr,
    path: String,
}

impl Dialler {
    pub(crate) fn new(address: SocketAddr, ca: &Path, http: Http, path: String) -> Self {
        Self { connector: connector(ca, http), address, path }
    }

    async fn stream(&self) -> TokioIo<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await.expect("it listens");
        stream.set_nodelay(true).expect("a socket");
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

    /// A connection of HTTP/1.1.
    pub(crate) async fn one(&self) -> Connection {
        let (sender, connection) =
            http1::handshake(self.stream().await).await.expect("a connection");
        drop(Tasks::new().spawn(connection));
        Connection { dialler: self.clone(), sender: Sender::One(sender) }
    }

    async fn two(&self) -> Connection {
        let made = http2::handshake(TokioExecutor::new(), self.stream().await).await;
        let (sender, connection) = made.expect("a connection");
        drop(Tasks::new().spawn(connection));
        Connection { dialler: self.clone(), sender: Sender::Two(sender) }
    }

    /// What so many requests at once are sent on.
    pub(crate) async fn connections(&self, http: Http, number: usize) -> Vec<Connection> {
        let mut made = Vec::with_capacity(number);
        match http {
            Http::H1 => {
                for _ in 0..number {
                    made.push(self.one().await);
                }
            }
            Http::H2 => {
                let mut shared = Vec::new();
                for _ in 0..number.min(H2_CONNECTIONS) {
                    shared.push(self.two().await);
                }
                let each = shared.iter().filter_map(Connection::another);
                let each: Vec<Connection> = each.collect();
                for turn in 0..number {
                    made.extend(each.get(turn % each.len()).and_then(Connection::another));
                }
            }
        }
        made
    }
}

enum Sender {
    One(http1::SendRequest<Empty<Bytes>>),
    Two(http2::SendRequest<Empty<Bytes>>),
}

/// One request at a time.
pub(crate) struct Connection {
    dialler: Dialler,
    sender: Sender,
}

impl Connection {
    fn another(&self) -> Option<Self> {
        let Sender::Two(sender) = &self.sender else { return None };
        Some(Self { dialler: self.dialler.clone(), sender: Sender::Two(sender.clone()) })
    }

    /// Whether a request was answered 200, body and all; nothing when the connection is gone.
    pub(crate) async fn ask(&mut self) -> Option<bool> {
        let response = match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await.ok()?;
                sender.send_request(self.dialler.request(Version::HTTP_11)).await
            }
            Sender::Two(sender) => sender.send_request(self.dialler.request(Version::HTTP_2)).await,
        };
        let response = response.ok()?;
        let is_good = response.status() == StatusCode::OK;
        response.into_body().collect().await.ok()?;
        Some(is_good)
    }
}
