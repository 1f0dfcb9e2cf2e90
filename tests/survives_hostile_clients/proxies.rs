//! Who a client is behind a load balancer: what a trusted proxy says, and nobody else.

use std::net::SocketAddr;

use fjord::config::gateway::{ProxyConfig, TrustedProxies};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use super::edge::{Answer, Edge, HEADER_TIMEOUT, LONG, Options, eventually, get, read_to_close};

/// A proxy's address in these tests; every other one of 127.0.0.0/8 is a stranger's.
const PROXY: &str = "127.0.0.2";

/// From 192.0.2.7 to 198.51.100.1.
const FROM_192_0_2_7: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x34\x01\xbb";
/// From 192.0.2.8.
const FROM_192_0_2_8: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x08\xc6\x33\x64\x01\x12\x34\x01\xbb";
/// The balancer's own health check.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn options(proxy_protocol: bool) -> Options {
    let trusted = TrustedProxies::new([format!("{PROXY}/32").parse().unwrap()]);
    Options { proxies: ProxyConfig { trusted, proxy_protocol }, ..Options::default() }
}

async fn connect_from(edge: &Edge, address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
    socket.connect(edge.address()).await.unwrap()
}

/// What the gateway takes for the client's address; nothing when it closes the connection.
async fn seen(edge: &Edge, from: &str, first: &[u8], headers: &str) -> String {
    let mut stream = connect_from(edge, from).await;
    let request = get("/address", &format!("{headers}Connection: close\r\n"));
    stream.write_all(&[first, &request].concat()).await.unwrap();
    let answers = Answer::parse_all(&read_to_close(&mut stream).await);
    let body = answers.first().filter(|answer| answer.status == 200).map(|answer| &answer.body);
    String::from_utf8(body.cloned().unwrap_or_default()).unwrap()
}

#[tokio::test]
async fn a_trusted_proxy_says_who_the_client_is_and_nobody_else_does() {
    let edge = Edge::start(&options(false));
    let said = "X-Forwarded-For: 203.0.113.9, 192.0.2.7\r\n";
    assert_eq!(seen(&edge, PROXY, b"", said).await, "192.0.2.7");
    assert_eq!(seen(&edge, PROXY, b"", "").await, PROXY);
    assert_eq!(seen(&edge, PROXY, b"", "Forwarded: for=192.0.2.7\r\n").await, PROXY);
    assert_eq!(seen(&edge, "127.0.0.3", b"", said).await, "127.0.0.3");
    let spoofed = format!("X-Forwarded-For: 192.0.2.7, {PROXY}\r\n");
    assert_eq!(seen(&edge, "127.0.0.3", b"", &spoofed).await, "127.0.0.3");
    assert_eq!(seen(&Edge::plain(), PROXY, b"", said).await, PROXY, "nobody is trusted");
}

#[tokio::test]
async fn proxy_protocol_is_believed_of_trusted_proxies_only() {
    let edge = Edge::start(&options(true));
    assert_eq!(seen(&edge, PROXY, FROM_192_0_2_7, "").await, "192.0.2.7");
    assert_eq!(seen(&edge, PROXY, LOCAL, "").await, PROXY);
    let spoofed = "X-Forwarded-For: 203.0.113.9\r\n";
    assert_eq!(seen(&edge, PROXY, FROM_192_0_2_7, spoofed).await, "192.0.2.7", "no proxy's list");
    assert_eq!(seen(&edge, "127.0.0.3", b"", "").await, "127.0.0.3");
    for (why, edge, from, first) in [
        ("a stranger's header", &edge, "127.0.0.3", FROM_192_0_2_7),
        ("no header", &edge, PROXY, b""),
        ("version 1", &edge, PROXY, b"PROXY TCP4 192.0.2.7 198.51.100.1 4660 443\r\n"),
        ("a header twice", &edge, PROXY, &[FROM_192_0_2_7, FROM_192_0_2_8].concat()),
        ("switched off", &Edge::start(&options(false)), PROXY, FROM_192_0_2_7),
    ] {
        assert_eq!(seen(edge, from, first, "").await, "", "{why}");
    }
    let reached = edge.paths();
    assert_eq!(reached.len(), 4, "what is refused reaches nobody: {reached:?}");
}

#[tokio::test]
async fn proxy_protocol_comes_before_tls() {
    let edge = Edge::start(&Options { tls: true, ..options(true) });
    let mut stream = connect_from(&edge, PROXY).await;
    stream.write_all(FROM_192_0_2_7).await.unwrap();
    let mut stream = edge.shake_hands(stream, &["http/1.1"]).await;
    stream.write_all(&get("/address", "Connection: close\r\n")).await.unwrap();
    let answers = Answer::parse_all(&read_to_close(&mut stream).await);
    assert_eq!(answers[0].body, b"192.0.2.7");
}

#[tokio::test]
async fn a_proxy_header_that_does_not_come_ends_the_connection() {
    let edge = Edge::start(&options(true));
    for sent in [&b""[..], &FROM_192_0_2_7[..20], &FROM_192_0_2_7[..1]] {
        let mut stream = connect_from(&edge, PROXY).await;
        let start = Instant::now();
        stream.write_all(sent).await.unwrap();
        assert!(read_to_close(&mut stream).await.is_empty());
        assert!(start.elapsed() >= HEADER_TIMEOUT && start.elapsed() < LONG);
    }
}

#[tokio::test]
async fn connections_are_counted_by_client_and_not_by_proxy() {
    for proxy_protocol in [true, false] {
        let edge =
            Edge::start(&Options { connections_per_client_max: 1, ..options(proxy_protocol) });
        let first = if proxy_protocol { FROM_192_0_2_7 } else { b"" };
        let mut held = connect_from(&edge, PROXY).await;
        held.write_all(&[first, &get("/hang", "")].concat()).await.unwrap();
        eventually("the request hangs", || edge.probe.hanging() == 1).await;
        if proxy_protocol {
            assert_eq!(seen(&edge, PROXY, FROM_192_0_2_7, "").await, "", "its second connection");
            assert_eq!(seen(&edge, PROXY, FROM_192_0_2_8, "").await, "192.0.2.8");
            assert_eq!(seen(&edge, PROXY, LOCAL, "").await, PROXY);
        } else {
            assert_eq!(seen(&edge, PROXY, b"", "").await, PROXY, "a proxy has many clients");
        }
        drop(held);
        eventually("all are gone", || edge.running.connections() == 0).await;
        assert_ne!(seen(&edge, PROXY, first, "").await, "", "the place is free again");
    }
}
