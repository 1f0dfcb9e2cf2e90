//! `fjord ec2`: publishes the headroom of the fleet to `CloudWatch`, and drains a host that EC2 is about to stop.

use std::io::{self, Write};
use std::process::ExitCode;

use super::{EXIT_FAILED, Output};
use crate::cli::Ec2Command;
use crate::config::Sources;

mod http_client;
mod instance_metadata;
mod metric_data;
mod notices;
mod publish;
mod service_error;
mod signed_api;
mod watch;

pub(super) fn run(
    command: &Ec2Command,
    sources: &Sources,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    match command {
        Ec2Command::Publish(arguments) => publish::run(arguments, sources, output),
        Ec2Command::Watch(arguments) => watch::run(arguments, output),
    }
}

fn failed(failure: &str, output: &mut Output<impl Write, impl Write>) -> io::Result<ExitCode> {
    writeln!(output.err, "error: {}", super::printable::printable(failure))?;
    Ok(ExitCode::from(EXIT_FAILED))
}
