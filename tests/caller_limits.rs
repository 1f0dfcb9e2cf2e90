//! Promise: one caller cannot take the places of all others. Its requests in flight are limited, and callers take turns in the wait
//! queue.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use http::Method;

use super::support::client::Client;
use super::support::eventually::{SOON, eventually_some};
use super::support::fjord_process::FjordProcess;
use super::support::fleet::{Fleet, FleetOptions};
use super::support::reload;

/// Lets `client_at` choose the address that the gateway sees.
const TRUSTED: &str = "trusted_proxies = ['127.0.0.0/8']\n";

const ENDPOINTS: &str = r#"{
    "narrow": { "route": "GET /v1/narrow", "procedure": "ledger.slow", "timeout": "2s", "session": "60s",
        "parameters": { "ms": { "in": "query", "type": "int32" } },
        "result": "value", "auth": "public", "max_in_flight": 1 },
    "turns": { "route": "GET /v1/turns", "procedure": "ledger.slow", "timeout": "10s",
        "parameters": { "ms": { "in": "query", "type": "int32" } },
        "result": "value", "auth": "public" } }"#;

/// Returns a client with this address.
fn client_at(fleet: &Fleet, address: &str) -> Client {
    fleet.client().with_header("x-forwarded-for", address)
}

/// Waits until a metric of a process has at least this value.
async fn wait_for(process: &FjordProcess, metric: &str, value: f64) {
    eventually_some(format!("{metric} at {value}"), SOON, async || {
        (process.metric(metric).await > value - 0.5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_has_a_limited_number_of_requests_in_flight() {
    let fleet = Fleet::start(FleetOptions {
        gateway_keys: TRUSTED,
        gateway_toml: "requests_in_flight_per_caller_max = 2\n".to_owned(),
        catalogue: Some(("narrow.json", ENDPOINTS)),
        ..FleetOptions::default()
    })
    .await;
    let (busy, other) = (client_at(&fleet, "192.0.2.1"), client_at(&fleet, "192.0.2.2"));
    let gateway = &fleet.gateways[0];
    let held = join_all([busy.get("/v1/narrow?ms=1500"), busy.get("/v1/slow?ms=1500")]);
    let (answers, ()) = tokio::join!(held, async {
        wait_for(gateway, "fjord_gateway_requests_in_flight", 2.0).await;
        let refused = busy.get("/v1/echo/a").await;
        refused.is_problem(503, "overloaded");
        assert_eq!(refused.header("retry-after"), "1");
        other.get("/v1/echo/a").await.is(200);
    });
    for answer in answers {
        answer.is(200);
    }
    let (first, ()) = tokio::join!(busy.get("/v1/narrow?ms=1500"), async {
        wait_for(gateway, "fjord_gateway_requests_in_flight", 1.0).await;
        busy.get("/v1/narrow?ms=1").await.is_problem(429, "too-many-in-flight");
        busy.get("/v1/echo/a").await.is(200);
    });
    first.is(200);
    let shed = r#"fjord_gateway_requests_shed_total{reason="in_flight_per_caller"}"#;
    for metric in [shed, r#"fjord_in_flight_limited_total{endpoint="narrow"}"#] {
        assert!((gateway.metric(metric).await - 1.0).abs() < 0.5, "{metric}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_cancelled_no_longer_counts() {
    let gateway_toml = "requests_in_flight_per_caller_max = 1\n".to_owned();
    let fleet = Fleet::start(FleetOptions { gateway_toml, ..FleetOptions::default() }).await;
    let client = fleet.client();
    let call = client.request(Method::GET, "/v1/slow?ms=60000").timeout(Duration::from_secs(3));
    let (answer, ()) = tokio::join!(call.send(), async {
        wait_for(&fleet.workers[0], "fjord_worker_running", 1.0).await;
        client.get("/v1/echo/a").await.is_problem(503, "overloaded");
    });
    assert!(answer.is_err(), "the client disconnects before the answer");
    eventually_some("the caller has no request in flight", SOON, async || {
        (client.get("/v1/echo/a").await.status == 200).then_some(())
    })
    .await;
    eventually_some("the worker has stopped the call", SOON, async || {
        (fleet.workers[0].metric("fjord_worker_running").await < 0.5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_counts_until_it_ends_even_if_its_client_has_disconnected() {
    let gateway_toml = "requests_in_flight_per_caller_max = 1\n".to_owned();
    let fleet = Fleet::start(FleetOptions { gateway_toml, ..FleetOptions::default() }).await;
    let (client, running) = (fleet.client(), "fjord_worker_running");
    let call = client.request(Method::POST, "/v1/slow?ms=3000").timeout(Duration::from_secs(1));
    assert!(call.send().await.is_err(), "the client disconnects before the answer");
    wait_for(&fleet.workers[0], running, 1.0).await;
    client.get("/v1/echo/a").await.is_problem(503, "overloaded");
    eventually_some("the call has ended", SOON, async || {
        (client.get("/v1/echo/a").await.status == 200).then_some(())
    })
    .await;
    assert!(fleet.workers[0].metric(running).await < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_the_limit_at_once() {
    let gateway_toml = "requests_in_flight_per_caller_max = 1\n".to_owned();
    let mut fleet = Fleet::start(FleetOptions { gateway_toml, ..FleetOptions::default() }).await;
    let client = fleet.client();
    let key = "requests_in_flight_per_caller_max";
    reload::edit(&fleet.gateways[0], &format!("{key} = 1"), &format!("{key} = 0"));
    reload::signal(&mut fleet.gateways[0], "failed").await;
    let log = fleet.gateways[0].process.log_tail();
    assert!(log.contains(key) && log.contains("expected"), "{log}");
    reload::edit(&fleet.gateways[0], &format!("{key} = 0"), &format!("{key} = 2"));
    reload::signal(&mut fleet.gateways[0], "ok").await;
    let (first, ()) = tokio::join!(client.get("/v1/slow?ms=1500"), async {
        wait_for(&fleet.gateways[0], "fjord_gateway_requests_in_flight", 1.0).await;
        client.get("/v1/echo/a").await.is(200);
    });
    first.is(200);
}

/// The duration of a call in the tests of the wait queue.
const CALL: Duration = Duration::from_millis(200);
/// The longest time that a client of a caller with one request waits and runs: for the running call, for one call of each of the
/// other callers' turns, and for its own. The margin is for a busy machine.
const TURNS_MAX: u32 = 5;
const TURNS: &str = "/v1/turns?ms=200";

/// Starts a fleet with one slot in total.
async fn one_slot(gateways: usize, gateway_toml: &str) -> Fleet {
    Fleet::start(FleetOptions {
        gateways,
        concurrency: 1,
        gateway_keys: TRUSTED,
        gateway_toml: gateway_toml.to_owned(),
        catalogue: Some(("callers.json", ENDPOINTS)),
        ..FleetOptions::default()
    })
    .await
}

/// Waits until this number of requests waits for the queue in a gateway.
async fn wait_until_waiting(gateway: &FjordProcess, requests: f64) {
    wait_for(gateway, r#"fjord_gateway_requests_waiting{queue="turns"}"#, requests).await;
}

/// Sends requests one after another; returns the longest time to an answer.
async fn slowest(client: &Client, requests: usize) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..requests {
        let start = Instant::now();
        client.get(TURNS).await.is(200);
        slowest = slowest.max(start.elapsed());
    }
    slowest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_served_soon_while_another_has_60_calls_in_flight() {
    let fleet = one_slot(1, "").await;
    let (many, single) = (client_at(&fleet, "192.0.2.1"), client_at(&fleet, "192.0.2.2"));
    let calls = join_all((0..60).map(|_| many.get(TURNS)));
    let others = async {
        wait_until_waiting(&fleet.gateways[0], 55.0).await;
        slowest(&single, 5).await
    };
    let (answers, slowest) = join(calls, others).await;
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    println!(
        "the slowest of 5 calls of 200 ms took {slowest:?}; {served} of the other client's 60 were served"
    );
    assert!(slowest < CALL * TURNS_MAX, "{slowest:?}");
    // In 10 s, the slot serves 50 calls.
    assert!(served >= 35, "{served} of 60");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!(answer.status, 503, "{}", answer.text());
    }
}

/// The other client's requests wait in another gateway, so the worker must offer its slot to the gateways in turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_served_soon_while_another_has_60_calls_at_another_gateway() {
    let fleet = one_slot(2, "").await;
    let many = client_at(&fleet, "192.0.2.1");
    let single = client_at(&fleet, "192.0.2.2").at(fleet.gateways[1].https());
    let calls = join_all((0..60).map(|_| many.get(TURNS)));
    let others = async {
        wait_until_waiting(&fleet.gateways[0], 55.0).await;
        slowest(&single, 5).await
    };
    let (answers, slowest) = join(calls, others).await;
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    println!(
        "two gateways: the slowest of 5 calls took {slowest:?}; {served} of the other client's 60 were served"
    );
    assert!(slowest < CALL * TURNS_MAX, "{slowest:?}");
    assert!(served >= 35, "{served} of 60");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_wait_queue_makes_room_for_a_caller_with_fewer_requests() {
    let fleet = one_slot(1, "[gateway.session]\nwaiting_max = 5\n").await;
    let (many, single) = (client_at(&fleet, "192.0.2.1"), client_at(&fleet, "192.0.2.2"));
    let calls = join_all((0..30).map(|_| many.get(TURNS)));
    let others = async {
        wait_until_waiting(&fleet.gateways[0], 5.0).await;
        join_all((0..2).map(|_| single.get(TURNS))).await
    };
    let (answers, others) = join(calls, others).await;
    for answer in others {
        answer.is(200);
    }
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    assert!((3..=8).contains(&served), "{served} of 30");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        answer.is_problem(503, "overloaded");
    }
}
