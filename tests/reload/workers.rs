//! A worker applies every change to its configuration without a restart.

use std::fs;
use std::time::{Duration, Instant};

use fjord::lifecycle::Tasks;
use futures_util::future::join_all;
use http::Method;
use rusqlite::{Connection, OpenFlags};
use serde_json::json;

use crate::support::client::{get_json, get_text};
use crate::support::eventually::{SOON, eventually_some, for_a_while};
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::ledger_load::{GatewayRotation, LedgerLoad, reconcile};
use crate::support::random::SeededRandom;
use crate::support::reload;
use crate::support::trace_collector::TraceCollector;

/// The number of reloads under load.
const RELOADS: usize = 50;
/// The number of concurrent callers. They leave some CPU time for the reloads.
const CALLERS: usize = 4;
/// The time limit for a queue to be served, including several attempts.
const SERVED_LIMIT: Duration = Duration::from_secs(40);

/// Returns an endpoint that has its own queue, with or without the embedded database.
fn endpoint(number: usize) -> String {
    let action = match number % 3 {
        0 => r#""handler": "echo", "result": "json""#.to_owned(),
        // Half of the other endpoints join a queue that already exists.
        1 => r#""handler": "echo", "result": "json", "queue": "echo""#.to_owned(),
        _ => r#""procedure": "ledger.slow", "result": "value",
               "parameters": { "ms": { "in": "query", "type": "int32", "default": 1 } }"#
            .to_owned(),
    };
    format!(
        r#"{{ "added-{number}": {{ "route": "GET /v1/added/{number}", "auth": "public", {action} }} }}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_reloads_under_load_fail_no_request() {
    let options =
        FleetOptions { nats_servers: 3, gateways: 2, workers: 2, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options).await;
    let client = fleet.client();
    let clients: Vec<_> = fleet.gateways.iter().map(|one| client.at(one.https())).collect();
    let queues_before = reload::queues(&fleet.workers[0]).await;
    let mut seed = SeededRandom::new();
    let rotation = GatewayRotation::new(clients.clone());
    let load = LedgerLoad::start_callers(CALLERS, &rotation, &mut seed);
    for number in 0..RELOADS {
        let file = |number: usize| fleet.catalogue().join(format!("added-{number}.json"));
        fs::write(file(number), endpoint(number)).unwrap();
        if let Some(old) = number.checked_sub(2) {
            fs::remove_file(file(old)).unwrap();
        }
        join_all(fleet.workers.iter_mut().map(reload::worker)).await;
        join_all(fleet.gateways.iter_mut().map(|one| reload::signal(one, "ok"))).await;
        let path = format!("/v1/added/{number}");
        for client in &clients {
            for _ in 0..4 {
                client.get(&path).await.is(200);
            }
        }
        if let Some(old) = number.checked_sub(2) {
            clients[0].get(&format!("/v1/added/{old}")).await.is_problem(404, "no-route");
        }
    }
    load.wait_for_more(20).await;
    let answers = load.stop().await;
    assert!(answers.len() > 10 * RELOADS, "{} requests are too few", answers.len());
    reconcile("50 reloads", &answers, fleet.ledger()).no_request_lost().all_ok();
    // The last two reloads have added two endpoints, one of which has its own queue.
    let added =
        queues_before.len() + [RELOADS - 2, RELOADS - 1].iter().filter(|n| *n % 3 != 1).count();
    for worker in &fleet.workers {
        assert_eq!(reload::queues(worker).await.len(), added);
        let metrics = get_text(&format!("http://{}/metrics", worker.admin())).await.unwrap();
        let lines = metrics.lines().filter(|line| line.starts_with("fjord_worker_queue_ready{"));
        let mut ready: Vec<&str> = lines.map(|line| line.split('"').nth(1).unwrap()).collect();
        // The series are in no particular order.
        ready.sort_unstable();
        assert_eq!(ready, reload::queues(worker).await, "the queues that have metrics");
        let served = worker.metric("fjord_worker_queue_ready").await;
        assert!((served - f64::from(u32::try_from(added).unwrap())).abs() < 0.5, "{served}");
    }
}

/// The number of queues that a reload adds while NATS is down. Their subscriptions do not fit into the client's buffer.
const ADDED: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn queues_that_are_added_while_nats_is_down_are_served_afterwards() {
    let nats_keys = "commands_max = 16\noperation_timeout = '1s'\n".to_owned();
    let mut fleet = Fleet::start(FleetOptions { nats_keys, ..FleetOptions::default() }).await;
    let before = reload::queues(&fleet.workers[0]).await.len();
    fleet.nats.servers[0].stop().await;
    eventually_some("the link is down", SOON, async || {
        (fleet.workers[0].metric("fjord_nats_connected").await < 0.5).then_some(())
    })
    .await;
    let added: serde_json::Map<String, serde_json::Value> = (0..ADDED)
        .map(|number| {
            let endpoint = json!({
                "route": format!("GET /v1/added/{number}"), "auth": "public", "handler": "echo", "result": "json",
            });
            (format!("added-{number}"), endpoint)
        })
        .collect();
    let text = serde_json::Value::from(added).to_string();
    fs::write(fleet.catalogue().join("added.json"), text).unwrap();
    let started = Instant::now();
    reload::signal(&mut fleet.workers[0], "ok").await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "the reload took {took:?}");
    assert_eq!(reload::queues(&fleet.workers[0]).await.len(), before + ADDED);
    fleet.nats.servers[0].restart().await;
    eventually_some("every queue is served", SERVED_LIMIT, async || {
        let status = reload::status(&fleet.workers[0]).await;
        status["pending"].as_object()?.is_empty().then_some(())
    })
    .await;
    let served = fleet.workers[0].metric("fjord_worker_queue_ready").await;
    assert!(served > f64::from(u32::try_from(before + ADDED).unwrap()) - 0.5, "{served}");
    reload::signal(&mut fleet.gateways[0], "ok").await;
    for number in [0, ADDED - 1] {
        fleet.client().get(&format!("/v1/added/{number}")).await.is(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_queue_finishes_its_calls_and_can_be_added_again() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let file = fleet.catalogue().join("ledger.json");
    let text = fs::read_to_string(&file).unwrap();
    let slow = client.clone();
    let slow = Tasks::new().spawn(async move { slow.get("/v1/slow?ms=1500").await });
    let running = r#"fjord_worker_running{queue="slow"}"#;
    eventually_some("the call runs", SOON, async || {
        (fleet.workers[0].metric(running).await > 0.5).then_some(())
    })
    .await;
    let mut catalogue: serde_json::Value = serde_json::from_str(&text).unwrap();
    catalogue.as_object_mut().unwrap().remove("slow").expect("the endpoint");
    fs::write(&file, catalogue.to_string()).unwrap();
    reload::signal(&mut fleet.gateways[0], "ok").await;
    reload::worker(&mut fleet.workers[0]).await;
    assert!(!reload::queues(&fleet.workers[0]).await.contains(&"slow".to_owned()));
    slow.await.unwrap().is(200);
    let metrics = format!("http://{}/readyz", fleet.workers[0].admin());
    let ready = get_json(&metrics).await.expect("the worker is ready");
    assert_eq!(ready["notes"], json!({}), "{ready}");
    eventually_some("the end of the queue is logged", SOON, async || {
        let log = fleet.workers[0].process.log();
        log.contains("a removed queue is no longer served").then_some(())
    })
    .await;

    fs::write(&file, text).unwrap();
    reload::worker(&mut fleet.workers[0]).await;
    reload::signal(&mut fleet.gateways[0], "ok").await;
    client.get("/v1/slow?ms=1").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_file_changes_nothing_in_a_worker() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let worker = &mut fleet.workers[0];
    reload::edit(worker, "concurrency = 16", "concurrency = 16\n[worker.queues.x]\nconcurency = 1");
    reload::signal(worker, "failed").await;
    let log = worker.process.log();
    let line = log.lines().find(|line| line.contains("the new configuration is invalid")).unwrap();
    for word in ["worker.toml", "worker.queues.x", "concurency"] {
        assert!(line.contains(word), "{word} is missing in {line}");
    }
    client.get("/v1/echo/a").await.is(200);
    // The procedure does not exist, so the queue serves its previous endpoints.
    reload::edit(worker, "\n[worker.queues.x]\nconcurency = 1", "");
    let file = fleet.catalogue().join("ledger.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"ledger.large\"", "\"ledger.huge\"")).unwrap();
    let worker = &mut fleet.workers[0];
    reload::signal(worker, "ok").await;
    eventually_some("the queue is pending", SOON, async || {
        let status = reload::status(worker).await;
        status["pending"]["large"].as_str()?.contains("ledger.huge").then_some(())
    })
    .await;
    assert_eq!(reload::status(worker).await["pending"].as_object().unwrap().len(), 1);
    client.get("/v1/large?rows=3").await.is(200);
    fs::write(&file, text).unwrap();
    reload::worker(&mut fleet.workers[0]).await;
    client.get("/v1/large?rows=3").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_applies_a_changed_database_and_concurrency() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let first = fleet.workers[0].directory().join("ledger.db");
    let second = fleet.workers[0].directory().join("other.db");
    let slow = client.clone();
    let slow = Tasks::new()
        .spawn(async move { slow.send(Method::POST, "/v1/once", &json!({ "ms": 1500 })).await });
    let running = r#"fjord_worker_running{queue="ledger-once"}"#;
    let worker = &mut fleet.workers[0];
    eventually_some("the call runs", SOON, async || {
        (worker.metric(running).await > 0.5).then_some(())
    })
    .await;
    let log = first.with_extension("db-wal");
    assert!(log.exists(), "the old database is open");
    reload::edit(worker, "ledger.db", "other.db");
    reload::edit(worker, "concurrency = 16", "concurrency = 3");
    reload::worker(worker).await;
    assert_eq!(reload::status(worker).await["queues"]["slow"]["limit"], 3);
    client.send(Method::POST, "/v1/once", &json!({ "ms": 0 })).await.is(200);
    slow.await.unwrap().is(200);
    // SQLite removes the write-ahead log when the last connection is closed.
    eventually_some("the old database is closed", SOON, async || (!log.exists()).then_some(()))
        .await;
    let rows = |file: &std::path::Path| -> i64 {
        let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        database.query_row("SELECT count(*) FROM ledger", [], |row| row.get(0)).unwrap()
    };
    assert_eq!((rows(&first), rows(&second)), (1, 1), "the running call used the old database");
    assert!(fleet.workers[0].metric("fjord_backend_up").await > 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_moves_to_another_nats_server_and_fails_no_request() {
    let options =
        FleetOptions { nats_servers: 2, gateways: 1, workers: 2, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options).await;
    let clients = vec![fleet.client()];
    let mut seed = SeededRandom::new();
    let load = LedgerLoad::start(&GatewayRotation::new(clients), &mut seed);
    let urls = fleet.nats.urls();
    let both = format!("servers = ['{}', '{}']", urls[0], urls[1]);
    let mut before = both;
    for round in 0..4 {
        let only = format!("servers = ['{}']", urls[round % 2]);
        for node in fleet.workers.iter_mut().chain(&mut fleet.gateways) {
            let connections = node.process.log().matches("with the reloaded settings").count();
            reload::edit(node, &before, &only);
            reload::signal(node, "ok").await;
            eventually_some("another connection is used", SOON, async || {
                let log = node.process.log();
                (log.matches("with the reloaded settings").count() > connections).then_some(())
            })
            .await;
            load.wait_for_more(20).await;
        }
        before = only;
        let monitoring = &fleet.nats.servers[(round + 1) % 2];
        let url = format!("{}/varz", monitoring.monitoring());
        eventually_some("no process is connected to the other server", SOON, async || {
            let document = get_json(&url).await?;
            (document["connections"] == 0).then_some(())
        })
        .await;
    }
    // The server cannot be reached, so the previous connection stays in use.
    let worker = &mut fleet.workers[0];
    reload::edit(worker, &before, "servers = ['tls://127.0.0.1:1']");
    reload::signal(worker, "failed").await;
    load.wait_for_more(100).await;
    let answers = load.stop().await;
    reconcile("other NATS servers", &answers, fleet.ledger()).no_request_lost().all_ok();
    assert!(fleet.workers[0].metric("fjord_nats_connected").await > 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_starts_and_stops_the_export_of_traces() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    let collector = TraceCollector::start(None).await;
    let client = fleet.client();
    client.get("/v1/echo/a").await.is(200);
    let traces = format!(
        "\n[traces]\nendpoint = 'http://{}'\ninsecure_plain_text = true\nsample_ratio = 1.0\n",
        collector.address
    );
    for node in fleet.gateways.iter_mut().chain(&mut fleet.workers) {
        reload::edit(node, "[admin]", &format!("{traces}[admin]"));
        reload::signal(node, "ok").await;
    }
    client.get("/v1/echo/a").await.is(200);
    eventually_some("the spans of both roles", SOON, async || {
        let spans = collector.spans();
        let is_from = |role: &str| spans.iter().any(|span| span.service == format!("fjord-{role}"));
        (is_from("gateway") && is_from("worker")).then_some(())
    })
    .await;
    for node in fleet.gateways.iter_mut().chain(&mut fleet.workers) {
        reload::edit(node, &traces, "");
        reload::signal(node, "ok").await;
    }
    let before = collector.spans().len();
    client.get("/v1/echo/a").await.is(200);
    for_a_while(Duration::from_secs(2)).await;
    assert_eq!(collector.spans().len(), before);
}
