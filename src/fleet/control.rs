//! Operators' commands to the fleet, on `<prefix>.control`. Every process that a command concerns
//! reports in its reply whether it succeeded.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use crate::cli::Role;
use crate::lifecycle::Tasks;
use crate::message::{Message, Subject, SubjectError};
use crate::messaging::{Transport, TransportError};
use crate::telemetry::conditions::{self, MALFORMED};
use crate::telemetry::{counter, names};

use super::{FleetMember, ProcessIdentity};

mod ask;

pub use ask::ask;

/// The token after the prefix in the subject of commands.
pub const CONTROL_TOKEN: &str = "control";

/// The maximum number of commands that wait until the process has executed the previous ones.
const COMMANDS_MAX: usize = 8;
/// The maximum size of a request in bytes.
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// The maximum number of lines of each kind in a reply.
const LINES_MAX: usize = 20;
/// The maximum length of a line in characters.
const LINE_CHARS_MAX: usize = 500;
/// The maximum length in characters of the text that names the sender.
const SENDER_CHARS_MAX: usize = 100;
/// The longest time that a process takes to execute a command.
const TIMEOUT_MAX: Duration = Duration::from_mins(10);

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlCommand {
    /// Read and check all files, and change nothing.
    CheckReload,
    /// Apply the current contents of the configuration and of all files. A worker still serves queues and endpoints that they no
    /// longer have, until `FinishReload`.
    Reload,
    /// Stop serving queues and endpoints that the configuration no longer has.
    FinishReload,
    /// Drain and exit, as after SIGTERM.
    Drain,
}

impl ControlCommand {
    /// Returns the name in logs and metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::CheckReload => "check-reload",
            Self::Reload => "reload",
            Self::FinishReload => "finish-reload",
            Self::Drain => "drain",
        }
    }
}

/// The processes that a command concerns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandTarget {
    /// All processes.
    All,
    /// All processes of a role: `gateway` or `worker`.
    Role(String),
    /// The process with this id, or every process on the host with this name.
    Member(String),
}

impl CommandTarget {
    /// Returns all processes of a role.
    #[must_use]
    pub fn role(role: Role) -> Self {
        Self::Role(role.as_str().to_owned())
    }

    /// Returns whether the target includes a process of a role, with an id and on a host.
    #[must_use]
    pub fn includes(&self, role: &str, id: &str, host: &str) -> bool {
        match self {
            Self::All => true,
            Self::Role(name) => name == role,
            Self::Member(name) => name == id || name == host,
        }
    }
}

/// A request. `C` is the command, or its JSON before the receiver knows whether it supports it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ControlRequest<C = ControlCommand> {
    /// The id of the request, which the replies repeat.
    pub id: String,
    /// The user and host of the sender, for the audit log. NATS permissions decide who may send requests; this text is not
    /// verified.
    pub by: String,
    /// The processes that must execute the command.
    pub to: CommandTarget,
    /// How long the sender waits for the reply, in milliseconds.
    pub timeout_ms: u64,
    /// The command.
    pub command: C,
}

/// The reply of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControlReply {
    /// The id of the request.
    pub request: String,
    /// `gateway` or `worker`.
    pub role: String,
    /// The unique id of the process.
    pub id: String,
    /// The host name.
    pub host: String,
    /// The version of fjord.
    pub version: String,
    /// The reasons why the command failed. There are none if it succeeded.
    pub faults: Vec<String>,
    /// Facts that the operator should know.
    pub notes: Vec<String>,
}

/// The result of a command: notes, or the reasons why it failed.
pub type ControlResult = Result<Vec<String>, Vec<String>>;

/// A command that this process must execute and answer.
#[derive(Debug)]
pub struct ReceivedCommand {
    /// The command.
    pub command: ControlCommand,
    /// When the sender expects the reply.
    pub deadline: Instant,
    answer: CommandAnswer,
}

/// The commands that this process must execute.
pub type CommandReceiver = mpsc::Receiver<ReceivedCommand>;

