//! Samples all servers of the NATS cluster through the system account.

use std::collections::HashMap;
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
    data: T,
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
    let mut connections = MonitoredConnections::default();
    match try_connections(transport).await {
        Ok(replies) => {
            for SystemReply { server, data } in replies {
                connections.add(&server.name, Ok(data));
            }
        }
        Err(failure) => connections.add(EVERY, Err(failure)),
    }
    connections
}

async fn try_connections(transport: &dyn Transport) -> Result<Vec<SystemReply<Connz>>, String> {
    wait_until_up(transport).await?;
    let replies = request::<Connz>(transport, "CONNZ", r#"{"limit":1000}"#, 0).await?;
    if replies.is_empty() { Err(NO_REPLY.to_owned()) } else { Ok(replies) }
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
