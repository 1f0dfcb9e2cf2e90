//! `fjord ec2 publish` does not publish averages since the start of a process if it has only one report from that
//! process.

use std::process::{Output, Stdio};

use tokio::process::Command;

use crate::support::fjord_binary;
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::nats::NatsOptions;
use crate::support::simulated_fleet::SimulatedFleet;

/// Runs `fjord ec2 publish` with a short interval, and starts some processes each time the number of its queries
/// reaches a value in `start_after`. Returns the command's output, and the total number of queries that it has
/// sent.
async fn publish(fleet: &Fleet, start_after: &[usize]) -> (Output, usize) {
    let url = &fleet.nats.urls()[0];
    let simulated = SimulatedFleet::start_after(url, 10, start_after).await;
    let mut command = Command::new(fjord_binary());
    command.args(["ec2", "publish", "--dry-run", "--interval", "2"]);
    command.arg("--config").arg(fleet.gateways[0].directory());
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let output = running.expect("fjord runs").wait_with_output().await.expect("it ends");
    (output, simulated.queries())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_is_measured_again_if_processes_are_new() {
    let nats = NatsOptions { has_tls: false, ..NatsOptions::default() };
    let worker_toml = "[worker]\npool = 'heavy'".to_owned();
    let fleet = Fleet::start(FleetOptions { nats, worker_toml, ..FleetOptions::default() }).await;
    let (output, queries) = publish(&fleet, &[]).await;
    assert_eq!((output.status.code(), queries), (Some(0), 2), "{}", text(&output.stderr));

    let (output, queries) = publish(&fleet, &[1]).await;
    let (values, warnings) = (text(&output.stdout), text(&output.stderr));
    assert_eq!((output.status.code(), queries), (Some(0), 3), "{warnings}");
    assert_eq!(warnings.matches("the load does not include").count(), 0, "{warnings}");
    assert!(values.contains("Load{Pool=default}"), "{values}");

    // Processes that are new in the last query are omitted and named. The load of the other processes is published.
    let (output, queries) = publish(&fleet, &[1, 2]).await;
    let (values, warnings) = (text(&output.stdout), text(&output.stderr));
    assert_eq!((output.status.code(), queries), (Some(0), 3), "{warnings}");
    assert_eq!(warnings.matches("the load does not include").count(), 10, "{warnings}");
    assert!(warnings.contains("0004simulated"), "{warnings}");
    assert!(values.contains("Load{Pool=heavy} 0.0"), "{values}");
    assert!(values.contains("Workers{Pool=default} 9.0"), "{values}");
    assert!(!values.contains("Load{Pool=default}"), "{values}");
}
