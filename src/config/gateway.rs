//! `[gateway]`: the public listener, and how requests are handled.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::limits;
use super::settings::SettingsTable;
use super::tls::ServerTlsConfig;
use crate::catalogue::uri::check_segments;
use crate::cli::Role;

mod compression;
mod proxies;

pub use compression::{Coding, CompressionConfig};
pub use proxies::{ProxyConfig, TrustedProxies};

/// The key of the health check's path.
const HEALTH_PATH: &str = "health_path";

/// The public listener, and how requests are handled.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The address on which HTTPS is served.
    pub listen: SocketAddr,
    /// TLS; `None` only with `insecure_plain_text = true`.
    pub tls: Option<ServerTlsConfig>,
    /// The names accepted in `Host`; empty: every name.
    pub hosts: Vec<String>,
    /// The proxies that may state the address of their client.
    pub proxies: ProxyConfig,
    /// Limits on connections and requests.
    pub http: HttpLimits,
    /// Compression of answers.
    pub compression: CompressionConfig,
    /// Attempts, waiting and retries of requests.
    pub session: SessionConfig,
    /// The path at which load balancers check whether this gateway is ready; `None`: there is none.
    pub health_path: Option<String>,
    /// Who can read `/openapi.json` and `/docs`.
    pub documentation: DocumentationAccess,
    /// The scope of callers that get `Server-Timing`; `*`: all callers; `None`: no caller.
    pub server_timing_scope: Option<String>,
}

/// Who can read the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentationAccess {
    /// Everybody, for all endpoints.
    Public,
    /// Each caller, for the endpoints that it may call.
    Authenticated,
    /// Nobody.
    Off,
}

/// `[gateway.http]`: limits on clients.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// The most connections at once.
    pub connections_max: usize,
    /// The most connections at once from one client.
    pub connections_per_client_max: usize,
    /// The leading bits of an IPv6 address that identify one client, wherever clients are counted by address.
    pub ipv6_prefix_bits: u32,
    /// The most requests at once.
    pub requests_in_flight_max: usize,
    /// The most bytes of request bodies and answers in memory at once.
    pub buffered_bytes_max: usize,
    /// The same for one client.
    pub buffered_bytes_per_client_max: usize,
    /// The most bytes of all headers of a request.
    pub header_bytes_max: usize,
    /// The most headers of a request.
    pub headers_max: usize,
    /// The most bytes of a request's URI.
    pub uri_bytes_max: usize,
    /// The longest wait for the headers of a request, from their first byte or from the start of the connection.
    pub header_timeout: Duration,
    /// How long a connection without requests is kept open.
    pub idle_timeout: Duration,
    /// The longest wait between two pieces of a request body.
    pub body_idle_timeout: Duration,
    /// The longest wait for a whole request body.
    pub body_timeout: Duration,
    /// The most streams at once on an HTTP/2 connection.
    pub streams_max: u32,
    /// The most streams of an HTTP/2 connection that the client may reset before they are processed.
    pub resets_max: usize,
    /// The most requests of one client in a minute that are answered 401 or 403. Further ones are answered 429.
    pub auth_failures_per_minute_max: u32,
}

/// `[gateway.session]`: attempts, waiting and retries of requests.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// How long a gateway waits for the first sign of an attempt before it sends the request again.
    pub accept_timeout: Duration,
    /// The interval at which workers report progress. After three missed reports a worker counts as lost.
    pub progress_interval: Duration,
    /// The shortest pause before a request is sent again to a queue that had no free slot or no worker.
    pub probe_delay_min: Duration,
    /// The longest such pause.
    pub probe_delay_max: Duration,
    /// The most requests that wait for one queue.
    pub waiting_max: usize,
    /// Retries as a share of requests, in percent.
    pub retry_percent: u32,
    /// The retries per second that are always allowed.
    pub retry_floor: u32,
    /// The parts of an answer that a worker may send before the client has read them; 0: answers are collected first.
    pub window_parts: u32,
    /// The largest answer in bytes that is collected from parts.
    pub answer_bytes_max: usize,
}

impl GatewayConfig {
    pub(super) fn read(table: &mut SettingsTable<'_>, role: Option<Role>) -> Self {
        let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, limits::GATEWAY_PORT));
        Self {
            listen: table.get_or("listen", everywhere),
            tls: read_tls(table, role),
            hosts: table.get_or("hosts", Vec::new()),
            proxies: ProxyConfig::read(table),
            http: table.table("http", HttpLimits::read),
            compression: table.table("compression", CompressionConfig::read),
            session: table.table("session", SessionConfig::read),
            health_path: read_health_path(table),
            documentation: read_documentation(table),
            server_timing_scope: table.get("server_timing_scope"),
        }
    }
}

