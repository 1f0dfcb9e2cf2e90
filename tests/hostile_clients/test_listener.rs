//! A listener in the test's process that records requests, and clients that send raw bytes.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fjord::config::gateway::{
    Coding, CompressionConfig, DocumentationAccess, GatewayConfig, HttpLimits, ProxyConfig,
    RateLimitConfig, RateLimitScope, SessionConfig,
};
use fjord::config::tls::{CertificateFiles, ClientAuth, ClientTlsConfig, ServerTlsConfig};
use fjord::envelope::Final;
use fjord::future::BoxFuture;
use fjord::lifecycle::Tasks;
use fjord::outcome::Outcome;
use fjord::roles::gateway::client::ClientNetwork;
use fjord::roles::gateway::client::Peer;
use fjord::roles::gateway::client::byte_budget::ByteBudget;
use fjord::roles::gateway::edge::connection::{HttpService, RequestBody, read_body};
use fjord::roles::gateway::edge::listener::{Listener, RunningListener};
use fjord::roles::gateway::response::{self, RequestId, Response};
use fjord::tls::{ServerTls, client_config};
use http::Request;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The time limit for waits that normally end much sooner.
pub(crate) const LONG: Duration = Duration::from_secs(10);
/// The listener's `header_timeout`.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_millis(400);
/// The listener's `idle_timeout`.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_millis(1200);
/// The listener's `body_idle_timeout`.
pub(crate) const BODY_IDLE: Duration = Duration::from_millis(300);
/// `BODY_TIMEOUT` as a multiple of `BODY_IDLE`.
const BODY_IDLES: u32 = 3;
/// The listener's `body_timeout`.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_millis(900);
/// The largest request body that the service accepts.
pub(crate) const BODY_BYTES_MAX: usize = 1000;
/// The size of the response to `/large`. It exceeds the socket buffers.
pub(crate) const LARGE: usize = 32 * 1024 * 1024;

static LARGE_RESPONSE: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![b'x'; LARGE]));
/// The size of the response to `/medium`: larger than the receive buffer of a client that does not
/// read, and smaller than the gateway's send buffer.
const MEDIUM: usize = 64 * 1024;

/// The size of the response to `/slow`. It does not fit into the send buffer.
pub(crate) const SLOW: usize = 384 * 1024;

/// The service. It records the requests that reach it, and delays the responses to `/hang`.
#[derive(Debug)]
pub(crate) struct Probe {
    limits: HttpLimits,
    bytes: ByteBudget,
    paths: Mutex<Vec<String>>,
    hanging: AtomicUsize,
    release: tokio::sync::Semaphore,
}

impl Probe {
    /// Returns the number of requests to `/hang` that are waiting.
    pub(crate) fn hanging(&self) -> usize {
        self.hanging.load(Ordering::SeqCst)
    }

    /// Lets the service answer one waiting or later request to `/hang`.
    pub(crate) fn release(&self) {
        self.release.add_permits(1);
    }

    async fn hang(&self) {
        struct Hanging<'a>(&'a AtomicUsize);
        impl Drop for Hanging<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.hanging.fetch_add(1, Ordering::SeqCst);
        let _hanging = Hanging(&self.hanging);
        self.release.acquire().await.unwrap().forget();
    }
}

impl HttpService for Probe {
    fn handle<'a>(
        &'a self,
        request: Request<&'a mut RequestBody>,
        peer: Peer,
        id: RequestId,
    ) -> BoxFuture<'a, Response> {
        let path = request.uri().path().to_owned();
        self.paths.lock().unwrap().push(path.clone());
        Box::pin(async move {
            let body = match path.as_str() {
                "/hang" => {
                    self.hang().await;
                    Bytes::from_static(b"released")
                }
                "/panic" => panic!("a bug in the handling of a request"),
                "/large" => LARGE_RESPONSE.clone(),
                "/slow" => LARGE_RESPONSE.slice(..SLOW),
                "/medium" => Bytes::from(vec![b'x'; MEDIUM]),
                "/address" => peer.address.to_string().into(),
                "/peer" => peer.certificate_names.join(",").into(),
                _ => {
                    let client = ClientNetwork::new(peer.address, 56);
                    let mut room = self.bytes.empty_reservation(client);
                    let body = request.into_body();
                    match read_body(body, BODY_BYTES_MAX, &self.limits, &mut room).await {
                        Ok(body) => body,
                        Err(problem) => return response::problem(&problem, &id),
                    }
                }
            };
            response::from_final(Final::whole(200, "text/plain", body, Outcome::Ok)).unwrap()
        })
    }
}

