//! Fetches documents over plain HTTP, from the monitoring ports of NATS servers and from admin listeners.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The size in bytes at which a response is truncated.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// The response to a GET request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlainAnswer {
    /// The HTTP status.
    pub(super) status: u16,
    /// The body.
    pub(super) body: Vec<u8>,
}

/// Sends a GET request to `host:port` with HTTP/1.0, so that the response is not chunked and ends when the connection
/// is closed. This function has no timeout. The caller must set one. Cancel safe.
///
/// # Errors
/// Returns the I/O error, or `InvalidData` if the response is not HTTP.
pub(super) async fn get(host: &str, path: &str) -> io::Result<PlainAnswer> {
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "expected HTTP"))
}

fn parse(answer: &[u8]) -> Option<PlainAnswer> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = (answer.get(..end)?, answer.get(end + 4..)?);
    let line = str::from_utf8(head).ok()?.lines().next()?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    Some(PlainAnswer { status, body: body.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let parsed = |text: &str| parse(text.as_bytes()).map(|answer| (answer.status, answer.body));
        assert_eq!(parsed("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{}"), Some((200, b"{}".to_vec())));
        assert_eq!(parsed("HTTP/1.0 404 Not Found\r\n\r\n"), Some((404, Vec::new())));
        for bad in ["HTTP/1.0 200 OK\r\n", "HTTP/1.0 OK\r\n\r\n", "", "\r\n\r\n"] {
            assert_eq!(parsed(bad), None, "{bad:?}");
        }
    }
}
