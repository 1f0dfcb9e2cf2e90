//! Receives operators' commands to the fleet, on `<prefix>.control` and the subjects below it. Every process to which a
//! command applies reports in its reply whether it succeeded.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::lifecycle::Tasks;
use crate::message::{Message, Subject, SubjectError};
use crate::messaging::{Transport, TransportError};
use crate::telemetry::conditions::{self, MALFORMED};
use crate::telemetry::{counter, names};

use super::{FleetMember, ProcessIdentity};

mod ask;
mod command;
mod log_filter;
mod receiver;
mod stall;

pub use ask::{ask, ask_at_once};
pub use command::{CONTROL_TOKEN, CommandTarget, ControlCommand, ControlReply, ControlRequest};
pub use receiver::{CommandReceiver, ReceivedCommand};

use stall::StallDetector;

/// The maximum number of commands that wait while the process executes earlier ones.
const COMMANDS_MAX: usize = 8;
/// The maximum size of a request in bytes.
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// The maximum number of lines of each kind in a reply.
const LINES_MAX: usize = 20;
/// The maximum length of a line in characters.
const LINE_CHARS_MAX: usize = 500;
/// The maximum length in characters of the text that identifies the sender.
const SENDER_CHARS_MAX: usize = 100;
/// The maximum time for executing a command.
const TIMEOUT_MAX: Duration = Duration::from_mins(10);

/// The result of a command: notes if it succeeded, or the reasons why it failed.
pub type ControlResult = Result<Vec<String>, Vec<String>>;

/// Combines the results of two parts of a command.
///
/// # Errors
/// Returns the reasons why either part failed.
pub fn also(result: ControlResult, other: Result<(), String>) -> ControlResult {
    let Err(fault) = other else { return result };
    let mut faults = result.err().unwrap_or_default();
    faults.push(fault);
    Err(faults)
}

/// The data needed to reply to the sender of a command.
#[derive(Debug)]
pub struct CommandAnswer {
    request: ControlRequest<()>,
    name: &'static str,
    inbox: Subject,
    member: Arc<FleetMember>,
    transport: Arc<dyn Transport>,
}

/// Subscribes to commands until the transport closes. The returned receiver yields those that apply to this process.
///
/// # Errors
/// Returns `TransportError` if the subscription fails.
pub async fn serve(
    member: &Arc<FleetMember>,
    transport: &Arc<dyn Transport>,
    tasks: &Tasks,
) -> Result<CommandReceiver, TransportError> {
    let refused = |error: SubjectError| TransportError::Failed(error.into());
    let subject = member.identity.prefix.join(CONTROL_TOKEN).map_err(refused)?;
    let (sender, commands) = mpsc::channel(COMMANDS_MAX);
    let intake = Arc::new(CommandIntake {
        member: Arc::clone(member),
        transport: Arc::clone(transport),
        tasks: tasks.clone(),
        stalls: StallDetector::new(Instant::now()),
        sender,
    });
    for subject in [subject.clone(), subject.all_below()] {
        let mut requests = transport.subscribe_optional(&subject).await?;
        let intake = Arc::clone(&intake);
        let _detached = tasks.spawn_background(async move {
            while let Some(message) = requests.next().await {
                intake.on_message(message).await;
            }
        });
    }
    let _detached = tasks.spawn_background(async move { intake.detect_stalls().await });
    Ok(CommandReceiver { commands, tasks: tasks.clone() })
}

/// Receives commands and forwards those that apply to this process.
struct CommandIntake {
    member: Arc<FleetMember>,
    transport: Arc<dyn Transport>,
    tasks: Tasks,
    stalls: StallDetector,
    sender: mpsc::Sender<ReceivedCommand>,
}

