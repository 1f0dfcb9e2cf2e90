//! Somebody goes in the middle of an answer: its client, its worker, its gateway.

use std::time::{Duration, Instant};

use http::Method;

use super::{begin, client, is_free, reaches, read};
use crate::support::client::Http;
use crate::support::fjord::{Fleet, FleetOptions};

const ENDLESS: &str = "/v1/flow?rows=30000&pause_at=20000&ms=1";
const SLOW: &str = "/v1/flow?rows=3000&pause_at=2000&ms=15000";

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_stops_the_call() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    for (http, left) in super::BOTH.into_iter().zip([1.0, 2.0]) {
        let client = client(&fleet, http);
        let mut response = begin(&client, SLOW).await;
        response.chunk().await.expect("bytes").expect("some");
        drop((response, client));
        is_free(&fleet.workers[0]).await;
        let cancelled = r#"fjord_worker_calls_total{queue="flow",outcome="cancelled"}"#;
        reaches(&fleet.workers[0], cancelled, left).await;
        let gone =
            r#"fjord_gateway_requests_total{endpoint="flow",status="200",outcome="client_gone"}"#;
        reaches(&fleet.gateways[0], gone, left).await;
    }
    fleet.client().get("/v1/flow?rows=10").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_must_not_be_stopped_comes_to_its_end_without_its_client() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let client = client(&fleet, Http::One);
    let path = "/v1/flow?rows=5000&pause_at=4000&ms=500";
    let mut response = client.request(Method::POST, path).send().await.expect("it begins");
    response.chunk().await.expect("bytes").expect("some");
    drop((response, client));
    let ok = r#"fjord_worker_calls_total{queue="flow-once",outcome="ok"}"#;
    reaches(&fleet.workers[0], ok, 1.0).await;
    is_free(&fleet.workers[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_is_ended_and_its_call_with_it() {
    let gateway_toml = "body_idle_timeout = '1s'\n".to_owned();
    let fleet = Fleet::start(FleetOptions { gateway_toml, ..FleetOptions::default() }).await;
    let response = begin(&client(&fleet, Http::One), ENDLESS).await;
    reaches(&fleet.workers[0], r#"fjord_worker_running{queue="flow"}"#, 1.0).await;
    is_free(&fleet.workers[0]).await;
    let stalled = r#"fjord_gateway_connections_refused_total{reason="write_stalled"}"#;
    reaches(&fleet.gateways[0], stalled, 1.0).await;
    assert!(!read(response).await.1, "it was cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_halfway_leaves_no_whole_answer_and_nothing_is_sent_again() {
    let mut fleet = Fleet::start(FleetOptions { workers: 2, ..FleetOptions::default() }).await;
    for http in super::BOTH {
        let response = begin(&client(&fleet, http), SLOW).await;
        let mut running = Vec::new();
        for worker in &fleet.workers {
            running.push(worker.figure(r#"fjord_worker_running{queue="flow"}"#).await);
        }
        let at = running.iter().position(|count| *count > 0.5).expect("one has it");
        fleet.workers[at].process.kill();
        let began = Instant::now();
        let (body, is_whole) = read(response).await;
        // How much came before depends on what the sockets hold.
        assert!(!is_whole && body.len() >= 256 << 10, "{} bytes", body.len());
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        let other = fleet.workers[1 - at].figure("fjord_worker_calls_total{queue=\"flow\"").await;
        assert!(other < 0.5, "not sent again");
        fleet.workers[at].restart();
        fleet.workers[at].ready().await;
    }
    let cut =
        r#"fjord_gateway_requests_total{endpoint="flow",status="200",outcome="attempt_timeout"}"#;
    reaches(&fleet.gateways[0], cut, 2.0).await;
    assert!(fleet.gateways[0].figure("fjord_gateway_resubmissions_total").await < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_gateway_died_gives_its_slot_back() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    let response = begin(&fleet.client(), ENDLESS).await;
    fleet.gateways[0].process.kill();
    assert!(!read(response).await.1);
    is_free(&fleet.workers[0]).await;
    let cancelled = r#"fjord_worker_calls_total{queue="flow",outcome="cancelled"}"#;
    reaches(&fleet.workers[0], cancelled, 1.0).await;
}
