//! The public listener: accepts connections, enforces the limits on their number, negotiates TLS, and drains.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::config::GatewayConfig;
use crate::future::BoxFuture;
use crate::in_flight::{ConcurrencyLimit, ConcurrencyPermit};
use crate::lifecycle::{Cancel, Tasks};
use crate::listen::{Acceptor, ListenError};
use crate::telemetry::{self, names};
use crate::tls::{AcceptedTls, ServerTls};

use super::compression::Compressor;
use super::connection;
use super::connection::ConnectionConfig;
use super::connection::ConnectionContext;
use super::connection::HttpService;
use super::connection::Negotiated;
use crate::roles::gateway::client::caller::Peer;
use crate::roles::gateway::client::network::ClientNetwork;

mod connections_per_client;
mod proxy_protocol;

use connections_per_client::{ClientConnectionPermit, ConnectionsPerClient};

/// The maximum number of concurrent TLS handshakes. Each takes a millisecond of CPU time.
const HANDSHAKES_MAX: usize = 256;
/// The time without a new connection after which a drain stops accepting. Until then, the drain accepts connections
/// that were established before the drain began.
const LAST_CONNECTIONS_PAUSE: Duration = Duration::from_millis(10);
/// The maximum time for which a drain accepts connections.
const LAST_CONNECTIONS_MAX: Duration = Duration::from_millis(200);
/// The maximum amount of unsent data that the kernel buffers for a connection.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;
/// TCP keepalive: the time without traffic after which a connection is probed.
const KEEPALIVE_TIME: Duration = Duration::from_secs(20);
/// TCP keepalive: the pause between two probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// TCP keepalive: the number of unanswered probes after which the connection is closed.
const KEEPALIVE_PROBES: u32 = 6;
/// The time for which a drain waits for connections to end after it has cut them off.
const CUT_OFF_WAIT: Duration = Duration::from_secs(1);

/// The bound public listener.
#[derive(Debug)]
pub struct Listener {
    acceptor: Acceptor,
    tls: Option<ServerTls>,
    config: ConnectionConfig,
}

/// A listener that is serving. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RunningListener {
    address: SocketAddr,
    state: Arc<ListenerState>,
}

/// The state that the accept loop and the connections share.
#[derive(Debug)]
struct ListenerState {
    connections: ConcurrencyLimit,
    per_client: ConnectionsPerClient,
    handshakes: Semaphore,
    config: ArcSwap<ConnectionConfig>,
    tls: Option<ServerTls>,
    service: Arc<dyn HttpService>,
    compressor: Compressor,
    tasks: Tasks,
    /// Cancelled when the drain begins.
    stop: Cancel,
    /// Cancelled when the drain times out.
    cut_off: Cancel,
    /// Cancelled by the accept loop when it ends.
    accepted_all: Cancel,
}

impl Listener {
    /// Binds the address, or takes over the previous process's listener from systemd. Without `tls`, the listener
    /// serves plain HTTP/1.1. Nothing is accepted until `serve` is called.
    ///
    /// # Errors
    /// `ListenError` with the address and the cause.
    pub fn bind(config: &GatewayConfig, tls: Option<ServerTls>) -> Result<Self, ListenError> {
        let acceptor = Acceptor::inherit_or_bind(config.listen)?;
        Ok(Self { acceptor, tls, config: connection_config(config) })
    }

    /// Returns the address that was bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.acceptor.address()
    }

    /// Accepts connections until `RunningListener::drain` is called.
    #[must_use = "without it the listener cannot be drained"]
    pub fn serve(self, service: Arc<dyn HttpService>, tasks: &Tasks) -> RunningListener {
        let limits = &self.config.limits;
        let gauge = telemetry::gauge(&names::GATEWAY_CONNECTIONS, &[]);
        let state = Arc::new(ListenerState {
            connections: ConcurrencyLimit::new(limits.connections_max, gauge),
            per_client: ConnectionsPerClient::new(limits.connections_per_client_max),
            handshakes: Semaphore::new(HANDSHAKES_MAX),
            config: ArcSwap::from_pointee(self.config),
            tls: self.tls,
            service,
            compressor: Compressor::new(),
            tasks: tasks.clone(),
            stop: Cancel::new(),
            cut_off: Cancel::new(),
            accepted_all: Cancel::new(),
        });
        let listener =
            RunningListener { address: self.acceptor.address(), state: Arc::clone(&state) };
        drop(tasks.spawn(accept(self.acceptor, state)));
        listener
    }
}

