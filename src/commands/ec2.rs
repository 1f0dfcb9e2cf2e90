//! `fjord ec2`: publishes the headroom of the fleet to `CloudWatch`, or drains a host that EC2 is about to stop.

use std::io::{self, Write};
use std::process::ExitCode;

use super::printable::printable;
use super::{EXIT_FAILED, EXIT_USAGE, Output};
use crate::cli::Ec2Command;
use crate::config::Sources;

mod drain;
mod failure_log;
mod http_client;
mod instance_metadata;
mod lifecycle_action;
mod metric_data;
mod notices;
mod proxy;
mod publish;
mod service_error;
mod signed_api;
mod termination;
mod units;
mod watch;

pub(super) fn run(
    command: &Ec2Command,
    sources: &Sources,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    let proxy = match proxy::ProxySettings::read(&sources.environment) {
        Ok(proxy) => proxy,
        Err(failure) => {
            writeln!(output.err, "error: {}", printable(&failure))?;
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let aws = match command {
        Ec2Command::Publish(arguments) => &arguments.aws,
        Ec2Command::Watch(arguments) => &arguments.aws,
    };
    let client = match http_client::HttpClient::new(aws.ca.as_deref(), proxy) {
        Ok(client) => client,
        Err(failure) => return failed(&failure, output),
    };
    match command {
        Ec2Command::Publish(arguments) => publish::run(arguments, client, sources, output),
        Ec2Command::Watch(arguments) => watch::run(arguments, client, output),
    }
}

fn failed(failure: &str, output: &mut Output<impl Write, impl Write>) -> io::Result<ExitCode> {
    writeln!(output.err, "error: {}", printable(failure))?;
    Ok(ExitCode::from(EXIT_FAILED))
}
