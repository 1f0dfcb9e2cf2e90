//! The reference servers: HTTPS alone and NATS alone.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use async_nats::ConnectOptions;
use bytes::Bytes;
use clap::Args;
use fjord::lifecycle::Tasks;
use futures_util::StreamExt;
use http::{Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::ANSWER_BYTES;

/// The subject of requests to the NATS reference server.
pub(crate) const SUBJECT: &str = "bench.raw";

/// An HTTPS server that sends the same response to every request.
#[derive(Args, Clone, Debug)]
pub(crate) struct HttpsReference {
    #[arg(long)]
    certificate: PathBuf,
    #[arg(long)]
    key: PathBuf,
}

impl HttpsReference {
    pub(crate) async fn run(self) {
        let certificate = CertificateDer::from_pem_file(&self.certificate).expect("PEM");
        let key = PrivateKeyDer::from_pem_file(&self.key).expect("PEM");
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate with its key");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("listening {}", listener.local_addr().expect("an address"));
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("the socket option can be set");
            drop(Tasks::new().spawn(serve(acceptor.clone(), stream)));
        }
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(stream);
    // The error is ignored, because a client that disconnects causes one.
    if is_http2 {
        let builder = http2::Builder::new(TokioExecutor::new());
        builder.serve_connection(io, service_fn(answer)).await.ok();
    } else {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(None);
        builder.serve_connection(io, service_fn(answer)).await.ok();
    }
}

async fn answer(_: http::Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    static BODY: [u8; ANSWER_BYTES] = [b'x'; ANSWER_BYTES];
    let mut response = Response::new(Full::new(Bytes::from_static(&BODY)));
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

/// A NATS responder that sends the same reply to every message.
#[derive(Args, Clone, Debug)]
pub(crate) struct NatsReference {
    #[arg(long)]
    url: String,
    #[arg(long)]
    ca: PathBuf,
}

impl NatsReference {
    pub(crate) async fn run(self) {
        static BODY: [u8; ANSWER_BYTES] = [b'x'; ANSWER_BYTES];
        let client = connect(&self.url, self.ca).await;
        let group = "bench".to_owned();
        let mut requests = client.queue_subscribe(SUBJECT, group).await.expect("a subscription");
        client.flush().await.expect("the connection is open");
        println!("listening");
        while let Some(message) = requests.next().await {
            if let Some(reply) = message.reply {
                client
                    .publish(reply, Bytes::from_static(&BODY))
                    .await
                    .expect("the connection is open");
            }
        }
    }
}

/// Connects to NATS with the client library's defaults.
pub(crate) async fn connect(url: &str, ca: PathBuf) -> async_nats::Client {
    let options = ConnectOptions::new().add_root_certificates(ca).require_tls(true);
    options.connect(url).await.expect("the connection succeeds")
}
