//! The parts that the commands for controlling a fleet share: the members, their replies, and the
//! report.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::connected::{self, ConnectedProcess};
use super::nats_connection::NatsConnection;
use super::{EXIT_FAILED, Output};
use crate::config::Sources;
use crate::fleet::control::{self, CommandTarget, ControlCommand, ControlRequest};
use crate::fleet::{self, query};
use crate::units::format_duration;

/// The longest wait for the reports that identify the members.
const GATHER_LIMIT: Duration = Duration::from_secs(3);

/// The members of a fleet, and their replies.
pub(super) struct ControlledFleet<'a> {
    connection: &'a NatsConnection,
    /// The user and host that the members log.
    by: String,
    timeout: Duration,
    pub(super) members: BTreeMap<String, Member>,
}

/// A process in the fleet.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Member {
    pub(super) role: String,
    pub(super) id: String,
    pub(super) host: String,
    pub(super) version: String,
    /// The last command that the process has replied to.
    pub(super) replied_to: Option<&'static str>,
    /// Why the last command failed, or that there was no reply in time.
    pub(super) faults: Vec<String>,
    pub(super) notes: Vec<String>,
}

impl Member {
    fn name(&self) -> String {
        format!("{} {} on {}", self.role, self.id, self.host)
    }
}

/// The result of a command, as JSON.
#[derive(Debug, Serialize)]
struct ReportDocument<'a> {
    result: &'static str,
    /// The last step that was reached.
    stage: &'static str,
    members: Vec<&'a Member>,
}

impl<'a> ControlledFleet<'a> {
    /// Asks which processes there are.
    ///
    /// # Errors
    /// A message if none replies.
    pub(super) async fn discover(
        connection: &'a NatsConnection,
        sources: &Sources,
        timeout: Duration,
    ) -> Result<Self, String> {
        let transport = &*connection.transport;
        let reports = query::gather(transport, &connection.prefix, 0, GATHER_LIMIT).await;
        let reports = reports.map_err(|error| format!("cannot query the fleet: {error}"))?;
        if reports.is_empty() {
            let prefix = &connection.prefix;
            return Err(format!(
                "no reply on {prefix}.{}: no gateway or worker with the prefix {prefix} is connected to this NATS, or the \
                 account is not permitted to publish there",
                query::STATUS_TOKEN
            ));
        }
        let member = |report: fleet::Report| {
            let fleet::Report { role, id, host, version, .. } = report;
            (id.clone(), Member { role, id, host, version, ..Member::default() })
        };
        let mut members: BTreeMap<String, Member> = reports.into_iter().map(member).collect();
        let connected = connected::processes(connection).await;
        let connected = connected.unwrap_or_else(|error| {
            tracing::warn!(
                error,
                "processes that hang are not found: the NATS servers do not list their connections"
            );
            Vec::new()
        });
        for ConnectedProcess { role, id, address } in connected {
            // The host name of a process that has not replied is not known.
            let (role, host) = (role.as_str().to_owned(), address);
            let hangs = Member { role, id: id.clone(), host, ..Member::default() };
            members.entry(id).or_insert(hangs);
        }
        Ok(Self { connection, by: sender(sources), timeout, members })
    }

    /// Forgets the members that a target does not include.
    pub(super) fn keep(&mut self, target: &CommandTarget) {
        self.members.retain(|_, member| target.includes(&member.role, &member.id, &member.host));
    }

    /// Sends a command and waits for the replies. Returns whether all known members that the
    /// command concerns have succeeded.
    ///
    /// # Errors
    /// A message if the command cannot be sent.
    pub(super) async fn send(
        &mut self,
        to: CommandTarget,
        command: ControlCommand,
    ) -> Result<bool, String> {
        let concerns = |member: &&Member| to.includes(&member.role, &member.id, &member.host);
        let expected: BTreeSet<String> =
            self.members.values().filter(concerns).map(|member| member.id.clone()).collect();
        if expected.is_empty() {
            return Ok(true);
        }
        let name = command.as_str();
        let request = ControlRequest {
            id: uuid::Uuid::new_v4().to_string(),
            by: self.by.clone(),
            to,
            timeout_ms: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
            command,
        };
        let NatsConnection { transport, prefix, .. } = self.connection;
        // A reply that a member sends at the end of its time is still received.
        let limit = self.timeout + self.timeout / 10;
        let replies = control::ask(&**transport, prefix, &request, &expected, limit).await;
        let replies = replies.map_err(|error| format!("cannot send the command: {error}"))?;
        let mut succeeded = true;
        for id in expected.iter().filter(|id| !replies.contains_key(*id)) {
            succeeded = false;
            if let Some(member) = self.members.get_mut(id) {
                let limit = format_duration(self.timeout);
                member.faults = vec![format!("no reply to {name} within {limit}")];
            }
        }
        for (id, reply) in replies {
            succeeded &= reply.faults.is_empty();
            let member = self.members.entry(id).or_default();
            (member.role, member.id, member.host) = (reply.role, reply.id, reply.host);
            (member.version, member.faults) = (reply.version, reply.faults);
            member.notes.extend(reply.notes);
            member.replied_to = Some(name);
        }
        Ok(succeeded)
    }

    /// Prints the notes and faults of all members, and `summary`. Returns the exit status.
    pub(super) fn report(
        &self,
        (succeeded, stage): (bool, &'static str),
        summary: &str,
        json: bool,
        output: &mut Output<impl Write, impl Write>,
    ) -> io::Result<ExitCode> {
        let mut members: Vec<&Member> = self.members.values().collect();
        members.sort_by(|a, b| (&a.role, &a.host, &a.id).cmp(&(&b.role, &b.host, &b.id)));
        if json {
            let result = if succeeded { "ok" } else { "failed" };
            let document = ReportDocument { result, stage, members };
            writeln!(output.out, "{}", serde_json::to_string(&document)?)?;
        } else {
            for member in &members {
                let name = member.name();
                for note in &member.notes {
                    writeln!(output.out, "{name}: {note}")?;
                }
                for fault in &member.faults {
                    writeln!(output.err, "error: {name}: {fault}")?;
                }
            }
            if succeeded {
                writeln!(output.out, "{summary}")?;
            } else {
                writeln!(output.err, "error: {summary}")?;
            }
        }
        Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
    }

    /// Returns how many members of a role there are, as text.
    pub(super) fn count(&self, role: &str) -> String {
        let count = self.members.values().filter(|member| member.role == role).count();
        format!("{count} {role}{}", if count == 1 { "" } else { "s" })
    }
}

/// Returns the user and the host that run this command.
fn sender(sources: &Sources) -> String {
    let value = |name: &&str| {
        let found = sources.environment.iter().find(|(known, _)| known == *name);
        found.and_then(|(_, value)| value.to_str())
    };
    let user = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(value).unwrap_or("unknown");
    format!("{user}@{}", fleet::host_name())
}
