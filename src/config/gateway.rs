//! `[gateway]`: the public side.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::limits;
use super::settings::Table;
use super::tls::ServerTlsConfig;
use crate::cli::Role;

mod compression;
mod proxies;

pub use compression::{Coding, CompressionConfig};
pub use proxies::{ProxyConfig, TrustedProxies};

/// The key of the health check's path.
const HEALTH_PATH: &str = "health_path";

/// The public side.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Where HTTPS is served.
    pub listen: SocketAddr,
    /// TLS; `None` only with `insecure_plain_text = true`.
    pub tls: Option<ServerTlsConfig>,
    /// Names that requests may be for; empty: every name.
    pub hosts: Vec<String>,
    /// Who may say which client a connection or a request is from.
    pub proxies: ProxyConfig,
    /// What one connection may do.
    pub http: HttpLimits,
    /// How answers are made smaller.
    pub compression: CompressionConfig,
    /// How a request is placed and waited for.
    pub session: SessionConfig,
    /// Where load balancers ask whether this gateway is ready; none: nowhere.
    pub health_path: Option<String>,
    /// To whom `/openapi.json` and `/docs` are served.
    pub documentation: DocumentationAccess,
    /// The scope whose callers see `Server-Timing`; `*`: everybody; none: nobody.
    pub server_timing_scope: Option<String>,
}

/// To whom the documentation is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentationAccess {
    /// To everybody, all of it.
    Public,
    /// To each caller, of the endpoints that it may call.
    Authenticated,
    /// To nobody.
    Off,
}

/// `[gateway.http]`: what clients may do.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once from one address.
    pub connections_per_client_max: usize,
    /// Leading bits of an IPv6 address that stand for one client, wherever clients are counted by address.
    pub ipv6_prefix_bits: u32,
    /// Requests at once.
    pub requests_in_flight_max: usize,
    /// Bytes of request bodies and answers in memory at once.
    pub buffered_bytes_max: usize,
    /// The same of one client.
    pub buffered_bytes_per_client_max: usize,
    /// All header bytes of a request.
    pub header_bytes_max: usize,
    /// Headers of a request.
    pub headers_max: usize,
    /// Bytes of a request's URI.
    pub uri_bytes_max: usize,
    /// Longest wait for a request's headers, from their first byte on or from the connection's begin.
    pub header_timeout: Duration,
    /// How long a connection is kept on which nothing is asked any more.
    pub idle_timeout: Duration,
    /// Longest wait between two pieces of a body.
    pub body_idle_timeout: Duration,
    /// Longest wait for a whole body.
    pub body_timeout: Duration,
    /// Streams at once on an HTTP/2 connection.
    pub streams_max: u32,
    /// Streams of an HTTP/2 connection that may be reset before they were looked at.
    pub resets_max: usize,
    /// Requests of one client a minute that are refused with 401 or 403; further ones with 429.
    pub auth_failures_per_minute_max: u32,
}

/// `[gateway.session]`: how a request is placed and waited for (DESIGN §5).
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// How long an attempt may be unheard of before the request is sent again.
    pub accept_timeout: Duration,
    /// The interval at which workers report progress; three missed ones mean that the worker is lost.
    pub progress_interval: Duration,
    /// Shortest pause before a group that had no free slot, or no member, is asked again.
    pub probe_delay_min: Duration,
    /// Longest such pause.
    pub probe_delay_max: Duration,
    /// Requests that may wait for one queue.
    pub waiting_max: usize,
    /// Resubmissions as a share of traffic, in percent.
    pub retry_percent: u32,
    /// Resubmissions a second that are always allowed.
    pub retry_floor: u32,
    /// Parts of an answer that a worker may send ahead of what its client has taken; 0: answers are put together first.
    pub window_parts: u32,
    /// Largest answer in bytes that is put together from parts.
    pub answer_bytes_max: usize,
}

