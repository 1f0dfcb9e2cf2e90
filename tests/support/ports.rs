//! Free ports for servers that have to come back on the same one.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

use rand::RngExt;

/// Below the range that the kernel takes for outgoing connections (32768 and up on Linux). A server that is
/// down for a moment would lose a port of that range to any client, and a client that tries such a port
/// again and again can even connect to itself.
const RANGE: std::ops::Range<u16> = 10_240..32_768;

static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port of 127.0.0.1 that nobody listens on and that this run has not given to another.
///
/// Another program may take it before the server does: who starts the server then picks again.
pub(crate) fn pick() -> u16 {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = taken.get_or_insert_default();
    for _ in 0..1000 {
        let port = rand::rng().random_range(RANGE);
        if is_free(port) && taken.insert(port) {
            return port;
        }
    }
    panic!("no free port of 127.0.0.1 between {} and {}", RANGE.start, RANGE.end);
}

/// Whether nobody listens there.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
