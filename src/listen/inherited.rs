//! Listeners that the service manager passes to this process (`LISTEN_FDS`, see `sd_listen_fds(3)`).
//!
//! systemd keeps the listener of a gateway while the gateway restarts, so that the kernel queues new connections instead of
//! refusing them.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

use listenfd::ListenFd;
use socket2::SockRef;

/// The listeners that no part of the process has taken yet.
static INHERITED: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());

/// Takes the listeners from the environment, which it changes. Call it before any thread starts.
pub fn receive() {
    let mut passed = ListenFd::from_env();
    let mut inherited = INHERITED.lock().unwrap_or_else(PoisonError::into_inner);
    for index in 0..passed.len() {
        // Anything but a TCP socket is an error, and is closed when `passed` is dropped or the process ends.
        if let Ok(Some(listener)) = passed.take_tcp_listener(index)
            && SockRef::from(&listener).is_listener().unwrap_or(false)
        {
            inherited.push(listener);
        }
    }
}

/// Returns the inherited listener of an address. Closes the others for every process, so that systemd forgets them and
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
