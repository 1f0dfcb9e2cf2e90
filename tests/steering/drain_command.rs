//! Tests `fjord drain`.

use std::time::Duration;

use super::{document, fleet, run, text};
use crate::support::eventually::{SOON, eventually_some};
use crate::support::ledger_load::{GatewayRotation, LedgerLoad, reconcile};
use crate::support::random::SeededRandom;

/// The time limit for a process to drain, with a margin for a busy machine.
const DRAIN_LIMIT: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_process_or_a_host_drains_and_no_request_fails() {
    let mut fleet = fleet(1, 2).await;
    let clients = vec![fleet.client()];
    let load = LedgerLoad::start(&GatewayRotation::new(clients), &mut SeededRandom::new());
    load.wait_for_more(20).await;
    let output = run(&fleet, &["drain", "nobody"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no process has the id or the host name nobody"));

    // The check of a reload lists all processes and changes nothing, because there are no changes.
    let members = document(&run(&fleet, &["reload", "--json"]).await)["members"].clone();
    let members = members.as_array().unwrap();
    let worker = members.iter().find(|one| one["role"] == "worker").unwrap();
    let id = worker["id"].as_str().unwrap();
    let output = run(&fleet, &["drain", id]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.starts_with(&format!("worker {id} on ")), "{said}");
    assert!(said.contains("1 worker: draining"), "{said}");
    let (first, second) = fleet.workers.split_at_mut(1);
    let drained = async {
        tokio::select! {
            status = first[0].process.wait(DRAIN_LIMIT) => (status, 0),
            status = second[0].process.wait(DRAIN_LIMIT) => (status, 1),
        }
    };
    let (status, number) = drained.await;
    assert!(status.success(), "{status}");
    load.wait_for_more(50).await;
    let answers = load.stop().await;
    reconcile("fjord drain", &answers, fleet.ledger()).no_request_lost().all_ok();
    assert!(fleet.workers[1 - number].process.is_running(), "only one worker was drained");

    let host = worker["host"].as_str().unwrap().to_owned();
    let output = run(&fleet, &["drain", &host, "--json"]).await;
    assert_eq!(document(&output)["result"], "ok");
    let other = fleet.workers[1 - number].process.wait(DRAIN_LIMIT).await;
    let gateway = fleet.gateways[0].process.wait(DRAIN_LIMIT).await;
    assert!(other.success() && gateway.success(), "{other} {gateway}");
    fleet.gateways[0].process.log_line(&["received a command", "drain", r#""by":"grace@"#]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_drains_does_not_make_a_reload_fail() {
    let mut fleet = fleet(2, 1).await;
    let client = fleet.client();
    let tasks = fjord::lifecycle::Tasks::new();
    let slow = tasks.spawn(async move { client.get("/v1/slow?ms=4000").await });
    eventually_some("the call is in flight", SOON, async || {
        let in_flight = fleet.gateways[0].metric("fjord_gateway_requests_in_flight ").await;
        (in_flight > 0.5).then_some(())
    })
    .await;
    fleet.gateways[0].process.terminate();
    eventually_some("the gateway drains", SOON, async || {
        fleet.gateways[0].process.log().contains("\"draining\"").then_some(())
    })
    .await;
    let output = run(&fleet, &["reload", "--json"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("it is draining"), "{}", text(&output.stdout));
    slow.await.expect("the task ends").is(200);
}
