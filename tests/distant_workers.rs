//! Promise: at a load of one and a half times the workers' capacity, nearly all of that capacity is used, regardless of
//! the round trip to the workers. Nearly every request without an answer was certainly not executed.
//!
//! `make bench-overload` runs the tests for longer, and also with shorter round trips.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fjord::lifecycle::Tasks;
use http::Method;
use tokio::time::{Instant, interval};

use super::support::client::Client;
use super::support::eventually::for_a_while;
use super::support::fleet::{Fleet, FleetOptions};
use super::support::nats::NatsOptions;

const WORKERS: usize = 2;
const LIMIT: usize = 4;
const CALL: Duration = Duration::from_millis(200);
/// The interval between requests: 60 per second, which is one and a half times the capacity of 40 calls per second.
const INTERVAL: Duration = Duration::from_micros(16_667);

const CATALOGUE: &str = r#"{
  "far": {
    "route": "GET /v1/far", "procedure": "ledger.slow", "auth": "public", "timeout": "10s",
    "parameters": { "ms": { "in": "query", "type": "int32" } }, "result": "value" },
  "far-once": {
    "route": "POST /v1/far", "procedure": "ledger.slow", "auth": "public", "timeout": "10s",
    "parameters": { "ms": { "in": "query", "type": "int32" } }, "result": "value" }
}"#;

/// The number of responses of each kind.
#[derive(Debug, Default)]
struct ResponseCounts {
    answered: AtomicUsize,
    not_executed: AtomicUsize,
    others: AtomicUsize,
}

/// Applies load during the warm-up and the measurement. Returns the rate of 200 responses in the measurement as a fraction
/// of the workers' capacity.
async fn used_capacity(
    client: &Client,
    method: Method,
    warm_up: Duration,
    measured: Duration,
) -> f64 {
    let counts = Arc::new(ResponseCounts::default());
    let (mut ticks, begin) = (interval(INTERVAL), Instant::now());
    let mut before = None;
    let mut requests = Vec::new();
    while begin.elapsed() < warm_up + measured {
        ticks.tick().await;
        if begin.elapsed() >= warm_up && before.is_none() {
            before = Some((counts.answered.load(Ordering::Relaxed), Instant::now()));
        }
        let (client, method, counts) = (client.clone(), method.clone(), Arc::clone(&counts));
        requests.push(Tasks::new().spawn(async move {
            let path = format!("/v1/far?ms={}", CALL.as_millis());
            let answer = client.try_send(method, &path, None).await;
            let count = match answer.map(|answer| answer.status.as_u16()) {
                Ok(200) => &counts.answered,
                Ok(503) => &counts.not_executed,
                _ => &counts.others,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }));
    }
    let (before, since) = before.expect("the load lasts longer than the warm-up");
    let answered = counts.answered.load(Ordering::Relaxed) - before;
    let capacity = as_f64(WORKERS * LIMIT) / CALL.as_secs_f64();
    let took = since.elapsed().as_secs_f64();
    // Requests that are still waiting would compete with the next load.
    for request in requests {
        request.await.expect("the task does not panic");
    }
    println!("{method}: {counts:?}");
    let others = counts.others.load(Ordering::Relaxed);
    assert!(others * 100 <= answered, "{counts:?}");
    as_f64(answered) / took / capacity
}

fn as_f64(number: usize) -> f64 {
    u32::try_from(number).expect("the number fits u32").into()
}

/// Checks the used capacity first with at-least-once and then with at-most-once requests.
async fn check(round_trip: Duration, warm_up: Duration, measured: Duration) {
    let fleet = Fleet::start(FleetOptions {
        workers: WORKERS,
        concurrency: LIMIT,
        worker_round_trip: round_trip,
        // A TLS handshake would take longer than the two seconds that the server allows.
        nats: NatsOptions { has_tls: false, ..NatsOptions::default() },
        nats_keys: "connect_timeout = '20s'\noperation_timeout = '20s'\n".to_owned(),
        catalogue: Some(("far.json", CATALOGUE)),
        ..FleetOptions::default()
    })
    .await;
    let client = fleet.client();
    for (method, least) in [(Method::GET, 0.9), (Method::POST, 0.8)] {
        let used = used_capacity(&client, method.clone(), warm_up, measured).await;
        println!("round trip {round_trip:?}, {method}: {used:.3} of the capacity");
        assert!(used >= least, "round trip {round_trip:?}, {method}: {used:.3} of the capacity");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn capacity_is_used_at_a_round_trip_of_300_ms() {
    check(Duration::from_millis(300), Duration::from_secs(5), Duration::from_secs(6)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn capacity_is_used_at_a_round_trip_of_800_ms() {
    check(Duration::from_millis(800), Duration::from_secs(7), Duration::from_secs(6)).await;
}

/// Two endpoints share a queue. The gateway estimates separately for each endpoint whether a call can end in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_call_waits_for_a_slot_behind_long_ones() {
    const SHARED: &str = r#"{
      "report": {
        "route": "GET /v1/report", "queue": "shared", "procedure": "ledger.slow", "auth": "public", "timeout": "20s",
        "parameters": { "ms": { "in": "query", "type": "int32" } }, "result": "value" },
      "look": {
        "route": "GET /v1/look", "queue": "shared", "procedure": "ledger.slow", "auth": "public", "timeout": "3s",
        "parameters": { "ms": { "in": "query", "type": "int32" } }, "result": "value" }
    }"#;
    let fleet = Fleet::start(FleetOptions {
        workers: 1,
        concurrency: 1,
        worker_round_trip: Duration::from_millis(400),
        nats: NatsOptions { has_tls: false, ..NatsOptions::default() },
        nats_keys: "connect_timeout = '20s'\noperation_timeout = '20s'\n".to_owned(),
        catalogue: Some(("shared.json", SHARED)),
        ..FleetOptions::default()
    })
    .await;
    let client = fleet.client();
    // This call takes longer than the timeout of `look`.
    client.get("/v1/report?ms=4000").await.is(200);
    let worker = &fleet.workers[0];
    let report = async { client.get("/v1/report?ms=1200").await };
    let look = async {
        for_a_while(Duration::from_millis(700)).await;
        client.get("/v1/look?ms=1").await
    };
    let (report, look) = tokio::join!(report, look);
    report.is(200);
    look.is(200);
    // A call that is stopped must not affect later calls.
    client.get("/v1/look?ms=5000").await.is(504);
    let (first, second) = tokio::join!(client.get("/v1/look?ms=300"), client.get("/v1/look?ms=1"));
    first.is(200);
    second.is(200);
    let refusals = worker.metric("fjord_worker_refusals_total").await;
    assert!(refusals < 1.0, "{refusals} refusals");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make bench-overload"]
async fn bench_overload_of_distant_workers() {
    for round_trip in [0, 100, 300, 800].map(Duration::from_millis) {
        check(round_trip, Duration::from_secs(12), Duration::from_secs(12)).await;
    }
}
