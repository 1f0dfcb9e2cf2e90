//! Samples all servers of the NATS cluster through the system account.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use crate::fleet::query;
use crate::fleet::view::{Connz, MonitoredConnections, ServerSample, Varz};
use crate::message::{Message, Subject};
use crate::messaging::{self, Transport};

/// The maximum time to wait for the connection, and for the replies to each request.
const LIMIT: Duration = Duration::from_secs(3);
/// The text that is shown instead of a server name if no server can be queried.
const EVERY: &str = "all servers, queried with messaging.nats.system";
/// The failure that is reported if no server replies.
const NO_REPLY: &str = "no server replied: perhaps the user does not belong to the system account";

/// The reply from a server.
#[derive(Debug, Deserialize)]
struct SystemReply<T> {
    server: ServerInfo,
    #[serde(alias = "statsz")]
    data: T,
}

/// The relevant part of a server's statistics.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Statsz {
    /// The number of servers that the server knows, including itself. A server that does not report is forgotten after a minute.
    active_servers: usize,
}

#[derive(Debug, Deserialize)]
struct ServerInfo {
    id: String,
    name: String,
}

/// Samples all servers of the cluster. Each sample is paired with the server's name. Cancel safe.
pub(super) async fn sample_all(
    transport: &dyn Transport,
    expected: usize,
) -> Vec<(String, Result<ServerSample, String>)> {
    match try_sample_all(transport, expected).await {
        Ok(servers) => servers.into_iter().map(|(name, sample)| (name, Ok(sample))).collect(),
        Err(failure) => vec![(EVERY.to_owned(), Err(failure))],
    }
}

/// Returns the connections to all servers of the cluster, up to 1,000 per server. Cancel safe.
pub(in crate::commands) async fn connections(transport: &dyn Transport) -> MonitoredConnections {
    try_connections(transport).await.unwrap_or_else(|failure| {
        let mut connections = MonitoredConnections::default();
        connections.add(EVERY, Err(failure));
        connections
    })
}

async fn try_connections(transport: &dyn Transport) -> Result<MonitoredConnections, String> {
    wait_until_up(transport).await?;
    let servers = request::<Statsz>(transport, "STATSZ", "", 0);
    let connections = request::<Connz>(transport, "CONNZ", r#"{"limit":1000}"#, 0);
    let (servers, connections) = tokio::join!(servers, connections);
    let (servers, connections) = (servers?, connections?);
    if connections.is_empty() { Err(NO_REPLY.to_owned()) } else { Ok(merged(servers, connections)) }
}

/// Returns the connections of the servers that have listed them. All other servers are gaps.
fn merged(
    servers: Vec<SystemReply<Statsz>>,
    connections: Vec<SystemReply<Connz>>,
) -> MonitoredConnections {
    let mut all = MonitoredConnections::default();
    let mut replied = HashSet::new();
    for SystemReply { server, data } in connections {
        all.add(&server.name, Ok(data));
        replied.insert(server.id);
    }
    let active = servers.iter().map(|reply| reply.data.active_servers).max().unwrap_or_default();
    for SystemReply { server, .. } in servers {
        if replied.insert(server.id) {
            all.add(&server.name, Err("does not list its connections".to_owned()));
        }
    }
    if replied.len() < active {
        all.gaps.push(format!("only {} of {active} servers have replied", replied.len()));
    }
    all
}

async fn wait_until_up(transport: &dyn Transport) -> Result<(), String> {
    let mut link = transport.link();
    match timeout(LIMIT, messaging::wait_until_up(&mut link)).await {
        Ok(Some(_)) => Ok(()),
        _ => {
            Err("no connection: wrong credentials, or not a user of the system account".to_owned())
        }
    }
}

async fn try_sample_all(
    transport: &dyn Transport,
    expected: usize,
) -> Result<Vec<(String, ServerSample)>, String> {
    wait_until_up(transport).await?;
    let at = Instant::now();
    let values = request::<Varz>(transport, "VARZ", "{}", expected);
    let connections =
        request::<Connz>(transport, "CONNZ", r#"{"sort":"pending","limit":1}"#, expected);
    let (values, connections) = (values.await?, connections.await?);
    if values.is_empty() {
        return Err(NO_REPLY.to_owned());
    }
    let mut slowest: HashMap<String, _> = connections
        .into_iter()
        .filter_map(|reply| Some((reply.server.id, reply.data.slowest()?)))
        .collect();
    let mut servers: Vec<_> = values
        .into_iter()
        .map(|SystemReply { server, data }| {
            let slowest = slowest.remove(&server.id);
            (server.name, ServerSample { at, values: data, slowest })
        })
        .collect();
    servers.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(servers)
}

/// Sends a request to all servers. Malformed replies are skipped.
async fn request<T: DeserializeOwned>(
    transport: &dyn Transport,
    command: &str,
    options: &'static str,
    expected: usize,
) -> Result<Vec<SystemReply<T>>, String> {
    let subject = Subject::new(&format!("$SYS.REQ.SERVER.PING.{command}"));
    let subject = subject.map_err(|error| error.to_string())?;
    let payload = Bytes::from_static(options.as_bytes());
    let request = Message { payload, ..Message::to(subject) };
    let limits = query::QueryLimits::of_command(expected, LIMIT);
    let replies = query::request_many(transport, request, limits).await;
    let replies = replies.map_err(|error| error.to_string())?.messages;
    Ok(replies.iter().filter_map(|reply| serde_json::from_slice(&reply.payload).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<T: DeserializeOwned>(replies: &[&str]) -> Vec<SystemReply<T>> {
        replies.iter().map(|reply| serde_json::from_str(reply).unwrap()).collect()
    }

    #[test]
    fn a_server_that_does_not_list_its_connections_is_a_gap() {
        let a = r#"{"server":{"id":"1","name":"a"},"statsz":{"active_servers":3}}"#;
        let b = r#"{"server":{"id":"2","name":"b"},"statsz":{"active_servers":2}}"#;
        let of_a =
            r#"{"server":{"id":"1","name":"a"},"data":{"connections":[{"name":"x"}],"total":1}}"#;
        let of_b = r#"{"server":{"id":"2","name":"b"},"data":{"connections":[],"total":0}}"#;
        for (servers, connections, gaps) in [
            (
                &[a, b][..],
                &[of_a][..],
                &["b: does not list its connections", "only 2 of 3 servers have replied"][..],
            ),
            (&[b], &[of_a, of_b], &[]),
            (&[b], &[of_a], &["b: does not list its connections"]),
            (&[b], &[of_b], &["only 1 of 2 servers have replied"]),
            // A server without statistics.
            (&[], &[of_a], &[]),
        ] {
            let all = merged(parse(servers), parse(connections));
            assert_eq!(all.gaps, gaps, "{servers:?} {connections:?}");
        }
    }
}
