//! What workers answer is bounded in bytes, whoever takes it or not.

use std::time::Duration;

use fjord::lifecycle::Tasks;
use socket2::SockRef;
use tokio::time::timeout;

use super::bytes::{all_given_back, holds, options, own_worker};
use crate::large_answers::memory::{reset_peak, status};
use crate::support::eventually::{SOON, eventually_some};
use crate::support::fjord::{Fleet, FleetOptions};
use crate::support::raw::RawClient;
use crate::support::raw_nats::{RawNats, Received};

const MIB: u64 = 1 << 20;
/// One answer: as large as a message of NATS may be, nearly.
const ANSWER_BYTES: usize = 900_000;

/// A gateway that gives nobody up who does not read.
fn patient() -> FleetOptions {
    let mut options = options("4MiB");
    options.gateway_toml.insert_str(0, "body_idle_timeout = '30s'\n");
    options
}

/// A client that asks, and reads nothing yet.
async fn ask(fleet: &Fleet, method: &str) -> RawClient {
    let address = fleet.gateways[0].https();
    let mut client = RawClient::connect(address, &fleet.certs, &["http/1.1"]).await;
    SockRef::from(client.tcp()).set_recv_buffer_size(64 * 1024).expect("a socket");
    let head = format!(
        "{method} /v1/foreign/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: 0\r\n\r\n"
    );
    client.send(head.as_bytes()).await.expect("it is taken");
    client
}

/// All of the answer.
async fn read(client: &mut RawClient) -> Vec<u8> {
    Box::pin(client.read(Duration::from_secs(5))).await.0
}

/// The next request, which its worker says it has.
async fn take(worker: &mut RawNats) -> Received {
    let request = timeout(SOON, worker.next()).await.expect("a request");
    worker.publish(&request.reply, &[("Fjord-Reply", "progress")], b"").await;
    request
}

async fn answer(worker: &mut RawNats, to: &Received, bytes: usize) {
    let headers =
        [("Fjord-Reply", "final"), ("Fjord-Status", "200"), ("Content-Type", "application/json")];
    worker.publish(&to.reply, &headers, &vec![b'1'; bytes]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_answers_of_clients_that_do_not_read_take_no_more_than_their_share() {
    const CLIENTS: usize = 100;
    let (fleet, mut worker) = own_worker(patient()).await;
    let gateway = &fleet.gateways[0];
    let before = reset_peak(gateway);
    let (mut clients, mut requests) = (Vec::new(), Vec::new());
    // Nothing is held yet: all of them are asked.
    for _ in 0..CLIENTS {
        clients.push(ask(&fleet, "GET").await);
        requests.push(take(&mut worker).await);
    }
    for request in &requests {
        answer(&mut worker, request, ANSWER_BYTES).await;
    }
    eventually_some("all are answered", Duration::from_secs(20), async || {
        let figure = gateway.figure("fjord_gateway_requests_in_flight ").await;
        (figure < 0.5).then_some(())
    })
    .await;
    holds(gateway, 4 * ANSWER_BYTES).await;
    eventually_some("memory of what was dropped goes back", Duration::from_secs(30), async || {
        (status(gateway, "VmRSS") < before + 48 * MIB).then_some(())
    })
    .await;
    let (mut whole, mut refused) = (0, 0);
    for client in &mut clients {
        let said = read(client).await;
        whole += usize::from(said.starts_with(b"HTTP/1.1 200") && said.len() > ANSWER_BYTES);
        let text = String::from_utf8_lossy(&said);
        refused += usize::from(text.starts_with("HTTP/1.1 502") && text.contains("bad-answer"));
    }
    assert_eq!((whole, refused), (4, CLIENTS - 4));
    all_given_back(gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waited_for_a_worker_is_not_placed_when_there_is_no_room_for_an_answer() {
    const CALLS: usize = 5;
    let mut options = patient();
    options.gateway_toml.push_str("probe_delay_min = '1s'\nprobe_delay_max = '1s'\n");
    let (fleet, mut worker) = own_worker(options).await;
    let gateway = &fleet.gateways[0];
    let (mut clients, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..CALLS {
        clients.push(ask(&fleet, "POST").await);
        calls.push(take(&mut worker).await);
    }
    let client = fleet.client();
    let waiter = Tasks::new().spawn(async move { client.get("/v1/foreign/a").await });
    let request = worker.next().await;
    let busy = [("Fjord-Reply", "refused"), ("Fjord-Reason", "busy")];
    worker.publish(&request.reply, &busy, b"").await;
    // What runs at most once is told, room or not.
    for call in &calls {
        answer(&mut worker, call, ANSWER_BYTES).await;
    }
    holds(gateway, CALLS * ANSWER_BYTES).await;
    waiter.await.expect("it ends").is_problem(503, "overloaded");
    let shed = r#"fjord_gateway_requests_shed_total{reason="buffered_bytes"}"#;
    assert!((gateway.figure(shed).await - 1.0).abs() < 0.5);
    for client in &mut clients {
        let said = read(client).await;
        assert!(said.starts_with(b"HTTP/1.1 200"));
        assert!(said.len() > ANSWER_BYTES, "{}", said.len());
    }
    all_given_back(gateway).await;
    // The worker has heard of the waiter once.
    let mut next = ask(&fleet, "POST").await;
    let request = take(&mut worker).await;
    answer(&mut worker, &request, 1).await;
    let said = read(&mut next).await;
    assert!(said.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&said));
}

#[tokio::test(flavor = "multi_thread")]
async fn small_parts_count_from_sixteen_kib_of_their_answer_on() {
    const PART: usize = 8 * 1024;
    let (fleet, mut worker) = own_worker(options("4MiB")).await;
    let gateway = &fleet.gateways[0];
    let client = fleet.client();
    let told = Tasks::new().spawn(async move { client.get("/v1/foreign/a").await });
    let request = take(&mut worker).await;
    for number in 1..=100 {
        let number = number.to_string();
        let headers = [("Fjord-Reply", "part"), ("Fjord-Part", &*number)];
        worker.publish(&request.reply, &headers, &vec![b' '; PART]).await;
    }
    holds(gateway, 98 * PART).await;
    let headers = [
        ("Fjord-Reply", "final"),
        ("Fjord-Status", "200"),
        ("Content-Type", "application/json"),
        ("Fjord-Part", "100"),
    ];
    worker.publish(&request.reply, &headers, b"1").await;
    assert_eq!(told.await.expect("it ends").is(200).body.len(), 100 * PART + 1);
    all_given_back(gateway).await;
}
