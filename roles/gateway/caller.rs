//! Who is at the other end: the connection's peer, and the caller once it proved itself.

use std::net::IpAddr;
use std::sync::Arc;

/// What a connection knows of its peer.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address: the connection's own, or what a trusted proxy said.
    pub address: IpAddr,
    /// The names (SAN: URI, DNS, e-mail) in the client's certificate, when it showed one that was believed.
    pub certificate_names: Arc<[String]>,
}

/// A caller that proved who it is, or that did not need to.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Its name; `None` on a public endpoint without credentials.
    pub principal: Option<Arc<str>>,
    /// What it may do.
    pub scopes: Vec<String>,
    /// What its token says, for parameters with `in: claim`.
    pub claims: serde_json::Map<String, serde_json::Value>,
}
