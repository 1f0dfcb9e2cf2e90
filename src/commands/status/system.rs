//! Samples all servers of the NATS cluster through the system account.

use std::collections::{BTreeSet, HashMap, HashSet};
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
/// The name of the system account of a server whose configuration names none.
const DEFAULT_SYSTEM_ACCOUNT: &str = "$SYS";
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
    /// The number of servers that the server knows, including itself. A server that sends no reports, for example because it was killed,
    /// is forgotten after 150 to 240 s (nats-server 2.15).
    active_servers: usize,
    /// The open connections to the other servers of the cluster, usually several to each server.
    routes: Vec<ServerLink>,
    /// The open connections to other clusters.
    gateways: Vec<ServerLink>,
}

/// An open connection from a server to another one, or to another cluster.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ServerLink {
    /// The name of the server or cluster. Servers of the same cluster have different names.
    name: String,
}

/// The relevant part of `/leafz`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Leafz {
    /// The open connections to leaf nodes, or from a leaf node. `None` if there are none.
    leafs: Option<Vec<LeafLink>>,
}

/// An open connection to or from a leaf node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LeafLink {
    /// The name of the server at the other end.
    name: String,
    /// The account that the connection belongs to, as the server that lists the connection names it.
    account: String,
}

/// The relevant part of `/varz`.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct ServerAccounts {
    /// The name of the system account.
    system_account: String,
}

impl Default for ServerAccounts {
    fn default() -> Self {
        Self { system_account: DEFAULT_SYSTEM_ACCOUNT.to_owned() }
    }
}

#[derive(Debug, Deserialize)]
struct ServerInfo {
    id: String,
    name: String,
    /// The name of the cluster. Absent if the server does not belong to one.
    #[serde(default)]
    cluster: String,
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
    if connections.is_empty() {
        return Err(NO_REPLY.to_owned());
    }
    let is_complete = unreplied(&servers, &connections) == 0;
    let leaf_nodes = if is_complete { BTreeSet::new() } else { leaf_nodes(transport).await? };
    Ok(merged(servers, connections, &leaf_nodes))
}

/// Returns the names of the servers at the other ends of the leaf node connections that belong to the system account.
async fn leaf_nodes(transport: &dyn Transport) -> Result<BTreeSet<String>, String> {
    let links = request::<Leafz>(transport, "LEAFZ", "", 0);
    let accounts = request::<ServerAccounts>(transport, "VARZ", "", 0);
    let (links, accounts) = tokio::join!(links, accounts);
    Ok(in_system_account(links?, accounts?))
}

/// Removes the connections that belong to other accounts, and returns the names of the servers at the other ends. A server that is
/// connected only through other accounts receives no requests to the system account, so that it cannot reply.
fn in_system_account(
    links: Vec<SystemReply<Leafz>>,
    accounts: Vec<SystemReply<ServerAccounts>>,
) -> BTreeSet<String> {
    let accounts = accounts.into_iter().map(|reply| (reply.server.id, reply.data.system_account));
    let accounts: HashMap<String, String> = accounts.collect();
    let links = links.into_iter().flat_map(|SystemReply { server, data }| {
        let account = accounts.get(&server.id).cloned();
        let links = data.leafs.into_iter().flatten();
        links.filter(move |link| account.as_ref() == Some(&link.account))
    });
    links.map(|link| link.name).collect()
}

/// Returns how many of the servers that are known to the others have not replied.
fn unreplied(servers: &[SystemReply<Statsz>], connections: &[SystemReply<Connz>]) -> usize {
    let ids = servers.iter().map(|reply| &reply.server.id);
    let replied: HashSet<_> = ids.chain(connections.iter().map(|reply| &reply.server.id)).collect();
    let active = servers.iter().map(|reply| reply.data.active_servers).max().unwrap_or_default();
    active.saturating_sub(replied.len())
}

/// Returns the connections of the servers that have listed them. All other servers are gaps, unless no other server has a connection
/// to them: a server that was killed is known to the others for minutes, but their connections to it are closed at once. The
/// connections to a server that hangs stay open for about a minute.
fn merged(
    servers: Vec<SystemReply<Statsz>>,
    connections: Vec<SystemReply<Connz>>,
    leaf_nodes: &BTreeSet<String>,
) -> MonitoredConnections {
    let gaps = unreachable(&servers, &connections, leaf_nodes);
    let mut all = MonitoredConnections { gaps, ..MonitoredConnections::default() };
    let mut replied = HashSet::new();
    for SystemReply { server, data } in connections {
        all.add(&server.name, Ok(data));
        replied.insert(server.id);
    }
    for SystemReply { server, .. } in servers {
        if replied.insert(server.id) {
            all.add(&server.name, Err("does not list its connections".to_owned()));
        }
    }
    all
}

