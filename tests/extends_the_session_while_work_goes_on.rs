//! Promise: progress extends a session; a worker that is lost, a client that leaves and a session that is over are
//! noticed in time.

use std::time::{Duration, Instant};

use fjord::lifecycle::Tasks;
use http::Method;
use serde_json::json;

use super::support::client::send;
use super::support::eventually::{SOON, eventually_some};
use super::support::fjord::{Fleet, FleetOptions, Node};

async fn running(worker: &Node, queue: &str, number: f64) {
    let figure = format!(r#"fjord_worker_running{{queue="{queue}"}}"#);
    eventually_some(format!("{number} calls of {queue} run"), SOON, async || {
        ((worker.figure(&figure).await - number).abs() < 0.5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_thirty_seconds_is_answered_behind_a_timeout_of_two() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let (again, once) = tokio::join!(
        client.get("/v1/slow?ms=30000"),
        send(client.request(Method::POST, "/v1/slow?ms=30000")),
    );
    again.is(200);
    once.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_past_its_session_is_a_gateway_timeout_and_frees_its_slot() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let start = Instant::now();
    let answer = fleet.client().get("/v1/strict?ms=30000").await;
    assert_eq!(answer.is_problem(504, "attempt-timed-out")["effect"], "unknown");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    running(&fleet.workers[0], "strict", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_workers_call_is_answered_within_four_seconds() {
    let mut fleet = Fleet::start(FleetOptions { workers: 1, ..FleetOptions::default() }).await;
    let client = fleet.client();
    let other = client.clone();
    let again = Tasks::new().spawn(async move { client.get("/v1/slow?ms=1500").await });
    let once = Tasks::new().spawn(async move {
        other.request(Method::POST, "/v1/slow?ms=20000").send().await.expect("an answer").status()
    });
    running(&fleet.workers[0], "slow", 1.0).await;
    running(&fleet.workers[0], "slow-once", 1.0).await;
    let start = Instant::now();
    fleet.workers[0].process.kill();
    fleet.add_worker().ready().await;
    assert_eq!(once.await.unwrap(), 504);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    again.await.unwrap().is(200);
    assert!(start.elapsed() < Duration::from_secs(6), "3 s of silence, 1.5 s of work");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_stops_the_procedure_at_once() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    for wait in [50, 700] {
        let request = fleet.client().request(Method::GET, "/v1/slow?ms=30000");
        let asked = request.timeout(Duration::from_millis(wait)).send().await;
        assert!(asked.is_err(), "the client has left");
        let left = Instant::now();
        running(&fleet.workers[0], "slow", 0.0).await;
        println!("stopped {:?} after a client left that had waited {wait} ms", left.elapsed());
        assert!(left.elapsed() < Duration::from_secs(2), "{:?}", left.elapsed());
    }
    let cancelled = r#"fjord_worker_calls_total{queue="slow",outcome="cancelled"}"#;
    assert!(fleet.workers[0].figure(cancelled).await > 1.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_may_run_once_goes_on_when_its_client_leaves() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let request = fleet.client().request(Method::POST, "/v1/once").json(&json!({ "ms": 800 }));
    let asked = request.header("x-request-id", "left").timeout(Duration::from_millis(300));
    assert!(asked.send().await.is_err(), "the client has left");
    eventually_some("the line is written", SOON, async || {
        fleet.ledger().contains(&"left".to_owned()).then_some(())
    })
    .await;
}
