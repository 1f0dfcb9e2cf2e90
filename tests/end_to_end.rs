//! Promise: an HTTPS request executes a procedure in another process, through a real NATS server with TLS, and gets a
//! complete response.

use std::time::Duration;

use fjord::lifecycle::Tasks;
use http::Method;
use serde_json::json;

use super::support::client::{ClientOptions, HttpVersion};
use super::support::eventually::{SOON, eventually_some};
use super::support::fleet::{Fleet, FleetOptions};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_by_a_procedure_in_the_worker() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    for http in [HttpVersion::One, HttpVersion::Two] {
        let client = fleet.client_with(ClientOptions { http, ..ClientOptions::default() });
        let answer = client.send(Method::POST, "/v1/once", &json!({ "ms": 1 })).await;
        let id = answer.is(200).json()["request_id"].clone();
        assert_eq!(answer.header("x-request-id"), id, "the procedure received the request id");
        assert!(fleet.ledger().contains(&id.as_str().unwrap().to_owned()));
    }
    let labels = r#"fjord_worker_calls_total{queue="ledger-once",outcome="ok"}"#;
    assert!(fleet.workers[0].metric(labels).await > 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_larger_than_a_message_arrives_complete() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let answer = fleet.client().get("/v1/large?rows=40000").await;
    let rows = answer.is(200).json();
    assert_eq!(rows.as_array().unwrap().len(), 40_000);
    assert_eq!(rows[39_999]["number"], 40_000);
    assert!(answer.body.len() > 4 << 20, "several parts: {} bytes", answer.body.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_larger_than_a_message_is_rejected_before_it_is_published() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let note = "x".repeat(1_100_000);
    let answer = fleet.client().send(Method::PUT, "/v1/keep/1", &json!({ "note": note })).await;
    answer.is_problem(413, "body-too-large");
    assert!(fleet.workers[0].metric("fjord_worker_calls_total").await < 1.0);
    let note = "x".repeat(900_000);
    let answer = fleet.client().send(Method::PUT, "/v1/keep/1", &json!({ "note": note })).await;
    assert_eq!(answer.is(200).json()["note"], note, "a request that fits is executed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_can_be_replaced_without_restarting_the_gateway() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    fleet.client().get("/v1/slow?ms=1").await.is(200);
    fleet.workers[0].process.kill();
    let answer = fleet.client().get("/v1/slow?ms=1").await;
    let problem = answer.is_problem(503, "no-workers");
    assert_eq!(problem["effect"], "not-executed");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    fleet.workers[0].restart();
    fleet.workers[0].ready().await;
    fleet.client().get("/v1/slow?ms=1").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_starts_without_nats_and_is_ready_once_connected() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    fleet.nats.servers[0].kill();
    fleet.workers[0].restart();
    fleet.gateways[0].restart();
    let gateway = eventually_some("the gateway listens", SOON, async || {
        fleet.gateways[0].process.log().contains(r#""part":"https""#).then_some(())
    });
    gateway.await;
    let answer = fleet.client().get("/v1/slow?ms=1").await;
    assert_eq!(answer.is_problem(503, "bus-down")["effect"], "not-executed");
    fleet.nats.servers[0].restart().await;
    fleet.workers[0].ready().await;
    fleet.gateways[0].ready().await;
    fleet.client().get("/v1/slow?ms=1").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_requests_in_flight_finish_and_exits_with_zero() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let slow = Tasks::new().spawn(async move { client.get("/v1/slow?ms=1500").await });
    eventually_some("the call runs", SOON, async || {
        (fleet.workers[0].metric(r#"fjord_worker_running{queue="slow"}"#).await > 0.5).then_some(())
    })
    .await;
    fleet.workers[0].process.terminate();
    fleet.gateways[0].process.terminate();
    slow.await.unwrap().is(200);
    for node in [&mut fleet.workers[0], &mut fleet.gateways[0]] {
        let status = node.process.wait(Duration::from_secs(20)).await;
        assert_eq!(status.code(), Some(0), "{}", node.process.log_tail());
    }
}
