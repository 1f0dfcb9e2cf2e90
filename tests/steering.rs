//! Promise: an operator controls a whole fleet over NATS. A command is executed by all processes
//! that it concerns. Otherwise, the processes that did not execute it are named.

use std::path::Path;
use std::process::Output;

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::nats_permissions::user;
use super::support::eventually::SOON;
use super::support::fjord_binary;
use super::support::fleet::{Fleet, FleetOptions};
use super::support::nats::{NatsOptions, SHIPPED_PASSWORD};

mod drain_command;
mod log_command;
mod nats_settings;
mod page;
mod queue_command;
mod reload_command;
mod reloads_under_load;
mod removed_endpoints;
mod unknown_processes;
mod weight_command;

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
    run_in(fleet.gateways[0].directory(), user, arguments).await
}

/// Runs a command as a user, with the configuration in a directory.
async fn run_in(directory: &Path, user: &str, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(fjord_binary());
    command.args(arguments).arg("--config").arg(directory);
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

/// Sends a command as the user `controller`. Returns the reply of the worker.
async fn send(fleet: &Fleet, subject: &str, command: Value) -> Value {
    let (client, _) = user(fleet, "controller").await;
    let inbox = format!("_INBOX_controller.{}", uuid::Uuid::new_v4().simple());
    let mut replies = client.subscribe(inbox.clone()).await.unwrap();
    let request = json!({
        "id": "1", "by": "test", "to": { "role": "worker" }, "timeout_ms": 1000, "command": command,
    });
    let payload = request.to_string().into();
    client.publish_with_reply(subject.to_owned(), inbox, payload).await.unwrap();
    let reply = tokio::time::timeout(SOON, replies.next()).await.expect("a reply in time");
    serde_json::from_slice(&reply.expect("a reply").payload).unwrap()
}
