//! The parts shared by the commands that control a fleet: the members, their replies and the report.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::nats_connection::{self, NatsConnection};
use super::{EXIT_FAILED, Output};
use crate::cli::{ReplyOptions, Role};
use crate::config::Sources;
use crate::fleet;
use crate::fleet::control::{self, CommandTarget, ControlCommand, ControlReply, ControlRequest};
use crate::spelling;
use crate::units::format_duration;

mod discovery;
mod member;

use member::Member;

/// The members of a fleet and their replies.
pub(super) struct ControlledFleet<'a> {
    connection: &'a NatsConnection,
    /// The user and host from which the commands are sent. The members log both.
    by: String,
    timeout: Duration,
    members: BTreeMap<String, Member>,
    /// The ids of the known processes to which the command does not apply.
    unconcerned: BTreeSet<String>,
    /// The reasons why unknown processes may exist. If there are any, the command fails even if all known processes
    /// have executed it.
    gaps: Vec<String>,
}

/// The result of a command, as JSON.
#[derive(Debug, Serialize)]
struct ReportDocument<'a> {
    result: &'static str,
    /// The last stage that was reached.
    stage: &'a str,
    members: Vec<&'a Member>,
    /// The reasons why unknown processes may exist.
    gaps: &'a [String],
}

impl<'a> ControlledFleet<'a> {
    /// Removes the members to which a command does not apply.
    ///
    /// # Errors
    /// Returns a message if no member remains, or if no worker serves one of the command's queues.
    fn keep(&mut self, to: &CommandTarget, command: &ControlCommand) -> Result<(), String> {
        if *to == CommandTarget::All && command.role().is_none() {
            self.require_both_roles();
        }
        let mut uncertain = self.members.clone();
        self.members.retain(|_, member| to.includes(&member.role, &member.id, &member.host));
        if let CommandTarget::Member(name) = to {
            let is_target = self.members.values().any(|member| member.id == *name);
            uncertain.retain(|id, member| {
                let is_of_role = command.role().is_none_or(|role| role.as_str() == member.role);
                member.hangs && is_of_role && !is_target && !self.members.contains_key(id)
            });
            if self.members.is_empty() {
                let mut error =
                    format!("no process has the id or the host name {name}: see fjord status");
                for member in uncertain.values() {
                    write!(error, "; {} does not reply, and may be on {name}", member.name()).ok();
                }
                return Err(self.with_gaps(error));
            }
        }
        let is_of_role =
            |member: &&Member| command.role().is_none_or(|role| role.as_str() == member.role);
        let reports = || self.members.values().filter(is_of_role).map(|one| one.queues.as_ref());
        let known: BTreeSet<&str> = reports().flatten().flatten().map(String::as_str).collect();
        let unknown = command.queues().iter().find(|name| !known.contains(name.as_str()));
        if let (true, Some(name)) = (reports().all(|queues| queues.is_some()), unknown) {
            let similar = spelling::closest(name, known.iter().copied());
            let hint = similar.map(|name| format!(", did you mean {name}?")).unwrap_or_default();
            return Err(self.with_gaps(format!("no worker serves the queue {name}{hint}")));
        }
        let others = self.members.extract_if(.., |_, member| !member.must_execute(to, command));
        self.unconcerned.extend(others.map(|(id, _)| id));
        if self.members.is_empty() {
            return Err(
                self.with_gaps("the command concerns no process: see fjord status".to_owned())
            );
        }
        if let CommandTarget::Member(name) = to {
            self.members.extend(uncertain.into_iter().map(|(id, mut member)| {
                member.is_unconcerned = true;
                member.notes = vec![format!("does not reply, and may be on {name}")];
                (id, member)
            }));
        }
        Ok(())
    }

    /// Sends a command and waits for the replies. Returns `true` if the command succeeded on all known members to which
    /// it applies and no unknown members can exist.
    ///
    /// # Errors
    /// Returns a message if the command cannot be sent.
    pub(super) async fn send(
        &mut self,
        to: CommandTarget,
        command: ControlCommand,
    ) -> Result<bool, String> {
        let expected = self.expected(&to, &command);
        if expected.is_empty() {
            return Ok(self.gaps.is_empty());
        }
        let request = request(self.by.clone(), to, self.timeout, command);
        let NatsConnection { transport, prefix, .. } = self.connection;
        let limit = reply_limit(self.timeout);
        let replies = control::ask(&**transport, prefix, &request, &expected, limit).await;
        let replies = replies.map_err(|error| format!("cannot send the command: {error}"))?;
        Ok(self.record(&request.command, &expected, replies))
    }

