//! `fjord call` prints the response that a client of the gateway would receive.

use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::eventually::{SOON, eventually_some};
use crate::support::fjord_binary;
use crate::support::fleet::{Fleet, FleetOptions};

fn command(fleet: &Fleet, arguments: &[&str]) -> Command {
    let mut command = Command::new(fjord_binary());
    command.arg("call").arg("--config").arg(fleet.gateways[0].directory());
    command.args(arguments);
    command
}

fn call(fleet: &Fleet, arguments: &[&str]) -> Output {
    command(fleet, arguments).output().expect("fjord runs")
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

/// The call has been granted, and a disconnect does not cancel it.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_call_reports_its_attempt_and_what_is_known_of_it() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let running = async || fleet.workers[0].metric("fjord_worker_running").await;
    for (ms, status) in [("ms=2000", 200), ("ms=9000", 504)] {
        let mut called = command(&fleet, &["slow-once", ms, "--json"]);
        let called = called.stdout(Stdio::piped()).spawn().expect("fjord runs");
        eventually_some("the call runs", SOON, async || (running().await > 0.5).then_some(()))
            .await;
        kill_process(Pid::from_child(&called), Signal::INT).expect("it runs");
        let output = called.wait_with_output().expect("it ends");
        let called: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
        assert_eq!(
            (&called["status"], &called["attempts"]),
            (&status.into(), &1.into()),
            "{called}"
        );
        if status == 504 {
            assert_eq!(called["body"]["type"], "urn:fjord:problem:outcome-unknown");
            assert!(running().await > 0.5, "the call continues");
        }
    }
}
