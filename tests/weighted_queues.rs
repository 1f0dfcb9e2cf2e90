//! Promise: an endpoint divides its requests among its queues by weight. Each request stays in the queue to which it
//! was assigned, and each queue calls its own procedure.

use std::collections::BTreeMap;
use std::fs;

use futures_util::future::join_all;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::support::client::Client;
use super::support::fleet::{Fleet, FleetOptions};

mod commands;
mod ledger;
mod reports;
mod split;

/// Two versions of several endpoints.
pub(crate) const ENDPOINTS: &str = r#"{
    "split": { "route": "GET /v1/split", "procedure": "ledger.v1", "result": "value", "timeout": "10s", "auth": "public",
        "parameters": { "ms": { "in": "query", "type": "int32", "default": 0 } },
        "examples": { "first": { "answer": { "status": 200, "body": "v1" } } },
        "queues": { "split": 95, "split-v2": { "weight": 5, "procedure": "ledger.v2" } } },
    "stored": { "route": "GET /v1/stored", "procedure": "ledger.v1", "result": "value", "timeout": "10s", "auth": "public",
        "parameters": { "ms": { "in": "query", "type": "int32", "default": 0 } },
        "queues": { "stored": 1, "stored-v2": { "weight": 1, "procedure": "ledger.v2" } }, "cache": { "ttl": "1h" } },
    "broken": { "route": "GET /v1/broken", "result": "value", "timeout": "10s", "auth": "public",
        "parameters": { "ms": { "in": "query", "type": "int32", "default": 0 } },
        "queues": { "broken": { "weight": 95, "procedure": "ledger.v1" },
                    "broken-v2": { "weight": 5, "procedure": "ledger.broken" } } }
}"#;

/// Procedures that return their version, and one that always fails.
pub(crate) const PROCEDURES: &[(&str, &str)] = &[
    ("ledger.v1.sql", "SELECT sleep_ms(@ms) AS \"@slept\";\nSELECT 'v1' AS version;\n"),
    ("ledger.v2.sql", "SELECT sleep_ms(@ms) AS \"@slept\";\nSELECT 'v2' AS version;\n"),
    (
        "ledger.broken.sql",
        "SELECT sleep_ms(@ms) AS \"@slept\";\nSELECT throw(60000, 'broken') AS \"@check\";\n",
    ),
    // This procedure writes to the ledger like ledger.write, and marks the line.
    (
        "ledger.write_v2.sql",
        "SELECT sleep_ms(@ms) AS \"@slept\";\n\
         INSERT INTO ledger (request_id, at) VALUES (@request_id, 'v2');\n\
         SELECT last_insert_rowid() AS line, @request_id AS request_id;\n",
    ),
];

/// Returns the options of a fleet with the endpoints above.
pub(crate) fn options(gateways: usize, workers: usize) -> FleetOptions {
    FleetOptions {
        gateways,
        workers,
        catalogue: Some(("versions.json", ENDPOINTS)),
        procedures: PROCEDURES,
        ..FleetOptions::default()
    }
}

/// Returns a client for each gateway.
pub(crate) fn clients(fleet: &Fleet) -> Vec<Client> {
    let client = fleet.client();
    fleet.gateways.iter().map(|gateway| client.at(gateway.https())).collect()
}

/// Asserts that the count of an event with this probability is plausible. A plausible count is at most six standard
/// deviations of the binomial distribution away from the mean. A correct count misses this range about twice in a
/// billion runs.
#[track_caller]
pub(crate) fn check_count(count: usize, trials: usize, probability: f64) {
    let float = |number: usize| f64::from(u32::try_from(number).expect("a small number"));
    let mean = float(trials) * probability;
    let bound = 6.0 * (mean * (1.0 - probability)).sqrt();
    assert!((float(count) - mean).abs() <= bound, "{count} of {trials}: expected {mean} ± {bound}");
}

/// Sends GET requests to all gateways in turn, some of them concurrently. Counts the answers by version.
async fn versions(clients: &[Client], path: &str, requests: usize) -> BTreeMap<String, usize> {
    const CALLERS: usize = 16;
    let caller = async |number: usize| {
        let mut versions = Vec::new();
        for request in 0..requests / CALLERS {
            let client = &clients[(number + request) % clients.len()];
            let answer = client.get(path).await;
            versions.push(answer.is(200).json().as_str().expect("a version").to_owned());
        }
        versions
    };
    let mut counts = BTreeMap::new();
    for version in join_all((0..CALLERS).map(caller)).await.into_iter().flatten() {
        *counts.entry(version).or_default() += 1;
    }
    counts
}

/// Gives two endpoints of the ledger a second version, which gets half of their requests.
pub(crate) fn add_ledger_versions(fleet: &Fleet) {
    let file = fleet.catalogue().join("ledger.json");
    let text = fs::read_to_string(&file).expect("the catalogue can be read");
    let mut catalogue: Value = serde_json::from_str(&text).expect("JSON");
    for id in ["ledger-once", "ledger-again"] {
        catalogue[id]["queues"] = serde_json::json!({
            id: 50, format!("{id}-v2"): { "weight": 50, "procedure": "ledger.write_v2" }
        });
    }
    fs::write(file, catalogue.to_string()).expect("the file can be written");
}

/// Returns the versions that have executed each request, from the ledgers of all workers.
pub(crate) fn executed_versions(fleet: &Fleet) -> BTreeMap<String, Vec<&'static str>> {
    let mut versions: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    for worker in &fleet.workers {
        let file = worker.directory().join("ledger.db");
        let ledger = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY);
        let ledger = ledger.expect("the ledger can be opened");
        let mut query = ledger.prepare("SELECT request_id, at FROM ledger").expect("the table");
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)));
        for row in rows.expect("the ledger can be queried") {
            let (id, at) = row.expect("the row can be read");
            versions.entry(id).or_default().push(if at == "v2" { "v2" } else { "v1" });
        }
    }
    versions
}
