//! `fjord reload` with a configuration that lacks an endpoint, or one of its queues, while requests for it are in
//! progress.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use fjord::lifecycle::Tasks;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{run, text};
use crate::support::client::HttpResponse;
use crate::support::eventually::{SOON, eventually_some, for_a_while};
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::ledger_gate::LedgerGate;
use crate::support::nats::NatsOptions;
use crate::support::reload;

/// The procedures of an endpoint with two versions. A `LedgerGate` holds back their calls.
const VERSIONS: &[(&str, &str)] = &[
    (
        "ledger.held_v1.sql",
        "INSERT INTO ledger (request_id) VALUES ('v1');\nSELECT 'v1' AS version;\n",
    ),
    (
        "ledger.held_v2.sql",
        "INSERT INTO ledger (request_id) VALUES ('v2');\nSELECT 'v2' AS version;\n",
    ),
];

/// Starts a fleet whose worker executes one request of each queue at a time.
async fn fleet() -> Fleet {
    let nats = NatsOptions { is_shipped: true, ..NatsOptions::default() };
    let options =
        FleetOptions { nats, concurrency: 1, procedures: VERSIONS, ..FleetOptions::default() };
    Fleet::start(options).await
}

/// Runs `fjord reload`, which must not end while the calls are held back. Returns the answers to the requests.
async fn reload_after(
    gate: LedgerGate,
    fleet: &Fleet,
    requests: Vec<JoinHandle<HttpResponse>>,
) -> Vec<HttpResponse> {
    let mut reload = std::pin::pin!(run(fleet, &["reload"]));
    tokio::select! {
        output = &mut reload => panic!("the command has not waited: {}", text(&output.stdout)),
        () = for_a_while(Duration::from_secs(3)) => {}
    }
    gate.open();
    let output = reload.await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let mut answers = Vec::new();
    for request in requests {
        // The gateway has sent all answers, but the client may still be reading them.
        let answer = timeout(SOON, request).await.expect("the command has waited for the requests");
        answers.push(answer.expect("the request does not panic"));
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_a_removed_endpoint_are_still_answered() {
    let fleet = fleet().await;
    let (client, file) = (fleet.client(), fleet.catalogue().join("removed.json"));
    let removed = r#"{ "removed": { "route": "GET /v1/removed", "procedure": "ledger.held_v1", "result": "value",
        "auth": "public", "timeout": "60s" } }"#;
    fs::write(&file, removed).unwrap();
    let output = run(&fleet, &["reload"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // The worker executes one of the requests, and the others wait in the gateway.
    let gate = LedgerGate::close(&fleet.workers[0]);
    let requests: Vec<_> = (0..3)
        .map(|_| {
            let client = client.clone();
            Tasks::new().spawn(async move { client.get("/v1/removed").await })
        })
        .collect();
    eventually_some("three requests in progress", SOON, async || {
        (fleet.gateways[0].metric("fjord_gateway_requests_in_flight ").await > 2.0).then_some(())
    })
    .await;
    fs::remove_file(&file).unwrap();
    let output = run(&fleet, &["reload", "--timeout", "5"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let errors = text(&output.stderr);
    assert!(errors.contains("requests are still in progress for endpoint removed"), "{errors}");
    client.get("/v1/removed").await.is_problem(404, "no-route");
    for answer in reload_after(gate, &fleet, requests).await {
        answer.is(200);
    }
}

/// The number of requests for an endpoint with two queues. Each queue gets half of them.
const REQUESTS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_a_removed_queue_of_an_endpoint_are_still_answered() {
    let fleet = fleet().await;
    let (client, file) = (fleet.client(), fleet.catalogue().join("versions.json"));
    let mut catalogue = json!({ "split": {
        "route": "GET /v1/split", "procedure": "ledger.held_v1", "result": "value", "auth": "public", "timeout": "60s",
        "queues": { "split": 1, "split-v2": { "weight": 1, "procedure": "ledger.held_v2" } },
    } });
    fs::write(&file, catalogue.to_string()).unwrap();
    let output = run(&fleet, &["reload"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let arrived = async |queue: &str| {
        let arrivals = format!(r#"fjord_gateway_queue_arrivals_total{{queue="{queue}"}}"#);
        fleet.gateways[0].metric(&arrivals).await
    };
    // The worker executes one request of each queue, and the others wait.
    let gate = LedgerGate::close(&fleet.workers[0]);
    let mut requests = Vec::new();
    for _ in 0..REQUESTS {
        let client = client.clone();
        requests.push(Tasks::new().spawn(async move { client.get("/v1/split").await }));
    }
    let in_removed_queue = eventually_some("all requests have a queue", SOON, async || {
        let (kept, removed) = (arrived("split").await, arrived("split-v2").await);
        println!("arrivals: {kept} and {removed}");
        (kept + removed > 7.5).then_some(removed)
    })
    .await;
    assert!(in_removed_queue > 1.5, "one request in progress, and at least one that waits");

    catalogue["split"]["queues"] =
        json!({ "split": 1, "split-v3": { "weight": 1, "procedure": "ledger.held_v2" } });
    fs::write(&file, catalogue.to_string()).unwrap();
    let output = run(&fleet, &["reload", "--timeout", "5"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let errors = text(&output.stderr);
    assert!(errors.contains("requests are still in progress for endpoint split"), "{errors}");
    // The worker serves the removed queue until its last request is answered.
    let served = reload::queues(&fleet.workers[0]).await;
    assert!(served.iter().any(|queue| queue == "split-v2"), "{served:?}");
    let mut versions: BTreeMap<String, usize> = BTreeMap::new();
    for answer in reload_after(gate, &fleet, requests).await {
        *versions.entry(answer.is(200).json().as_str().unwrap().to_owned()).or_default() += 1;
    }
    let number = |version: &str| versions.get(version).copied().unwrap_or_default().to_string();
    assert_eq!(number("v2"), in_removed_queue.to_string(), "{versions:?}");
    assert_eq!(versions.values().sum::<usize>(), REQUESTS, "{versions:?}");
    let served = reload::queues(&fleet.workers[0]).await;
    assert!(!served.iter().any(|queue| queue == "split-v2"), "{served:?}");
    assert!(served.iter().any(|queue| queue == "split-v3"), "{served:?}");
}
