//! Promise: a NATS client in any language can be a worker or a caller. The tests use Python. A worker that violates the
//! protocol affects only its own requests.

use std::path::{Path, PathBuf};
use std::process::Command;

use http::Method;

use super::support::client::send;
use super::support::eventually::{SOON, TICK, eventually};
use super::support::fleet::{Fleet, FleetOptions};
use super::support::process::Process;
use super::support::target_directory;

/// Returns a command that runs a script in `tests/support` with the Python that `make python` installs.
pub(crate) fn python(script: &str) -> Command {
    let python = target_directory().join("python/bin/python");
    assert!(python.is_file(), "no Python with a NATS client: run `make python`");
    let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
    let mut command = Command::new(python);
    command.arg(support.join(script));
    command
}

/// Starts a fleet whose own workers do not serve the foreign queue.
async fn fleet() -> Fleet {
    Fleet::start(FleetOptions { queues: "ledger-*", ..FleetOptions::default() }).await
}

async fn worker(fleet: &Fleet, behaviour: &str) -> Process {
    python_worker(fleet, "foreign", &[behaviour]).await
}

/// Starts a Python worker that serves `queues` and behaves as `behaviour` specifies. See `python_worker.py`.
pub(crate) async fn python_worker(fleet: &Fleet, queues: &str, behaviour: &[&str]) -> Process {
    let mut command = python("python_worker.py");
    command.arg(fleet.nats.urls()[0].as_str()).arg(&fleet.certs.ca).arg(queues).args(behaviour);
    let log: PathBuf = fleet.certs.ca.with_file_name(format!("{}.log", behaviour[0]));
    let mut process = Process::start(behaviour[0], command, &log);
    eventually(SOON, TICK, || {
        assert!(process.is_running(), "{}", process.log());
        process.log().contains("ready")
    })
    .await;
    process
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_responder_is_a_worker() {
    let fleet = fleet().await;
    let _worker = worker(&fleet, "plain").await;
    let answer = fleet.client().get("/v1/foreign/abc").await;
    assert_eq!(answer.is(200).json()["plain"], "abc");
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_worker_can_claim_report_progress_and_send_parts_and_a_status() {
    let fleet = fleet().await;
    let _worker = worker(&fleet, "whole").await;
    let client = fleet.client();
    let at_least_once = client.get("/v1/foreign/abc").await;
    assert_eq!(at_least_once.is(201).json()["known"]["Fjord-Execution"], "at-least-once");
    let once = send(client.request(Method::POST, "/v1/foreign/def")).await;
    let once = once.is(201).json();
    assert_eq!(once["asked"]["id"], "def");
    assert_eq!(once["known"]["Fjord-Execution"], "at-most-once");
    assert_eq!(once["known"]["traceparent"].as_str().map(str::len), Some(55));
    assert_eq!(once["executed"], 2, "each request was executed once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_nats_service_api_becomes_the_response() {
    let fleet = fleet().await;
    let _worker = worker(&fleet, "service-error").await;
    fleet.client().get("/v1/foreign/abc").await.is(418);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_answer_is_a_502() {
    let fleet = fleet().await;
    for behaviour in ["garbage", "missing-part"] {
        let mut worker = worker(&fleet, behaviour).await;
        let problem = fleet.client().get("/v1/foreign/abc").await.is_problem(502, "bad-answer");
        assert_eq!(problem["effect"], "unknown", "{behaviour}");
        worker.kill();
    }
    assert!(fleet.gateways[0].metric("fjord_gateway_bad_replies_total").await > 0.5);
}

/// A 503 from a gateway promises that nothing was executed. Only the gateway may make that promise.
#[tokio::test(flavor = "multi_thread")]
async fn a_503_or_not_executed_from_a_worker_is_a_502() {
    let fleet = fleet().await;
    for behaviour in ["final-503", "service-503", "part-503", "promise"] {
        let mut worker = worker(&fleet, behaviour).await;
        let client = fleet.client();
        let problem = client.get("/v1/foreign/abc").await.is_problem(502, "bad-answer");
        assert_eq!(problem["effect"], "unknown", "{behaviour}");
        let once = send(client.request(Method::POST, "/v1/foreign/abc")).await;
        assert_eq!(once.is_problem(502, "bad-answer")["effect"], "unknown", "{behaviour}");
        assert!(once.header("retry-after").is_empty(), "{behaviour}");
        worker.kill();
    }
    assert!(fleet.gateways[0].metric("fjord_gateway_bad_replies_total").await > 7.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_final_is_dropped() {
    let fleet = fleet().await;
    let _worker = worker(&fleet, "two-finals").await;
    let client = fleet.client();
    for _ in 0..3 {
        assert_eq!(client.get("/v1/foreign/abc").await.is(200).text(), "1");
    }
    assert!(fleet.gateways[0].metric("fjord_gateway_late_replies_total").await > 1.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_worker_is_reported_with_the_right_effect() {
    let fleet = fleet().await;
    let _worker = worker(&fleet, "silent").await;
    let client = fleet.client();
    let (at_least_once, at_most_once) = tokio::join!(
        client.get("/v1/foreign/abc"),
        send(client.request(Method::POST, "/v1/foreign/abc"))
    );
    assert_eq!(at_least_once.is_problem(504, "attempt-timed-out")["effect"], "unknown");
    // The worker did not claim the request, so it was not allowed to execute it.
    assert_eq!(at_most_once.is_problem(503, "not-executed")["effect"], "not-executed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_caller_can_call_a_worker_directly() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let call = |payload: &str| {
        let mut command = python("python_caller.py");
        command.arg(fleet.nats.urls()[0].as_str()).arg(&fleet.certs.ca);
        let output = command.args(["echo", "echo", payload]).output().expect("python runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON on stdout")
    };
    let answer = call(r#"{"id": "abc"}"#);
    assert_eq!(answer["headers"]["Fjord-Reply"], "final");
    assert_eq!(answer["headers"]["Fjord-Status"], "200");
    assert!(answer["body"].as_str().unwrap().contains("abc"));
}
