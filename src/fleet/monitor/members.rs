//! Remembers the processes that have replied to a query or are connected to NATS, to identify those that do not reply.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use tokio::time::Instant;

use crate::fleet::Report;
use crate::fleet::view::MonitoredConnections;

use super::HISTORY_TIME;

/// The maximum number of remembered processes that did not reply to the last query.
const MISSING_MAX: usize = 1_000;

/// A connected process is added only while fewer than this many processes are known.
const MEMBERS_MAX: usize = 10_000;

/// The maximum length in bytes of an id, role, host name or version. A process with a longer one is not remembered.
const TEXT_BYTES_MAX: usize = 256;

/// The processes that have replied or were first seen within the last `HISTORY_TIME`.
#[derive(Debug, Default)]
pub(crate) struct KnownMembers {
    by_id: HashMap<String, KnownMember>,
    updated: Option<Instant>,
}

#[derive(Debug)]
struct KnownMember {
    role: String,
    host: String,
    version: String,
    is_draining: bool,
    /// The time of the process's last reply, or the time at which its connection was first seen.
    replied_at: Instant,
    has_replied: bool,
}

/// A process that did not reply to the last query.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct MissingMember<'a> {
    pub(crate) role: &'a str,
    pub(crate) id: &'a str,
    /// The host name, or the IP address of a process that has never replied.
    pub(crate) host: &'a str,
    /// The version. Empty if the process has never replied.
    pub(crate) version: &'a str,
    /// Whether the process was draining when it last replied. If so, it has probably exited.
    pub(crate) was_draining: bool,
    /// Whether the process has ever replied. Otherwise, it is known only from its NATS connection.
    pub(crate) has_replied: bool,
    /// The time in seconds since its last reply, or since it was first seen if it has never replied.
    pub(crate) silent_seconds: f64,
}

impl KnownMembers {
    /// Records the replies to a query.
    pub(crate) fn update(&mut self, now: Instant, reports: &[Report]) {
        self.updated = Some(now);
        let mut started = Vec::new();
        for report in reports {
            let texts = [&report.id, &report.role, &report.host, &report.version];
            if texts.iter().any(|text| text.len() > TEXT_BYTES_MAX) {
                continue;
            }
            let member = KnownMember {
                role: report.role.clone(),
                host: report.host.clone(),
                version: report.version.clone(),
                is_draining: report.not_ready.get("lifecycle").is_some_and(|why| why == "draining"),
                replied_at: now,
                has_replied: true,
            };
            if self.by_id.insert(report.id.clone(), member).is_none() {
                started.push(report);
            }
        }
        self.by_id
            .retain(|_, member| now.saturating_duration_since(member.replied_at) <= HISTORY_TIME);
        for report in started {
            // A restarted process has a new id.
            self.forget_one(now, |member| member.role == report.role && member.host == report.host);
        }
        while self.by_id.len().saturating_sub(reports.len()) > MISSING_MAX {
            if !self.forget_one(now, |_| true) {
                break;
            }
        }
    }

    /// Adds the processes of the fleet with the given prefix that are connected to NATS but have never replied. Removes
    /// such processes once they are no longer connected. Must be called after `update`.
    pub(crate) fn update_connected(
        &mut self,
        now: Instant,
        prefix: &str,
        MonitoredConnections { connections, gaps }: &MonitoredConnections,
    ) {
        if gaps.is_empty() {
            let processes = connections.iter().filter_map(|one| process_of(&one.name, prefix));
            let connected: HashSet<&str> = processes.map(|(_, id)| id).collect();
            self.by_id.retain(|id, member| member.has_replied || connected.contains(id.as_str()));
        }
        for connection in connections {
            let Some((role, id)) = process_of(&connection.name, prefix) else { continue };
            let is_full = self.by_id.len() >= MEMBERS_MAX;
            // A process may have started after the query was sent.
            if is_full
                || connection.is_new()
                || id.len() > TEXT_BYTES_MAX
                || self.by_id.contains_key(id)
            {
                continue;
            }
            let member = KnownMember {
                role: role.to_owned(),
                host: connection.ip.clone(),
                version: String::new(),
                is_draining: false,
                replied_at: now,
                has_replied: false,
            };
            self.by_id.insert(id.to_owned(), member);
        }
    }

    /// Returns the number of known processes.
    pub(crate) fn count(&self) -> usize {
        self.by_id.len()
    }

    /// Returns the processes that did not reply to the last query, sorted by role, host and id.
    pub(crate) fn missing(&self, now: Instant) -> Vec<MissingMember<'_>> {
        let silent = self
            .by_id
            .iter()
            .filter(|(_, member)| !member.has_replied || Some(member.replied_at) != self.updated);
        let mut missing: Vec<_> = silent
            .map(|(id, member)| MissingMember {
                role: &member.role,
                id,
                host: &member.host,
                version: &member.version,
                was_draining: member.is_draining,
                has_replied: member.has_replied,
                silent_seconds: now.saturating_duration_since(member.replied_at).as_secs_f64(),
            })
            .collect();
        missing.sort_by_key(|member| (member.role, member.host, member.id));
        missing
    }

    /// Removes the process that has been silent the longest among those for which `matches` returns true. Returns
    /// whether a process was removed.
    fn forget_one(&mut self, now: Instant, matches: impl Fn(&KnownMember) -> bool) -> bool {
        let silent =
            self.by_id.iter().filter(|(_, member)| member.replied_at != now && matches(member));
        let oldest = silent.min_by_key(|(_, member)| member.replied_at).map(|(id, _)| id.clone());
        oldest.is_some_and(|id| self.by_id.remove(&id).is_some())
    }
}

