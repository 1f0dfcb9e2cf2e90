//! The client, the worker or the gateway fails in the middle of an answer.

use std::time::{Duration, Instant};

use http::Method;

use super::{begin, client, reaches, read, wait_until_idle};
use crate::support::client::HttpVersion;
use crate::support::fleet::{Fleet, FleetOptions};

const LARGE: &str = "/v1/flow?rows=30000&pause_at=20000&ms=1";
const SLOW: &str = "/v1/flow?rows=3000&pause_at=2000&ms=15000";

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disconnects_stops_the_call() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    for (http, left) in super::BOTH.into_iter().zip([1.0, 2.0]) {
        let client = client(&fleet, http);
        let mut response = begin(&client, SLOW).await;
        response.chunk().await.expect("the body can be read").expect("a chunk");
        drop((response, client));
        wait_until_idle(&fleet.workers[0]).await;
        let cancelled = r#"fjord_worker_calls_total{queue="flow",outcome="cancelled"}"#;
        reaches(&fleet.workers[0], cancelled, left).await;
        let gone = r#"fjord_gateway_requests_total{endpoint="flow",queue="flow",status="200",outcome="client_gone"}"#;
        reaches(&fleet.gateways[0], gone, left).await;
    }
    fleet.client().get("/v1/flow?rows=10").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_at_most_once_call_runs_to_its_end_without_its_client() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let client = client(&fleet, HttpVersion::One);
    let path = "/v1/flow?rows=5000&pause_at=4000&ms=500";
    let mut response = client.request(Method::POST, path).send().await.expect("response headers");
    response.chunk().await.expect("the body can be read").expect("a chunk");
    drop((response, client));
    let ok = r#"fjord_worker_calls_total{queue="flow-once",outcome="ok"}"#;
    reaches(&fleet.workers[0], ok, 1.0).await;
    wait_until_idle(&fleet.workers[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_is_disconnected_and_its_call_stopped() {
    let gateway_toml = "body_idle_timeout = '1s'\n".to_owned();
    let fleet = Fleet::start(FleetOptions { gateway_toml, ..FleetOptions::default() }).await;
    let response = begin(&client(&fleet, HttpVersion::One), LARGE).await;
    reaches(&fleet.workers[0], r#"fjord_worker_running{queue="flow"}"#, 1.0).await;
    wait_until_idle(&fleet.workers[0]).await;
    let stalled = r#"fjord_gateway_connections_refused_total{reason="write_stalled"}"#;
    reaches(&fleet.gateways[0], stalled, 1.0).await;
    assert!(!read(response).await.1, "the answer was cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_a_killed_worker_is_cut_off_and_the_request_is_not_sent_again() {
    let mut fleet = Fleet::start(FleetOptions { workers: 2, ..FleetOptions::default() }).await;
    for http in super::BOTH {
        let response = begin(&client(&fleet, http), SLOW).await;
        let mut running = Vec::new();
        for worker in &fleet.workers {
            running.push(worker.metric(r#"fjord_worker_running{queue="flow"}"#).await);
        }
        let index = running.iter().position(|count| *count > 0.5).expect("a worker runs the call");
        fleet.workers[index].process.kill();
        let began = Instant::now();
        let (body, is_complete) = read(response).await;
        // The number of received bytes depends on the socket buffers.
        assert!(!is_complete && body.len() >= 256 << 10, "{} bytes", body.len());
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        let other =
            fleet.workers[1 - index].metric("fjord_worker_calls_total{queue=\"flow\"").await;
        assert!(other < 0.5, "the request was sent again");
        fleet.workers[index].restart();
        fleet.workers[index].ready().await;
    }
    let cut = r#"fjord_gateway_requests_total{endpoint="flow",queue="flow",status="200",outcome="attempt_timeout"}"#;
    reaches(&fleet.gateways[0], cut, 2.0).await;
    assert!(fleet.gateways[0].metric("fjord_gateway_resubmissions_total").await < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_gateway_was_killed_returns_its_slot() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    let response = begin(&fleet.client(), LARGE).await;
    fleet.gateways[0].process.kill();
    assert!(!read(response).await.1);
    wait_until_idle(&fleet.workers[0]).await;
    let cancelled = r#"fjord_worker_calls_total{queue="flow",outcome="cancelled"}"#;
    reaches(&fleet.workers[0], cancelled, 1.0).await;
}
