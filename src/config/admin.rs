//! `[admin]`: the listener for `/metrics`, `/healthz`, `/readyz` and `/status`.

use std::net::SocketAddr;

/// The admin listener.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Where it listens: 127.0.0.1:9464 for a gateway, 127.0.0.1:9465 for a worker, so that both fit on one host.
    pub listen: SocketAddr,
}
