//! `fjord call` prints the response that a client of the gateway would receive.

use std::process::{Command, Output};

use serde_json::Value;

use crate::support::fjord_binary;
use crate::support::fleet::{Fleet, FleetOptions};

fn call(fleet: &Fleet, arguments: &[&str]) -> Output {
    let mut command = Command::new(fjord_binary());
    command.arg("call").arg("--config").arg(fleet.gateways[0].directory());
    command.args(arguments).output().expect("fjord runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_can_be_called_without_a_gateway() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    fleet.gateways[0].stop().await;
    let output = call(&fleet, &["slow", "ms=80", "--json"]);
    let called: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
    assert!(output.status.success(), "{called}");
    assert_eq!((&called["status"], &called["outcome"]), (&200.into(), &"ok".into()), "{called}");
    let phase = |name: &str| called["phases_ms"][name].as_f64().expect(name);
    assert!(phase("sql") >= 80.0 && phase("nats") > 0.0, "{called}");
    assert!(called["duration_ms"].as_f64() >= Some(80.0), "{called}");

    // The endpoint is at-most-once. The command grants the claim, and the ledger contains the command's request id.
    let output = call(&fleet, &["ledger-once", "ms=1"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("200 application/json (ok, 1 attempt, "), "{stderr}");
    assert!(stderr.contains("\n  queue_wait ") && stderr.contains("\n  sql "), "{stderr}");
    let body: Value = serde_json::from_slice(&output.stdout).expect("the output is JSON");
    assert_eq!(fleet.ledger(), [body["request_id"].as_str().expect("the request has an id")]);

    let output = call(&fleet, &["strict", "ms=20000"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("504 application/problem+json"));

    let output = call(&fleet, &["slow", "ms=many", "tea=1"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("error: ms: ") && stderr.contains("error: tea: "), "{stderr}");
    assert!(!stderr.contains("many"), "the value is printed: {stderr}");
    assert_eq!(call(&fleet, &["slwo"]).status.code(), Some(2));

    fleet.workers[0].stop().await;
    let output = call(&fleet, &["strict"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("503 ") && stderr.contains("no_workers"), "{stderr}");
}
