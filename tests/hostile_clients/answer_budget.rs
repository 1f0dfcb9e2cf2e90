//! The memory for workers' answers is bounded, whether or not clients read their responses.

use std::time::Duration;

use fjord::lifecycle::Tasks;
use socket2::SockRef;
use tokio::time::timeout;

use super::byte_budget::{all_bytes_released, fleet_with_worker, options, reserves};
use crate::large_answers::memory::{reset_peak, status};
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fleet::{Fleet, FleetOptions};
use crate::support::raw_client::RawClient;
use crate::support::raw_nats::{RawNatsClient, RawNatsMessage};

const MIB: u64 = 1 << 20;
/// The size of an answer, slightly below the largest NATS message.
const ANSWER_BYTES: usize = 900_000;

/// Returns the options of a fleet whose gateway waits 30 s for clients that do not read.
fn options_with_slow_readers() -> FleetOptions {
    let mut options = options("4MiB");
    options.gateway_toml.insert_str(0, "body_idle_timeout = '30s'\n");
    options
}

/// Sends a request without reading the response.
async fn send_request(fleet: &Fleet, method: &str) -> RawClient {
    let address = fleet.gateways[0].https();
    let mut client = RawClient::connect(address, &fleet.certs, &["http/1.1"]).await;
    SockRef::from(client.tcp())
        .set_recv_buffer_size(64 * 1024)
        .expect("the socket option can be set");
    let head = format!(
        "{method} /v1/foreign/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: 0\r\n\r\n"
    );
    client.send(head.as_bytes()).await.expect("the request is sent");
    client
}

/// Reads the whole response.
async fn read(client: &mut RawClient) -> Vec<u8> {
    Box::pin(client.read(Duration::from_secs(5))).await.0
}

/// Receives the next request and reports progress for it.
async fn receive(worker: &mut RawNatsClient) -> RawNatsMessage {
    let request = timeout(SOON, worker.next()).await.expect("a request");
    worker.publish(&request.reply, &[("Fjord-Reply", "progress")], b"").await;
    request
}

async fn answer(worker: &mut RawNatsClient, to: &RawNatsMessage, bytes: usize) {
    let headers =
        [("Fjord-Reply", "final"), ("Fjord-Status", "200"), ("Content-Type", "application/json")];
    worker.publish(&to.reply, &headers, &vec![b'1'; bytes]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_take_no_more_than_the_share_of_their_client() {
    const CLIENTS: usize = 100;
    let (fleet, mut worker) = fleet_with_worker(options_with_slow_readers()).await;
    let gateway = &fleet.gateways[0];
    let before = reset_peak(gateway);
    let (mut clients, mut requests) = (Vec::new(), Vec::new());
    // No bytes are reserved yet, so all requests are dispatched.
    for _ in 0..CLIENTS {
        clients.push(send_request(&fleet, "GET").await);
        requests.push(receive(&mut worker).await);
    }
    for request in &requests {
        answer(&mut worker, request, ANSWER_BYTES).await;
    }
    eventually_some("all requests have ended", Duration::from_secs(20), async || {
        let in_flight = gateway.metric("fjord_gateway_requests_in_flight ").await;
        (in_flight < 0.5).then_some(())
    })
    .await;
    reserves(gateway, 4 * ANSWER_BYTES).await;
    eventually_some(
        "memory of dropped answers returns to the system",
        Duration::from_secs(30),
        async || (status(gateway, "VmRSS") < before + 48 * MIB).then_some(()),
    )
    .await;
    let (mut whole, mut refused) = (0, 0);
    for client in &mut clients {
        let response = read(client).await;
        whole +=
            usize::from(response.starts_with(b"HTTP/1.1 200") && response.len() > ANSWER_BYTES);
        let text = String::from_utf8_lossy(&response);
        refused += usize::from(text.starts_with("HTTP/1.1 502") && text.contains("bad-answer"));
    }
    assert_eq!((whole, refused), (4, CLIENTS - 4));
    all_bytes_released(gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_request_is_rejected_when_the_budget_has_no_room_for_an_answer() {
    const CALLS: usize = 5;
    let mut options = options_with_slow_readers();
    options.gateway_toml.push_str("queue_retry_delay_min = '1s'\nqueue_retry_delay_max = '1s'\n");
    let (fleet, mut worker) = fleet_with_worker(options).await;
    let gateway = &fleet.gateways[0];
    let (mut clients, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..CALLS {
        clients.push(send_request(&fleet, "POST").await);
        calls.push(receive(&mut worker).await);
    }
    let client = fleet.client();
    let waiter = Tasks::new().spawn(async move { client.get("/v1/foreign/a").await });
    let request = worker.next().await;
    let busy = [("Fjord-Reply", "refused"), ("Fjord-Reason", "busy")];
    worker.publish(&request.reply, &busy, b"").await;
    // Answers of at-most-once requests are delivered even if they exceed the budget.
    for call in &calls {
        answer(&mut worker, call, ANSWER_BYTES).await;
    }
    reserves(gateway, CALLS * ANSWER_BYTES).await;
    waiter.await.expect("the task ends").is_problem(503, "overloaded");
    let shed = r#"fjord_gateway_requests_shed_total{reason="buffered_bytes"}"#;
    assert!((gateway.metric(shed).await - 1.0).abs() < 0.5);
    for client in &mut clients {
        let response = read(client).await;
        assert!(response.starts_with(b"HTTP/1.1 200"));
        assert!(response.len() > ANSWER_BYTES, "{}", response.len());
    }
    all_bytes_released(gateway).await;
    // The rejected request is not sent again, so the worker's next message is a new request.
    let mut next = send_request(&fleet, "POST").await;
    let request = receive(&mut worker).await;
    answer(&mut worker, &request, 1).await;
    let response = read(&mut next).await;
    assert!(response.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&response));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_sixteen_kib_of_an_answer_do_not_count() {
    const PART: usize = 8 * 1024;
    let (fleet, mut worker) = fleet_with_worker(options("4MiB")).await;
    let gateway = &fleet.gateways[0];
    let client = fleet.client();
    let response = Tasks::new().spawn(async move { client.get("/v1/foreign/a").await });
    let request = receive(&mut worker).await;
    for number in 1..=100 {
        let number = number.to_string();
        let headers = [("Fjord-Reply", "part"), ("Fjord-Part", &*number)];
        worker.publish(&request.reply, &headers, &vec![b' '; PART]).await;
    }
    reserves(gateway, 98 * PART).await;
    let headers = [
        ("Fjord-Reply", "final"),
        ("Fjord-Status", "200"),
        ("Content-Type", "application/json"),
        ("Fjord-Part", "100"),
    ];
    worker.publish(&request.reply, &headers, b"1").await;
    assert_eq!(response.await.expect("the task ends").is(200).body.len(), 100 * PART + 1);
    all_bytes_released(gateway).await;
}
