//! Resolves the name of a server.

use std::io;
use std::net::SocketAddr;

/// The maximum number of addresses of a host name. fjord tries all of them at the same time.
const ADDRESSES_MAX: usize = 8;

/// Returns the addresses of a host. There is at least one.
pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((host, port)).await?.take(ADDRESSES_MAX).collect();
    if addresses.is_empty() { Err(io::ErrorKind::AddrNotAvailable.into()) } else { Ok(addresses) }
}
