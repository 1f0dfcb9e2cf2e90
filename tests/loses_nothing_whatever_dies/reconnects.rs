//! Who connects again asks for what it lacks and no more; and a gateway that is dead hears nothing, which is no fault of
//! anybody's.

use std::time::Duration;

use fjord::lifecycle::Tasks;
use http::Method;
use serde_json::json;

use super::super::support::eventually::{SOON, eventually_some};
use super::super::support::fjord::{Fleet, FleetOptions, Node};
use super::super::support::nats::NatsOptions;
use super::server_of_the_gateway;

/// About 400 kB.
const LARGE: &str = "/v1/large?rows=3200";
const WORKERS: usize = 6;
const CALLERS: usize = 6;

/// Workers whose answers of 400 kB are one message, and servers that cut off whoever 4 MB wait for.
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

async fn reconnects(nodes: &[Node]) -> f64 {
    let mut sum = 0.0;
    for node in nodes {
        sum += node.figure("fjord_nats_reconnects_total").await;
    }
    sum
}

/// Asks for large answers, and says how many were as they should be.
async fn ask(fleet: &Fleet, times: usize) -> usize {
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
        good += caller.await.expect("a caller");
    }
    good
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_costs_each_a_connection_and_no_storm() {
    let mut fleet = fleet().await;
    // Every worker has sent as much as it remembers when the server dies.
    assert_eq!(ask(&fleet, 20).await, 20 * CALLERS);
    let number = server_of_the_gateway(&fleet).await;
    fleet.nats.servers[number].kill();
    let good = ask(&fleet, 10).await;
    assert!(good + CALLERS >= 10 * CALLERS, "{good}: none but those on their way may fail");
    let count = reconnects(&fleet.gateways).await + reconnects(&fleet.workers).await;
    let processes = f64::from(u8::try_from(WORKERS + 1).expect("a few"));
    assert!((0.5..=processes + 1.5).contains(&count), "{count} reconnects");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_a_lost_link_swallowed_are_asked_for_by_request() {
    let mut fleet = Fleet::start(FleetOptions {
        nats_servers: 3,
        workers: 2,
        concurrency: 8,
        ..FleetOptions::default()
    })
    .await;
    // Answers fall into the time in which the gateway connects again.
    let calls: Vec<_> = (0..12_u32)
        .map(|number| {
            let client = fleet.client();
            let body = json!({ "ms": 400 + number * 50 });
            Tasks::new().spawn(async move { client.send(Method::POST, "/v1/once", &body).await })
        })
        .collect();
    // On a busy machine the first has ended before the last begins.
    eventually_some("all have begun", SOON, async || {
        let mut begun = 0.0;
        for worker in &fleet.workers {
            begun += worker.figure("fjord_worker_running").await;
            begun += worker.figure("fjord_worker_call_duration_seconds_count").await;
        }
        (begun > 11.5).then_some(())
    })
    .await;
    let number = server_of_the_gateway(&fleet).await;
    fleet.nats.servers[number].kill();
    let mut good = 0;
    for call in calls {
        good += usize::from(call.await.expect("a caller").status == 200);
    }
    assert!(good >= 11, "{good} of 12 were answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_gateway_does_not_hear_is_no_broken_protocol() {
    let mut fleet = Fleet::start(FleetOptions { concurrency: 2, ..FleetOptions::default() }).await;
    // Some run, and report; others were refused, and would be offered a slot.
    let calls: Vec<_> = (0..8)
        .map(|number| {
            let client = fleet.client();
            let (method, path) =
                [(Method::PUT, "/v1/again"), (Method::POST, "/v1/once")][number % 2].clone();
            Tasks::new().spawn(async move {
                let asked = client.request(method, path).json(&json!({ "ms": 1500 }));
                drop(asked.timeout(Duration::from_secs(5)).send().await);
            })
        })
        .collect();
    eventually_some("all arrived", SOON, async || {
        let waiting = fleet.gateways[0].figure("fjord_gateway_requests_waiting").await;
        (waiting > 3.5).then_some(())
    })
    .await;
    fleet.gateways[0].process.kill();
    let worker = &fleet.workers[0];
    eventually_some("the offers are declined, and nothing runs", SOON, async || {
        let running = worker.figure("fjord_worker_running").await;
        let offers = worker.figure("fjord_worker_offers_total").await;
        (running < 0.5 && offers > 0.5).then_some(())
    })
    .await;
    for call in calls {
        call.await.expect("a caller");
    }
    let malformed = worker.figure("fjord_worker_malformed_messages_total").await;
    assert!(malformed < 0.5, "{malformed} messages were taken for malformed");
    let log = worker.process.log();
    assert!(!log.contains("does not keep to the protocol"), "{log}");
}
