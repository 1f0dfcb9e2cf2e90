//! `[gateway]`: the public listener and its request handling.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::hosts;
use super::limits;
use super::settings::SettingsTable;
use super::tls::ServerTlsConfig;
use crate::catalogue::uri::check_segments;
use crate::cli::Role;

mod compression;
mod proxies;
mod rate_limits;

pub use compression::{Coding, CompressionConfig};
pub use proxies::{ProxyConfig, TrustedProxies};
pub use rate_limits::{RateLimitConfig, RateLimitScope};

const HEALTH_PATH: &str = "health_path";

/// The public listener and its request handling.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The address on which the gateway serves HTTPS.
    pub listen: SocketAddr,
    /// The TLS settings. In a gateway, `None` is possible only with `insecure_plain_text = true`.
    pub tls: Option<ServerTlsConfig>,
    /// The names accepted in `Host`. If empty, every name is accepted.
    pub hosts: Vec<String>,
    /// The proxies that are trusted to report their clients' addresses.
    pub proxies: ProxyConfig,
    /// Limits on connections and requests.
    pub http: HttpLimits,
    /// How requests are counted towards the rate limits of endpoints.
    pub rate_limits: RateLimitConfig,
    /// Compression of answers.
    pub compression: CompressionConfig,
    /// Settings for attempts, waiting and retries of requests.
    pub session: SessionConfig,
    /// The path on which load balancers check readiness. `None` disables the health check.
    pub health_path: Option<String>,
    /// The callers that can read `/openapi.json` and `/docs`.
    pub documentation: DocumentationAccess,
    /// The scope required to receive `Server-Timing`. `*` means all callers, and `None` means no
    /// caller.
    pub server_timing_scope: Option<String>,
}

/// The callers that can read the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentationAccess {
    /// Every caller sees all endpoints.
    Public,
    /// Each caller sees the endpoints that it may call.
    Authenticated,
    /// The documentation is not served.
    Off,
}

/// The number of copies of a body that are in memory while it is converted to a message. The
/// message is about as large as the body.
pub const BODY_COPIES: usize = 2;

/// Limits on clients: `[gateway.http]`.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// The maximum number of concurrent connections.
    pub connections_max: usize,
    /// The maximum number of concurrent connections from one client.
    pub connections_per_client_max: usize,
    /// The length in bits of the IPv6 prefix that identifies a client.
    pub ipv6_prefix_bits: u32,
    /// The maximum number of concurrent requests.
    pub requests_in_flight_max: usize,
    /// The maximum number of concurrent requests of one caller.
    pub requests_in_flight_per_caller_max: usize,
    /// The maximum size in bytes of all request bodies and answers in memory.
    pub buffered_bytes_max: usize,
    /// The maximum size in bytes of one client's request bodies and answers in memory.
    pub buffered_bytes_per_client_max: usize,
    /// The maximum total size in bytes of stored answers. With 0, no answers are stored.
    pub cached_bytes_max: usize,
    /// The maximum total size in bytes of a request's headers.
    pub header_bytes_max: usize,
    /// The maximum number of headers in a request.
    pub headers_max: usize,
    /// The maximum length in bytes of a request's URI.
    pub uri_bytes_max: usize,
    /// The time limit for receiving a request's headers. It starts at the first byte of the headers
    /// or at the start of the connection.
    pub header_timeout: Duration,
    /// How long a connection without requests is kept open.
    pub idle_timeout: Duration,
    /// The maximum time between two pieces of a request body.
    pub body_idle_timeout: Duration,
    /// The maximum time to receive a whole request body.
    pub body_timeout: Duration,
    /// The maximum number of concurrent streams on an HTTP/2 connection.
    pub streams_max: u32,
    /// The maximum number of unprocessed streams that a client may reset on an HTTP/2 connection.
    pub resets_max: usize,
    /// The maximum number of 401 and 403 responses per client and minute. Further failures get 429.
    pub auth_failures_per_minute_max: u32,
}

impl HttpLimits {
    /// Returns the size in bytes of the largest body that fits into one client's share of the
    /// memory.
    #[must_use]
    pub fn body_bytes_ceiling(&self) -> usize {
        self.buffered_bytes_per_client_max / BODY_COPIES
    }
}

