//! Promise: load balancers can probe the serving port, and a peer with many connections does not block the admin listener.

use http::{Method, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::client::{ClientOptions, HttpVersion, send};
use super::support::eventually::{SOON, eventually_some};
use super::support::fleet::{Fleet, FleetOptions};

#[tokio::test(flavor = "multi_thread")]
async fn the_serving_port_reports_whether_a_gateway_is_ready() {
    let gateway_keys = "hosts = ['api.example']\n";
    let environment = vec![("FJORD_GATEWAY__HTTP__REQUESTS_IN_FLIGHT_MAX", "1".to_owned())];
    let options = FleetOptions { gateway_keys, environment, ..FleetOptions::default() };
    let mut fleet = Fleet::start(options).await;
    // The health path accepts every Host, because load balancers probe by address. Other paths require a name in `hosts`.
    let client = fleet.client();
    client.get("/v1/slow?ms=1").await.is_problem(421, "misdirected");
    let healthy = client.get("/healthz").await;
    healthy.is(200);
    assert_eq!(healthy.body, b"ready\n");
    assert_eq!(healthy.headers[header::CACHE_CONTROL], "no-store");
    let head = send(client.request(Method::HEAD, "/healthz")).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    let answer = client.send(Method::POST, "/healthz", &serde_json::json!({})).await;
    answer.is_problem(405, "method-not-allowed");
    assert_eq!(answer.header("allow"), "GET, HEAD, OPTIONS");

    // A gateway that has reached its limit of requests is still healthy.
    let one = ClientOptions { http: HttpVersion::One, ..ClientOptions::default() };
    let named = fleet.client_with(one).with_header("host", "api.example");
    let gauge = "fjord_gateway_requests_in_flight";
    let healthy_while_full = async {
        eventually_some("the gateway is full", SOON, async || {
            (fleet.gateways[0].metric(gauge).await > 0.5).then_some(())
        })
        .await;
        client.get("/healthz").await
    };
    let (slow, healthy) = tokio::join!(named.get("/v1/slow?ms=3000"), healthy_while_full);
    slow.is(200);
    healthy.is(200);

    fleet.nats.servers[0].kill();
    eventually_some("the gateway has lost NATS", SOON, async || {
        let answer = client.get("/healthz").await;
        (answer.status == 503 && answer.body == b"not ready\n").then_some(())
    })
    .await;
    let checks = r#"fjord_gateway_health_checks_total{result="ready"}"#;
    assert!(fleet.gateways[0].metric(checks).await >= 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_many_connections_does_not_block_probes() {
    let fleet = Fleet::start(FleetOptions::default()).await;
    for node in [&fleet.gateways[0], &fleet.workers[0]] {
        let admin = node.admin();
        let mut held = Vec::new();
        for _ in 0..200 {
            let mut stream = TcpStream::connect(admin).await.expect("the connection succeeds");
            stream
                .write_all(b"GET /readyz HTTP/1.1\r\n")
                .await
                .expect("half of a request head is sent");
            held.push(stream);
        }
        let mut probe = TcpStream::connect(admin).await.expect("the connection succeeds");
        let request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        probe.write_all(request.as_bytes()).await.expect("a request");
        let mut answer = String::new();
        probe.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(node.metric("fjord_admin_connections_evicted_total").await >= 100.0);
        drop(held);
    }
}
