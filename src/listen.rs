//! TCP listening that survives what the system throws at it: a busy port is said clearly, a lack of file
//! descriptors is waited out.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that the system may hold until they are accepted.
const BACKLOG: u32 = 1024;
/// First pause after an accept failed for a lack of something; doubled up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", why(source))]
pub struct ListenError {
    /// The address as configured.
    pub address: SocketAddr,
    /// The system's error.
    #[source]
    pub source: io::Error,
}

fn why(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse => "another process has this port",
        ErrorKind::AddrNotAvailable => "this host does not have the address",
        ErrorKind::PermissionDenied => "a port below 1024 needs CAP_NET_BIND_SERVICE",
        _ => "the system refuses",
    }
}

/// A bound address whose connections are taken one by one.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    address: SocketAddr,
    pause: Duration,
}

impl Acceptor {
    /// Binds. Port 0 takes a free one, which `address` tells.
    ///
    /// # Errors
    /// `ListenError` says the address and why.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let error = |source| ListenError { address, source };
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(error)?;
        // A restart must not wait for old connections to leave TIME_WAIT.
        socket.set_reuseaddr(true).map_err(error)?;
        socket.bind(address).map_err(error)?;
        let listener = socket.listen(BACKLOG).map_err(error)?;
        let address = listener.local_addr().map_err(error)?;
        Ok(Self { listener, address, pause: PAUSE_MIN })
    }

    /// The address that was bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection. Does not fail: it pauses while the system lacks file descriptors or memory.
    ///
    /// Safe to drop: no connection is lost.
    pub async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.recovered();
                    // Answers are written whole: waiting for more would only delay them.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "cannot set TCP_NODELAY");
                    }
                    return (stream, peer);
                }
                Err(error) if is_of_the_connection(&error) => {
                    tracing::debug!(%error, "a connection ended before it was accepted");
                }
                Err(error) => self.wait_out(&error).await,
            }
        }
    }

    async fn wait_out(&mut self, error: &io::Error) {
        if self.pause == PAUSE_MIN {
            tracing::error!(address = %self.address, %error, "cannot accept connections; waiting");
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        // The error stays until descriptors are freed: without a pause this loop would take a whole core.
        tokio::time::sleep(pause).await;
    }

    fn recovered(&mut self) {
        if self.pause != PAUSE_MIN {
            self.pause = PAUSE_MIN;
            tracing::info!(address = %self.address, "accepts connections again");
        }
    }
}

/// accept(2) hands over errors of the connection itself; the next one may be good.
fn is_of_the_connection(error: &io::Error) -> bool {
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
    async fn a_busy_port_is_said_clearly() {
        let first = Acceptor::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_ne!(first.address().port(), 0);
        let error = Acceptor::bind(first.address()).unwrap_err().to_string();
        let address = first.address();
        assert_eq!(error, format!("cannot listen on {address}: another process has this port"));
    }
}
