//! `[gateway]`: the public side.

use std::net::SocketAddr;
use std::time::Duration;

use super::tls::ServerTlsConfig;

/// The public side.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Where HTTPS is served.
    pub listen: SocketAddr,
    /// TLS; `None` only with `insecure_plain_text = true`.
    pub tls: Option<ServerTlsConfig>,
    /// Names that requests may be for; empty: every name.
    pub hosts: Vec<String>,
    /// What one connection may do.
    pub http: HttpLimits,
    /// How a request is placed and waited for.
    pub session: SessionConfig,
    /// Whether `/openapi.json` and `/docs` are served.
    pub documentation: bool,
}

/// `[gateway.http]`: what clients may do.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once from one address.
    pub connections_per_client_max: usize,
    /// Requests at once.
    pub requests_in_flight_max: usize,
    /// All header bytes of a request.
    pub header_bytes_max: usize,
    /// Headers of a request.
    pub headers_max: usize,
    /// Bytes of a request's URI.
    pub uri_bytes_max: usize,
    /// Longest wait for a request's headers; also how long an idle connection is kept.
    pub header_timeout: Duration,
    /// Longest wait between two pieces of a body.
    pub body_idle_timeout: Duration,
    /// Longest wait for a whole body.
    pub body_timeout: Duration,
    /// Streams at once on an HTTP/2 connection.
    pub streams_max: u32,
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
    /// Largest answer in bytes that is put together from parts.
    pub answer_bytes_max: usize,
}