/// A listener under test. Its tasks end with the test's runtime.
pub(crate) struct TestListener {
    pub(crate) running: RunningListener,
    pub(crate) probe: Arc<Probe>,
    directory: TempDir,
}

/// The options of a listener.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) connections_max: usize,
    pub(crate) connections_per_client_max: usize,
    pub(crate) hosts: Vec<String>,
    pub(crate) tls: bool,
    pub(crate) client_certificates: bool,
    pub(crate) proxies: ProxyConfig,
    pub(crate) body_idle_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections_max: 200,
            connections_per_client_max: 200,
            hosts: Vec::new(),
            tls: false,
            client_certificates: false,
            proxies: ProxyConfig::default(),
            body_idle_timeout: BODY_IDLE,
        }
    }
}

impl fmt::Debug for TestListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestListener").field("probe", &self.probe).finish_non_exhaustive()
    }
}

impl TestListener {
    pub(crate) fn start(options: &Options) -> Self {
        let directory = TempDir::new().unwrap();
        let tls = options.tls.then(|| certificates(&directory, options.client_certificates));
        let config = config(options, tls);
        let tls = config.tls.as_ref().map(|files| ServerTls::load(files).unwrap());
        let probe = Arc::new(Probe {
            limits: config.http.clone(),
            bytes: ByteBudget::new(&config.http),
            paths: Mutex::new(Vec::new()),
            hanging: AtomicUsize::new(0),
            release: tokio::sync::Semaphore::new(0),
        });
        let listener = Listener::bind(&config, tls).unwrap();
        let running = listener.serve(Arc::clone(&probe) as Arc<dyn HttpService>, &Tasks::new());
        Self { running, probe, directory }
    }

    pub(crate) fn plain() -> Self {
        Self::start(&Options::default())
    }

    pub(crate) fn tls() -> Self {
        Self::start(&Options { tls: true, ..Options::default() })
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.directory.path().join("cert.pem").exists()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.address()
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    /// Opens a TLS connection that offers the given protocols.
    pub(crate) async fn connect_tls(&self, protocols: &[&str]) -> TlsStream<TcpStream> {
        self.handshake(self.connect().await, protocols).await
    }

    /// Performs a TLS handshake that offers the given protocols.
    pub(crate) async fn handshake<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: IO,
        protocols: &[&str],
    ) -> TlsStream<IO> {
        let ca = self.directory.path().join("cert.pem");
        let identity = CertificateFiles {
            certificate: ca.clone(),
            key: self.directory.path().join("key.pem"),
        };
        let wanted = ClientTlsConfig { ca: Some(ca), identity: Some(identity) };
        let mut config = client_config(&wanted).unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = "localhost".try_into().unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// Writes bytes to a new connection and reads responses until the gateway closes it.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> Vec<RawResponse> {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        RawResponse::parse_all(&read_to_close(&mut stream).await)
    }

    /// Asserts that a well-behaved client is served.
    pub(crate) async fn assert_serves(&self) {
        let answers = self.exchange(&get("/fine", "Connection: close\r\n")).await;
        assert_eq!(RawResponse::statuses(&answers), [200]);
    }

    /// Returns the paths of the requests that reached the service so far.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.probe.paths.lock().unwrap().clone()
    }
}

/// Returns a GET request with additional header lines.
pub(crate) fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").into_bytes()
}

/// Reads until the peer closes or resets the connection. Panics after `LONG`.
pub(crate) async fn read_to_close<IO: AsyncRead + AsyncWrite + Unpin>(stream: &mut IO) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reading = async {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            bytes.extend_from_slice(&buffer[..count]);
        }
    };
    tokio::time::timeout(LONG, reading).await.expect("the gateway did not close the connection");
    bytes
}

