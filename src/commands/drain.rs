//! `fjord drain`: makes processes finish their requests or calls and then exit.

use std::io::{self, Write};
use std::process::ExitCode;

use super::Output;
use super::control::{self, SingleCommand};
use crate::cli::DrainArguments;
use crate::config::Sources;
use crate::fleet::control::{CommandTarget, ControlCommand};

/// Drains one process, or every process on a host.
pub(super) fn run(
    arguments: &DrainArguments,
    sources: &Sources,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    let drain = SingleCommand {
        name: "fjord drain",
        to: CommandTarget::Member(arguments.member.clone()),
        command: ControlCommand::Drain,
        replies: &arguments.replies,
        is_urgent: false,
        success: "draining; each process exits when its requests or calls have ended",
    };
    control::run(&drain, sources, output)
}
