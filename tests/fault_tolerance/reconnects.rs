//! After a reconnect, a gateway requests only the answers that it missed. Messages without a recipient do not count as
//! protocol violations.

use std::time::Duration;

use fjord::lifecycle::Tasks;
use http::Method;
use serde_json::json;

use super::super::support::eventually::{SOON, eventually_some};
use super::super::support::fjord_process::FjordProcess;
use super::super::support::fleet::{Fleet, FleetOptions};
use super::super::support::nats::NatsOptions;
use super::server_of_the_gateway;

/// The path of an answer of about 400 kB.
const LARGE: &str = "/v1/large?rows=3200";
const WORKERS: usize = 6;
const CALLERS: usize = 6;

/// Starts workers that send answers of 400 kB as single messages, and NATS servers that disconnect a client with 4 MB of
/// pending data.
async fn fleet() -> Fleet {
    let extra = "max_pending: 4MB".to_owned();
    Fleet::start(FleetOptions {
        nats_servers: 3,
        nats: NatsOptions { extra, ..NatsOptions::default() },
        workers: WORKERS,
        concurrency: 4,
        worker_toml: "[worker]\npart_bytes = '512KiB'\n".to_owned(),
        ..FleetOptions::default()
    })
    .await
}

async fn reconnects(nodes: &[FjordProcess]) -> f64 {
    let mut sum = 0.0;
    for node in nodes {
        sum += node.metric("fjord_nats_reconnects_total").await;
    }
    sum
}

/// Sends requests for large answers. Returns the number of answers that were correct.
async fn request_large_answers(fleet: &Fleet, times: usize) -> usize {
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let client = fleet.client();
            Tasks::new().spawn(async move {
                let mut good = 0;
                for _ in 0..times {
                    good += usize::from(client.get(LARGE).await.status == 200);
                }
                good
            })
        })
        .collect();
    let mut good = 0;
    for caller in callers {
        good += caller.await.expect("the caller does not panic");
    }
    good
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_causes_one_reconnect_per_process() {
    let mut fleet = fleet().await;
    // By the time the server is killed, every worker has sent as many answers as it can cache.
    assert_eq!(request_large_answers(&fleet, 20).await, 20 * CALLERS);
    let number = server_of_the_gateway(&fleet).await;
    fleet.nats.servers[number].kill();
    let good = request_large_answers(&fleet, 10).await;
    assert!(good + CALLERS >= 10 * CALLERS, "{good} succeeded: only requests in flight may fail");
    let count = reconnects(&fleet.gateways).await + reconnects(&fleet.workers).await;
    let processes = f64::from(u8::try_from(WORKERS + 1).expect("the number fits u8"));
    assert!((0.5..=processes + 1.5).contains(&count), "{count} reconnects");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_lost_during_a_reconnect_are_requested_again() {
    let mut fleet = Fleet::start(FleetOptions {
        nats_servers: 3,
        workers: 2,
        concurrency: 8,
        ..FleetOptions::default()
    })
    .await;
    // The answers are sent while the gateway reconnects.
    let calls: Vec<_> = (0..12_u32)
        .map(|number| {
            let client = fleet.client();
            let body = json!({ "ms": 400 + number * 50 });
            Tasks::new().spawn(async move { client.send(Method::POST, "/v1/once", &body).await })
        })
        .collect();
    // On a busy machine, the first call can end before the last begins.
    eventually_some("all calls have begun", SOON, async || {
        let mut begun = 0.0;
        for worker in &fleet.workers {
            begun += worker.metric("fjord_worker_running").await;
            begun += worker.metric("fjord_worker_call_duration_seconds_count").await;
        }
        (begun > 11.5).then_some(())
    })
    .await;
    let number = server_of_the_gateway(&fleet).await;
    fleet.nats.servers[number].kill();
    let mut good = 0;
    for call in calls {
        good += usize::from(call.await.expect("the caller does not panic").status == 200);
    }
    assert!(good >= 11, "{good} of 12 succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_to_a_killed_gateway_are_not_protocol_violations() {
    let mut fleet = Fleet::start(FleetOptions { concurrency: 2, ..FleetOptions::default() }).await;
    // Some requests are executed and report progress. Others were refused and wait for an offer.
    let calls: Vec<_> = (0..8)
        .map(|number| {
            let client = fleet.client();
            let (method, path) =
                [(Method::PUT, "/v1/again"), (Method::POST, "/v1/once")][number % 2].clone();
            Tasks::new().spawn(async move {
                let request = client.request(method, path).json(&json!({ "ms": 1500 }));
                drop(request.timeout(Duration::from_secs(5)).send().await);
            })
        })
        .collect();
    eventually_some("all requests have arrived", SOON, async || {
        let waiting = fleet.gateways[0].metric("fjord_gateway_requests_waiting").await;
        (waiting > 3.5).then_some(())
    })
    .await;
    fleet.gateways[0].process.kill();
    let worker = &fleet.workers[0];
    eventually_some("the offers are declined and no call runs", SOON, async || {
        let running = worker.metric("fjord_worker_running").await;
        let offers = worker.metric("fjord_worker_offers_total").await;
        (running < 0.5 && offers > 0.5).then_some(())
    })
    .await;
    for call in calls {
        call.await.expect("the caller does not panic");
    }
    let malformed = worker.metric("fjord_worker_malformed_messages_total").await;
    assert!(malformed < 0.5, "{malformed} messages were counted as malformed");
    let log = worker.process.log();
    assert!(!log.contains("violates the protocol"), "{log}");
}
