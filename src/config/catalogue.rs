//! `[catalogue]`: where the endpoints are and what they inherit.

use std::path::PathBuf;
use std::time::Duration;

use crate::catalogue::endpoint::Auth;

/// The catalogue's place and what endpoints inherit.
#[derive(Clone, Debug)]
pub struct CatalogueConfig {
    /// The directory of `*.json` files; relative to the configuration directory.
    pub directory: PathBuf,
    /// The `auth` of an endpoint that has none. `None`: such an endpoint is an error.
    pub auth_default: Option<Auth>,
    /// The `timeout` of an endpoint that has none.
    pub timeout_default: Duration,
    /// The `attempts` of an endpoint that has none.
    pub attempts_default: u32,
    /// The `max_body` of an endpoint that has none, in bytes.
    pub body_bytes_max_default: usize,
}
