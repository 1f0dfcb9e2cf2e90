//! Promise: a large answer is sent while it is produced, and no process holds more than a few parts of it. An answer
//! that is cut off never looks complete.

use std::time::{Duration, Instant};

use http::Method;

use super::support::client::{Client, ClientOptions, HttpVersion};
use super::support::eventually::{SOON, eventually_some};
use super::support::fjord_process::FjordProcess;
use super::support::fleet::{Fleet, FleetOptions};

mod disconnects;
mod ends;
pub(crate) mod head_requests;
pub(crate) mod memory;

/// The number of rows of `flow` whose total size is slightly more than 1 MiB.
const ROWS_PER_MIB: usize = 1024;
const BOTH: [HttpVersion; 2] = [HttpVersion::One, HttpVersion::Two];

fn client(fleet: &Fleet, http: HttpVersion) -> Client {
    fleet.client_with(ClientOptions { http, ..ClientOptions::default() })
}

/// Sends a request and waits for the response headers.
async fn begin(client: &Client, path: &str) -> reqwest::Response {
    let response = client.request(Method::GET, path).send().await.expect("response headers");
    assert_eq!(response.status(), 200, "{path}");
    response
}

/// Reads the body to its end. Returns the body, and whether it was complete.
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

/// Checks that the rows are in order. Returns their number.
fn count_rows(body: &[u8]) -> usize {
    let rows: serde_json::Value = serde_json::from_slice(body).expect("complete JSON");
    let rows = rows.as_array().expect("rows");
    let in_order = |(index, row): (usize, &serde_json::Value)| row["number"] == index + 1;
    assert!(rows.iter().enumerate().all(in_order), "each row is received once and in order");
    rows.len()
}

/// Waits until a metric is at least `least`.
async fn reaches(node: &FjordProcess, metric: &str, least: f64) {
    let waiting = eventually_some(format!("{metric} ≥ {least}"), SOON, async || {
        (node.metric(metric).await >= least).then_some(())
    });
    waiting.await;
}

/// Waits until no call is running on a worker.
async fn wait_until_idle(worker: &FjordProcess) {
    let waiting = eventually_some("the slot is returned", SOON, async || {
        (worker.metric("fjord_worker_running").await < 0.5).then_some(())
    });
    waiting.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_byte_is_sent_before_the_last_row_is_read() {
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
        assert_eq!(chunked, (http == HttpVersion::One).then_some(true), "{http:?}");
        let (body, is_complete) = read(response).await;
        assert!(is_complete && began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
        assert_eq!(count_rows(&body), count);
    }
    let ok =
        r#"fjord_gateway_requests_total{endpoint="flow",queue="flow",status="200",outcome="ok"}"#;
    reaches(&fleet.gateways[0], ok, 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_many_sizes_follow_each_other_on_one_connection() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    for http in BOTH {
        let client = client(&fleet, http);
        for count in [0, 1, 200, 250, 256, 300, 2000, 10] {
            let (body, is_complete) =
                read(begin(&client, &format!("/v1/flow?rows={count}")).await).await;
            assert!(is_complete);
            assert_eq!(count_rows(&body), count, "{http:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_and_a_window_of_zero_get_a_content_length() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    let path = format!("/v1/flow?rows={ROWS_PER_MIB}");
    let length = read(begin(&fleet.client(), &path).await).await.0.len();
    let http_1 =
        fleet.client_with(ClientOptions { http: HttpVersion::One, ..ClientOptions::default() });
    let http_1_0 = http_1.request(Method::GET, &path).version(http::Version::HTTP_10).send().await;
    assert_eq!(
        http_1_0.expect("a response").headers()["content-length"],
        length.to_string().as_str()
    );
    let gateway_toml = "[gateway.session]\nwindow_parts = 0\n".to_owned();
    let fleet = Fleet::start(FleetOptions { gateway_toml, ..FleetOptions::default() }).await;
    let whole = fleet.client().get(&path).await;
    assert_eq!(whole.is(200).header("content-length"), length.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_completes_an_answer_that_has_begun() {
    let mut fleet = Fleet::start(FleetOptions::default()).await;
    let response = begin(&fleet.client(), "/v1/flow?rows=3000&pause_at=2000&ms=2000").await;
    fleet.workers[0].process.terminate();
    fleet.gateways[0].process.terminate();
    let (body, is_complete) = read(response).await;
    assert!(is_complete);
    assert_eq!(count_rows(&body), 3000);
    for node in [&mut fleet.workers[0], &mut fleet.gateways[0]] {
        let status = node.process.wait(Duration::from_secs(20)).await;
        assert_eq!(status.code(), Some(0), "{}", node.process.log_tail());
    }
}
