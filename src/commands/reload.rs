//! `fjord reload`: makes all processes of a fleet, or none of them, apply the current contents of their files.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use super::Output;
use super::control::{ControlledFleet, failed};
use super::nats_connection::{self, NatsConnection};
use crate::cli::{ReloadArguments, Role};
use crate::config::Sources;
use crate::fleet::control::{CommandTarget, ControlCommand};

/// The steps of a reload. All workers know a new endpoint before a gateway sends requests to it. They serve a removed
/// endpoint until no gateway sends requests to it.
fn steps() -> [(&'static str, Option<Role>, ControlCommand, &'static str); 4] {
    let rollout = uuid::Uuid::new_v4().to_string();
    [
        (
            "check",
            None,
            ControlCommand::CheckReload,
            "nothing has changed: correct the faults, and run the command again",
        ),
        (
            "workers",
            Some(Role::Worker),
            ControlCommand::Reload { rollout: rollout.clone() },
            "the gateways still use their previous configuration, and the workers serve both: correct the faults, and run \
             the command again",
        ),
        (
            "gateways",
            Some(Role::Gateway),
            ControlCommand::Reload { rollout: rollout.clone() },
            "the workers serve the previous and the new configuration: correct the faults or wait for the requests, and run \
             the command again",
        ),
        (
            "finish",
            Some(Role::Worker),
            ControlCommand::FinishReload { rollout },
            "the new configuration is in use, but these workers may still serve queues or endpoints that it no longer has: run the \
             command again",
        ),
    ]
}

/// Checks the files of all processes, then makes the workers and finally the gateways apply them.
pub(super) fn run(
    arguments: &ReloadArguments,
    sources: &Sources,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    nats_connection::run(sources, "fjord reload", output, async |connection, output| {
        reload(arguments, sources, &connection, output).await
    })
}

async fn reload(
    arguments: &ReloadArguments,
    sources: &Sources,
    connection: &NatsConnection,
    output: &mut Output<impl Write, impl Write>,
) -> io::Result<ExitCode> {
    let timeout = Duration::from_secs(arguments.timeout);
    let mut fleet = match ControlledFleet::discover(connection, sources, timeout).await {
        Ok(fleet) => fleet,
        Err(failure) => return failed(&failure, output),
    };
    if arguments.on.is_none() {
        fleet.require_both_roles();
    }
    for (stage, role, command, consequence) in steps() {
        if role.is_some() && arguments.on.is_some() && role != arguments.on {
            continue;
        }
        let to = role.or(arguments.on).map_or(CommandTarget::All, CommandTarget::role);
        match fleet.send(to, command).await {
            Ok(true) => {}
            Ok(false) => return fleet.report((false, stage), consequence, arguments.json, output),
            Err(failure) => return failed(&failure, output),
        }
    }
    let summary = format!("{} use the new configuration", fleet.count());
    fleet.report((true, "done"), &summary, arguments.json, output)
}
