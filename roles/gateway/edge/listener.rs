//! The public listener: accepts connections, bounds them, hands them to `connection`, and lets them finish.

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
use crate::in_flight::{Admission, AdmissionPermit};
use crate::lifecycle::{Cancel, Tasks};
use crate::listen::{Acceptor, ListenError};
use crate::telemetry::{self, names};
use crate::tls::ServerTls;

use super::connection;
use super::connection::Agreed;
use super::connection::Compressor;
use super::connection::Rules;
use super::connection::Service;
use super::connection::Serving;
use crate::roles::gateway::client::caller::Peer;
use crate::roles::gateway::client::network::ClientNetwork;

mod per_client;
mod proxied;

use per_client::{PerClient, Place};

/// Handshakes at once: each costs a millisecond of a core.
const HANDSHAKES_MAX: usize = 256;
/// A drain accepts what was connected before it until nothing comes for this long.
const LAST_CONNECTIONS_PAUSE: Duration = Duration::from_millis(10);
/// See `LAST_CONNECTIONS_PAUSE`: the most that a crowd can stretch it to.
const LAST_CONNECTIONS_MAX: Duration = Duration::from_millis(200);
/// What the system holds of an answer that its client does not take, beyond what fits into the client's own buffers.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;
/// A client that has vanished is noticed after this, and after `PROBES` that nothing answered, `PROBE_INTERVAL` apart.
const SILENCE: Duration = Duration::from_secs(20);
/// See `SILENCE`.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// See `SILENCE`.
const PROBES: u32 = 6;
/// How long connections that were cut off may take to be gone.
const CUT_OFF: Duration = Duration::from_secs(1);

/// The bound public listener.
#[derive(Debug)]
pub struct Listener {
    acceptor: Acceptor,
    tls: Option<ServerTls>,
    rules: Rules,
}

/// The listener while it serves. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Running {
    address: SocketAddr,
    doors: Arc<Doors>,
}

/// What the accept loop and every connection share.
#[derive(Debug)]
struct Doors {
    connections: Admission,
    per_client: PerClient,
    handshakes: Semaphore,
    rules: ArcSwap<Rules>,
    tls: Option<ServerTls>,
    service: Arc<dyn Service>,
    compressor: Compressor,
    tasks: Tasks,
    /// Given when the drain begins.
    stop: Cancel,
    /// Given when its time is over.
    cut_off: Cancel,
    /// Given by the accept loop once it has ended.
    accepted_all: Cancel,
}

impl Listener {
    /// Binds; nothing is accepted before `serve`. Without `tls` it speaks plain HTTP/1.1.
    ///
    /// # Errors
    /// `ListenError` says the address and why.
    pub fn bind(config: &GatewayConfig, tls: Option<ServerTls>) -> Result<Self, ListenError> {
        let acceptor = Acceptor::bind(config.listen)?;
        Ok(Self { acceptor, tls, rules: rules(config) })
    }

    /// The address that was bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.acceptor.address()
    }

    /// Accepts connections from here on, until `Running::drain`.
    #[must_use = "without it the listener cannot be drained"]
    pub fn serve(self, service: Arc<dyn Service>, tasks: &Tasks) -> Running {
        let limits = &self.rules.limits;
        let gauge = telemetry::gauge(&names::GATEWAY_CONNECTIONS, &[]);
        let doors = Arc::new(Doors {
            connections: Admission::new(limits.connections_max, gauge),
            per_client: PerClient::new(limits.connections_per_client_max),
            handshakes: Semaphore::new(HANDSHAKES_MAX),
            rules: ArcSwap::from_pointee(self.rules),
            tls: self.tls,
            service,
            compressor: Compressor::new(),
            tasks: tasks.clone(),
            stop: Cancel::new(),
            cut_off: Cancel::new(),
            accepted_all: Cancel::new(),
        });
        let running = Running { address: self.acceptor.address(), doors: Arc::clone(&doors) };
        drop(tasks.spawn(accept(self.acceptor, doors)));
        running
    }
}

fn rules(config: &GatewayConfig) -> Rules {
    let (limits, hosts) = (config.http.clone(), config.hosts.clone());
    let (proxies, compression) = (config.proxies.clone(), config.compression.clone());
    let health_path = config.health_path.clone();
    Rules { limits, hosts, health_path, proxies, compression }
}

impl Running {
    /// The address that was bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.doors.connections.held()
    }

    /// Takes new limits, hosts and proxies, for connections from here on. The address stays.
    pub fn reload(&self, config: &GatewayConfig) {
        let rules = rules(config);
        self.doors.connections.set_limit(rules.limits.connections_max);
        self.doors.per_client.set_limit(rules.limits.connections_per_client_max);
        self.doors.rules.store(Arc::new(rules));
    }

    /// Stops accepting, lets requests finish and connections end, at most so long; cuts off the rest.
    /// Says whether nothing had to be cut off. Safe to drop and to call again.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.doors.stop.cancel();
        let ended = async {
            self.doors.accepted_all.cancelled().await;
            self.doors.connections.wait_empty(limit).await
        };
        if timeout(limit, ended).await.unwrap_or(false) {
            return true;
        }
        tracing::warn!(connections = self.connections(), "cuts off connections: the drain is over");
        self.doors.cut_off.cancel();
        self.doors.connections.wait_empty(CUT_OFF).await;
        false
    }
}

