//! Samples NATS servers through their monitoring ports, over plain HTTP.

use std::time::Duration;

use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use crate::commands::plain_http;
use crate::fleet::view::{Connz, MonitoredConnections, ServerSample};

/// The maximum time to wait for a response.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Returns the connections to all servers, up to 1,000 per server. Cancel safe.
pub(in crate::commands) async fn connections(urls: &[String]) -> MonitoredConnections {
    let queries = urls.iter().map(async |url| get::<Connz>(url, "/connz?limit=1000").await);
    let mut connections = MonitoredConnections::default();
    for (url, answer) in urls.iter().zip(join_all(queries).await) {
        connections.add(url, answer);
    }
    connections
}

/// Samples all servers. Each sample is paired with the server's URL. Cancel safe.
pub(super) async fn sample_all(urls: &[String]) -> Vec<(String, Result<ServerSample, String>)> {
    join_all(urls.iter().map(async |url| (url.clone(), sample(url).await))).await
}

/// Samples the server whose monitoring port is at `url`, which has the form `http://host:port`.
/// Cancel safe.
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
