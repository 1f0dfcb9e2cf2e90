//! Promise: metrics, access lines and `Server-Timing` have the values that the documentation describes.

use std::collections::BTreeSet;

use fjord::lifecycle::Tasks;
use fjord::outcome::Outcome;
use serde_json::Value;

use super::support::eventually::{SOON, eventually_some};
use super::support::fjord_process::FjordProcess;
use super::support::fleet::{Fleet, FleetOptions};

mod exposition;
mod prometheus;
mod scrape_cost;
pub(super) mod shipped_rules;

const METRICS: &str = include_str!("../docs/METRICS.md");

/// Returns the access lines of a gateway so far.
fn access_lines(node: &FjordProcess) -> Vec<Value> {
    let log = node.process.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "fjord::access").collect()
}

/// Returns the columns of a metric's row in docs/METRICS.md.
fn documented_row(metric: &str) -> Vec<&'static str> {
    let start = format!("| `{metric}` |");
    let row = METRICS.lines().find(|line| line.starts_with(&start));
    let row = row.unwrap_or_else(|| panic!("{metric} is not in docs/METRICS.md"));
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// Returns the first column of the table below a heading.
fn documented(heading: &str) -> BTreeSet<&'static str> {
    let (_, rest) =
        METRICS.split_once(&format!("\n## {heading}\n")).expect("the document has this heading");
    let section = rest.split("\n## ").next().expect("a section");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next()).filter(|word| *word != "outcome").collect()
}

#[test]
fn the_documentation_lists_exactly_the_outcomes() {
    let known: BTreeSet<&str> = Outcome::ALL.iter().map(|word| word.as_str()).collect();
    assert_eq!(known.len(), Outcome::ALL.len(), "every outcome is listed once");
    assert_eq!(documented("Outcomes"), known);
    for word in Outcome::ALL {
        let row = format!("| `{word}` | {} |", word.meaning());
        assert!(METRICS.contains(&row), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_client_disconnected_has_an_access_line() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let leaving = client.with_header("x-request-id", "leaves-early");
    let response = Tasks::new().spawn(async move { leaving.get("/v1/slow?ms=20000").await });
    let running = r#"fjord_worker_running{queue="slow"}"#;
    eventually_some("the call runs", SOON, async || {
        (fleet.workers[0].metric(running).await > 0.5).then_some(())
    })
    .await;
    response.abort();
    let line = eventually_some("the access line", SOON, async || {
        access_lines(&fleet.gateways[0]).into_iter().find(|l| l["request_id"] == "leaves-early")
    })
    .await;
    assert_eq!((&line["outcome"], &line["status"]), (&"client_gone".into(), &499.into()), "{line}");
    let metric = r#"fjord_gateway_requests_total{endpoint="slow",queue="slow",status="499",outcome="client_gone"}"#;
    assert!(fleet.gateways[0].metric(metric).await > 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn access_lines_and_server_timing_have_the_phases() {
    let gateway_keys = "server_timing_scope = '*'";
    let fleet = Fleet::start(FleetOptions { gateway_keys, ..FleetOptions::default() }).await;
    let client = fleet.client().with_header("x-request-id", "times");
    let answer = client.get("/v1/slow?ms=80").await;
    answer.is(200);
    let line = eventually_some("the access line", SOON, async || {
        access_lines(&fleet.gateways[0]).into_iter().find(|line| line["request_id"] == "times")
    })
    .await;
    let phase = |name: &str| line[format!("{name}_ms")].as_f64().expect(name);
    assert!(phase("sql") >= 80.0, "{line}");
    let names =
        ["auth", "parameters", "queue_wait", "nats", "worker", "pool_wait", "sql", "response"];
    let sum: f64 = names.iter().map(|name| phase(name)).sum();
    let whole = phase("duration");
    assert!(sum > whole * 0.95 && sum < whole * 1.01, "the phases add up: {sum} of {line}");
    let shown = answer.header("server-timing");
    for name in names.iter().chain(&["total"]) {
        assert!(shown.contains(&format!("{name};dur=")), "{name} in {shown:?}");
    }
    let metric = r#"fjord_gateway_phase_seconds_sum{phase="sql"}"#;
    assert!(fleet.gateways[0].metric(metric).await >= 0.08);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_timing_is_off_by_default() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    assert_eq!(fleet.client().get("/v1/slow?ms=1").await.header("server-timing"), "");
}
