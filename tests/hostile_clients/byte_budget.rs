//! The memory for request bodies and responses is bounded, and is returned to the system.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::large_answers::memory::{reset_peak, status};
use crate::support::client::{ClientOptions, HttpVersion, send};
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fjord_process::FjordProcess;
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::nats::NatsOptions;
use crate::support::raw_client::RawClient;
use crate::support::raw_nats::{RawNatsClient, RawNatsMessage};

const MIB: u64 = 1 << 20;

pub(super) fn options(per_client: &str) -> FleetOptions {
    let gateway_toml = format!(
        "buffered_bytes_max = '16MiB'\nbuffered_bytes_per_client_max = '{per_client}'\n\
         [gateway.session]\nanswer_bytes_max = '{per_client}'\nwindow_parts = 0\n"
    );
    FleetOptions { gateway_toml, ..FleetOptions::default() }
}

pub(super) async fn all_bytes_released(gateway: &FjordProcess) {
    eventually_some("no bytes are reserved", Duration::from_secs(20), async || {
        (gateway.metric("fjord_gateway_buffered_bytes ").await < 0.5).then_some(())
    })
    .await;
}

/// Sends 300 requests with bodies of 0.9 MB over three connections. Returns the number of requests that were
/// rejected as `overloaded`.
pub(super) async fn send_large_bodies(fleet: &Fleet) -> usize {
    let body = Bytes::from(json!({ "note": "x".repeat(900_000) }).to_string());
    let tasks = fjord::lifecycle::Tasks::new();
    let mut senders = Vec::new();
    for _ in 0..3 {
        let client =
            fleet.client_with(ClientOptions { http: HttpVersion::Two, ..ClientOptions::default() });
        // This request opens the connection that the others share.
        client.get("/v1/none").await.is(404);
        for _ in 0..100 {
            let request = client.request(Method::PUT, "/v1/keep/1").body(body.clone());
            let request = request.header("content-type", "application/json");
            senders.push(tasks.spawn(send(request)));
        }
    }
    let mut refused = 0;
    for sender in senders {
        refused += usize::from(sender.await.expect("the task ends").text().contains("overloaded"));
    }
    refused
}

/// Connects clients that each announce a body of 1 MB and send one byte of it.
pub(super) async fn announce_bodies(fleet: &Fleet, clients: usize) -> Vec<RawClient> {
    let head = "PUT /v1/keep/1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 1000000\r\n\r\n{";
    let mut announced = Vec::new();
    for _ in 0..clients {
        let address = fleet.gateways[0].https();
        let mut client = RawClient::connect(address, &fleet.certs, &["http/1.1"]).await;
        client.send(head.as_bytes()).await.expect("the request is sent");
        announced.push(client);
    }
    announced
}

