//! `fjord log`: changes the log levels of processes for a limited time.

use std::io::{self, Write};
use std::process::ExitCode;

use super::control::{self, SingleCommand};
use super::{EXIT_USAGE, Output, print_lines};
use crate::cli::LogArguments;
use crate::config::Sources;
use crate::config::limits::TEMPORARY_FILTER;
use crate::fleet::control::{CommandTarget, ControlCommand};
use crate::telemetry::logs;
use crate::units::format_duration;

/// Adds directives to the log filters of the selected processes.
pub(super) fn run(
    arguments: &LogArguments,
    sources: &Sources,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    let LogArguments { filter, duration, target } = arguments;
    if let Err(error) = check(arguments) {
        print_lines(&mut output.err, "error", [error])?;
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let log = SingleCommand {
        name: "fjord log",
        to: CommandTarget::parse(target.on.as_deref()),
        command: ControlCommand::SetLogFilter { filter: filter.clone(), duration_ms },
        replies: &target.replies,
        is_urgent: false,
        success: "the filter applies, and expires automatically",
    };
    control::run(&log, sources, output)
}

/// Checks the filter and the duration, because the processes would reject invalid values.
fn check(LogArguments { filter, duration, .. }: &LogArguments) -> Result<(), String> {
    if !logs::is_valid_filter(filter) {
        return Err(format!(
            "{filter}: expected a level (error, warn, info, debug, trace, off), or target=level, separated by commas"
        ));
    }
    let limit = TEMPORARY_FILTER;
    if *duration < limit.floor || *duration > limit.ceiling {
        let (floor, ceiling) = (format_duration(limit.floor), format_duration(limit.ceiling));
        return Err(format!("--for: expected a duration from {floor} to {ceiling}"));
    }
    Ok(())
}
