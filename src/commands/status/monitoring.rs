//! Samples NATS servers at their monitoring ports, over plain HTTP.

use std::time::Duration;

use futures_util::future::join_all;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use crate::commands::plain_http;

/// The longest wait for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

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
    pub(super) connections: Vec<MonitoredConnection>,
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
pub(in crate::commands) struct MonitoredConnection {
    pub(in crate::commands) name: String,
    pub(in crate::commands) ip: String,
    pub(in crate::commands) pending_bytes: u64,
}

/// Returns the connections of all servers, up to 1,000 from each. Cancel safe.
pub(in crate::commands) async fn connections(
    urls: &[String],
) -> Result<Vec<MonitoredConnection>, String> {
    let queries = urls.iter().map(async |url| get::<Connz>(url, "/connz?limit=1000").await);
    let mut connections = Vec::new();
    for answer in join_all(queries).await {
        connections.extend(answer?.connections);
    }
    Ok(connections)
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
    let host = url.strip_prefix("http://").unwrap_or(url);
    let answer = timeout(ANSWER_LIMIT, plain_http::get(host, path)).await;
    let answer = answer.map_err(|_| format!("{path}: no answer within {ANSWER_LIMIT:?}"))?;
    let answer = answer.map_err(|error| format!("{path}: {error}"))?;
    if answer.status != 200 {
        return Err(format!("{path}: the status is {}, expected 200", answer.status));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|_| format!("{path}: expected the JSON of a NATS server"))
}
