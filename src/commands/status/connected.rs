//! Finds, by the names of their connections, the processes of a fleet that are connected to NATS. Unlike a query of the
//! fleet, this also finds processes that hang.

use std::time::Duration;

use tokio::time::Instant;

use super::{monitoring, system};
use crate::cli::Role;
use crate::commands::nats_connection::NatsConnection;
use crate::fleet::view::{MonitoredConnection, MonitoredConnections};
use crate::message::Subject;

/// A process that is connected to NATS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::commands) struct ConnectedProcess {
    pub(in crate::commands) role: Role,
    pub(in crate::commands) id: String,
    /// The address from which the process is connected.
    pub(in crate::commands) address: String,
    /// Whether the process may have connected after the fleet was queried, so that it has not received the query.
    pub(in crate::commands) is_new: bool,
}

/// Returns the connected processes of the fleet, which was queried at `queried`. The list is empty if the configuration names
/// neither monitoring ports of NATS servers nor a user of the system account. The second list contains the name of each server
/// whose connections are not all known, and the reason.
pub(in crate::commands) async fn processes(
    connection: &NatsConnection,
    queried: Instant,
) -> (Vec<ConnectedProcess>, Vec<String>) {
    let MonitoredConnections { connections, gaps } = connections(connection).await;
    let since = queried.elapsed();
    let parse = |one| parse(one, &connection.prefix, since);
    (connections.iter().filter_map(parse).collect(), gaps)
}

/// Returns the connections to the NATS servers, if the configuration specifies how to query the servers.
pub(in crate::commands) async fn connections(connection: &NatsConnection) -> MonitoredConnections {
    match &connection.system {
        Some(system) => system::connections(&**system).await,
        None => monitoring::connections(&connection.monitoring).await,
    }
}

/// Parses the name of a connection, `fjord <role> <prefix> <id>`. `since` is the time since the fleet was queried.
fn parse(
    connection: &MonitoredConnection,
    prefix: &Subject,
    since: Duration,
) -> Option<ConnectedProcess> {
    let mut words = connection.name.strip_prefix("fjord ")?.split(' ');
    let (role, of, id) = (words.next()?, words.next()?, words.next()?);
    let role = Role::ALL.into_iter().find(|known| known.as_str() == role)?;
    let is_of_fleet = of == prefix.as_str() && words.next().is_none();
    is_of_fleet.then(|| ConnectedProcess {
        role,
        id: id.to_owned(),
        address: connection.ip.clone(),
        is_new: is_younger(&connection.uptime, since),
    })
}

/// Returns whether a connection with this uptime, such as `4s` or `3m12s`, may be younger than `age`, which is less than a minute. The
/// server rounds the uptime down to whole seconds.
fn is_younger(uptime: &str, age: Duration) -> bool {
    let seconds = uptime.strip_suffix('s').and_then(|number| number.parse().ok());
    seconds.is_some_and(|seconds| Duration::from_secs(seconds) <= age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_new_if_it_may_have_been_opened_after_the_query() {
        let is_new = |uptime: &str| {
            let (name, uptime) = ("fjord worker fjord 5f".to_owned(), uptime.to_owned());
            let connection = MonitoredConnection { name, uptime, ..MonitoredConnection::default() };
            let since = Duration::from_millis(8_700);
            parse(&connection, &Subject::new("fjord").unwrap(), since).unwrap().is_new
        };
        assert!(["0s", "5s", "8s"].into_iter().all(is_new));
        assert!(!["9s", "59s", "1m0s", "1h0m2s", ""].into_iter().any(is_new));
    }

    #[test]
    fn only_processes_of_the_same_fleet_are_found() {
        let prefix = Subject::new("fjord").unwrap();
        let parse = |name: &str| {
            let (name, ip) = (name.to_owned(), "10.0.0.1".to_owned());
            let connection = MonitoredConnection { name, ip, ..MonitoredConnection::default() };
            parse(&connection, &prefix, Duration::ZERO)
        };
        let worker = parse("fjord worker fjord 5f").unwrap();
        assert_eq!((worker.role, &*worker.id, &*worker.address), (Role::Worker, "5f", "10.0.0.1"));
        let others = ["fjord worker other 5f", "fjord status", "fjord worker fjord", "", "x y z w"];
        for other in others {
            assert_eq!(parse(other), None, "{other}");
        }
        assert_eq!(parse("fjord worker fjord 5f more"), None);
    }
}