/// The means to reply to the sender of a command.
#[derive(Debug)]
pub struct CommandAnswer {
    request: ControlRequest<()>,
    name: &'static str,
    inbox: Subject,
    member: Arc<FleetMember>,
    transport: Arc<dyn Transport>,
}

/// Subscribes to commands until the transport closes. The receiver gets those that concern this process.
///
/// # Errors
/// `TransportError` if the subscription fails.
pub async fn serve(
    member: &Arc<FleetMember>,
    transport: &Arc<dyn Transport>,
    tasks: &Tasks,
) -> Result<CommandReceiver, TransportError> {
    let refused = |error: SubjectError| TransportError::Refused(error.into());
    let subject = member.identity.prefix.join(CONTROL_TOKEN).map_err(refused)?;
    let mut requests = transport.subscribe_optional(&subject).await?;
    let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
    let (member, transport) = (Arc::clone(member), Arc::clone(transport));
    let _detached = tasks.spawn_background(async move {
        while let Some(message) = requests.next().await {
            let Message { payload, reply, .. } = message;
            let request = parse(&payload);
            let (Ok(request), Some(inbox)) = (request, reply) else {
                count("unknown", "malformed");
                if conditions::raise(&MALFORMED, "commands") {
                    tracing::warn!("a command to the fleet violates the protocol");
                }
                continue;
            };
            let ProcessIdentity { role, id, host, .. } = &member.identity;
            if !request.to.includes(role.as_str(), id, host) {
                continue;
            }
            receive(request, inbox, &member, &transport, &sender).await;
        }
    });
    Ok(receiver)
}

/// Passes a command on to the process, or answers why it cannot be executed.
async fn receive(
    request: ControlRequest<Value>,
    inbox: Subject,
    member: &Arc<FleetMember>,
    transport: &Arc<dyn Transport>,
    sender: &mpsc::Sender<ReceivedCommand>,
) {
    let ControlRequest { id, by, to, timeout_ms, command } = request;
    let command = serde_json::from_value::<ControlCommand>(command);
    let name = command.as_ref().map_or("unknown", ControlCommand::as_str);
    tracing::info!(command = name, by, request = id, "received a command");
    let answer = CommandAnswer {
        request: ControlRequest { id, by, to, timeout_ms, command: () },
        name,
        inbox,
        member: Arc::clone(member),
        transport: Arc::clone(transport),
    };
    let Ok(command) = command else {
        let version = env!("CARGO_PKG_VERSION");
        return answer
            .send(Err(vec![format!("version {version} does not know this command")]))
            .await;
    };
    let deadline = Instant::now() + Duration::from_millis(timeout_ms).min(TIMEOUT_MAX);
    let received = ReceivedCommand { command, deadline, answer };
    if let Err(rejected) = sender.try_send(received) {
        let (rejected, result) = match rejected {
            // A process that drains does not read its files again, and must not make a reload fail.
            TrySendError::Closed(rejected) => (rejected, Ok(vec!["it is draining".to_owned()])),
            TrySendError::Full(rejected) => {
                (rejected, Err(vec!["it is still executing other commands".to_owned()]))
            }
        };
        rejected.answer.send(result).await;
    }
}

fn parse(payload: &Bytes) -> Result<ControlRequest<Value>, String> {
    if payload.len() > REQUEST_BYTES_MAX {
        return Err(format!("{} bytes", payload.len()));
    }
    let request: ControlRequest<Value> =
        serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    let line = |text: &str| -> String {
        text.chars().filter(|c| !c.is_control()).take(SENDER_CHARS_MAX).collect()
    };
    Ok(ControlRequest { id: line(&request.id), by: line(&request.by), ..request })
}

impl ReceivedCommand {
    /// Separates the command from the means to reply to it.
    #[must_use]
    pub fn into_parts(self) -> (ControlCommand, Instant, CommandAnswer) {
        (self.command, self.deadline, self.answer)
    }
}

impl CommandAnswer {
    /// Sends the result of the command, and records it in the log.
    pub async fn send(self, result: ControlResult) {
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

/// Limits the number of lines and their length.
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
