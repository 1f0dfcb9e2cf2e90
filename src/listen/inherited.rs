//! Listeners that the service manager passes to this process (`LISTEN_FDS`, see `sd_listen_fds(3)`).
//!
//! systemd keeps a gateway's listener open while the gateway restarts. The kernel then queues new connections instead
//! of refusing them.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

use listenfd::ListenFd;
use socket2::SockRef;

/// The listeners that have not been taken yet.
static INHERITED: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());

/// Takes the listeners from the environment and modifies the environment. Call this before any thread starts.
pub fn receive() {
    let mut passed = ListenFd::from_env();
    let mut inherited = INHERITED.lock().unwrap_or_else(PoisonError::into_inner);
    for index in 0..passed.len() {
        // Anything other than a TCP socket is an error. It is closed when `passed` is dropped or the process ends.
        if let Ok(Some(listener)) = passed.take_tcp_listener(index)
            && SockRef::from(&listener).is_listener().unwrap_or(false)
        {
            inherited.push(listener);
        }
    }
}

/// Returns the inherited listener for an address. Closes the others for all processes. systemd then forgets them, and
/// clients of an address that is no longer configured are refused.
pub(super) fn take(address: SocketAddr) -> Option<TcpListener> {
    let mut inherited = INHERITED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = None;
    for listener in inherited.drain(..) {
        if listener.local_addr().is_ok_and(|own| own == address) && found.is_none() {
            found = Some(listener);
        } else if let Err(error) = SockRef::from(&listener).shutdown(std::net::Shutdown::Both) {
            tracing::warn!(%error, "cannot close a listener of an earlier configuration");
        }
    }
    found
}
