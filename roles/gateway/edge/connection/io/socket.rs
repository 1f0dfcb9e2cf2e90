//! Access to the TCP socket of a connection.

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A byte stream over a TCP socket.
pub(in crate::roles::gateway) trait HasTcpSocket {
    /// Returns the socket, or `None` in tests that use an in-memory stream.
    fn socket(&self) -> Option<&TcpStream>;
}

impl HasTcpSocket for TcpStream {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl HasTcpSocket for TlsStream<TcpStream> {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.get_ref().0)
    }
}

#[cfg(test)]
impl HasTcpSocket for tokio::io::DuplexStream {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}
