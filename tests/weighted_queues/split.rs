//! The division of requests among queues, and the places where it is visible.

use std::collections::BTreeSet;

use super::{check_count, clients, options, versions};
use crate::support::client::get_text;
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fleet::Fleet;

const REQUESTS: usize = 4_000;

fn is_near(value: f64, expected: usize) -> bool {
    (value - f64::from(u32::try_from(expected).expect("a small number"))).abs() < 0.5
}

#[tokio::test(flavor = "multi_thread")]
async fn five_of_a_hundred_requests_get_the_new_version() {
    let fleet = Fleet::start(options(2, 2)).await;
    let counts = versions(&clients(&fleet), "/v1/split", REQUESTS).await;
    let (v1, v2) = (counts["v1"], counts["v2"]);
    assert_eq!(v1 + v2, REQUESTS);
    check_count(v2, REQUESTS, 0.05);
    println!("WEIGHTS 95:5 | {v2} of {REQUESTS} requests got the new version");

    // Each queue has called its own procedure, and all metrics and logs agree.
    for (queue, expected) in [("split", v1), ("split-v2", v2)] {
        let mut calls = 0.0;
        for worker in &fleet.workers {
            let name = format!(r#"fjord_worker_calls_total{{queue="{queue}",outcome="ok"}}"#);
            calls += worker.metric(&name).await;
        }
        assert!(is_near(calls, expected), "{queue}: {calls} calls, expected {expected}");
        let labels = format!(r#"{{endpoint="split",queue="{queue}""#);
        let (mut requests, mut arrivals) = (0.0, 0.0);
        for gateway in &fleet.gateways {
            let name =
                format!(r#"fjord_gateway_requests_total{labels},status="200",outcome="ok"}}"#);
            requests += gateway.metric(&name).await;
            let name = format!(r#"fjord_gateway_queue_arrivals_total{{queue="{queue}"}}"#);
            arrivals += gateway.metric(&name).await;
            let weight = gateway.metric(&format!("fjord_gateway_queue_weight{labels}}}")).await;
            assert!(is_near(weight, if queue == "split" { 95 } else { 5 }), "{queue}: {weight}");
        }
        assert!(is_near(requests, expected) && is_near(arrivals, expected), "{queue}: {requests}");
        eventually_some("all access lines", SOON, async || {
            let field = format!(r#""queue":"{queue}""#);
            let logs = fleet.gateways.iter().map(|gateway| gateway.process.log());
            let logs = logs.collect::<Vec<_>>().concat();
            let lines = logs.lines().filter(|line| line.contains(r#""endpoint":"split""#));
            (lines.filter(|line| line.contains(&field)).count() == expected).then_some(())
        })
        .await;
    }

    // An endpoint with one queue has no weights, and its access lines do not name the queue.
    fleet.client().get("/v1/slow?ms=1").await.is(200);
    let metrics = get_text(&format!("http://{}/metrics", fleet.gateways[0].admin())).await.unwrap();
    let weights = metrics.lines().filter(|line| line.starts_with("fjord_gateway_queue_weight{"));
    assert!(weights.clone().count() > 0);
    assert!(weights.clone().all(|line| !line.contains(r#""slow""#)), "{metrics}");
    let line = eventually_some("the access line", SOON, async || {
        let log = fleet.gateways[0].process.log();
        log.lines().find(|line| line.contains(r#""endpoint":"slow""#)).map(ToOwned::to_owned)
    })
    .await;
    assert!(!line.contains(r#""queue""#), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_the_same_key_get_the_same_version_at_every_gateway() {
    const KEYS: usize = 400;
    let fleet = Fleet::start(options(2, 1)).await;
    let clients = clients(&fleet);
    let mut v2 = 0;
    for number in 0..KEYS {
        let key = format!("sale-{number}");
        let mut seen = BTreeSet::new();
        for client in clients.iter().chain(&clients) {
            let answer = client.with_header("idempotency-key", &key).get("/v1/split").await;
            seen.insert(answer.is(200).text());
        }
        assert_eq!(seen.len(), 1, "{key}: {seen:?}");
        v2 += usize::from(seen.contains("\"v2\""));
    }
    check_count(v2, KEYS, 0.05);
    assert!(v2 > 0, "both versions occur");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_answer_is_reused_only_within_its_version() {
    const REQUESTS: usize = 400;
    let fleet = Fleet::start(options(1, 1)).await;
    let counts = versions(&clients(&fleet), "/v1/stored", REQUESTS).await;
    check_count(counts["v2"], REQUESTS, 0.5);
    let calls = fleet.workers[0].metric(r#"fjord_worker_calls_total{queue="stored"#).await;
    assert!(calls < 40.0, "most answers were stored: {calls} calls");
}
