//! Free ports for servers that must be restarted on the same port.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

use rand::RngExt;

/// The ports to choose from, all below the ephemeral range (32768 and up on Linux). While a server
/// is down, the kernel can assign a port from that range to an outgoing connection. A client that
/// keeps connecting to it could then connect to itself.
const RANGE: std::ops::Range<u16> = 10_240..32_768;

static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// Returns a port on 127.0.0.1 that is free and was not returned before in this test run.
///
/// Another program can bind the port first. The caller must then pick another one.
pub(crate) fn pick() -> u16 {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = taken.get_or_insert_default();
    for _ in 0..1000 {
        let port = rand::rng().random_range(RANGE);
        if is_free(port) && taken.insert(port) {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1 between {} and {}", RANGE.start, RANGE.end);
}

/// Returns whether no process listens on the port.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
