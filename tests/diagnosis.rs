//! Promise: when requests do not progress, metrics, `/readyz` and `fjord status` name the cause.

use std::process::{Output, Stdio};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

mod nats;

use super::fleet_status::status_command::status;
use super::support::caller_pool::CallerPool;
use super::support::eventually::{SOON, eventually_some, for_a_while};
use super::support::fleet::{Fleet, FleetOptions};

/// Sends requests that nobody waits for.
fn send(fleet: &Fleet, path: &'static str, number: usize) {
    for _ in 0..number {
        let client = fleet.client();
        let _detached = fjord::lifecycle::Tasks::new()
            .spawn(async move { drop(client.try_send(Method::GET, path, None).await) });
    }
}

fn document(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON document: {errors}"))
}

fn queue<'a>(view: &'a Value, name: &str) -> &'a Value {
    let queues = view["queues"].as_array().expect("queues");
    queues.iter().find(|queue| queue["name"] == name).expect("the queue")
}

#[tokio::test(flavor = "multi_thread")]
async fn hung_workers_are_named_although_the_gateway_has_no_waiting_requests() {
    let mut fleet = Fleet::start(FleetOptions { workers: 2, ..FleetOptions::default() }).await;
    for worker in &mut fleet.workers {
        worker.process.pause();
    }
    // The timeout of this endpoint is 20 s, so that no request ends during the test.
    send(&fleet, "/v1/large?rows=1", 5);
    let gateway = &fleet.gateways[0];
    let unaccepted = r#"fjord_gateway_requests_unaccepted{queue="large"}"#;
    let oldest = r#"fjord_gateway_requests_unaccepted_oldest_seconds{queue="large"}"#;
    eventually_some("the requests and their age are shown", SOON, async || {
        (gateway.metric(unaccepted).await > 4.5 && gateway.metric(oldest).await > 2.5).then_some(())
    })
    .await;
    assert!(gateway.metric("fjord_gateway_requests_waiting").await < 0.5, "none waits");
    let monitoring = format!("messaging.nats.monitoring={}", fleet.nats.servers[0].monitoring());
    let arguments = ["--interval", "1", "--set", monitoring.as_str()];
    let page = status(gateway.directory(), &arguments).output().expect("fjord runs");
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    println!("{page}");
    let start =
        "The bottleneck is queue large: 5 requests were sent and no worker has accepted them";
    assert!(page.starts_with(start), "{page}");
    assert!(page.contains("\n2 of 3 known processes did not reply: worker "), "{page}");
    assert!(page.contains("queue large: no worker has accepted 5 requests"), "{page}");
    let output = status(gateway.directory(), &arguments).arg("--json").output();
    let view = document(&output.expect("fjord runs"));
    assert_eq!(view["bottleneck"]["kind"], "stalled");
    assert_eq!(view["known_processes"], 3);
    let missing = view["missing"].as_array().expect("a list");
    let roles: Vec<_> = missing.iter().map(|one| (&one["role"], &one["has_replied"])).collect();
    assert_eq!(roles, [(&"worker".into(), &false.into()); 2]);
    for worker in &mut fleet.workers {
        worker.process.resume();
    }
    let gateway = &fleet.gateways[0];
    eventually_some("all requests have ended", SOON, async || {
        (gateway.metric(unaccepted).await < 0.5 && gateway.metric(oldest).await < 0.1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_do_not_end_are_named_although_slots_are_free() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    for _ in 0..20 {
        fleet.client().get("/v1/slow?ms=1").await.is(200);
    }
    send(&fleet, "/v1/slow?ms=60000", 3);
    let accepted = r#"fjord_gateway_requests_accepted{queue="slow"}"#;
    let oldest = r#"fjord_gateway_requests_accepted_oldest_seconds{queue="slow"}"#;
    let gateway = &fleet.gateways[0];
    eventually_some("the calls and their age are shown", SOON * 2, async || {
        (gateway.metric(accepted).await > 2.5 && gateway.metric(oldest).await > 5.0).then_some(())
    })
    .await;
    let output = status(gateway.directory(), &["--interval", "1", "--json"]).output();
    let view = document(&output.expect("fjord runs"));
    let sentence = view["bottleneck"]["sentence"].as_str().expect("a sentence");
    let start =
        "The bottleneck is queue slow: its calls do not end. Workers have accepted 3 requests";
    assert!(sentence.starts_with(start), "{sentence}");
    assert_eq!(view["bottleneck"]["kind"], "stalled");
    assert_eq!(view["missing"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_that_no_gateway_takes_are_counted_and_explained() {
    let options = FleetOptions { concurrency: 2, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options).await;
    let callers = CallerPool::start(&[fleet.client()], "/v1/slow?ms=300", 200, 40);
    let waiting = r#"fjord_gateway_requests_waiting{queue="slow"}"#;
    eventually_some("requests wait", SOON, async || {
        (fleet.gateways[0].metric(waiting).await > 20.0).then_some(())
    })
    .await;
    let mut command = status(fleet.gateways[0].directory(), &["--interval", "6", "--json"]);
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    // The command takes its first snapshot in the meantime.
    for_a_while(Duration::from_secs(2)).await;
    fleet.gateways[0].process.pause();
    let lapsed = r#"fjord_worker_offers_total{queue="slow",result="lapsed"}"#;
    eventually_some("offers lapse", SOON, async || {
        (fleet.workers[0].metric(lapsed).await > 0.5).then_some(())
    })
    .await;
    let view = document(&running.expect("fjord runs").wait_with_output().expect("it ends"));
    let slow = queue(&view, "slow");
    assert!(slow["offers_lapsed"].as_u64() > Some(0), "{slow}");
    assert!(slow["offers_made"].as_u64() > Some(0), "{slow}");
    let missing = &view["missing"];
    assert_eq!(missing.as_array().map(Vec::len), Some(1), "{missing}");
    assert_eq!(
        (&missing[0]["role"], &missing[0]["has_replied"]),
        (&"gateway".into(), &true.into())
    );
    fleet.gateways[0].process.resume();
    drop(callers);
}