/// Waits until a condition holds. Panics after `LONG`.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let waiting = async {
        while !condition() {
            ticks.tick().await;
        }
    };
    assert!(tokio::time::timeout(LONG, waiting).await.is_ok(), "not within {LONG:?}: {what}");
}

/// A received response. Its head is in lower case.
#[derive(Clone, Debug)]
pub(crate) struct RawResponse {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl RawResponse {
    pub(crate) fn parse_all(mut bytes: &[u8]) -> Vec<Self> {
        let mut answers = Vec::new();
        while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
            let status = head.get(9..12).unwrap().parse().unwrap();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            let body = bytes[end + 4..].iter().copied().take(length).collect::<Vec<_>>();
            bytes = &bytes[(end + 4 + length).min(bytes.len())..];
            answers.push(Self { status, head, body });
        }
        assert!(bytes.is_empty(), "not a response: {:?}", String::from_utf8_lossy(bytes));
        answers
    }

    pub(crate) fn statuses(answers: &[Self]) -> Vec<u16> {
        answers.iter().map(|answer| answer.status).collect()
    }

    pub(crate) fn has(&self, line: &str) -> bool {
        self.head.lines().any(|found| found == line)
    }

    /// Asserts that the response has every mandatory header, and none that identifies the server.
    #[track_caller]
    pub(crate) fn assert_fixed_headers(&self) {
        assert!(self.has("x-content-type-options: nosniff"), "{self:?}");
        let has = |name: &str| self.head.lines().any(|line| line.starts_with(name));
        assert!(has("x-request-id: ") && has("date: ") && has("cache-control: "), "{self:?}");
        assert!(!has("server:") && !has("via:") && !has("x-powered-by:"), "no banner: {self:?}");
    }

    /// Asserts that the response is a problem document with the request id of its header.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.has("content-type: application/problem+json"), "{self:?}");
        let document: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        let id = document["request_id"].as_str().unwrap();
        assert!(self.has(&format!("x-request-id: {}", id.to_ascii_lowercase())), "{self:?}");
    }
}

fn config(options: &Options, tls: Option<ServerTlsConfig>) -> GatewayConfig {
    GatewayConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls,
        hosts: options.hosts.clone(),
        proxies: options.proxies.clone(),
        rate_limits: RateLimitConfig {
            scope: RateLimitScope::Gateway,
            interval: Duration::from_millis(500),
        },
        http: HttpLimits {
            connections_max: options.connections_max,
            connections_per_client_max: options.connections_per_client_max,
            ipv6_prefix_bits: 56,
            requests_in_flight_max: 100,
            requests_in_flight_per_caller_max: 100,
            buffered_bytes_max: 1 << 20,
            buffered_bytes_per_client_max: 1 << 20,
            cached_bytes_max: 0,
            header_bytes_max: 4096,
            headers_max: 20,
            uri_bytes_max: 1024,
            header_timeout: HEADER_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            body_idle_timeout: options.body_idle_timeout,
            body_timeout: options.body_idle_timeout * BODY_IDLES,
            streams_max: 10,
            resets_max: 20,
            auth_failures_per_minute_max: 600,
        },
        compression: CompressionConfig { codings: Coding::ALL.to_vec(), bytes_min: 1024 },
        session: SessionConfig {
            accept_timeout: LONG,
            progress_interval: LONG,
            queue_retry_delay_min: LONG,
            queue_retry_delay_max: LONG,
            waiting_max: 1,
            retry_percent: 0,
            retries_per_second_min: 0,
            window_parts: 0,
            answer_bytes_max: 1,
        },
        health_path: None,
        documentation: DocumentationAccess::Off,
        server_timing_scope: None,
    }
}

fn certificates(directory: &TempDir, from_clients: bool) -> ServerTlsConfig {
    let names = vec!["localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let client_auth = if from_clients {
        ClientAuth::Required { ca: certificate.clone() }
    } else {
        ClientAuth::Off
    };
    ServerTlsConfig {
        certificates: vec![CertificateFiles { certificate, key }],
        client_auth,
        tls12: true,
        handshake_timeout: HEADER_TIMEOUT,
    }
}
