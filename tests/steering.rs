//! Promise: an operator controls a whole fleet over NATS. A command is executed by all processes
//! that it concerns, or the ones that did not execute it are named.

use std::process::Output;

use serde_json::Value;

use super::support::fjord_binary;
use super::support::fleet::{Fleet, FleetOptions};
use super::support::nats::{NatsOptions, SHIPPED_PASSWORD};

mod drain_command;
mod reload_command;

/// Starts a fleet with the shipped NATS configuration.
async fn fleet(gateways: usize, workers: usize) -> Fleet {
    let nats = NatsOptions { is_shipped: true, ..NatsOptions::default() };
    Fleet::start(FleetOptions { nats, gateways, workers, ..FleetOptions::default() }).await
}

/// Runs a command as the user `controller`.
async fn run(fleet: &Fleet, arguments: &[&str]) -> Output {
    run_as(fleet, "controller", arguments).await
}

async fn run_as(fleet: &Fleet, user: &str, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(fjord_binary());
    command.args(arguments).arg("--config").arg(fleet.gateways[0].directory());
    for (key, value) in [
        ("user", user.to_owned()),
        ("password", SHIPPED_PASSWORD.to_owned()),
        ("inbox_prefix", format!("_INBOX_{user}")),
    ] {
        command.arg("--set").arg(format!("messaging.nats.{key}={value}"));
    }
    command.env("USER", "grace").env_remove("SUDO_USER").output().await.expect("fjord runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the JSON document that a command has printed.
fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("no JSON document: {}", text(&output.stderr)))
}
