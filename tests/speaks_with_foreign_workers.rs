//! Promise: any NATS client in any language can be a worker or a caller. Python's stands for all of them; and one
//! that does not keep to the protocol harms nobody but its own requests.

use std::path::{Path, PathBuf};
use std::process::Command;

use http::Method;

use super::support::client::send;
use super::support::eventually::{SOON, TICK, eventually};
use super::support::fjord::{Fleet, FleetOptions};
use super::support::process::Process;
use super::support::target_directory;

/// A script of the test support in the Python that `make python` made.
pub(crate) fn python(script: &str) -> Command {
    let python = target_directory().join("python/bin/python");
    assert!(python.is_file(), "no Python with a NATS client: run `make python`");
    let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
    let mut command = Command::new(python);
    command.arg(support.join(script));
    command
}

/// A fleet whose own workers leave the foreign queue to others.
async fn fleet() -> Fleet {
    Fleet::start(FleetOptions { queues: "ledger-*", ..FleetOptions::default() }).await
}

async fn worker(fleet: &Fleet, way: &str) -> Process {
    python_worker(fleet, "foreign", &[way]).await
}

/// A worker of these queues in Python, in the way that `foreign_worker.py` explains.
pub(crate) async fn python_worker(fleet: &Fleet, queues: &str, way: &[&str]) -> Process {
    let mut command = python("foreign_worker.py");
    command.arg(fleet.nats.urls()[0].as_str()).arg(&fleet.certs.ca).arg(queues).args(way);
    let log: PathBuf = fleet.certs.ca.with_file_name(format!("{}.log", way[0]));
    let mut process = Process::start(way[0], command, &log);
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
async fn claim_progress_parts_and_status_are_spoken_in_python() {
    let fleet = fleet().await;
    let _worker = worker(&fleet, "whole").await;
    let client = fleet.client();
    let again = client.get("/v1/foreign/abc").await;
    assert_eq!(again.is(201).json()["known"]["Fjord-Execution"], "at-least-once");
    let once = send(client.request(Method::POST, "/v1/foreign/def")).await;
    let once = once.is(201).json();
    assert_eq!(once["asked"]["id"], "def");
    assert_eq!(once["known"]["Fjord-Execution"], "at-most-once");
    assert_eq!(once["known"]["traceparent"].as_str().map(str::len), Some(55));
    assert_eq!(once["executed"], 2, "each of them once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_nats_service_api_is_that_error() {
    let fleet = fleet().await;
    let _worker = worker(&fleet, "service-error").await;
    fleet.client().get("/v1/foreign/abc").await.is(418);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_read_is_a_bad_gateway() {
    let fleet = fleet().await;
    for way in ["garbage", "missing-part"] {
        let mut worker = worker(&fleet, way).await;
        let problem = fleet.client().get("/v1/foreign/abc").await.is_problem(502, "bad-answer");
        assert_eq!(problem["effect"], "unknown", "{way}");
        worker.kill();
    }
    assert!(fleet.gateways[0].figure("fjord_gateway_bad_replies_total").await > 0.5);
}

/// 503 is the gateway's promise that nothing was executed. A worker that executed something must not make it.
#[tokio::test(flavor = "multi_thread")]
async fn a_promise_that_only_a_gateway_can_make_is_a_bad_answer() {
    let fleet = fleet().await;
    for way in ["final-503", "service-503", "part-503", "promise"] {
        let mut worker = worker(&fleet, way).await;
        let client = fleet.client();
        let problem = client.get("/v1/foreign/abc").await.is_problem(502, "bad-answer");
        assert_eq!(problem["effect"], "unknown", "{way}");
        let once = send(client.request(Method::POST, "/v1/foreign/abc")).await;
        assert_eq!(once.is_problem(502, "bad-answer")["effect"], "unknown", "{way}");
        assert!(once.header("retry-after").is_empty(), "{way}");
        worker.kill();
    }
    assert!(fleet.gateways[0].figure("fjord_gateway_bad_replies_total").await > 7.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_final_is_nobodys() {
    let fleet = fleet().await;
    let _worker = worker(&fleet, "two-finals").await;
    let client = fleet.client();
    for _ in 0..3 {
        assert_eq!(client.get("/v1/foreign/abc").await.is(200).text(), "1");
    }
    assert!(fleet.gateways[0].figure("fjord_gateway_late_replies_total").await > 1.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_says_nothing_costs_time_and_not_the_truth() {
    let fleet = fleet().await;
    let _worker = worker(&fleet, "silent").await;
    let client = fleet.client();
    let (again, once) = tokio::join!(
        client.get("/v1/foreign/abc"),
        send(client.request(Method::POST, "/v1/foreign/abc"))
    );
    assert_eq!(again.is_problem(504, "attempt-timed-out")["effect"], "unknown");
    // It did not claim, so it was not allowed to execute: whoever keeps to the protocol has not.
    assert_eq!(once.is_problem(503, "not-executed")["effect"], "not-executed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_in_python_asks_a_worker_directly() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let ask = |payload: &str| {
        let mut command = python("foreign_caller.py");
        command.arg(fleet.nats.urls()[0].as_str()).arg(&fleet.certs.ca);
        let output = command.args(["echo", "echo", payload]).output().expect("python runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("what it prints")
    };
    let answer = ask(r#"{"id": "abc"}"#);
    assert_eq!(answer["headers"]["Fjord-Reply"], "final");
    assert_eq!(answer["headers"]["Fjord-Status"], "200");
    assert!(answer["body"].as_str().unwrap().contains("abc"));
}