/// Returns the role and id in the name of a connection, if the connection belongs to the fleet with this prefix.
fn process_of<'a>(connection: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    let mut words = connection.split(' ');
    let (program, role) = (words.next()?, words.next()?);
    let (of, id) = (words.next()?, words.next()?);
    let is_process = program == "fjord" && matches!(role, "gateway" | "worker") && of == prefix;
    (is_process && words.next().is_none()).then_some((role, id))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fleet::view::{Connz, MonitoredConnection};

    fn report(id: &str, host: &str) -> Report {
        let (role, id, host) = ("worker".to_owned(), id.to_owned(), host.to_owned());
        Report { role, id, host, ..Report::default() }
    }

    fn missing(members: &KnownMembers, now: Instant) -> Vec<String> {
        members.missing(now).iter().map(|member| member.id.to_owned()).collect()
    }

    #[test]
    fn a_process_is_missing_until_it_replies_is_replaced_or_is_forgotten() {
        let mut members = KnownMembers::default();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        members.update(at(0), &[report("a", "x"), report("b", "x"), report("c", "y")]);
        assert_eq!(missing(&members, at(0)), Vec::<String>::new());
        members.update(at(5), &[report("c", "y")]);
        assert_eq!(missing(&members, at(5)), ["a", "b"]);
        assert!((members.missing(at(7))[0].silent_seconds - 7.0).abs() < 1e-9);
        members.update(at(10), &[report("a", "x"), report("c", "y")]);
        assert_eq!(missing(&members, at(10)), ["b"]);
        // The new process on the host has replaced the missing one.
        members.update(at(15), &[report("a", "x"), report("c", "y"), report("d", "x")]);
        assert_eq!(missing(&members, at(15)), Vec::<String>::new());
        // The new process replaces a process that ends at the same time.
        members.update(at(20), &[report("a", "x"), report("d", "x"), report("e", "y")]);
        assert_eq!(missing(&members, at(20)), Vec::<String>::new());
        members.update(at(25), &[report("a", "x"), report("d", "x")]);
        assert_eq!(missing(&members, at(25)), ["e"]);
        members.update(at(25) + HISTORY_TIME, &[report("a", "x"), report("d", "x")]);
        assert_eq!(missing(&members, at(25) + HISTORY_TIME), Vec::<String>::new());
    }

    #[test]
    fn a_connected_process_that_has_never_replied_is_missing() {
        let mut members = KnownMembers::default();
        let now = Instant::now();
        let connection = |name: &str| MonitoredConnection {
            name: name.to_owned(),
            ip: "10.0.0.1".to_owned(),
            uptime: if name.ends_with("w4") { "4s" } else { "1m4s" }.to_owned(),
            ..MonitoredConnection::default()
        };
        let names = [
            "fjord worker fjord w1",
            "fjord worker fjord w2",
            "fjord worker other w3",
            "fjord worker fjord w4",
            "other",
            "fjord status x y z",
        ];
        members.update(now, &[report("w1", "a")]);
        let mut all = MonitoredConnections::default();
        all.connections.extend(names.map(connection));
        members.update_connected(now, "fjord", &all);
        let found = members.missing(now);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].id, found[0].host, found[0].has_replied), ("w2", "10.0.0.1", false));
        assert_eq!(members.count(), 2);
        let mut others = MonitoredConnections::default();
        others.add("s1", Err("no answer".to_owned()));
        members.update_connected(now, "fjord", &others);
        assert_eq!(
            missing(&members, now),
            ["w2"],
            "its connection may be one of those that are not known"
        );
        members.update_connected(now, "fjord", &MonitoredConnections::default());
        assert_eq!(missing(&members, now), Vec::<String>::new(), "it has ended");
        assert_eq!(members.count(), 1);
        members.update_connected(now, "fjord", &all);
        assert_eq!(missing(&members, now), ["w2"]);
        members.update(now, &[report("w1", "a"), report("w2", "b")]);
        members.update_connected(now, "fjord", &MonitoredConnections::default());
        assert_eq!(missing(&members, now), Vec::<String>::new());
        assert_eq!(members.count(), 2, "processes that have replied are remembered");
    }

    #[test]
    fn connections_that_are_not_known_are_named() {
        let mut all = MonitoredConnections::default();
        let connections = || vec![MonitoredConnection::default(); 2];
        all.add("s1", Ok(Connz { connections: connections(), total: 2 }));
        assert_eq!(all.gaps, Vec::<String>::new());
        all.add("s2", Ok(Connz { connections: connections(), total: 3 }));
        all.add("s3", Err("refused".to_owned()));
        assert_eq!(all.connections.len(), 4, "the servers that answered");
        assert_eq!(all.gaps, ["s2 lists only 2 of its 3 connections", "s3: refused"]);
    }

    #[test]
    fn a_process_with_a_long_name_is_not_remembered() {
        let mut members = KnownMembers::default();
        let now = Instant::now();
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        members.update(now, &[report(&long, "a"), report("b", &long), report("c", "c")]);
        members.update(now + Duration::from_secs(5), &[]);
        assert_eq!(missing(&members, now + Duration::from_secs(5)), ["c"]);
    }

    #[test]
    fn the_number_of_missing_processes_is_limited() {
        let mut members = KnownMembers::default();
        let mut now = Instant::now();
        for generation in 0..4 {
            let names = (0..400).map(|n| format!("{generation}-{n}"));
            members.update(now, &names.map(|id| report(&id, &id)).collect::<Vec<_>>());
            now += Duration::from_secs(5);
        }
        assert_eq!(members.missing(now).len(), MISSING_MAX);
        let of = |generation: &str| {
            let missing = members.missing(now);
            missing.iter().filter(|member| member.id.starts_with(generation)).count()
        };
        assert_eq!([of("0-"), of("1-"), of("2-"), of("3-")], [200, 400, 400, 0]);
    }
}