/// Returns the servers and clusters that others are connected to but that have not replied.
fn unreachable(
    servers: &[SystemReply<Statsz>],
    connections: &[SystemReply<Connz>],
    leaf_nodes: &BTreeSet<String>,
) -> Vec<String> {
    let replied = || {
        let servers = servers.iter().map(|reply| &reply.server);
        servers.chain(connections.iter().map(|reply| &reply.server))
    };
    let routes = servers.iter().flat_map(|reply| &reply.data.routes);
    let routes = routes.map(|link| &*link.name);
    let names: BTreeSet<&str> = routes.chain(leaf_nodes.iter().map(|name| &**name)).collect();
    let silent = names.into_iter().filter(|name| replied().all(|server| server.name != *name));
    let silent = silent
        .map(|name| format!("{name}: has not replied, although other servers are connected to it"));
    let gateways = servers.iter().flat_map(|reply| &reply.data.gateways);
    let clusters: BTreeSet<&str> = gateways.map(|link| &*link.name).collect();
    let clusters =
        clusters.into_iter().filter(|name| replied().all(|server| server.cluster != *name));
    let clusters = clusters.map(|name| format!("no server of the cluster {name} has replied"));
    silent.chain(clusters).collect()
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

    const A: &str = r#"{"server":{"id":"1","name":"a"},"statsz":{"active_servers":3}}"#;
    const B: &str = r#"{"server":{"id":"2","name":"b"},"statsz":{"active_servers":2}}"#;
    const OF_A: &str =
        r#"{"server":{"id":"1","name":"a"},"data":{"connections":[{"name":"x"}],"total":1}}"#;
    const OF_B: &str = r#"{"server":{"id":"2","name":"b"},"data":{"connections":[],"total":0}}"#;

    #[test]
    fn a_server_that_does_not_list_its_connections_is_a_gap() {
        for (servers, connections, gaps) in [
            (&[A, B][..], &[OF_A][..], &["b: does not list its connections"][..]),
            (&[B], &[OF_A, OF_B], &[]),
            (&[B], &[OF_A], &["b: does not list its connections"]),
            // A server without statistics.
            (&[], &[OF_A], &[]),
        ] {
            let all = merged(parse(servers), parse(connections), &BTreeSet::new());
            assert_eq!(all.gaps, gaps, "{servers:?} {connections:?}");
        }
    }

    #[test]
    fn a_server_that_has_not_replied_is_a_gap_if_another_is_connected_to_it() {
        let server = |active: u32, links: &str| {
            format!(
                r#"{{"server":{{"id":"1","name":"a","cluster":"one"}},"statsz":{{"active_servers":{active},{links}}}}}"#
            )
        };
        let hangs = "c: has not replied, although other servers are connected to it";
        for (active, links, leaf_nodes, gaps) in [
            // It was killed.
            (3, r#""routes":[{"rid":1,"name":"b"},{"rid":2,"name":"b"}]"#, "b", &[][..]),
            (3, r#""routes":[{"rid":1,"name":"c"},{"rid":2,"name":"c"}]"#, "b", &[hangs]),
            // Another server has replied that this one does not count yet.
            (2, r#""routes":[{"rid":1,"name":"b"},{"rid":2,"name":"c"}]"#, "b", &[hangs]),
            (3, r#""routes":[]"#, "c", &[hangs]),
            (3, r#""gateways":[{"gwid":1,"name":"one"}]"#, "a", &[]),
            (
                3,
                r#""gateways":[{"gwid":1,"name":"two"}]"#,
                "a",
                &["no server of the cluster two has replied"],
            ),
        ] {
            let servers = parse(&[&server(active, links), B]);
            let leaf_nodes = BTreeSet::from([leaf_nodes.to_owned()]);
            let all = merged(servers, parse(&[OF_A, OF_B]), &leaf_nodes);
            assert_eq!(all.gaps, gaps, "{active} {links} {leaf_nodes:?}");
        }
    }

    #[test]
    fn only_leaf_nodes_in_the_system_account_are_expected_to_reply() {
        const LINKS: &str = r#"{"server":{"id":"1","name":"a"},"data":{"leafs":[
            {"name":"edge","account":"APP"},{"name":"edge-2","account":"SYSTEM"},
            {"name":"edge-3","account":"$SYS"}]}}"#;
        const NO_LINKS: &str = r#"{"server":{"id":"2","name":"b"},"data":{"leafs":null}}"#;
        for (accounts, expected) in [
            (r#"{"server":{"id":"1","name":"a"},"data":{"system_account":"SYSTEM"}}"#, "edge-2"),
            (r#"{"server":{"id":"1","name":"a"},"data":{}}"#, "edge-3"),
        ] {
            let names = in_system_account(parse(&[LINKS, NO_LINKS]), parse(&[accounts]));
            assert_eq!(names, BTreeSet::from([expected.to_owned()]), "{accounts}");
        }
    }
}
