//! Promise: a large answer goes to its client while it is made, no part of the road holds more of it than a few parts,
//! and one that ends before its end never looks whole.

use std::time::{Duration, Instant};

use http::Method;

use super::support::client::{Client, ClientOptions, Http};
use super::support::eventually::{SOON, eventually_some};
use super::support::fjord::{Fleet, FleetOptions, Node};

mod ends;
pub(crate) mod heads;
mod leavers;
pub(crate) mod memory;

/// Rows of `flow` in a mebibyte: each is 1 KiB and a little.
const ROWS_PER_MIB: usize = 1024;
const BOTH: [Http; 2] = [Http::One, Http::Two];

fn client(fleet: &Fleet, http: Http) -> Client {
    fleet.client_with(ClientOptions { http, ..ClientOptions::default() })
}

async fn begin(client: &Client, path: &str) -> reqwest::Response {
    let response = client.request(Method::GET, path).send().await.expect("an answer begins");
    assert_eq!(response.status(), 200, "{path}");
    response
}

/// Reads to the end; what came, and whether that was all.
async fn read(mut response: reqwest::Response) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return (body, true),
            Err(_) => return (body, false),
        }
    }
}

fn rows(body: &[u8]) -> usize {
    let rows: serde_json::Value = serde_json::from_slice(body).expect("whole JSON");
    let rows = rows.as_array().expect("rows");
    let in_order = |(at, row): (usize, &serde_json::Value)| row["number"] == at + 1;
    assert!(rows.iter().enumerate().all(in_order), "each row once, in order");
    rows.len()
}

/// Waits until a figure is at least this.
async fn reaches(node: &Node, figure: &str, least: f64) {
    let waiting = eventually_some(format!("{figure} ≥ {least}"), SOON, async || {
        (node.figure(figure).await >= least).then_some(())
    });
    waiting.await;
}

/// Waits until a worker runs nothing.
async fn is_free(worker: &Node) {
    let waiting = eventually_some("the slot is given back", SOON, async || {
        (worker.figure("fjord_worker_running").await < 0.5).then_some(())
    });
    waiting.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_byte_comes_before_the_last_row_is_read() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let count = 10 * ROWS_PER_MIB;
    let path = format!("/v1/flow?rows={count}&pause_at={count}&ms=3000");
    for http in BOTH {
        let began = Instant::now();
        let response = begin(&client(&fleet, http), &path).await;
        let first = began.elapsed();
        assert!(first < Duration::from_millis(2500), "{http:?}: {first:?}");
        assert!(!response.headers().contains_key("content-length"), "{http:?}");
        let chunked = response.headers().get("transfer-encoding").map(|value| value == "chunked");
        assert_eq!(chunked, (http == Http::One).then_some(true), "{http:?}");
        let (body, is_whole) = read(response).await;
        assert!(is_whole && began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
        assert_eq!(rows(&body), count);
    }
    let ok = r#"fjord_gateway_requests_total{endpoint="flow",status="200",outcome="ok"}"#;
    reaches(&fleet.gateways[0], ok, 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_on_one_connection_follow_each_other() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    for http in BOTH {
        let client = client(&fleet, http);
        for count in [0, 1, 200, 250, 256, 300, 2000, 10] {
            let (body, is_whole) =
                read(begin(&client, &format!("/v1/flow?rows={count}")).await).await;
            assert!(is_whole);
            assert_eq!(rows(&body), count, "{http:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_and_a_closed_window_get_it_whole() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let path = format!("/v1/flow?rows={ROWS_PER_MIB}");
    let length = read(begin(&fleet.client(), &path).await).await.0.len();
    let old = fleet.client_with(ClientOptions { http: Http::One, ..ClientOptions::default() });
    let old = old.request(Method::GET, &path).version(http::Version::HTTP_10).send().await;
    assert_eq!(old.expect("an answer").headers()["content-length"], length.to_string().as_str());
    let gateway_toml = "[gateway.session]\nwindow_parts = 0\n".to_owned();
    let fleet = Fleet::start(FleetOptions { gateway_toml, ..FleetOptions::default() }).await;
    let whole = fleet.client().get(&path).await;
    assert_eq!(whole.is(200).header("content-length"), length.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_what_has_begun_come_to_its_end() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    let response = begin(&fleet.client(), "/v1/flow?rows=3000&pause_at=2000&ms=2000").await;
    fleet.workers[0].process.terminate();
    fleet.gateways[0].process.terminate();
    let (body, is_whole) = read(response).await;
    assert!(is_whole);
    assert_eq!(rows(&body), 3000);
    for node in [&mut fleet.workers[0], &mut fleet.gateways[0]] {
        let status = node.process.wait(Duration::from_secs(20)).await;
        assert_eq!(status.code(), Some(0), "{}", node.process.log_tail());
    }
}
