//! Tests `fjord reload`.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fjord::lifecycle::Tasks;
use serde_json::{Value, json};

use super::{document, fleet, run, run_as, send, text};
use crate::support::eventually::{SOON, eventually_some, for_a_while};
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::ledger_load::{GatewayRotation, LedgerLoad, reconcile};
use crate::support::nats::{NatsOptions, SHIPPED_PASSWORD};
use crate::support::random::SeededRandom;
use crate::support::reload;

/// The number of reloads, each of which adds an endpoint and removes another one.
const RELOADS: usize = 8;

fn endpoint(number: usize) -> String {
    let queue = if number.is_multiple_of(2) { "echo".to_owned() } else { format!("own-{number}") };
    format!(
        r#"{{ "added-{number}": {{ "route": "GET /v1/added/{number}", "handler": "echo", "queue": "{queue}",
              "result": "json", "auth": "public" }} }}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_added_and_removed_and_no_request_fails() {
    let mut fleet = fleet(2, 2).await;
    let client = fleet.client();
    let clients: Vec<_> = fleet.gateways.iter().map(|one| client.at(one.https())).collect();
    let load = LedgerLoad::start(&GatewayRotation::new(clients.clone()), &mut SeededRandom::new());
    // Clients call the endpoint that the next reload adds, and the one that it removes.
    let current = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = clients
        .iter()
        .cloned()
        .map(|client| {
            let current = Arc::clone(&current);
            Tasks::new().spawn(async move {
                let mut statuses = BTreeMap::new();
                loop {
                    let number = current.load(Ordering::Relaxed);
                    if number >= RELOADS {
                        return statuses;
                    }
                    for path in [number, number.saturating_sub(1)] {
                        let answer = client.get(&format!("/v1/added/{path}")).await;
                        *statuses.entry(answer.status.as_u16()).or_insert(0_usize) += 1;
                    }
                }
            })
        })
        .collect();
    for number in 0..RELOADS {
        current.store(number, Ordering::Relaxed);
        let file = |number: usize| fleet.catalogue().join(format!("added-{number}.json"));
        fs::write(file(number), endpoint(number)).unwrap();
        if let Some(old) = number.checked_sub(1) {
            fs::remove_file(file(old)).unwrap();
        }
        let output = run(&fleet, &["reload"]).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let said = text(&output.stdout);
        assert!(said.ends_with("2 workers and 2 gateways use the new configuration\n"), "{said}");
        for client in &clients {
            client.get(&format!("/v1/added/{number}")).await.is(200);
        }
    }
    current.store(RELOADS, Ordering::Relaxed);
    for caller in callers {
        let statuses = caller.await.expect("the caller does not panic");
        assert!(statuses.keys().all(|status| [200, 404].contains(status)), "{statuses:?}");
        assert!(statuses.len() == 2, "endpoints came and went: {statuses:?}");
    }
    let answers = load.stop().await;
    reconcile("fjord reload", &answers, fleet.ledger()).no_request_lost().all_ok();
    for worker in &fleet.workers {
        let queues = reload::queues(worker).await;
        let added: Vec<_> = queues.iter().filter(|name| name.starts_with("own-")).collect();
        assert_eq!(added, [&format!("own-{}", RELOADS - 1)], "the others were removed");
    }
    let log = fleet.nats.servers[0].process().log();
    let violations: Vec<_> = log.lines().filter(|line| line.contains("Violation")).collect();
    assert_eq!(violations, Vec::<&str>::new());
}

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