fn connection_config(config: &GatewayConfig) -> ConnectionConfig {
    ConnectionConfig {
        limits: config.http.clone(),
        hosts: config.hosts.clone(),
        health_path: config.health_path.clone(),
        proxies: config.proxies.clone(),
        compression: config.compression.clone(),
    }
}

impl RunningListener {
    /// Returns the address that was bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.connections.in_use()
    }

    /// Applies a new configuration to new connections. The address cannot be changed.
    pub fn reload(&self, config: &GatewayConfig) {
        let config = connection_config(config);
        self.state.connections.set_limit(config.limits.connections_max);
        self.state.per_client.set_limit(config.limits.connections_per_client_max);
        self.state.config.store(Arc::new(config));
    }

    /// Stops accepting and waits up to `limit` until all connections have ended. Then cuts off the remaining
    /// connections. Returns `true` if no connection had to be cut off. Safe to drop and to call again.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.state.stop.cancel();
        let ended = async {
            self.state.accepted_all.cancelled().await;
            self.state.connections.wait_empty(limit).await
        };
        if timeout(limit, ended).await.unwrap_or(false) {
            return true;
        }
        tracing::warn!(
            connections = self.connections(),
            "drain timed out: cutting off connections"
        );
        self.state.cut_off.cancel();
        self.state.connections.wait_empty(CUT_OFF_WAIT).await;
        false
    }
}

async fn accept(mut acceptor: Acceptor, state: Arc<ListenerState>) {
    loop {
        tokio::select! {
            () = state.stop.cancelled() => break,
            (stream, address) = acceptor.next() => on_accept(stream, address, &state),
        }
    }
    // Closing the socket would reset connections that clients have already established. Some of these connections might
    // not be in the accept queue yet, so the loop does not end when the queue is empty, but after a pause without new
    // connections.
    let end = Instant::now() + LAST_CONNECTIONS_MAX;
    while Instant::now() < end
        && let Ok((stream, address)) = timeout(LAST_CONNECTIONS_PAUSE, acceptor.next()).await
    {
        on_accept(stream, address, &state);
    }
    drop(acceptor);
    state.connections.close();
    state.accepted_all.cancel();
}

/// Starts serving a connection, or closes it if a limit is reached. Queueing would only help the client that exhausted
/// the limit.
fn on_accept(stream: TcpStream, address: SocketAddr, state: &Arc<ListenerState>) {
    let Some(guard) = state.connections.try_acquire() else {
        return connection::count_refused("connections");
    };
    let address = address.ip().to_canonical();
    let config = state.config.load_full();
    if let Err(error) = set_socket_options(&stream, config.limits.body_timeout) {
        tracing::debug!(%error, "cannot set the socket options of a connection");
    }
    let Ok(permit) = admit_client(address, &config, state) else { return };
    let shared = Arc::clone(state);
    let pending = PendingConnection { address, config, guards: (guard, permit) };
    drop(state.tasks.spawn(serve(stream, pending, shared)));
}

/// Limits the amount of unsent data that the kernel buffers for a connection, and sets the keepalive. Also limits the
/// time for which sent data may stay unacknowledged. `StallTimeout` replaces that limit once the connection is served.
fn set_socket_options(stream: &TcpStream, user_timeout: Duration) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    socket.set_tcp_user_timeout(Some(user_timeout))?;
    socket.set_tcp_keepalive(&keepalive)
}

/// Counts a client's connection. A trusted proxy is not counted, because it connects on behalf of
/// many clients. Those clients are counted once the PROXY protocol has named them.
fn admit_client(
    address: IpAddr,
    config: &ConnectionConfig,
    state: &ListenerState,
) -> Result<Option<ClientConnectionPermit>, ()> {
    if config.proxies.trusted.contains(address) {
        return Ok(None);
    }
    let client = ClientNetwork::new(address, config.limits.ipv6_prefix_bits);
    let permit = state.per_client.try_acquire(client);
    permit.map(Some).ok_or_else(|| connection::count_refused("connections_per_client"))
}

