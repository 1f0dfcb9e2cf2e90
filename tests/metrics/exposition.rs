//! Checks the metric families, labels and series in the text of `/metrics`.

use std::collections::{BTreeMap, BTreeSet};

use fjord::telemetry::names::{self, MetricKind};
use http::Method;

use super::documented_row;
use crate::support::client::{Client, ClientOptions, HttpVersion, get_text, send};
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fjord_process::FjordProcess;
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::prometheus;

/// A scraped metric family.
#[derive(Debug, Default)]
struct MetricFamily {
    help: String,
    kind: String,
    labels: BTreeSet<String>,
    series: usize,
}

async fn scrape(node: &FjordProcess) -> String {
    get_text(&format!("http://{}/metrics", node.admin())).await.expect("metrics are answered")
}

/// Parses the subset of the text format (0.0.4) that fjord uses.
fn families(text: &str) -> BTreeMap<String, MetricFamily> {
    let mut families: BTreeMap<String, MetricFamily> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            help.clone_into(&mut families.entry(name.to_owned()).or_default().help);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            kind.clone_into(&mut families.entry(name.to_owned()).or_default().kind);
        } else {
            let (name, rest) = line.split_at(line.find(['{', ' ']).expect("a sample"));
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end).filter(|base| families.contains_key(*base)));
            let family = families.entry(base.unwrap_or(name).to_owned()).or_default();
            family.series += 1;
            let labels = rest.rsplit_once('}').map_or("", |(labels, _)| labels);
            let names = labels.trim_start_matches('{').split("\",");
            let names = names.filter_map(|pair| Some(pair.split_once("=\"")?.0.to_owned()));
            family.labels.extend(names.filter(|name| name != "le"));
        }
    }
    families
}

/// Starts a fleet and sends requests with several different outcomes.
async fn busy() -> Fleet {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    client.get("/v1/slow?ms=1").await.is(200);
    client.get("/v1/slow?ms=x").await.is(400);
    client.get("/nowhere").await.is(404);
    client.send(Method::POST, "/v1/refuse/1", &serde_json::json!({})).await.is(500);
    fleet
}

#[tokio::test(flavor = "multi_thread")]
async fn scraped_metrics_are_documented() {
    for metric in names::ALL {
        let row = documented_row(metric.name);
        let kind = format!("{:?}", metric.kind).to_lowercase();
        assert_eq!((row[1], row[3]), (kind.as_str(), metric.help), "{}", metric.name);
    }
    let fleet = busy().await;
    let mut seen = 0;
    for node in [&fleet.gateways[0], &fleet.workers[0]] {
        for (name, family) in families(&scrape(node).await) {
            let metric = names::ALL.iter().find(|metric| metric.name == name);
            let metric = metric.unwrap_or_else(|| panic!("{name} is not in names.rs"));
            let kind = match metric.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
                MetricKind::Histogram => "histogram",
            };
            assert_eq!((family.kind.as_str(), family.help.as_str()), (kind, metric.help), "{name}");
            let labels = documented_row(&name)[2].replace('`', "");
            let labels: BTreeSet<String> =
                labels.split(", ").filter(|label| *label != "–").map(ToOwned::to_owned).collect();
            assert_eq!(family.labels, labels, "labels of {name}");
            seen += 1;
        }
    }
    assert!(seen > 25, "only {seen} families were scraped");
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_accepts_the_exposition() {
    let Some(promtool) = prometheus::promtool("the check of /metrics with promtool") else {
        return;
    };
    let fleet = busy().await;
    for node in [&fleet.gateways[0], &fleet.workers[0]] {
        let complaints = prometheus::run(&promtool, &["check", "metrics"], &scrape(node).await);
        assert_eq!(complaints, Ok(String::new()));
    }
    let bad = prometheus::run(&promtool, &["check", "metrics"], "# TYPE a counter\na 1\n");
    assert!(bad.is_err(), "promtool rejects a bad exposition");
}

/// Sends a request in which every value that a client can choose is unique.
async fn send_unique(client: &Client, number: usize) {
    let methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "PROPFIND", "LOCK"];
    let method = methods[number % methods.len()].parse().expect("a method");
    let path = match number % 3 {
        0 => format!("/path-{number}/{number}?q{number}={number}"),
        1 => format!("/v1/echo/id-{number}?text=t{number}"),
        _ => format!("/v1/slow/{number}"),
    };
    let request = client.request(method, &path).header("x-request-id", format!("id-{number}"));
    let request = request.header(format!("x-unique-{number}"), number);
    send(request.bearer_auth(format!("token-{number}")).header("x-api-key", number)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_input_creates_no_series() {
    const REQUESTS: usize = 10_000;
    const AT_ONCE: usize = 32;
    let fleet = busy().await;
    let client =
        fleet.client_with(ClientOptions { http: HttpVersion::Two, ..ClientOptions::default() });
    let batch = |from: usize, to: usize| {
        let client = client.clone();
        async move {
            let lanes = (0..AT_ONCE).map(|lane| {
                let client = client.clone();
                async move {
                    for number in (from + lane..to).step_by(AT_ONCE) {
                        send_unique(&client, number).await;
                    }
                }
            });
            futures_util::future::join_all(lanes).await;
        }
    };
    let series = async || {
        let mut all = BTreeSet::new();
        for node in [&fleet.gateways[0], &fleet.workers[0]] {
            let text = scrape(node).await;
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let names = lines.filter_map(|line| line.rsplit_once(' '));
            all.extend(names.map(|(name, _)| format!("{} {name}", node.role())));
        }
        all
    };
    batch(0, 200).await;
    eventually_some("the round trip is measured", SOON, async || {
        let round_trip = fleet.workers[0].metric("fjord_worker_round_trip_seconds").await;
        (round_trip > 0.0).then_some(())
    })
    .await;
    let before = series().await;
    batch(200, REQUESTS).await;
    let after = series().await;
    println!(
        "SERIES of a gateway and a worker: {} after 200 requests, {} after {REQUESTS}",
        before.len(),
        after.len()
    );
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:#?}");
}
