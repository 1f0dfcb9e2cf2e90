//! Samples NATS servers at their monitoring ports, over plain HTTP.

use std::time::Duration;

use futures_util::future::join_all;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Longest wait for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// The size at which an answer is truncated, in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// The state of a server at one moment.
#[derive(Clone, Debug)]
pub(super) struct ServerSample {
    /// When the sample was taken.
    pub(super) at: Instant,
    /// The values of `/varz`.
    pub(super) values: Varz,
    /// The connection with the most unread bytes.
    pub(super) slowest: Option<MonitoredConnection>,
}

/// The relevant part of `/varz`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Varz {
    pub(super) server_name: String,
    pub(super) version: String,
    pub(super) connections: u64,
    pub(super) slow_consumers: u64,
    pub(super) in_msgs: u64,
    pub(super) out_msgs: u64,
    pub(super) in_bytes: u64,
    pub(super) out_bytes: u64,
    pub(super) cpu: f64,
}

/// The relevant part of `/connz`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Connz {
    connections: Vec<MonitoredConnection>,
}

impl Connz {
    /// Returns the connection with the most unread bytes, if it has any. The reply must be sorted by pending bytes.
    pub(super) fn slowest(self) -> Option<MonitoredConnection> {
        self.connections.into_iter().next().filter(|connection| connection.pending_bytes > 0)
    }
}

/// The connection of a client.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MonitoredConnection {
    pub(super) name: String,
    pub(super) ip: String,
    pub(super) pending_bytes: u64,
}

/// Samples all servers. Each sample is returned with its URL. Cancel safe.
pub(super) async fn sample_all(urls: &[String]) -> Vec<(String, Result<ServerSample, String>)> {
    join_all(urls.iter().map(async |url| (url.clone(), sample(url).await))).await
}

/// Samples the server whose monitoring port is at `url`, `http://host:port`. Cancel safe.
async fn sample(url: &str) -> Result<ServerSample, String> {
    let at = Instant::now();
    let values = get(url, "/varz").await?;
    let connz: Connz = get(url, "/connz?sort=pending&limit=1").await?;
    Ok(ServerSample { at, values, slowest: connz.slowest() })
}

async fn get<T: DeserializeOwned>(url: &str, path: &str) -> Result<T, String> {
    let answer = timeout(ANSWER_LIMIT, fetch(url, path)).await;
    let answer = answer.map_err(|_| format!("{path}: no answer within {ANSWER_LIMIT:?}"))?;
    let answer = answer.map_err(|error| format!("{path}: {error}"))?;
    let body = body(&answer).ok_or_else(|| format!("{path}: the status is not 200"))?;
    serde_json::from_slice(body).map_err(|_| format!("{path}: expected the JSON of a NATS server"))
}

/// Sends a request with HTTP/1.0, so that the response is not chunked and ends when the connection is closed.
async fn fetch(url: &str, path: &str) -> std::io::Result<Vec<u8>> {
    let host = url.strip_prefix("http://").unwrap_or(url);
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn body(answer: &[u8]) -> Option<&[u8]> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = (answer.get(..end)?, answer.get(end + 4..)?);
    let line = str::from_utf8(head).ok()?.lines().next()?;
    (line.split(' ').nth(1) == Some("200")).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_response_with_status_200_has_a_body() {
        assert_eq!(body(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n{}"), Some(&b"{}"[..]));
        for bad in ["HTTP/1.0 404 Not Found\r\n\r\n{}", "HTTP/1.0 200 OK\r\n", "", "\r\n\r\n"] {
            assert_eq!(body(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