    /// Sends a command and discovers the running processes at the same time. Returns the fleet, and whether the command
    /// succeeded on all processes to which it applies.
    ///
    /// # Errors
    /// Returns a message if the command cannot be sent or applies to no process.
    async fn send_at_once(
        single: &SingleCommand<'_>,
        connection: &'a NatsConnection,
        sources: &Sources,
    ) -> Result<(Self, bool), String> {
        let SingleCommand { to, command, .. } = single;
        let timeout = Duration::from_secs(single.replies.timeout);
        let request = request(sender(sources), to.clone(), timeout, command.clone());
        let mut discovered = Err(String::new());
        let expected = async {
            discovered = match Self::discover(connection, sources, timeout).await {
                Ok(mut fleet) => fleet.keep(to, command).map(|()| fleet),
                Err(failure) => Err(failure),
            };
            let expected = discovered.as_ref().map(|fleet| fleet.expected(to, command));
            expected.unwrap_or_default()
        };
        let NatsConnection { transport, prefix, .. } = connection;
        let limit = reply_limit(timeout);
        let replies = control::ask_at_once(&**transport, prefix, &request, expected, limit).await;
        let replies = replies.map_err(|error| format!("cannot send the command: {error}"))?;
        let mut fleet = discovered?;
        let expected = fleet.expected(to, command);
        let succeeded = fleet.record(command, &expected, replies);
        Ok((fleet, succeeded))
    }

    /// Returns the ids of the known processes to which a command applies.
    fn expected(&self, to: &CommandTarget, command: &ControlCommand) -> BTreeSet<String> {
        let concerned = self.members.values().filter(|member| member.must_execute(to, command));
        concerned.map(|member| member.id.clone()).collect()
    }

    /// Records the replies to a command. Returns whether it succeeded on all members to which it applies.
    fn record(
        &mut self,
        command: &ControlCommand,
        expected: &BTreeSet<String>,
        replies: BTreeMap<String, ControlReply>,
    ) -> bool {
        let (name, concerns_queues) = (command.as_str(), !command.queues().is_empty());
        let mut succeeded = self.gaps.is_empty();
        for id in expected.iter().filter(|id| !replies.contains_key(*id)) {
            succeeded = false;
            if let Some(member) = self.members.get_mut(id) {
                let limit = format_duration(self.timeout);
                member.faults = vec![format!("no reply to {name} within {limit}")];
            }
        }
        for (id, reply) in replies {
            if reply.faults.is_empty() && self.unconcerned.contains(&id) {
                continue;
            }
            succeeded &= reply.faults.is_empty();
            let member = self.members.entry(id).or_default();
            (member.role, member.id, member.host) = (reply.role, reply.id, reply.host);
            (member.version, member.faults) = (reply.version, reply.faults);
            member.notes.extend(reply.notes);
            member.is_unconcerned =
                concerns_queues && member.faults.is_empty() && reply.changed.is_empty();
            member.changed = reply.changed;
            member.replied_to = Some(name);
        }
        succeeded
    }