impl CommandIntake {
    /// Periodically checks whether this process was suspended. Never returns.
    async fn detect_stalls(&self) {
        let mut checks = interval(stall::CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let _at = checks.tick().await;
            // Messages that the server sent before it confirmed the flush arrive before the confirmation. They are read
            // within one more interval.
            if self.stalls.check(Instant::now()) && self.transport.flush().await.is_ok() {
                let flushed_at = Instant::now();
                sleep(stall::CHECK_INTERVAL).await;
                self.stalls.caught_up(flushed_at, Instant::now());
            }
        }
    }

    async fn on_message(&self, message: Message) {
        let Message { subject, payload, reply, .. } = message;
        let request = parse(&payload);
        let (Ok(request), Some(inbox)) = (request, reply) else {
            count("unknown", "malformed");
            if conditions::raise(&MALFORMED, "commands") {
                tracing::warn!("a command to the fleet violates the protocol");
            }
            return;
        };
        let ProcessIdentity { role, id, host, .. } = &self.member.identity;
        if !request.to.includes(role.as_str(), id, host) {
            return;
        }
        let ControlRequest { id, by, to, timeout_ms, command } = request;
        let command = serde_json::from_value::<ControlCommand>(command);
        if let Ok(command) = &command
            && command.role().is_some_and(|only| only != *role)
        {
            return;
        }
        let name = command.as_ref().map_or("unknown", ControlCommand::as_str);
        let arguments = command.as_ref().map(|command| line(&command.to_string(), LINE_CHARS_MAX));
        let arguments = arguments.unwrap_or_default();
        tracing::info!(command = name, arguments, by, request = id, "received a command");
        let answer = CommandAnswer {
            request: ControlRequest { id, by, to, timeout_ms, command: () },
            name,
            inbox,
            member: Arc::clone(&self.member),
            transport: Arc::clone(&self.transport),
        };
        let Ok(command) = command else {
            let version = env!("CARGO_PKG_VERSION");
            let fault = format!("version {version} does not know this command");
            return answer.send(Err(vec![fault])).await;
        };
        // NATS permissions restrict who may publish to a subject. A command must therefore arrive on its own subject,
        // so that these permissions also restrict who may send the command.
        let expected = self.member.identity.prefix.join(command.subject_tokens());
        if expected.as_ref().ok() != Some(&subject) {
            let fault =
                format!("a command of this kind must be sent to another subject, not to {subject}");
            return answer.send(Err(vec![fault])).await;
        }
        let arrival = self.stalls.arrival(Instant::now());
        let deadline = arrival + Duration::from_millis(timeout_ms).min(TIMEOUT_MAX);
        let received = ReceivedCommand { command, deadline, answer };
        if let Some(received) = received.in_time().await {
            self.start(received).await;
        }
    }

    /// Executes a command that does not depend on the role, or forwards any other. If forwarding fails, replies with
    /// the reason.
    async fn start(&self, received: ReceivedCommand) {
        if let ControlCommand::SetLogFilter { filter, duration_ms } = &received.command {
            let duration = Duration::from_millis(*duration_ms);
            let result = log_filter::apply(filter, duration, &self.tasks);
            return received.answer.send(result).await;
        }
        if let Err(rejected) = self.sender.try_send(received) {
            let (rejected, result) = match rejected {
                // A draining process does not reload its files, but it must not make a reload fail.
                TrySendError::Closed(rejected) => (rejected, Ok(vec!["it is draining".to_owned()])),
                TrySendError::Full(rejected) => {
                    (rejected, Err(vec!["it is still executing other commands".to_owned()]))
                }
            };
            rejected.answer.send(result).await;
        }
    }
}

fn parse(payload: &Bytes) -> Result<ControlRequest<Value>, String> {
    if payload.len() > REQUEST_BYTES_MAX {
        return Err(format!("{} bytes", payload.len()));
    }
    let request: ControlRequest<Value> =
        serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    let (id, by) = (line(&request.id, SENDER_CHARS_MAX), line(&request.by, SENDER_CHARS_MAX));
    Ok(ControlRequest { id, by, ..request })
}

