//! Tests `fjord reload`.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::{document, fleet, run, run_as, send, text};
use crate::support::eventually::{SOON, eventually_some, for_a_while};
use crate::support::fleet::Fleet;
use crate::support::nats::SHIPPED_PASSWORD;
use crate::support::reload;

/// Returns the file of an endpoint that a reload adds. Every second endpoint has its own queue.
pub(super) fn endpoint(number: usize) -> String {
    let queue = if number.is_multiple_of(2) { "echo".to_owned() } else { format!("own-{number}") };
    format!(
        r#"{{ "added-{number}": {{ "route": "GET /v1/added/{number}", "handler": "echo", "queue": "{queue}",
              "result": "json", "auth": "public" }} }}"#
    )
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
    // The text output also names the process.
    let output = run(&fleet, &["reload"]).await;
    let errors = text(&output.stderr);
    let id = faulty[0]["id"].as_str().unwrap();
    assert!(errors.contains(&format!("error: worker {id} on ")), "{errors}");
    assert!(errors.contains("nothing has changed"), "{errors}");

    // The database does not have this procedure.
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
    // There are four checks by three processes, followed by two commands to two workers and one command to a gateway.
    // Log lines are written in the background.
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
