//! Promise: the fleet can be asked how it is over NATS alone, by our own commands and by anybody's tools.

use serde_json::Value;

mod bottleneck;
mod call;
mod status;

use super::foreign_workers::python;
use super::support::fjord::{Fleet, FleetOptions};

/// What the fleet answers on a subject of the NATS service API.
fn asked(fleet: &Fleet, answers: usize, subject: &str) -> Vec<Value> {
    let mut command = python("foreign_monitor.py");
    command.arg(fleet.nats.urls()[0].as_str()).arg(&fleet.certs.ca);
    let output = command.arg(answers.to_string()).arg(subject).output().expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).expect("what it prints");
    assert_eq!(found.len(), answers, "{subject}: {found:?}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_of_the_nats_service_api_see_both_roles() {
    let fleet = Fleet::start(FleetOptions { workers: 2, ..FleetOptions::default() }).await;
    for number in 0..3 {
        fleet.client().get(&format!("/v1/echo/{number}")).await.is(200);
    }
    fleet.client().get("/v1/strict?ms=5000").await.is(504);
    let everybody = asked(&fleet, 3, "$SRV.PING");
    let mut ids: Vec<_> = everybody.iter().map(|each| each["id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "each has its own");

    let workers = asked(&fleet, 2, "$SRV.STATS.fjord-worker");
    let of = |worker: &Value, name: &str| -> Value {
        let endpoints = worker["endpoints"].as_array().expect("endpoints");
        endpoints.iter().find(|each| each["name"] == name).expect("the queue").clone()
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
        let itself = asked(&fleet, 1, &format!("$SRV.{verb}.fjord-worker.{id}"));
        assert_eq!(itself[0]["id"], id, "{verb}");
    }
    let gateway = &asked(&fleet, 1, "$SRV.STATS.fjord-gateway")[0];
    assert_eq!(of(gateway, "echo")["num_requests"], 3);
    assert_eq!(of(gateway, "strict")["num_errors"], 1);
    let info = &asked(&fleet, 1, "$SRV.INFO.fjord-gateway")[0];
    assert_eq!(of(info, "echo")["subject"], "fjord.q.echo");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_told_so_keeps_out_of_the_service_api() {
    let worker_toml = "[messaging]\nservice_api = false".to_owned();
    let fleet = Fleet::start(FleetOptions { worker_toml, ..FleetOptions::default() }).await;
    assert_eq!(asked(&fleet, 1, "$SRV.PING")[0]["name"], "fjord-gateway");
}
