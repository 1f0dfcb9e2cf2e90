//! The values that an endpoint inherits from the configuration when it does not set them itself.

use std::time::Duration;

use super::auth::Auth;
use super::cors::CorsSettings;

/// Defaults of endpoints, and the limit that the gateway's memory sets for their bodies.
#[derive(Clone, Debug)]
pub struct EndpointDefaults {
    /// `auth`. `None`: an endpoint without `auth` is an error.
    pub auth: Option<Auth>,
    /// `timeout`.
    pub timeout: Duration,
    /// `attempts`.
    pub attempts: u32,
    /// `max_body` in bytes.
    pub body_bytes_max: usize,
    /// The largest `max_body` in bytes that an endpoint may set: what a gateway buffers for one client
    /// (`gateway.http.buffered_bytes_per_client_max`). A larger body could never be received.
    pub body_bytes_ceiling: usize,
    /// `cors`. Without origins, no other origin may call.
    pub cors: CorsSettings,
}
