//! The values that an endpoint inherits from the configuration unless it sets them itself.

use std::time::Duration;

use super::auth::Auth;
use super::cors::CorsSettings;

/// Default values for endpoints, and the limit that the gateway's memory imposes on their bodies.
#[derive(Clone, Debug)]
pub struct EndpointDefaults {
    /// The default for `auth`. If `None`, an endpoint without `auth` is an error.
    pub auth: Option<Auth>,
    /// The default for `timeout`.
    pub timeout: Duration,
    /// The default for `attempts`.
    pub attempts: u32,
    /// The default for `max_body`, in bytes.
    pub body_bytes_max: usize,
    /// The largest `max_body` in bytes that an endpoint may set. It is half of the number of bytes that a gateway
    /// buffers for one client (`gateway.http.buffered_bytes_per_client_max`). A larger body could never be received.
    pub body_bytes_ceiling: usize,
    /// The default for `cors`. If it lists no origins, no other origin may call the endpoints.
    pub cors: CorsSettings,
}
