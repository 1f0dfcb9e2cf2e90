//! Bodies and answers are bounded in bytes, and memory goes back to the system.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::large_answers::memory::{reset_peak, status};
use crate::support::client::{ClientOptions, Http, send};
use crate::support::eventually::eventually_some;
use crate::support::fjord::{Fleet, FleetOptions, Node};
use crate::support::nats::NatsOptions;
use crate::support::raw::RawClient;
use crate::support::raw_nats::{RawNats, Received};

const MIB: u64 = 1 << 20;

pub(super) fn options(per_client: &str) -> FleetOptions {
    let gateway_toml = format!(
        "buffered_bytes_max = '16MiB'\nbuffered_bytes_per_client_max = '{per_client}'\n\
         [gateway.session]\nanswer_bytes_max = '{per_client}'\nwindow_parts = 0\n"
    );
    FleetOptions { gateway_toml, ..FleetOptions::default() }
}

pub(super) async fn all_given_back(gateway: &Node) {
    eventually_some("nothing is held", Duration::from_secs(20), async || {
        (gateway.figure("fjord_gateway_buffered_bytes ").await < 0.5).then_some(())
    })
    .await;
}

/// Sends 300 bodies of 0.9 MB on three connections, for which there is no worker; how many were refused unread.
pub(super) async fn large_bodies(fleet: &Fleet) -> usize {
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
        refused += usize::from(sender.await.expect("it ends").text().contains("overloaded"));
    }
    refused
}

/// Clients that announce a body of 1 MB each, and send a byte of it.
pub(super) async fn announce(fleet: &Fleet, clients: usize) -> Vec<RawClient> {
    let head = "PUT /v1/keep/1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 1000000\r\n\r\n{";
    let mut announced = Vec::new();
    for _ in 0..clients {
        let address = fleet.gateways[0].https();
        let mut client = RawClient::connect(address, &fleet.certs, &["http/1.1"]).await;
        client.send(head.as_bytes()).await.expect("it is taken");
        announced.push(client);
    }
    announced
}

/// Waits until so many requests are in flight.
pub(super) async fn all_in_flight(gateway: &Node, requests: u32) {
    eventually_some("all are waited for", Duration::from_secs(5), async || {
        let figure = gateway.figure("fjord_gateway_requests_in_flight ").await;
        (figure >= f64::from(requests)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_connections_with_a_hundred_bodies_each_take_no_more_than_their_share() {
    let fleet = Fleet::start(FleetOptions { workers: 0, ..options("8MiB") }).await;
    let gateway = &fleet.gateways[0];
    let before = reset_peak(gateway);
    let refused = large_bodies(&fleet).await;
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
    let _announced = announce(&fleet, 40).await;
    all_in_flight(gateway, 40).await;
    assert!(gateway.figure("fjord_gateway_buffered_bytes ").await < 0.5);
    let body = json!({ "note": "x".repeat(900_000) });
    fleet.client().send(Method::PUT, "/v1/keep/1", &body).await.is(200);
}

/// A fleet whose worker is a test's own, and the worker.
async fn with_own_worker(per_client: &str) -> (Fleet, RawNats) {
    own_worker(options(per_client)).await
}

pub(super) async fn own_worker(options: FleetOptions) -> (Fleet, RawNats) {
    let nats = NatsOptions { has_tls: false, ..NatsOptions::default() };
    let fleet = Fleet::start(FleetOptions { nats, workers: 0, ..options }).await;
    let server = fleet.nats.servers[0].address();
    let worker = RawNats::join(server, "fjord.q.foreign", "foreign").await;
    (fleet, worker)
}

/// One of the parts of an answer, as large as a message may be.
const PART_BYTES: usize = 1_000_000;

async fn send_part(worker: &mut RawNats, to: &Received, number: u32) {
    let number = number.to_string();
    let headers = [("Fjord-Reply", "part"), ("Fjord-Part", &*number)];
    worker.publish(&to.reply, &headers, &vec![b' '; PART_BYTES]).await;
}

async fn send_final(worker: &mut RawNats, to: &Received, parts: u32) {
    let parts = parts.to_string();
    let headers = [
        ("Fjord-Reply", "final"),
        ("Fjord-Status", "200"),
        ("Content-Type", "application/json"),
        ("Fjord-Part", &*parts),
    ];
    worker.publish(&to.reply, &headers, b"[]").await;
}

pub(super) async fn holds(gateway: &Node, bytes: usize) {
    let expected = format!("fjord_gateway_buffered_bytes {bytes}");
    eventually_some(&expected, Duration::from_secs(10), async || {
        let held = gateway.figure("fjord_gateway_buffered_bytes ").await;
        ((held - f64::from(u32::try_from(bytes).expect("a few MB"))).abs() < 0.5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_comes_twice_counts_once() {
    let (fleet, mut worker) = with_own_worker("4MiB").await;
    let gateway = &fleet.gateways[0];
    let client = fleet.client();
    let answer =
        fjord::lifecycle::Tasks::new().spawn(async move { client.get("/v1/foreign/a").await });
    let request = worker.next().await;
    for _ in 0..8 {
        send_part(&mut worker, &request, 1).await;
        holds(gateway, PART_BYTES).await;
    }
    send_part(&mut worker, &request, 2).await;
    holds(gateway, 2 * PART_BYTES).await;
    send_final(&mut worker, &request, 2).await;
    let answer = answer.await.expect("it ends");
    assert_eq!(answer.is(200).body.len(), 2 * PART_BYTES + 2);
    all_given_back(gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_compresses_an_answer_counts_and_gives_way_to_answers() {
    let gateway_toml = "buffered_bytes_per_client_max = '4MiB'\n\
                        [gateway.session]\nanswer_bytes_max = '4MiB'\n"
        .to_owned();
    let fleet = Fleet::start(FleetOptions { gateway_toml, ..FleetOptions::default() }).await;
    let gateway = &fleet.gateways[0];
    let mut clients = Vec::new();
    let head = "GET /v1/flow?rows=1000&pause_at=1000&ms=5000 HTTP/1.1\r\nHost: localhost\r\n\
                Accept-Encoding: zstd\r\n\r\n";
    // Two of them would take more than half of what this client may have.
    for coding in [true, false] {
        let mut client = RawClient::connect(gateway.https(), &fleet.certs, &["http/1.1"]).await;
        client.send(head.as_bytes()).await.expect("it is taken");
        let (said, _) = Box::pin(client.read(Duration::from_secs(1))).await;
        let said = String::from_utf8_lossy(&said).to_ascii_lowercase();
        assert!(said.starts_with("http/1.1 200"), "{said}");
        assert_eq!(said.contains("content-encoding: zstd"), coding, "{said}");
        clients.push(client);
        let bytes = gateway.figure("fjord_gateway_buffered_bytes ").await;
        assert!(bytes > 1_000_000.0, "{bytes}");
    }
    drop(clients);
    all_given_back(gateway).await;
}