/// Removes control characters from text and limits its length.
fn line(text: &str, chars_max: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(chars_max).collect()
}

impl CommandAnswer {
    /// Returns the user and host of the sender, as stated in the request.
    #[must_use]
    pub fn by(&self) -> &str {
        &self.request.by
    }

    /// Logs that the command has changed a queue.
    pub fn log_queue_change(&self, queue: &str, before: &str, after: &str) {
        let (by, request) = (&self.request.by, &self.request.id);
        tracing::info!(queue, before, after, by, request, "an operator has changed a queue");
    }

    /// Sends and logs the result of the command.
    pub async fn send(self, result: ControlResult) {
        self.send_changed(result, Vec::new()).await;
    }

    /// Like `send`, but also reports the queues to which the command was applied.
    pub async fn send_changed(self, result: ControlResult, changed: Vec<String>) {
        let (faults, notes) = match result {
            Ok(notes) => (Vec::new(), notes),
            Err(faults) => (faults, Vec::new()),
        };
        let (command, by, request) = (self.name, &self.request.by, &self.request.id);
        if faults.is_empty() {
            count(command, "ok");
            tracing::info!(command, by, request, "the command has succeeded");
        } else {
            count(command, "failed");
            let fault = faults.join("; ");
            tracing::warn!(command, by, request, fault, "the command has failed");
        }
        let identity = &self.member.identity;
        let reply = ControlReply {
            request: self.request.id.clone(),
            role: identity.role.as_str().to_owned(),
            id: identity.id.clone(),
            host: identity.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            faults: bounded(faults),
            notes: bounded(notes),
            changed,
        };
        let payload = match serde_json::to_vec(&reply) {
            Ok(payload) => payload.into(),
            Err(error) => {
                tracing::error!(%error, "cannot encode the answer to a command");
                return;
            }
        };
        let message = Message { payload, ..Message::to(self.inbox) };
        if let Err(error) = self.transport.publish(message).await {
            tracing::warn!(%error, command, "cannot answer a command");
        }
    }
}

/// Limits the number of lines and the length of each line.
fn bounded(lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(LINES_MAX);
    let cut = |line: String| match line.char_indices().nth(LINE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    };
    let mut lines: Vec<String> = lines.into_iter().take(LINES_MAX).map(cut).collect();
    if more > 0 {
        lines.push(format!("and {more} more: see its log"));
    }
    lines
}

fn count(command: &'static str, result: &str) {
    let labels = [(names::COMMAND, command.to_owned()), (names::RESULT, result.to_owned())];
    counter(&names::CONTROL_COMMANDS, &labels).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_this_version_does_not_know_can_still_be_answered() {
        let text =
            r#"{"id":"1","by":"a\nb","to":"all","timeout_ms":5,"command":{"fly":{"high":true}}}"#;
        let request = parse(&Bytes::from_static(text.as_bytes())).unwrap();
        assert_eq!((&*request.id, &*request.by), ("1", "ab"));
        assert!(serde_json::from_value::<ControlCommand>(request.command).is_err());
        let known = text.replace(r#"{"fly":{"high":true}}"#, r#""check-reload""#);
        let request = parse(&known.into()).unwrap();
        let command = serde_json::from_value::<ControlCommand>(request.command);
        assert_eq!(command.unwrap(), ControlCommand::CheckReload);
    }

    #[test]
    fn requests_and_replies_are_bounded() {
        let large = format!(r#"{{"id":"{}"}}"#, "x".repeat(REQUEST_BYTES_MAX));
        assert!(parse(&large.into()).is_err());
        let lines = bounded(vec!["é".repeat(LINE_CHARS_MAX + 1); LINES_MAX + 3]);
        assert_eq!(lines.len(), LINES_MAX + 1);
        assert_eq!(lines[0].chars().count(), LINE_CHARS_MAX + 1);
        assert_eq!(lines[LINES_MAX], "and 3 more: see its log");
    }
}