/// Waits until at least this number of requests is in flight.
pub(super) async fn wait_for_in_flight(gateway: &FjordProcess, requests: u32) {
    eventually_some("all requests are in flight", SOON * 3, async || {
        let in_flight = gateway.metric("fjord_gateway_requests_in_flight ").await;
        (in_flight >= f64::from(requests)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_connections_with_a_hundred_bodies_each_take_no_more_than_their_share() {
    let fleet = Fleet::start(FleetOptions { workers: 0, ..options("8MiB") }).await;
    let gateway = &fleet.gateways[0];
    let before = reset_peak(gateway);
    let refused = send_large_bodies(&fleet).await;
    let peak = status(gateway, "VmHWM");
    assert!(refused >= 200, "{refused} of 300 were refused");
    let grown = peak.saturating_sub(before);
    assert!(grown < 64 * MIB, "the gateway grew by {} KiB", grown / 1024);
    let shed = r#"fjord_gateway_requests_shed_total{reason="buffered_bytes"}"#;
    assert!(gateway.metric(shed).await >= 200.0);
    all_bytes_released(gateway).await;
    let after = eventually_some(
        "the memory is returned to the kernel",
        Duration::from_secs(30),
        async || {
            let now = status(gateway, "VmRSS");
            (now < before + 16 * MIB).then_some(now)
        },
    )
    .await;
    let [before, peak, after] = [before, peak, after].map(|bytes| bytes / MIB);
    println!(
        "MEMORY of 300 bodies of 0.9 MB: {before} MiB before, {peak} at the peak, {after} after"
    );
    fleet.client().send(Method::PUT, "/v1/keep/1", &json!({ "note": "x" })).await.is(503);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_exceeds_the_byte_budget_is_not_assembled() {
    let fleet = Fleet::start(options("4MiB")).await;
    let (gateway, path) = (&fleet.gateways[0], "/v1/flow?rows=2500");
    fleet.client().get(path).await.is(200);
    all_bytes_released(gateway).await;
    // Another client requests the answer but does not read it.
    let mut stalled = RawClient::connect(gateway.https(), &fleet.certs, &["http/1.1"]).await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stalled.send(request.as_bytes()).await.expect("the request is sent");
    eventually_some("its bytes are reserved", Duration::from_secs(10), async || {
        let reserved = gateway.metric("fjord_gateway_buffered_bytes ").await;
        (reserved > 2.0 * 1024.0 * 1024.0).then_some(())
    })
    .await;
    fleet.client().get(path).await.is_problem(502, "bad-answer");
    fleet.client().get("/v1/flow?rows=10").await.is(200);
    drop(stalled);
    all_bytes_released(gateway).await;
    fleet.client().get(path).await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announced_body_reserves_nothing_until_it_arrives() {
    let fleet = Fleet::start(options("8MiB")).await;
    let gateway = &fleet.gateways[0];
    let _announced = announce_bodies(&fleet, 40).await;
    wait_for_in_flight(gateway, 40).await;
    assert!(gateway.metric("fjord_gateway_buffered_bytes ").await < 0.5);
    let body = json!({ "note": "x".repeat(900_000) });
    fleet.client().send(Method::PUT, "/v1/keep/1", &body).await.is(200);
}

/// Starts a fleet whose only worker is controlled by the test.
async fn small_fleet_with_worker(per_client: &str) -> (Fleet, RawNatsClient) {
    fleet_with_worker(options(per_client)).await
}

pub(super) async fn fleet_with_worker(options: FleetOptions) -> (Fleet, RawNatsClient) {
    let nats = NatsOptions { has_tls: false, ..NatsOptions::default() };
    let fleet = Fleet::start(FleetOptions { nats, workers: 0, ..options }).await;
    let server = fleet.nats.servers[0].address();
    let worker = RawNatsClient::join(server, "fjord.q.foreign", "foreign").await;
    (fleet, worker)
}

/// The size of a part, slightly below the largest NATS message.
const PART_BYTES: usize = 1_000_000;

async fn send_part(worker: &mut RawNatsClient, to: &RawNatsMessage, number: u32) {
    let number = number.to_string();
    let headers = [("Fjord-Reply", "part"), ("Fjord-Part", &*number)];
    worker.publish(&to.reply, &headers, &vec![b' '; PART_BYTES]).await;
}

async fn send_final(worker: &mut RawNatsClient, to: &RawNatsMessage, parts: u32) {
    let parts = parts.to_string();
    let headers = [
        ("Fjord-Reply", "final"),
        ("Fjord-Status", "200"),
        ("Content-Type", "application/json"),
        ("Fjord-Part", &*parts),
    ];
    worker.publish(&to.reply, &headers, b"[]").await;
}

pub(super) async fn reserves(gateway: &FjordProcess, bytes: usize) {
    let expected = format!("fjord_gateway_buffered_bytes {bytes}");
    eventually_some(&expected, Duration::from_secs(10), async || {
        let reserved = gateway.metric("fjord_gateway_buffered_bytes ").await;
        ((reserved - f64::from(u32::try_from(bytes).expect("the number fits u32"))).abs() < 0.5)
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_arrives_twice_counts_once() {
    let (fleet, mut worker) = small_fleet_with_worker("4MiB").await;
    let gateway = &fleet.gateways[0];
    let client = fleet.client();
    let answer =
        fjord::lifecycle::Tasks::new().spawn(async move { client.get("/v1/foreign/a").await });
    let request = worker.next().await;
    for sent in 1..=8 {
        send_part(&mut worker, &request, 1).await;
        // Messages arrive in the order in which they were sent. Therefore, the part has been counted once the
        // second message has been rejected.
        worker.publish(&format!("{}0", request.reply), &[], b"").await;
        let rejected = r#"fjord_gateway_replies_rejected_total{reason="token"}"#;
        eventually_some("the part has arrived", SOON, async || {
            (gateway.metric(rejected).await >= f64::from(sent)).then_some(())
        })
        .await;
        reserves(gateway, PART_BYTES).await;
    }
    send_part(&mut worker, &request, 2).await;
    reserves(gateway, 2 * PART_BYTES).await;
    send_final(&mut worker, &request, 2).await;
    let answer = answer.await.expect("the task ends");
    assert_eq!(answer.is(200).body.len(), 2 * PART_BYTES + 2);
    all_bytes_released(gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_buffers_count_and_are_not_allocated_when_answers_need_the_budget() {
    let gateway_toml = "buffered_bytes_per_client_max = '4MiB'\n\
                        [gateway.session]\nanswer_bytes_max = '4MiB'\n"
        .to_owned();
    let fleet = Fleet::start(FleetOptions { gateway_toml, ..FleetOptions::default() }).await;
    let gateway = &fleet.gateways[0];
    let mut clients = Vec::new();
    let head = "GET /v1/flow?rows=1000&pause_at=1000&ms=5000 HTTP/1.1\r\nHost: localhost\r\n\
                Accept-Encoding: zstd\r\n\r\n";
    // The second client gets no encoder, because two encoders would need more than half of the client's share.
    for coding in [true, false] {
        let mut client = RawClient::connect(gateway.https(), &fleet.certs, &["http/1.1"]).await;
        client.send(head.as_bytes()).await.expect("the request is sent");
        let (response, _) = Box::pin(client.read(Duration::from_secs(1))).await;
        let response = String::from_utf8_lossy(&response).to_ascii_lowercase();
        assert!(response.starts_with("http/1.1 200"), "{response}");
        assert_eq!(response.contains("content-encoding: zstd"), coding, "{response}");
        clients.push(client);
        let bytes = gateway.metric("fjord_gateway_buffered_bytes ").await;
        assert!(bytes > 1_000_000.0, "{bytes}");
    }
    drop(clients);
    all_bytes_released(gateway).await;
}
