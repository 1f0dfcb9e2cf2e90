//! Promise: progress reports extend a session, and fjord reacts in time when a worker is lost, a client disconnects or a
//! session times out.

use std::time::{Duration, Instant};

use fjord::lifecycle::Tasks;
use http::Method;
use serde_json::json;

use super::support::client::send;
use super::support::eventually::{SOON, eventually_some};
use super::support::fjord_process::FjordProcess;
use super::support::fleet::{Fleet, FleetOptions};

/// Waits until `number` calls of a queue are running.
async fn wait_for_running(worker: &FjordProcess, queue: &str, number: f64) {
    let gauge = format!(r#"fjord_worker_running{{queue="{queue}"}}"#);
    eventually_some(format!("{number} calls of {queue} are running"), SOON, async || {
        ((worker.metric(&gauge).await - number).abs() < 0.5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thirty_second_call_succeeds_despite_a_two_second_timeout() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let (at_least_once, at_most_once) = tokio::join!(
        client.get("/v1/slow?ms=30000"),
        send(client.request(Method::POST, "/v1/slow?ms=30000")),
    );
    at_least_once.is(200);
    at_most_once.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_longer_than_its_session_is_a_504_and_frees_its_slot() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let start = Instant::now();
    let answer = fleet.client().get("/v1/strict?ms=30000").await;
    assert_eq!(answer.is_problem(504, "attempt-timed-out")["effect"], "unknown");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    wait_for_running(&fleet.workers[0], "strict", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_call_of_a_killed_worker_is_answered_within_four_seconds() {
    let mut fleet = Fleet::start(FleetOptions { workers: 1, ..FleetOptions::default() }).await;
    let client = fleet.client();
    let other = client.clone();
    let at_least_once = Tasks::new().spawn(async move { client.get("/v1/slow?ms=1500").await });
    let at_most_once = Tasks::new().spawn(async move {
        other.request(Method::POST, "/v1/slow?ms=20000").send().await.expect("a response").status()
    });
    wait_for_running(&fleet.workers[0], "slow", 1.0).await;
    wait_for_running(&fleet.workers[0], "slow-once", 1.0).await;
    let start = Instant::now();
    fleet.workers[0].process.kill();
    fleet.add_worker().ready().await;
    assert_eq!(at_most_once.await.unwrap(), 504);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    at_least_once.await.unwrap().is(200);
    assert!(start.elapsed() < Duration::from_secs(6), "expected 3 s of silence and 1.5 s of work");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disconnects_stops_the_procedure_at_once() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    for wait in [50, 700] {
        let request = fleet.client().request(Method::GET, "/v1/slow?ms=30000");
        let response = request.timeout(Duration::from_millis(wait)).send().await;
        assert!(response.is_err(), "the client has disconnected");
        let disconnected = Instant::now();
        wait_for_running(&fleet.workers[0], "slow", 0.0).await;
        let took = disconnected.elapsed();
        println!("stopped {took:?} after the disconnect of a client that had waited {wait} ms");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    let cancelled = r#"fjord_worker_calls_total{queue="slow",outcome="cancelled"}"#;
    assert!(fleet.workers[0].metric(cancelled).await > 1.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_at_most_once_call_continues_when_its_client_disconnects() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let request = fleet.client().request(Method::POST, "/v1/once").json(&json!({ "ms": 800 }));
    let request =
        request.header("x-request-id", "disconnected").timeout(Duration::from_millis(300));
    assert!(request.send().await.is_err(), "the client has disconnected");
    eventually_some("the procedure writes to the ledger", SOON, async || {
        fleet.ledger().contains(&"disconnected".to_owned()).then_some(())
    })
    .await;
}
