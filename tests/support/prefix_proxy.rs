//! An HTTP proxy that removes the first segment of the path, like a reverse proxy in front of several services.

use std::net::SocketAddr;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::certs::Certs;
use super::raw_client::RawClient;

/// The maximum length of a request's headers.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A proxy, which clients reach over plain HTTP.
#[derive(Debug)]
pub(crate) struct PrefixProxy {
    listener: TcpListener,
}

impl PrefixProxy {
    /// Listens on a free port.
    pub(crate) async fn bind() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("a free port") }
    }

    /// Returns the address of the proxy.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("a listener has an address")
    }

    /// Forwards `/prefix/path` as `/path` to a gateway. Never returns.
    pub(crate) async fn serve(&self, gateway: SocketAddr, certs: &Certs, prefix: &str) {
        self.forward_to(gateway, Some(certs), prefix).await;
    }

    /// Forwards `/prefix/path` as `/path` to a server without TLS. Never returns.
    pub(crate) async fn serve_plain(&self, server: SocketAddr, prefix: &str) {
        self.forward_to(server, None, prefix).await;
    }

    async fn forward_to(&self, server: SocketAddr, certs: Option<&Certs>, prefix: &str) {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let (client, _) = accepted.expect("a connection");
                    connections.push(forward(client, server, certs, prefix));
                }
                Some(()) = connections.next() => {}
            }
        }
    }
}

/// Forwards one request. The connection ends with its response.
async fn forward(mut client: TcpStream, server: SocketAddr, certs: Option<&Certs>, prefix: &str) {
    let mut received = Vec::new();
    let end = loop {
        if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end;
        }
        match client.read_buf(&mut received).await {
            Ok(1..) if received.len() < HEAD_BYTES_MAX => {}
            _ => return,
        }
    };
    let body = received.split_off(end + 4);
    let head = String::from_utf8(received).expect("browsers send ASCII");
    let (line, headers) = head.split_once("\r\n").expect("a request line");
    let Some((method, target)) = line.split_once(&format!(" /{prefix}/")) else {
        let refused = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        drop(client.write_all(refused).await);
        return;
    };
    let headers = headers.replace("Connection: keep-alive\r\n", "Connection: close\r\n");
    let head = format!("{method} /{target}\r\n{headers}");
    let request = [head.as_bytes(), &body].concat();
    if let Some(certs) = certs {
        let stream = RawClient::connect(server, certs, &["http/1.1"]).await.into_stream();
        exchange(client, stream, &request).await;
    } else {
        let stream = TcpStream::connect(server).await.expect("the server listens");
        exchange(client, stream, &request).await;
    }
}

async fn exchange(
    mut client: TcpStream,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
) {
    if server.write_all(request).await.is_ok() {
        drop(copy_bidirectional(&mut client, &mut server).await);
    }
}
