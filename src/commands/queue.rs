//! `fjord queue`: pauses, resumes and limits queues of the running workers.

use std::io::{self, Write};
use std::process::ExitCode;

use super::control::{self, SingleCommand};
use super::{EXIT_USAGE, Output, print_lines};
use crate::catalogue::QueueName;
use crate::cli::{QueueCommand, QueueNamesArguments, TargetOptions};
use crate::config::Sources;
use crate::config::limits::CONCURRENCY;
use crate::fleet::control::{CommandTarget, ControlCommand};

/// The argument that stands for the limit in the configuration.
const CONFIGURED: &str = "configured";

/// What a command of `fjord queue` sends, and what it prints.
struct QueueOperation<'a> {
    command: ControlCommand,
    target: &'a TargetOptions,
    success: &'static str,
}

/// Changes queues of the workers.
pub(super) fn run(
    command: &QueueCommand,
    sources: &Sources,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    let QueueOperation { command, target, success } = match change(command) {
        Ok(change) => change,
        Err(error) => {
            print_lines(&mut output.err, "error", [error])?;
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let queue = SingleCommand {
        name: "fjord queue",
        to: CommandTarget::parse(target.on.as_deref()),
        command,
        replies: &target.replies,
        success,
    };
    control::run(&queue, sources, output)
}

fn change(command: &QueueCommand) -> Result<QueueOperation<'_>, String> {
    match command {
        QueueCommand::Pause(QueueNamesArguments { queues, target }) => Ok(QueueOperation {
            command: ControlCommand::PauseQueues { queues: names(queues)? },
            target,
            success: "paused",
        }),
        QueueCommand::Resume(QueueNamesArguments { queues, target }) => Ok(QueueOperation {
            command: ControlCommand::ResumeQueues { queues: names(queues)? },
            target,
            success: "resumed",
        }),
        QueueCommand::Limit(arguments) => {
            let queue = name(&arguments.queue)?;
            let limit = limit(&arguments.limit)?;
            Ok(QueueOperation {
                command: ControlCommand::LimitQueue { queue, limit },
                target: &arguments.target,
                success: "limited",
            })
        }
    }
}

fn names(queues: &[String]) -> Result<Vec<String>, String> {
    queues.iter().map(|queue| name(queue)).collect()
}

fn name(queue: &str) -> Result<String, String> {
    let name = QueueName::new(queue).map_err(|error| format!("queue {queue}: {error}"))?;
    Ok(name.as_str().to_owned())
}

/// Parses a limit; `None` stands for the one in the configuration.
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
