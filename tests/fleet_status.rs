//! Promise: the state of the fleet can be queried over NATS alone, with fjord's own commands and with third-party
//! tools.

use serde_json::Value;

mod bottleneck;
mod call_command;
mod large_reports;
pub(crate) mod status_command;

use super::foreign_workers::python;
use super::support::fleet::{Fleet, FleetOptions};

/// Sends a request to a subject of the NATS service API, and returns the fleet's responses.
fn query(fleet: &Fleet, answers: usize, subject: &str) -> Vec<Value> {
    let mut command = python("python_monitor.py");
    command.arg(fleet.nats.urls()[0].as_str()).arg(&fleet.certs.ca);
    let output = command.arg(answers.to_string()).arg(subject).output().expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let responses: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a JSON array");
    assert_eq!(responses.len(), answers, "{subject}: {responses:?}");
    responses
}

#[tokio::test(flavor = "multi_thread")]
async fn both_roles_answer_the_nats_service_api() {
    let fleet = Fleet::start(FleetOptions { workers: 2, ..FleetOptions::default() }).await;
    for number in 0..3 {
        fleet.client().get(&format!("/v1/echo/{number}")).await.is(200);
    }
    fleet.client().get("/v1/strict?ms=5000").await.is(504);
    let processes = query(&fleet, 3, "$SRV.PING");
    let mut ids: Vec<_> = processes.iter().map(|endpoint| endpoint["id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "each process has its own id");

    let workers = query(&fleet, 2, "$SRV.STATS.fjord-worker");
    let of = |worker: &Value, name: &str| -> Value {
        let endpoints = worker["endpoints"].as_array().expect("endpoints");
        endpoints.iter().find(|endpoint| endpoint["name"] == name).expect("the queue").clone()
    };
    let sum = |name: &str, key: &str| -> u64 {
        workers.iter().map(|worker| of(worker, name)[key].as_u64().expect("a count")).sum()
    };
    assert_eq!((sum("echo", "num_requests"), sum("echo", "num_errors")), (3, 0));
    assert_eq!((sum("strict", "num_requests"), sum("strict", "num_errors")), (1, 1));
    assert!(sum("strict", "processing_time") > 900_000_000, "a second, in nanoseconds");
    assert_eq!(of(&workers[0], "echo")["data"]["limit"], 16);
    assert_eq!(of(&workers[0], "echo")["queue_group"], "echo");
    assert!(workers.iter().any(|worker| of(worker, "strict")["last_error"] == "sql_timeout"));

    let id = workers[1]["id"].as_str().expect("an id");
    for verb in ["PING", "INFO", "STATS"] {
        let itself = query(&fleet, 1, &format!("$SRV.{verb}.fjord-worker.{id}"));
        assert_eq!(itself[0]["id"], id, "{verb}");
    }
    let gateway = &query(&fleet, 1, "$SRV.STATS.fjord-gateway")[0];
    assert_eq!(of(gateway, "echo")["num_requests"], 3);
    assert_eq!(of(gateway, "strict")["num_errors"], 1);
    let info = &query(&fleet, 1, "$SRV.INFO.fjord-gateway")[0];
    assert_eq!(of(info, "echo")["subject"], "fjord.q.echo");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_can_be_excluded_from_the_service_api() {
    let worker_toml = "[messaging]\nservice_api = false".to_owned();
    let fleet = Fleet::start(FleetOptions { worker_toml, ..FleetOptions::default() }).await;
    assert_eq!(query(&fleet, 1, "$SRV.PING")[0]["name"], "fjord-gateway");
}
