//! Discovers the processes of a fleet, and the reasons why there may be others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use super::{ControlledFleet, Member, sender};
use crate::cli::Role;
use crate::commands::nats_connection::NatsConnection;
use crate::commands::status::connected::{self, ConnectedProcess};
use crate::config::Sources;
use crate::fleet;
use crate::fleet::query::{self, QueryLimits};

/// The maximum time to wait for the reports that identify the members.
const GATHER_LIMIT: Duration = Duration::from_secs(3);
/// The maximum number of additional queries for processes that have just connected. A process replies as soon as it has subscribed, right after
/// it has connected.
const STARTING_QUERIES_MAX: usize = 4;
/// The maximum time to wait for the replies to each of these queries. In total, they take at most 4 s. Only these processes reply.
const STARTING_LIMIT: Duration = Duration::from_secs(1);

impl<'a> ControlledFleet<'a> {
    /// Asks all processes to identify themselves.
    ///
    /// # Errors
    /// Returns a message if no process replies.
    pub(in crate::commands) async fn discover(
        connection: &'a NatsConnection,
        sources: &Sources,
        timeout: Duration,
    ) -> Result<Self, String> {
        let transport = &*connection.transport;
        let limits = QueryLimits::of_command(0, GATHER_LIMIT);
        let queried = Instant::now();
        let replies = query::query(transport, &connection.prefix, limits).await;
        let replies = replies.map_err(|error| format!("cannot query the fleet: {error}"))?;
        let reports = query::parse(&replies.messages);
        if reports.is_empty() {
            return Err(connection.no_reply());
        }
        let mut gaps = Vec::new();
        if replies.is_cut_off {
            gaps.push(format!(
                "the fleet is too large for one query: only {} processes are known, and the others may not have executed the \
                 command",
                reports.len()
            ));
        }
        let mut members: BTreeMap<String, Member> = reports.into_iter().map(member).collect();
        let (connected, unlisted) = connected::processes(connection, queried).await;
        add_starting(connection, &connected, &mut members).await?;
        if !unlisted.is_empty() {
            gaps.push(format!(
                "not all processes that hang are known, because not all NATS servers list their connections: {}",
                unlisted.join("; ")
            ));
        }
        for ConnectedProcess { role, id, address, .. } in connected {
            // The host name of a process that has not replied is not known.
            let (role, host) = (role.as_str().to_owned(), address);
            let hangs = Member { role, id: id.clone(), host, hangs: true, ..Member::default() };
            members.entry(id).or_insert(hangs);
        }
        let (by, unconcerned) = (sender(sources), BTreeSet::new());
        Ok(Self { connection, by, timeout, members, unconcerned, gaps })
    }

    /// Records that processes may be missing if a command applies to both roles and no process of one role is known. A
    /// part of the fleet may be disconnected from this NATS server.
    pub(in crate::commands) fn require_both_roles(&mut self) {
        for role in Role::ALL {
            if !self.members.values().any(|member| member.role == role.as_str()) {
                self.gaps.push(format!(
                    "no {role} has replied: none is running or reachable. If the fleet has no {role}, use --on {other}",
                    role = role.as_str(),
                    other = role.other().as_str(),
                ));
            }
        }
    }

    /// Appends to an error the reasons why there may be other processes.
    pub(super) fn with_gaps(&self, mut error: String) -> String {
        for gap in &self.gaps {
            write!(error, "; {gap}").ok();
        }
        error
    }
}

/// Adds the processes that had not subscribed when the fleet was queried, because they were starting. They would otherwise be
/// taken for processes that hang. `fjord status`, which is repeated, omits them instead.
///
/// # Errors
/// A message if a query cannot be sent.
async fn add_starting(
    connection: &NatsConnection,
    connected: &[ConnectedProcess],
    members: &mut BTreeMap<String, Member>,
) -> Result<(), String> {
    for _ in 0..STARTING_QUERIES_MAX {
        let is_silent = |one: &&ConnectedProcess| one.is_new && !members.contains_key(&one.id);
        let silent: Vec<String> =
            connected.iter().filter(is_silent).map(|one| one.id.clone()).collect();
        if silent.is_empty() {
            break;
        }
        let NatsConnection { transport, prefix, .. } = connection;
        let replies = query::query_some(&**transport, prefix, silent, STARTING_LIMIT).await;
        let replies = replies.map_err(|error| format!("cannot query the fleet: {error}"))?;
        members.extend(query::parse(&replies.messages).into_iter().map(member));
    }
    Ok(())
}

fn member(report: fleet::Report) -> (String, Member) {
    let fleet::Report { role, id, host, version, queues, is_truncated, .. } = report;
    let names = || queues.into_iter().map(|queue| queue.name).collect();
    let queues = (!is_truncated).then(names);
    (id.clone(), Member { role, id, host, version, queues, ..Member::default() })
}