impl GatewayConfig {
    pub(super) fn read(table: &mut Table<'_>, role: Option<Role>) -> Self {
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

fn read_documentation(table: &mut Table<'_>) -> DocumentationAccess {
    let words = [
        ("public", DocumentationAccess::Public),
        ("authenticated", DocumentationAccess::Authenticated),
        ("off", DocumentationAccess::Off),
    ];
    let found = table.choice("documentation", &words, "authenticated");
    found.unwrap_or(DocumentationAccess::Authenticated)
}

/// A path that is compared as it is written, so it has nothing that could be written in two ways.
fn read_health_path(table: &mut Table<'_>) -> Option<String> {
    let path: String = table.get_or(HEALTH_PATH, limits::HEALTH_PATH.to_owned());
    let is_plain =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b'~');
    let has_dot_segment = path.split('/').any(|segment| matches!(segment, "." | ".."));
    if path.is_empty() {
        return None;
    }
    if !path.starts_with('/')
        || path.contains("//")
        || has_dot_segment
        || !path.bytes().all(is_plain)
    {
        let expected = "expected a path such as \"/healthz\", or \"\" for none";
        table.error(HEALTH_PATH, expected.to_owned());
        return None;
    }
    Some(path)
}

/// TLS is what holds: plain text has to be asked for in so many words, and never beside TLS.
fn read_tls(table: &mut Table<'_>, role: Option<Role>) -> Option<ServerTlsConfig> {
    let plain = table.get_or("insecure_plain_text", false);
    if plain && table.has("tls") {
        let expected = "is true and [gateway.tls] is set: expected one of the two";
        table.error("insecure_plain_text", expected.to_owned());
    } else if plain {
        table.warn("insecure_plain_text", "clients are served without TLS");
    } else if role == Some(Role::Gateway) {
        // Read even when absent: it then says which keys are missing.
        return Some(table.table("tls", ServerTlsConfig::read));
    }
    table.optional_table("tls", ServerTlsConfig::read).filter(|_| !plain)
}

impl HttpLimits {
    fn read(table: &mut Table<'_>) -> Self {
        Self {
            connections_max: table.limited("connections_max", limits::CONNECTIONS_MAX),
            connections_per_client_max: table
                .limited("connections_per_client_max", limits::CONNECTIONS_PER_CLIENT_MAX),
            ipv6_prefix_bits: table.limited("ipv6_prefix_bits", limits::IPV6_PREFIX_BITS),
            requests_in_flight_max: table
                .limited("requests_in_flight_max", limits::REQUESTS_IN_FLIGHT_MAX),
            buffered_bytes_max: table.bytes("buffered_bytes_max", limits::BUFFERED_BYTES_MAX),
            buffered_bytes_per_client_max: table
                .bytes("buffered_bytes_per_client_max", limits::BUFFERED_BYTES_PER_CLIENT_MAX),
            header_bytes_max: table.bytes("header_bytes_max", limits::HEADER_BYTES_MAX),
            headers_max: table.limited("headers_max", limits::HEADERS_MAX),
            uri_bytes_max: table.bytes("uri_bytes_max", limits::URI_BYTES_MAX),
            header_timeout: table.limited("header_timeout", limits::HEADER_TIMEOUT),
            idle_timeout: table.limited("idle_timeout", limits::IDLE_TIMEOUT),
            body_idle_timeout: table.limited("body_idle_timeout", limits::BODY_IDLE_TIMEOUT),
            body_timeout: table.limited("body_timeout", limits::BODY_TIMEOUT),
            streams_max: table.limited("streams_max", limits::STREAMS_MAX),
            resets_max: table.limited("resets_max", limits::RESETS_MAX),
            auth_failures_per_minute_max: table
                .limited("auth_failures_per_minute_max", limits::AUTH_FAILURES_PER_MINUTE_MAX),
        }
    }
}

impl SessionConfig {
    fn read(table: &mut Table<'_>) -> Self {
        Self {
            accept_timeout: table.limited("accept_timeout", limits::ACCEPT_TIMEOUT),
            progress_interval: table.limited("progress_interval", limits::PROGRESS_INTERVAL),
            probe_delay_min: table.limited("probe_delay_min", limits::PROBE_DELAY_MIN),
            probe_delay_max: table.limited("probe_delay_max", limits::PROBE_DELAY_MAX),
            waiting_max: table.limited("waiting_max", limits::WAITING_MAX),
            retry_percent: table.limited("retry_percent", limits::RETRY_PERCENT),
            retry_floor: table.limited("retry_floor", limits::RETRY_FLOOR),
            window_parts: table.limited("window_parts", limits::WINDOW_PARTS),
            answer_bytes_max: table.bytes("answer_bytes_max", limits::ANSWER_BYTES_MAX),
        }
    }
}