fn read_documentation(table: &mut SettingsTable<'_>) -> DocumentationAccess {
    let choices = [
        ("public", DocumentationAccess::Public),
        ("authenticated", DocumentationAccess::Authenticated),
        ("off", DocumentationAccess::Off),
    ];
    let choice = table.get_choice("documentation", &choices, "authenticated");
    choice.unwrap_or(DocumentationAccess::Authenticated)
}

/// Reads the path of the health check. It is compared without decoding, so only characters that need no encoding are allowed.
fn read_health_path(table: &mut SettingsTable<'_>) -> Option<String> {
    let path: String = table.get_or(HEALTH_PATH, limits::HEALTH_PATH.to_owned());
    let is_plain =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b'~');
    if path.is_empty() {
        return None;
    }
    if !path.starts_with('/') || check_segments(&path).is_err() || !path.bytes().all(is_plain) {
        let expected = "expected a path such as \"/healthz\", or \"\" for none";
        table.error(HEALTH_PATH, expected.to_owned());
        return None;
    }
    Some(path)
}

/// Reads the TLS settings. Plain text requires `insecure_plain_text`, which excludes TLS settings.
fn read_tls(table: &mut SettingsTable<'_>, role: Option<Role>) -> Option<ServerTlsConfig> {
    let plain = table.get_or("insecure_plain_text", false);
    if plain && table.has("tls") {
        let expected = "is true and [gateway.tls] is set: expected one of the two";
        table.error("insecure_plain_text", expected.to_owned());
    } else if plain {
        table.warn("insecure_plain_text", "clients are served without TLS");
    } else if role == Some(Role::Gateway) {
        // Reading an absent table reports its missing keys.
        return Some(table.table("tls", ServerTlsConfig::read));
    }
    table.optional_table("tls", ServerTlsConfig::read).filter(|_| !plain)
}

impl HttpLimits {
    fn read(table: &mut SettingsTable<'_>) -> Self {
        Self {
            connections_max: table.get_limited("connections_max", limits::CONNECTIONS_MAX),
            connections_per_client_max: table
                .get_limited("connections_per_client_max", limits::CONNECTIONS_PER_CLIENT_MAX),
            ipv6_prefix_bits: table.get_limited("ipv6_prefix_bits", limits::IPV6_PREFIX_BITS),
            requests_in_flight_max: table
                .get_limited("requests_in_flight_max", limits::REQUESTS_IN_FLIGHT_MAX),
            buffered_bytes_max: table.get_bytes("buffered_bytes_max", limits::BUFFERED_BYTES_MAX),
            buffered_bytes_per_client_max: table
                .get_bytes("buffered_bytes_per_client_max", limits::BUFFERED_BYTES_PER_CLIENT_MAX),
            header_bytes_max: table.get_bytes("header_bytes_max", limits::HEADER_BYTES_MAX),
            headers_max: table.get_limited("headers_max", limits::HEADERS_MAX),
            uri_bytes_max: table.get_bytes("uri_bytes_max", limits::URI_BYTES_MAX),
            header_timeout: table.get_limited("header_timeout", limits::HEADER_TIMEOUT),
            idle_timeout: table.get_limited("idle_timeout", limits::IDLE_TIMEOUT),
            body_idle_timeout: table.get_limited("body_idle_timeout", limits::BODY_IDLE_TIMEOUT),
            body_timeout: table.get_limited("body_timeout", limits::BODY_TIMEOUT),
            streams_max: table.get_limited("streams_max", limits::STREAMS_MAX),
            resets_max: table.get_limited("resets_max", limits::RESETS_MAX),
            auth_failures_per_minute_max: table
                .get_limited("auth_failures_per_minute_max", limits::AUTH_FAILURES_PER_MINUTE_MAX),
        }
    }
}

impl SessionConfig {
    fn read(table: &mut SettingsTable<'_>) -> Self {
        Self {
            accept_timeout: table.get_limited("accept_timeout", limits::ACCEPT_TIMEOUT),
            progress_interval: table.get_limited("progress_interval", limits::PROGRESS_INTERVAL),
            probe_delay_min: table.get_limited("probe_delay_min", limits::PROBE_DELAY_MIN),
            probe_delay_max: table.get_limited("probe_delay_max", limits::PROBE_DELAY_MAX),
            waiting_max: table.get_limited("waiting_max", limits::WAITING_MAX),
            retry_percent: table.get_limited("retry_percent", limits::RETRY_PERCENT),
            retry_floor: table.get_limited("retry_floor", limits::RETRY_FLOOR),
            window_parts: table.get_limited("window_parts", limits::WINDOW_PARTS),
            answer_bytes_max: table.get_bytes("answer_bytes_max", limits::ANSWER_BYTES_MAX),
        }
    }
}