/// An accepted connection before its TLS handshake.
struct PendingConnection {
    address: IpAddr,
    config: Arc<ConnectionConfig>,
    guards: (ConcurrencyPermit, Option<ClientConnectionPermit>),
}

impl PendingConnection {
    /// Replaces a load balancer's address with that of its client, if the connection must begin with a PROXY protocol header.
    async fn read_proxy_header(
        &mut self,
        stream: &mut TcpStream,
        state: &ListenerState,
    ) -> Result<(), ()> {
        let proxies = &self.config.proxies;
        if !proxies.proxy_protocol || !proxies.trusted.contains(self.address) {
            return Ok(());
        }
        let limit = self.config.limits.header_timeout;
        let client = proxy_protocol::read_client(stream, limit).await.map_err(|error| {
            tracing::debug!(proxy = %self.address, ?error, "expected PROXY protocol version 2");
            connection::count_refused(error.as_str());
        })?;
        if let Some(address) = client {
            self.address = address;
            self.guards.1 = admit_client(address, &self.config, state)?;
        }
        Ok(())
    }
}

async fn serve(stream: TcpStream, mut pending: PendingConnection, state: Arc<ListenerState>) {
    let serving = async {
        // The future is boxed, so that the handshake's memory is freed before the connection is
        // served.
        if let Some(connection) = Box::pin(negotiate(stream, &mut pending, &state)).await {
            connection.await;
        }
    };
    tokio::select! {
        () = state.cut_off.cancelled() => connection::count_refused("drain_timeout"),
        () = serving => {}
    }
    drop(pending.guards);
}

/// Identifies the client and negotiates TLS. Returns the future that serves the connection.
async fn negotiate(
    mut stream: TcpStream,
    pending: &mut PendingConnection,
    state: &ListenerState,
) -> Option<BoxFuture<'static, ()>> {
    pending.read_proxy_header(&mut stream, state).await.ok()?;
    let context = ConnectionContext {
        service: Arc::clone(&state.service),
        compressor: state.compressor.clone(),
        config: Arc::clone(&pending.config),
        tasks: state.tasks.clone(),
        stop: state.stop.clone(),
    };
    let peer = Peer::new(pending.address, state.tls.is_some());
    let Some(tls) = &state.tls else {
        let negotiated = Negotiated { peer, is_http2: false, lacks_tls: false };
        return Some(connection::serve(stream, negotiated, context));
    };
    let accepted = match tls_handshake(stream, tls, state).await? {
        HandshakeResult::Completed(accepted) => *accepted,
        HandshakeResult::PlainText(stream) => {
            let peer = Peer::new(pending.address, false);
            let negotiated = Negotiated { peer, is_http2: false, lacks_tls: true };
            return Some(connection::serve(stream, negotiated, context));
        }
    };
    let peer = peer.over(tls.clone());
    let peer = accepted.certificate.into_iter().fold(peer, Peer::with_certificate);
    let negotiated = Negotiated { peer, is_http2: accepted.is_http2, lacks_tls: false };
    Some(connection::serve(accepted.stream, negotiated, context))
}

/// The result of a handshake.
enum HandshakeResult {
    Completed(Box<AcceptedTls<TcpStream>>),
    /// The client has sent text instead of a handshake, such as a request in plain HTTP.
    PlainText(TcpStream),
}

async fn tls_handshake(
    stream: TcpStream,
    tls: &ServerTls,
    state: &ListenerState,
) -> Option<HandshakeResult> {
    let handshake = async {
        // A connection that sends nothing does not take a permit.
        let mut first = [0];
        let length = stream.peek(&mut first).await?;
        // A handshake begins with a byte that is not a letter (RFC 8446 §5.1). A request begins with its method, which
        // consists of letters.
        if length > 0 && first[0].is_ascii_alphabetic() {
            return Ok(HandshakeResult::PlainText(stream));
        }
        let permit = state.handshakes.acquire().await;
        let accepted = tls.accept(stream).await;
        drop(permit);
        accepted.map(|accepted| HandshakeResult::Completed(Box::new(accepted)))
    };
    match timeout(tls.handshake_timeout(), handshake).await {
        Ok(Ok(result)) => Some(result),
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            connection::count_refused("handshake_failed");
            None
        }
        Err(_) => {
            connection::count_refused("handshake_timeout");
            None
        }
    }
}
