//! `fjord reload` without an endpoint, or without one of its queues, while requests for it are in progress.

use std::collections::BTreeMap;
use std::fs;

use fjord::lifecycle::Tasks;
use serde_json::{Value, json};

use super::{run, text};
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::nats::NatsOptions;
use crate::support::reload;
use crate::weighted_queues;

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_a_removed_endpoint_are_still_answered() {
    let nats = NatsOptions { is_shipped: true, ..NatsOptions::default() };
    let options = FleetOptions { nats, concurrency: 1, ..FleetOptions::default() };
    let fleet = Fleet::start(options).await;
    let (client, file) = (fleet.client(), fleet.catalogue().join("removed.json"));
    let removed = r#"{ "removed": { "route": "GET /v1/removed", "procedure": "ledger.slow", "result": "value",
        "auth": "public", "timeout": "20s", "parameters": {
        "ms": { "in": "query", "type": "int32", "required": true } } } }"#;
    fs::write(&file, removed).unwrap();
    let output = run(&fleet, &["reload"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // The worker executes one of the requests, and the others wait in the gateway.
    let requests: Vec<_> = (0..3)
        .map(|_| {
            let client = client.clone();
            Tasks::new().spawn(async move { client.get("/v1/removed?ms=2500").await })
        })
        .collect();
    eventually_some("three requests in progress", SOON, async || {
        (fleet.gateways[0].metric("fjord_gateway_requests_in_flight ").await > 2.0).then_some(())
    })
    .await;
    fs::remove_file(&file).unwrap();
    let output = run(&fleet, &["reload", "--timeout", "1"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let errors = text(&output.stderr);
    assert!(errors.contains("requests for endpoint removed are still in progress"), "{errors}");
    client.get("/v1/removed?ms=1").await.is_problem(404, "no-route");
    let output = run(&fleet, &["reload"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for request in requests {
        assert!(request.is_finished(), "the command has waited for the requests");
        request.await.expect("the request does not panic").is(200);
    }
}

/// The number of requests for an endpoint with two queues, half of which go to each.
const REQUESTS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_a_removed_queue_of_an_endpoint_are_still_answered() {
    let nats = NatsOptions { is_shipped: true, ..NatsOptions::default() };
    let options = FleetOptions { nats, concurrency: 1, ..weighted_queues::options(1, 1) };
    let fleet = Fleet::start(options).await;
    let (client, file) = (fleet.client(), fleet.catalogue().join("versions.json"));
    let mut catalogue: Value =
        serde_json::from_str(&fs::read_to_string(&file).unwrap()).expect("JSON");
    let queues = json!({ "split": 1, "split-v2": { "weight": 1, "procedure": "ledger.v2" } });
    catalogue["split"]["queues"] = queues;
    catalogue["split"]["timeout"] = "30s".into();
    fs::write(&file, catalogue.to_string()).unwrap();
    let output = run(&fleet, &["reload"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let arrived = async |queue: &str| {
        let arrivals = format!(r#"fjord_gateway_queue_arrivals_total{{queue="{queue}"}}"#);
        fleet.gateways[0].metric(&arrivals).await
    };
    // The worker executes one request of each queue, and the others wait.
    let mut requests = Vec::new();
    for _ in 0..REQUESTS {
        let client = client.clone();
        requests.push(Tasks::new().spawn(async move { client.get("/v1/split?ms=1500").await }));
    }
    let in_removed_queue = eventually_some("all requests have a queue", SOON, async || {
        let (kept, removed) = (arrived("split").await, arrived("split-v2").await);
        let in_flight = fleet.gateways[0].metric("fjord_gateway_requests_in_flight ").await;
        println!("arrivals: {kept} and {removed}, in flight: {in_flight}");
        (kept + removed > 7.5 && in_flight > 7.5).then_some(removed)
    })
    .await;
    assert!(in_removed_queue > 1.5, "one request in progress, and at least one that waits");

    catalogue["split"]["queues"] =
        json!({ "split": 1, "split-v3": { "weight": 1, "procedure": "ledger.v2" } });
    fs::write(&file, catalogue.to_string()).unwrap();
    let output = run(&fleet, &["reload", "--timeout", "1"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let errors = text(&output.stderr);
    assert!(errors.contains("requests for endpoint split are still in progress"), "{errors}");
    // The worker serves the removed queue until its last request is answered.
    let served = reload::queues(&fleet.workers[0]).await;
    assert!(served.iter().any(|queue| queue == "split-v2"), "{served:?}");
    let output = run(&fleet, &["reload"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let mut versions: BTreeMap<String, usize> = BTreeMap::new();
    for request in requests {
        assert!(request.is_finished(), "the command has waited for the requests");
        let answer = request.await.expect("the request does not panic");
        *versions.entry(answer.is(200).json().as_str().unwrap().to_owned()).or_default() += 1;
    }
    let number = |version: &str| versions.get(version).copied().unwrap_or_default().to_string();
    assert_eq!(number("v2"), in_removed_queue.to_string(), "{versions:?}");
    assert_eq!(versions.values().sum::<usize>(), REQUESTS, "{versions:?}");
    let served = reload::queues(&fleet.workers[0]).await;
    assert!(!served.iter().any(|queue| queue == "split-v2"), "{served:?}");
    assert!(served.iter().any(|queue| queue == "split-v3"), "{served:?}");
}
