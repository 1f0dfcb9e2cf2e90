//! Bodies and answers are bounded in bytes, and memory goes back to the system.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::streams_large_answers::memory::{status, watch};
use crate::support::client::{ClientOptions, Http, send};
use crate::support::eventually::eventually_some;
use crate::support::fjord::{Fleet, FleetOptions, Node};
use crate::support::raw::RawClient;

const MIB: u64 = 1 << 20;

fn options(per_client: &str) -> FleetOptions {
    let gateway_toml = format!(
        "buffered_bytes_max = '16MiB'\nbuffered_bytes_per_client_max = '{per_client}'\n\
         [gateway.session]\nanswer_bytes_max = '{per_client}'\nwindow_parts = 0\n"
    );
    FleetOptions { gateway_toml, ..FleetOptions::default() }
}

async fn all_given_back(gateway: &Node) {
    eventually_some("nothing is held", Duration::from_secs(20), async || {
        (gateway.figure("fjord_gateway_buffered_bytes ").await < 0.5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_connections_with_a_hundred_bodies_each_take_no_more_than_their_share() {
    let fleet = Fleet::start(FleetOptions { workers: 0, ..options("8MiB") }).await;
    let gateway = &fleet.gateways[0];
    let before = watch(gateway);
    let body = Bytes::from(json!({ "note": "x".repeat(900_000) }).to_string());
    let tasks = fjord::lifecycle::Tasks::new();
    let mut senders = Vec::new();
    for _ in 0..3 {
        let client =
            fleet.client_with(ClientOptions { http: Http::Two, ..ClientOptions::default() });
        // One connection, which the others then share.
        client.get("/v1/none").await.is(404);
        for _ in 0..100 {
            let request = client.request(Method::PUT, "/v1/keep/1").body(body.clone());
            let request = request.header("content-type", "application/json");
            senders.push(tasks.spawn(send(request)));
        }
    }
    let mut refused = 0;
    for sender in senders {
        let answer = sender.await.expect("it ends");
        // Those that found room wait for a worker in vain.
        let slug = if answer.text().contains("overloaded") { "overloaded" } else { "no-workers" };
        answer.is_problem(503, slug);
        refused += usize::from(slug == "overloaded");
    }
    let peak = status(gateway, "VmHWM");
    assert!(refused >= 200, "{refused} of 300 were refused");
    assert!(peak - before < 64 * MIB, "it grew by {} KiB", (peak - before) / 1024);
    let shed = r#"fjord_gateway_requests_shed_total{reason="buffered_bytes"}"#;
    assert!(gateway.figure(shed).await >= 200.0);
    all_given_back(gateway).await;
    let after = eventually_some("memory goes back", Duration::from_secs(30), async || {
        let now = status(gateway, "VmRSS");
        (now < before + 16 * MIB).then_some(now)
    })
    .await;
    let [before, peak, after] = [before, peak, after].map(|bytes| bytes / MIB);
    println!(
        "MEMORY of 300 bodies of 0.9 MB: {before} MiB before, {peak} at the peak, {after} after"
    );
    fleet.client().send(Method::PUT, "/v1/keep/1", &json!({ "note": "x" })).await.is(503);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_for_which_there_is_no_room_is_not_put_together() {
    let fleet = Fleet::start(options("4MiB")).await;
    let (gateway, path) = (&fleet.gateways[0], "/v1/flow?rows=2500");
    fleet.client().get(path).await.is(200);
    all_given_back(gateway).await;
    // Somebody has one, and does not take it.
    let mut stalled = RawClient::connect(gateway.https(), &fleet.certs, &["http/1.1"]).await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stalled.send(request.as_bytes()).await.expect("it is taken");
    eventually_some("it is held", Duration::from_secs(10), async || {
        let held = gateway.figure("fjord_gateway_buffered_bytes ").await;
        (held > 2.0 * 1024.0 * 1024.0).then_some(())
    })
    .await;
    fleet.client().get(path).await.is_problem(502, "bad-answer");
    fleet.client().get("/v1/flow?rows=10").await.is(200);
    drop(stalled);
    all_given_back(gateway).await;
    fleet.client().get(path).await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_announces_a_body_takes_nothing_from_others() {
    let fleet = Fleet::start(options("8MiB")).await;
    let gateway = &fleet.gateways[0];
    let head = "PUT /v1/keep/1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ";
    let mut silent = Vec::new();
    for _ in 0..40 {
        let mut client = RawClient::connect(gateway.https(), &fleet.certs, &["http/1.1"]).await;
        client.send(format!("{head}1000000\r\n\r\n{{").as_bytes()).await.expect("it is taken");
        silent.push(client);
    }
    eventually_some("all are waited for", Duration::from_secs(5), async || {
        (gateway.figure("fjord_gateway_requests_in_flight ").await >= 40.0).then_some(())
    })
    .await;
    assert!(gateway.figure("fjord_gateway_buffered_bytes ").await < 0.5);
    let body = json!({ "note": "x".repeat(900_000) });
    fleet.client().send(Method::PUT, "/v1/keep/1", &body).await.is(200);
}