    /// Returns the first of the command's queues to which no member has applied the command. This can happen if a
    /// member's report was too large to contain the queue.
    fn unchanged_queue<'c>(&self, command: &'c ControlCommand) -> Option<&'c str> {
        let is_unchanged =
            |name: &&String| !self.members.values().any(|member| member.changed.contains(name));
        command.queues().iter().find(is_unchanged).map(String::as_str)
    }

    /// Prints the notes and faults of all members, followed by `summary`. Returns the exit status.
    pub(super) fn report(
        &self,
        (succeeded, stage): (bool, &str),
        summary: &str,
        json: bool,
        output: &mut Output<impl Write, impl Write>,
    ) -> io::Result<ExitCode> {
        let mut members: Vec<&Member> = self.members.values().collect();
        members.sort_by(|a, b| (&a.role, &a.host, &a.id).cmp(&(&b.role, &b.host, &b.id)));
        if json {
            let result = if succeeded { "ok" } else { "failed" };
            let document = ReportDocument { result, stage, members, gaps: &self.gaps };
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
            for gap in &self.gaps {
                writeln!(output.err, "error: {gap}")?;
            }
            if succeeded {
                writeln!(output.out, "{summary}")?;
            } else {
                writeln!(output.err, "error: {summary}")?;
            }
        }
        Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
    }

    /// Returns the number of members of each role that have succeeded, as text: "2 workers", or "1 of 2 workers" if a
    /// worker has failed.
    pub(super) fn count(&self) -> String {
        let text = |role: Role| {
            let concerned = |one: &&Member| one.role == role.as_str() && !one.is_unconcerned;
            let members: Vec<&Member> = self.members.values().filter(concerned).collect();
            let all = members.len();
            let succeeded = members.iter().filter(|member| member.faults.is_empty()).count();
            let plural = if all == 1 { "" } else { "s" };
            let of = if succeeded < all { format!("{succeeded} of ") } else { String::new() };
            (all > 0).then(|| format!("{of}{all} {}{plural}", role.as_str()))
        };
        let counts = [Role::Worker, Role::Gateway].into_iter().filter_map(text);
        counts.collect::<Vec<_>>().join(" and ")
    }
}

/// A command that consists of a single message, and the text that is printed about it.
pub(super) struct SingleCommand<'a> {
    /// The name of the command, such as `fjord drain`. It is used in errors and as the name of the NATS connection.
    pub(super) name: &'static str,
    /// The processes that receive the command.
    pub(super) to: CommandTarget,
    /// The command to send.
    pub(super) command: ControlCommand,
    /// Whether to send the command before the running processes are known. Discovering them takes about half a second.
    pub(super) is_urgent: bool,
    /// Options for waiting for the replies and reporting them.
    pub(super) replies: &'a ReplyOptions,
    /// The state after success, such as "draining". It is printed after the number of processes that have succeeded.
    pub(super) success: &'a str,
}

/// Sends a command to the processes to which it applies and reports their replies.
pub(super) fn run(
    single: &SingleCommand<'_>,
    sources: &Sources,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    nats_connection::run(sources, single.name, output, async |connection, output| {
        let sent = async {
            let timeout = Duration::from_secs(single.replies.timeout);
            if single.is_urgent {
                return ControlledFleet::send_at_once(single, &connection, sources).await;
            }
            let mut fleet = ControlledFleet::discover(&connection, sources, timeout).await?;
            fleet.keep(&single.to, &single.command)?;
            let succeeded = fleet.send(single.to.clone(), single.command.clone()).await?;
            Ok::<_, String>((fleet, succeeded))
        };
        match sent.await {
            Ok((fleet, succeeded)) => {
                let mut lines = Vec::new();
                let count = fleet.count();
                if !count.is_empty() {
                    lines.push(format!("{count}: {}", single.success));
                }
                let unchanged = succeeded.then(|| fleet.unchanged_queue(&single.command)).flatten();
                if let Some(queue) = unchanged {
                    lines.push(format!("no worker has replied that it serves the queue {queue}"));
                }
                let (summary, stage) = (lines.join("; "), single.command.as_str());
                let succeeded = succeeded && unchanged.is_none();
                fleet.report((succeeded, stage), &summary, single.replies.json, output)
            }
            Err(failure) => failed(&failure, output),
        }
    })
}

/// Prints why a command has failed. Returns the exit status.
pub(super) fn failed(
    failure: &str,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    writeln!(output.err, "error: {failure}")?;
    Ok(ExitCode::from(EXIT_FAILED))
}

fn request(
    by: String,
    to: CommandTarget,
    timeout: Duration,
    command: ControlCommand,
) -> ControlRequest {
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    ControlRequest { id: uuid::Uuid::new_v4().to_string(), by, to, timeout_ms, command }
}

/// Returns how long to wait for replies. The wait exceeds the members' time limit, so that a reply still arrives from a
/// member that uses the full limit.
fn reply_limit(timeout: Duration) -> Duration {
    timeout + timeout / 10
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