/// Settings for attempts, waiting and retries of requests: `[gateway.session]`.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// How long a gateway waits for the first reply to an attempt before it makes another attempt.
    pub accept_timeout: Duration,
    /// The interval of workers' progress reports. A worker that misses three is considered lost.
    pub progress_interval: Duration,
    /// The minimum delay before a request is sent again to a queue without a free slot or worker.
    pub queue_retry_delay_min: Duration,
    /// The maximum delay before a request is sent again to a queue without a free slot or worker.
    pub queue_retry_delay_max: Duration,
    /// The maximum number of requests that are waiting for one queue.
    pub waiting_max: usize,
    /// The maximum number of retries as a percentage of requests.
    pub retry_percent: u32,
    /// The number of retries per second that are always allowed.
    pub retries_per_second_min: u32,
    /// The number of parts that a worker may send before the client has read the earlier parts.
    /// With 0, answers are not streamed.
    pub window_parts: u32,
    /// The maximum size in bytes of an answer collected from parts.
    pub answer_bytes_max: usize,
}

impl GatewayConfig {
    pub(super) fn read(table: &mut SettingsTable<'_>, role: Option<Role>) -> Self {
        let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, limits::GATEWAY_PORT));
        Self {
            listen: table.get_or("listen", everywhere),
            tls: read_tls(table, role),
            hosts: hosts::read(table, |_| false),
            proxies: ProxyConfig::read(table),
            http: table.table("http", HttpLimits::read),
            rate_limits: table.table("rate_limits", RateLimitConfig::read),
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

/// Reads the health-check path. It must not contain characters that require percent-encoding,
/// because request paths are compared without decoding.
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

/// Reads the TLS settings. Plain text requires `insecure_plain_text`, which cannot be combined with
/// TLS settings.
fn read_tls(table: &mut SettingsTable<'_>, role: Option<Role>) -> Option<ServerTlsConfig> {
    let plain = table.get_or("insecure_plain_text", false);
    if plain && table.has("tls") {
        let expected = "conflicts with [gateway.tls]: remove one of them";
        table.error("insecure_plain_text", expected.to_owned());
    } else if plain {
        table.warn("insecure_plain_text", "clients are served without TLS");
    } else if role == Some(Role::Gateway) {
        // Reading a missing table reports the missing keys.
        return Some(table.table("tls", ServerTlsConfig::read));
    }
    table.optional_table("tls", ServerTlsConfig::read).filter(|_| !plain)
}

impl HttpLimits {
    fn read(table: &mut SettingsTable<'_>) -> Self {
        let requests_in_flight_max =
            table.get_limited("requests_in_flight_max", limits::REQUESTS_IN_FLIGHT_MAX);
        Self {
            connections_max: table.get_limited("connections_max", limits::CONNECTIONS_MAX),
            connections_per_client_max: table
                .get_limited("connections_per_client_max", limits::CONNECTIONS_PER_CLIENT_MAX),
            ipv6_prefix_bits: table.get_limited("ipv6_prefix_bits", limits::IPV6_PREFIX_BITS),
            requests_in_flight_max,
            requests_in_flight_per_caller_max: table.get_limited(
                "requests_in_flight_per_caller_max",
                limits::requests_in_flight_per_caller_max(requests_in_flight_max),
            ),
            buffered_bytes_max: table.get_bytes("buffered_bytes_max", limits::BUFFERED_BYTES_MAX),
            buffered_bytes_per_client_max: table
                .get_bytes("buffered_bytes_per_client_max", limits::BUFFERED_BYTES_PER_CLIENT_MAX),
            cached_bytes_max: table.get_bytes("cached_bytes_max", limits::CACHED_BYTES_MAX),
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
            queue_retry_delay_min: table
                .get_limited("queue_retry_delay_min", limits::QUEUE_RETRY_DELAY_MIN),
            queue_retry_delay_max: table
                .get_limited("queue_retry_delay_max", limits::QUEUE_RETRY_DELAY_MAX),
            waiting_max: table.get_limited("waiting_max", limits::WAITING_MAX),
            retry_percent: table.get_limited("retry_percent", limits::RETRY_PERCENT),
            retries_per_second_min: table
                .get_limited("retries_per_second_min", limits::RETRIES_PER_SECOND_MIN),
            window_parts: table.get_limited("window_parts", limits::WINDOW_PARTS),
            answer_bytes_max: table.get_bytes("answer_bytes_max", limits::ANSWER_BYTES_MAX),
        }
    }
}
