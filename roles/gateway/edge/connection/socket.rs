//! The TCP socket below a connection, for what only the system can do.

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A connection whose socket can be asked.
pub(in crate::roles::gateway) trait Socket {
    /// The socket; none in tests without one.
    fn socket(&self) -> Option<&TcpStream>;
}

impl Socket for TcpStream {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Socket for TlsStream<TcpStream> {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.get_ref().0)
    }
}

#[cfg(test)]
impl Socket for tokio::io::DuplexStream {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}
