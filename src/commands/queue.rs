//! `fjord queue`: pauses, resumes and limits queues in the running workers, and changes the weights of queues in
//! gateways.

use std::io::{self, Write};
use std::process::ExitCode;

use super::control::{self, SingleCommand};
use super::{EXIT_USAGE, Output, print_lines};
use crate::catalogue::QueueName;
use crate::cli::{QueueCommand, QueueNamesArguments, ReplyOptions, Role, TargetOptions};
use crate::config::Sources;
use crate::config::limits::CONCURRENCY;
use crate::fleet::control::{CommandTarget, ControlCommand};

mod weight;

/// The argument that restores the configured limit.
const CONFIGURED: &str = "configured";

/// The message that a `fjord queue` command sends, its recipients, and the text that the command prints.
struct QueueOperation<'a> {
    command: ControlCommand,
    to: CommandTarget,
    replies: &'a ReplyOptions,
    success: &'static str,
}

impl<'a> QueueOperation<'a> {
    fn of_workers(
        command: ControlCommand,
        target: &'a TargetOptions,
        success: &'static str,
    ) -> Self {
        let to = CommandTarget::parse(target.on.as_deref());
        Self { command, to, replies: &target.replies, success }
    }
}

/// Changes queues in the workers, or the weights of queues in the gateways.
pub(super) fn run(
    command: &QueueCommand,
    sources: &Sources,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    let QueueOperation { command, to, replies, success } = match change(command) {
        Ok(change) => change,
        Err(error) => {
            print_lines(&mut output.err, "error", [error])?;
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let queue = SingleCommand {
        name: "fjord queue",
        to,
        is_urgent: matches!(command, ControlCommand::WeighQueues { .. }),
        command,
        replies,
        success,
    };
    control::run(&queue, sources, output)
}

fn change(command: &QueueCommand) -> Result<QueueOperation<'_>, String> {
    match command {
        QueueCommand::Pause(QueueNamesArguments { queues, target }) => {
            let command = ControlCommand::PauseQueues { queues: names(queues)? };
            Ok(QueueOperation::of_workers(command, target, "paused"))
        }
        QueueCommand::Resume(QueueNamesArguments { queues, target }) => {
            let command = ControlCommand::ResumeQueues { queues: names(queues)? };
            Ok(QueueOperation::of_workers(command, target, "resumed"))
        }
        QueueCommand::Limit(arguments) => {
            let queue = name(&arguments.queue)?;
            let limit = limit(&arguments.limit)?;
            let command = ControlCommand::LimitQueue { queue, limit };
            Ok(QueueOperation::of_workers(command, &arguments.target, "limited"))
        }
        QueueCommand::Weight(arguments) => Ok(QueueOperation {
            command: weight::command(arguments)?,
            to: CommandTarget::role(Role::Gateway),
            replies: &arguments.replies,
            success: "weights changed until their next reload or restart",
        }),
    }
}

fn names(queues: &[String]) -> Result<Vec<String>, String> {
    queues.iter().map(|queue| name(queue)).collect()
}

fn name(queue: &str) -> Result<String, String> {
    let name = QueueName::new(queue).map_err(|error| format!("queue {queue}: {error}"))?;
    Ok(name.as_str().to_owned())
}

/// Parses a limit. Returns `None` for the argument that restores the configured limit.
fn limit(text: &str) -> Result<Option<usize>, String> {
    if text == CONFIGURED {
        return Ok(None);
    }
    let number = text.parse().ok();
    let limit = number.filter(|limit| (CONCURRENCY.floor..=CONCURRENCY.ceiling).contains(limit));
    limit.map(Some).ok_or_else(|| {
        let (floor, ceiling) = (CONCURRENCY.floor, CONCURRENCY.ceiling);
        format!("{text}: expected a number of calls from {floor} to {ceiling}, or {CONFIGURED}")
    })
}