/// Returns the lines in the logs of all processes that record a command.
fn audit(fleet: &Fleet) -> Vec<String> {
    let nodes = fleet.gateways.iter().chain(&fleet.workers);
    let logs = nodes.map(|node| node.process.log()).collect::<Vec<_>>().concat();
    logs.lines().filter(|line| line.contains("received a command")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_one_process_changes_nothing_and_is_named() {
    let fleet = fleet(1, 2).await;
    let client = fleet.client();
    fs::write(fleet.catalogue().join("added.json"), endpoint(1)).unwrap();
    reload::edit(&fleet.workers[1], "[log]", "[log]\nfliter = 'debug'");
    let output = run(&fleet, &["reload", "--json"]).await;
    assert_eq!(output.status.code(), Some(1));
    let report = document(&output);
    assert_eq!((&report["result"], &report["stage"]), (&"failed".into(), &"check".into()));
    let members = report["members"].as_array().unwrap();
    assert_eq!(members.len(), 3, "{report}");
    let faulty: Vec<_> =
        members.iter().filter(|one| one["faults"] != serde_json::json!([])).collect();
    assert_eq!(faulty.len(), 1, "{report}");
    assert_eq!(faulty[0]["role"], "worker");
    let fault = faulty[0]["faults"][0].as_str().unwrap();
    assert!(fault.contains("log.fliter") && fault.contains("worker.toml"), "{fault}");
    client.get("/v1/added/1").await.is_problem(404, "no-route");
    for worker in &fleet.workers {
        assert!(!reload::queues(worker).await.contains(&"own-1".to_owned()));
    }
    // The text names the process as well.
    let output = run(&fleet, &["reload"]).await;
    let errors = text(&output.stderr);
    let id = faulty[0]["id"].as_str().unwrap();
    assert!(errors.contains(&format!("error: worker {id} on ")), "{errors}");
    assert!(errors.contains("nothing has changed"), "{errors}");

    // A procedure that the database does not have.
    reload::edit(&fleet.workers[1], "fliter = 'debug'", "");
    let broken = endpoint(3).replace(r#""handler": "echo""#, r#""procedure": "ledger.none""#);
    fs::write(fleet.catalogue().join("broken.json"), broken).unwrap();
    let output = run(&fleet, &["reload"]).await;
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert_eq!(errors.matches("queue own-3: ").count(), 2, "both workers: {errors}");
    client.get("/v1/added/1").await.is_problem(404, "no-route");

    fs::remove_file(fleet.catalogue().join("broken.json")).unwrap();
    let output = run(&fleet, &["reload"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    client.get("/v1/added/1").await.is(200);
    // Four checks by three processes, then two commands to two workers and one to a gateway. Log lines are written in the
    // background.
    let number = 4 * 3 + 2 * 2 + 1;
    eventually_some("all commands are logged", SOON, async || {
        (audit(&fleet).len() == number).then_some(())
    })
    .await;
    let audit = audit(&fleet);
    assert!(audit.iter().all(|line| line.contains(r#""by":"grace@"#)), "{audit:#?}");
    let commands = |name: &str| audit.iter().filter(|line| line.contains(name)).count();
    assert_eq!(commands(r#""command":"check-reload""#), 12);
    assert_eq!(commands(r#""command":"finish-reload""#), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_hangs_is_named_and_nothing_changes() {
    let mut fleet = fleet(1, 2).await;
    let file = fleet.catalogue().join("added.json");
    fs::write(file, endpoint(1)).unwrap();
    fleet.workers[1].process.pause();
    let user = "messaging.nats.system.user=system".to_owned();
    let password = format!("messaging.nats.system.password={SHIPPED_PASSWORD}");
    let arguments = ["reload", "--timeout", "2", "--json", "--set", &user, "--set", &password];
    let output = run(&fleet, &arguments).await;
    fleet.workers[1].process.resume();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let report = document(&output);
    let members = report["members"].as_array().unwrap();
    let silent: Vec<_> = members.iter().filter(|one| one["replied_to"].is_null()).collect();
    assert_eq!((members.len(), silent.len()), (3, 1), "{report}");
    assert_eq!(silent[0]["role"], "worker");
    assert_eq!(silent[0]["faults"][0], "no reply to check-reload within 2s");
    fleet.client().get("/v1/added/1").await.is_problem(404, "no-route");
    let output = run(&fleet, &arguments).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    fleet.client().get("/v1/added/1").await.is(200);
}

/// Sends a command to all workers as the user `controller`. Returns the faults of the first worker that replies.
async fn faults(fleet: &Fleet, command: Value) -> Value {
    send(fleet, "fjord.control", command).await["faults"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_earlier_reload_removes_nothing_of_a_later_one() {
    let fleet = fleet(1, 1).await;
    let file = fleet.catalogue().join("added.json");
    let serves = async |name: &str| {
        reload::queues(&fleet.workers[0]).await.iter().any(|queue| queue == name)
    };
    fs::write(&file, endpoint(1)).unwrap();
    assert_eq!(faults(&fleet, json!({ "reload": { "rollout": "first" } })).await, json!([]));
    fs::write(&file, endpoint(3)).unwrap();
    assert_eq!(faults(&fleet, json!({ "reload": { "rollout": "second" } })).await, json!([]));
    let late = faults(&fleet, json!({ "finish-reload": { "rollout": "first" } })).await;
    assert!(late[0].as_str().unwrap().contains("another reload has been applied since"), "{late}");
    assert!(serves("own-1").await && serves("own-3").await);
    let finish = json!({ "finish-reload": { "rollout": "second" } });
    assert_eq!(faults(&fleet, finish.clone()).await, json!([]));
    assert!(!serves("own-1").await && serves("own-3").await);
    // There is nothing left to remove.
    assert_eq!(faults(&fleet, finish).await, json!([]));
    let other = json!({ "finish-reload": { "rollout": "first" } });
    assert_eq!(faults(&fleet, other).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_suspended_does_not_execute_what_has_become_too_late() {
    let mut fleet = fleet(1, 2).await;
    fleet.workers[1].process.pause();
    let output = run(&fleet, &["queue", "pause", "slow", "--timeout", "1"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for_a_while(Duration::from_secs(2)).await;
    fleet.workers[1].process.resume();
    eventually_some("the late command is answered", SOON, async || {
        let log = fleet.workers[1].process.log();
        log.contains("received too late, and not executed").then_some(())
    })
    .await;
    let paused = r#"fjord_worker_queue_paused{queue="slow"}"#;
    assert!(fleet.workers[0].metric(paused).await > 0.5);
    assert!(fleet.workers[1].metric(paused).await < 0.5);
    // Later commands are executed.
    eventually_some("the worker has caught up", SOON, async || {
        let output = run(&fleet, &["queue", "pause", "slow", "--timeout", "2"]).await;
        (output.status.code() == Some(0)).then_some(())
    })
    .await;
    assert!(fleet.workers[1].metric(paused).await > 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_the_permission_is_told_so() {
    let fleet = fleet(1, 1).await;
    let output = run_as(&fleet, "operator", &["reload", "--timeout", "1"]).await;
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    for role in ["gateway", "worker"] {
        let named = errors.lines().find(|line| line.starts_with(&format!("error: {role} ")));
        let line = named.unwrap_or_else(|| panic!("no {role} is named: {errors}"));
        assert!(line.ends_with("no reply to check-reload within 1s"), "{errors}");
    }
    assert_eq!(audit(&fleet), Vec::<String>::new());
    assert_eq!(run(&fleet, &["reload", "--timeout", "0"]).await.status.code(), Some(2));
}