async fn accept(mut acceptor: Acceptor, doors: Arc<Doors>) {
    loop {
        tokio::select! {
            () = doors.stop.cancelled() => break,
            (stream, address) = acceptor.next() => welcome(stream, address, &doors),
        }
    }
    // These were connected before we stopped: closing the socket would reset them.
    // They may not even have been announced to us yet, so their silence is waited for, not their absence.
    let end = Instant::now() + LAST_CONNECTIONS_MAX;
    while Instant::now() < end
        && let Ok((stream, address)) = timeout(LAST_CONNECTIONS_PAUSE, acceptor.next()).await
    {
        welcome(stream, address, &doors);
    }
    drop(acceptor);
    doors.connections.close();
    doors.accepted_all.cancel();
}

/// At a bound a connection is closed at once: a place in a line would only be held by whoever holds them all.
fn welcome(stream: TcpStream, address: SocketAddr, doors: &Arc<Doors>) {
    let Some(place) = doors.connections.try_enter() else {
        return connection::refused("connections");
    };
    let address = address.ip().to_canonical();
    let rules = doors.rules.load_full();
    if let Err(error) = bound_socket(&stream, rules.limits.body_timeout) {
        tracing::debug!(%error, "cannot bound what the system holds of a connection");
    }
    let Ok(client_place) = enter(address, &rules, doors) else { return };
    let shared = Arc::clone(doors);
    let arrived = Arrived { address, rules, places: (place, client_place) };
    drop(doors.tasks.spawn(serve(stream, arrived, shared)));
}

/// Bounds what the system holds of a connection by itself, and until it is served for how long.
fn bound_socket(stream: &TcpStream, silence_max: Duration) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let keepalive =
        TcpKeepalive::new().with_time(SILENCE).with_interval(PROBE_INTERVAL).with_retries(PROBES);
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    socket.set_tcp_user_timeout(Some(silence_max))?;
    socket.set_tcp_keepalive(&keepalive)
}

/// A place for the client, unless it is a proxy: many clients come through one, and are counted once they are known.
fn enter(address: IpAddr, rules: &Rules, doors: &Doors) -> Result<Option<Place>, ()> {
    if rules.proxies.trusted.contains(address) {
        return Ok(None);
    }
    let client = ClientNetwork::new(address, rules.limits.ipv6_prefix_bits);
    let place = doors.per_client.try_enter(client);
    place.map(Some).ok_or_else(|| connection::refused("connections_per_client"))
}

/// A connection with its place.
struct Arrived {
    address: IpAddr,
    rules: Arc<Rules>,
    places: (AdmissionPermit, Option<Place>),
}

impl Arrived {
    /// Replaces a balancer's address by the one of its client, when connections begin with it.
    async fn identify(&mut self, stream: &mut TcpStream, doors: &Doors) -> Result<(), ()> {
        let proxies = &self.rules.proxies;
        if !proxies.proxy_protocol || !proxies.trusted.contains(self.address) {
            return Ok(());
        }
        let said = proxied::client(stream, self.rules.limits.header_timeout).await;
        let said = said.map_err(|fault| {
            tracing::debug!(proxy = %self.address, ?fault, "expected PROXY protocol version 2");
            connection::refused(fault.reason());
        })?;
        if let Some(address) = said {
            self.address = address;
            self.places.1 = enter(address, &self.rules, doors)?;
        }
        Ok(())
    }
}

async fn serve(stream: TcpStream, mut arrived: Arrived, doors: Arc<Doors>) {
    let served = async {
        // Boxed: the room of a handshake is not kept for as long as its connection lives.
        if let Some(connection) = Box::pin(open(stream, &mut arrived, &doors)).await {
            connection.await;
        }
    };
    tokio::select! {
        () = doors.cut_off.cancelled() => connection::refused("drain_timeout"),
        () = served => {}
    }
    drop(arrived.places);
}

/// Finds out who has connected and what was agreed; gives back the connection as it is served.
async fn open(
    mut stream: TcpStream,
    arrived: &mut Arrived,
    doors: &Doors,
) -> Option<BoxFuture<'static, ()>> {
    arrived.identify(&mut stream, doors).await.ok()?;
    let serving = Serving {
        service: Arc::clone(&doors.service),
        compressor: doors.compressor.clone(),
        rules: Arc::clone(&arrived.rules),
        tasks: doors.tasks.clone(),
        stop: doors.stop.clone(),
    };
    let peer = Peer::new(arrived.address, doors.tls.is_some());
    let Some(tls) = &doors.tls else {
        let agreed = Agreed { peer, is_http2: false };
        return Some(connection::serve(stream, agreed, serving));
    };
    let accepted = shake_hands(stream, tls, doors).await?;
    let peer = peer.over(tls.clone());
    let peer = accepted.certificate.into_iter().fold(peer, Peer::with_certificate);
    let agreed = Agreed { peer, is_http2: accepted.is_http2 };
    Some(connection::serve(accepted.stream, agreed, serving))
}

async fn shake_hands(
    stream: TcpStream,
    tls: &ServerTls,
    doors: &Doors,
) -> Option<crate::tls::AcceptedTls<TcpStream>> {
    let shaking = async {
        // A connection that says nothing takes no turn.
        stream.readable().await?;
        let turn = doors.handshakes.acquire().await;
        let accepted = tls.accept(stream).await;
        drop(turn);
        accepted
    };
    match timeout(tls.handshake_timeout(), shaking).await {
        Ok(Ok(accepted)) => Some(accepted),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            connection::refused("handshake_failed");
            None
        }
        Err(_) => {
            connection::refused("handshake_timeout");
            None
        }
    }
}
