//! The information about an endpoint's queues in the reports of gateways.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::fleet_status::status_command::status;
use crate::support::caller_pool::CallerPool;
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::nats::NatsOptions;
use crate::support::reload;
use crate::support::simulated_fleet::SimulatedFleet;

const ENDPOINTS: &str = r#"{
    "paced": { "route": "GET /v1/paced", "result": "value", "timeout": "10s", "auth": "public",
        "parameters": { "ms": { "in": "query", "type": "int32", "default": 0 } },
        "queues": { "paced": { "weight": 1, "procedure": "ledger.fast" },
                    "paced-v2": { "weight": 1, "procedure": "ledger.slow" } } }
}"#;

const PROCEDURES: &[(&str, &str)] = &[
    ("ledger.fast.sql", "SELECT sleep_ms(@ms) AS \"@slept\";\nSELECT 'v1' AS version;\n"),
    ("ledger.slow.sql", "SELECT sleep_ms(@ms + 200) AS \"@slept\";\nSELECT 'v2' AS version;\n"),
];

async fn fleet() -> Fleet {
    let options = FleetOptions {
        nats: NatsOptions { has_tls: false, ..NatsOptions::default() },
        catalogue: Some(("paced.json", ENDPOINTS)),
        procedures: PROCEDURES,
        ..FleetOptions::default()
    };
    Fleet::start(options).await
}

fn row<'a>(view: &'a Value, table: &str, key: &str, name: &str) -> &'a Value {
    let rows = view[table].as_array().expect("a table");
    rows.iter().find(|row| row[key] == name).unwrap_or_else(|| panic!("no {name}: {view}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_version_is_slow_and_the_other_is_not() {
    let fleet = fleet().await;
    let callers = CallerPool::start(&[fleet.client()], "/v1/paced", 200, 4);
    fleet.client().get("/v1/paced?ms=x").await.is(400);
    let directory = fleet.gateways[0].directory().to_owned();
    let view = tokio::task::spawn_blocking(move || {
        let output = status(&directory, &["--json", "--interval", "3"]).output();
        serde_json::from_slice::<Value>(&output.expect("fjord runs").stdout).expect("JSON")
    });
    let view = view.await.expect("the command ends");
    callers.stop().await;
    for table in
        [("queues", "name", "request_p50_seconds"), ("weighted_queues", "queue", "p50_seconds")]
    {
        let (table, key, value) = table;
        let p50 = |queue: &str| row(&view, table, key, queue)[value].as_f64();
        println!("{table}: p50 {:?} and {:?} s", p50("paced"), p50("paced-v2"));
        assert!(p50("paced").is_some_and(|seconds| seconds < 0.1), "{view}");
        assert!(p50("paced-v2").is_some_and(|seconds| seconds > 0.1), "{view}");
    }
    // The duration and the count of each request are recorded for its queue.
    for queue in ["paced", "paced-v2"] {
        let labels = format!(r#"{{endpoint="paced",queue="{queue}""#);
        let duration = format!("fjord_gateway_request_duration_seconds_count{labels}}}");
        let number = fleet.gateways[0].metric(&duration).await;
        let requests = format!("fjord_gateway_requests_total{labels},");
        let counted = fleet.gateways[0].metric(&requests).await;
        assert!(number > 4.5 && (number - counted).abs() < 0.5, "{queue}: {number}, {counted}");
    }
    // A request that was answered before it was assigned to a queue has no queue label.
    let refused = r#"fjord_gateway_requests_total{endpoint="paced",status="400","#;
    assert!(fleet.gateways[0].metric(refused).await > 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_changes_the_queues_moves_no_counts_to_another_queue() {
    const REQUESTS: usize = 200;
    let mut fleet = fleet().await;
    for _ in 0..REQUESTS {
        fleet.client().get("/v1/paced?ms=x").await.is(400);
    }
    fleet.client().get("/v1/paced").await.is(200);
    let observer = SimulatedFleet::start(&fleet.nats.urls()[0], 0).await;
    let mut command = status(fleet.gateways[0].directory(), &["--json", "--interval", "6"]);
    let command = command.stdout(Stdio::piped()).spawn().expect("fjord runs");
    let queries = r#"fjord_gateway_queue_weight{endpoint="paced",queue="first""#;
    assert!(fleet.gateways[0].metric(queries).await < 0.5);
    // The gateway replies before it can apply the change.
    eventually_some("the first query", SOON, async || (observer.queries() > 0).then_some(())).await;
    let file = fleet.catalogue().join("paced.json");
    let text = fs::read_to_string(&file).expect("the catalogue can be read");
    let first = r#""queues": { "first": { "weight": 1, "procedure": "ledger.fast" },"#;
    let text = text.replace(r#""queues": {"#, first);
    fs::write(file, text).expect("the file can be written");
    reload::worker(&mut fleet.workers[0]).await;
    reload::signal(&mut fleet.gateways[0], "ok").await;
    eventually_some("the new queue", SOON, async || {
        (fleet.gateways[0].metric(queries).await > 0.5).then_some(())
    })
    .await;
    let output = tokio::task::spawn_blocking(move || command.wait_with_output());
    let output = output.await.expect("the command ends").expect("its output");
    let view: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let gateway = row(&view, "processes", "role", "gateway");
    // Other requests may have been answered in the meantime, but the requests above must not be
    // counted.
    assert!(gateway["calls_per_second"].as_f64().is_some_and(|rate| rate < 1.0), "{gateway}");
    assert_eq!(gateway["is_partial"], true, "the new queue has no rate yet: {gateway}");
    let queue = row(&view, "queues", "name", "first");
    assert_eq!(queue["failed_per_second"], Value::Null, "{queue}");
    assert_eq!(queue["arrivals_per_second"], Value::Null, "{queue}");
    assert_eq!(queue["calls_per_second"], Value::Null, "{queue}");
}
