//! `fjord drain`: makes processes finish their requests or calls, and exit.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use super::control::ControlledFleet;
use super::nats_connection::{self, NatsConnection};
use super::{EXIT_FAILED, Output};
use crate::cli::DrainArguments;
use crate::config::Sources;
use crate::fleet::control::{CommandTarget, ControlCommand};

/// Makes one process, or every process on a host, drain.
pub(super) fn run(
    arguments: &DrainArguments,
    sources: &Sources,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    nats_connection::run(sources, "fjord drain", output, async |connection, output| {
        drain(arguments, sources, &connection, output).await
    })
}

async fn drain(
    arguments: &DrainArguments,
    sources: &Sources,
    connection: &NatsConnection,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    let timeout = Duration::from_secs(arguments.timeout);
    let target = CommandTarget::Member(arguments.member.clone());
    let drained = async {
        let mut fleet = ControlledFleet::discover(connection, sources, timeout).await?;
        fleet.keep(&target);
        if fleet.members.is_empty() {
            let name = &arguments.member;
            return Err(format!("no process has the id or the host name {name}: see fjord status"));
        }
        let succeeded = fleet.send(target, ControlCommand::Drain).await?;
        Ok((fleet, succeeded))
    };
    match drained.await {
        Ok((fleet, succeeded)) => {
            let (workers, gateways) = (fleet.count("worker"), fleet.count("gateway"));
            let summary = if succeeded {
                format!("{workers} and {gateways} drain, and exit when their calls have ended")
            } else {
                "the other processes drain".to_owned()
            };
            fleet.report((succeeded, "drain"), &summary, arguments.json, output)
        }
        Err(failure) => {
            writeln!(output.err, "error: {failure}")?;
            Ok(ExitCode::from(EXIT_FAILED))
        }
    }
}
