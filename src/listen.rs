//! TCP listeners with clear error messages. A failed `accept` does not close the listener.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::lifecycle::systemd;

pub mod inherited;

/// The maximum number of connections that the kernel queues before they are accepted.
const BACKLOG: u32 = 1024;
/// The first pause after a failure to accept a connection. Each further failure doubles the pause.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The maximum pause after a failure to accept a connection.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The error for an address that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", reason(source))]
pub struct ListenError {
    /// The address as configured.
    pub address: SocketAddr,
    /// The operating system's error.
    #[source]
    pub source: io::Error,
}

fn reason(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse => "another process uses this port",
        ErrorKind::AddrNotAvailable => "this host does not have the address",
        ErrorKind::PermissionDenied => "a port below 1024 needs CAP_NET_BIND_SERVICE",
        _ => "refused by the operating system",
    }
}

/// A bound listener.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    address: SocketAddr,
    pause: Duration,
}

impl Acceptor {
    /// Binds an address. Port 0 selects a free port, which `address` returns.
    ///
    /// # Errors
    /// Returns `ListenError` with the address and the reason.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let error = |source| ListenError { address, source };
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(error)?;
        // Without this, a restart would have to wait until old connections have left the TIME_WAIT state.
        socket.set_reuseaddr(true).map_err(error)?;
        socket.bind(address).map_err(error)?;
        let listener = socket.listen(BACKLOG).map_err(error)?;
        Self::new(listener).map_err(error)
    }

    fn new(listener: TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        Ok(Self { listener, address, pause: PAUSE_MIN })
    }

    /// Returns the listener for this address that the previous process handed to systemd. If there is none, binds the
    /// address and hands the listener to systemd for the next process. While no process runs, the kernel queues
    /// connections.
    ///
    /// # Errors
    /// Returns `ListenError` with the address and the reason.
    pub fn inherit_or_bind(address: SocketAddr) -> Result<Self, ListenError> {
        let Some(listener) = inherited::take(address) else {
            let acceptor = Self::bind(address)?;
            systemd::keep_listener(acceptor.listener.as_fd());
            return Ok(acceptor);
        };
        let error = |source| ListenError { address, source };
        listener.set_nonblocking(true).map_err(error)?;
        let listener = TcpListener::from_std(listener).map_err(error)?;
        Self::new(listener).map_err(error)
    }

    /// Returns the bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the next connection. Pauses while the kernel lacks file descriptors or memory.
    ///
    /// Cancel safe: no connection is lost.
    pub async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.recovered();
                    // Responses are written in large chunks. Nagle's algorithm would only delay them.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "cannot set TCP_NODELAY");
                    }
                    return (stream, peer);
                }
                Err(error) if is_connection_error(&error) => {
                    tracing::debug!(%error, "a connection ended before it was accepted");
                }
                Err(error) => self.pause_after(&error).await,
            }
        }
    }

    async fn pause_after(&mut self, error: &io::Error) {
        if self.pause == PAUSE_MIN {
            tracing::error!(address = %self.address, %error, "cannot accept connections; retrying");
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        // The error persists until file descriptors are freed. Without a pause, the loop would occupy a whole core.
        tokio::time::sleep(pause).await;
    }

    fn recovered(&mut self) {
        if self.pause != PAUSE_MIN {
            self.pause = PAUSE_MIN;
            tracing::info!(address = %self.address, "accepting connections again");
        }
    }
}

/// Returns whether this is an error of the accepted connection. accept(2) reports such errors too.
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_port_is_reported_clearly() {
        let first = Acceptor::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_ne!(first.address().port(), 0);
        let error = Acceptor::bind(first.address()).unwrap_err().to_string();
        let address = first.address();
        assert_eq!(error, format!("cannot listen on {address}: another process uses this port"));
    }
}
