//! Only a trusted proxy can tell the gateway the address of its client.

use std::net::SocketAddr;

use fjord::config::gateway::{ProxyConfig, TrustedProxies};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use super::test_listener::{
    HEADER_TIMEOUT, LONG, Options, RawResponse, TestListener, eventually, get, read_to_close,
};

/// The address of the trusted proxy. All other addresses of 127.0.0.0/8 are untrusted.
const PROXY: &str = "127.0.0.2";

/// A PROXY protocol header for a connection from 192.0.2.7 to 198.51.100.1.
const FROM_192_0_2_7: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x34\x01\xbb";
/// A PROXY protocol header for a connection from 192.0.2.8.
const FROM_192_0_2_8: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x08\xc6\x33\x64\x01\x12\x34\x01\xbb";
/// A LOCAL header, which a load balancer sends for its own health checks.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn options(proxy_protocol: bool) -> Options {
    let trusted = TrustedProxies::new([format!("{PROXY}/32").parse().unwrap()]);
    Options { proxies: ProxyConfig { trusted, proxy_protocol }, ..Options::default() }
}

async fn connect_from(listener: &TestListener, address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
    socket.connect(listener.address()).await.unwrap()
}

/// Returns the client address that the gateway determines, or an empty string if it closes the connection.
async fn seen(listener: &TestListener, from: &str, first: &[u8], headers: &str) -> String {
    let mut stream = connect_from(listener, from).await;
    let request = get("/address", &format!("{headers}Connection: close\r\n"));
    stream.write_all(&[first, &request].concat()).await.unwrap();
    let answers = RawResponse::parse_all(&read_to_close(&mut stream).await);
    let body = answers.first().filter(|answer| answer.status == 200).map(|answer| &answer.body);
    String::from_utf8(body.cloned().unwrap_or_default()).unwrap()
}

#[tokio::test]
async fn only_a_trusted_proxy_can_name_the_client() {
    let listener = TestListener::start(&options(false));
    let forwarded = "X-Forwarded-For: 203.0.113.9, 192.0.2.7\r\n";
    assert_eq!(seen(&listener, PROXY, b"", forwarded).await, "192.0.2.7");
    assert_eq!(seen(&listener, PROXY, b"", "").await, PROXY);
    assert_eq!(seen(&listener, PROXY, b"", "Forwarded: for=192.0.2.7\r\n").await, PROXY);
    assert_eq!(seen(&listener, "127.0.0.3", b"", forwarded).await, "127.0.0.3");
    let spoofed = format!("X-Forwarded-For: 192.0.2.7, {PROXY}\r\n");
    assert_eq!(seen(&listener, "127.0.0.3", b"", &spoofed).await, "127.0.0.3");
    assert_eq!(
        seen(&TestListener::plain(), PROXY, b"", forwarded).await,
        PROXY,
        "no proxy is trusted"
    );
}

#[tokio::test]
async fn proxy_protocol_is_accepted_from_trusted_proxies_only() {
    let listener = TestListener::start(&options(true));
    assert_eq!(seen(&listener, PROXY, FROM_192_0_2_7, "").await, "192.0.2.7");
    assert_eq!(seen(&listener, PROXY, LOCAL, "").await, PROXY);
    let spoofed = "X-Forwarded-For: 203.0.113.9\r\n";
    assert_eq!(
        seen(&listener, PROXY, FROM_192_0_2_7, spoofed).await,
        "192.0.2.7",
        "X-Forwarded-For is ignored"
    );
    assert_eq!(seen(&listener, "127.0.0.3", b"", "").await, "127.0.0.3");
    for (why, listener, from, first) in [
        ("a header from an untrusted client", &listener, "127.0.0.3", FROM_192_0_2_7),
        ("no header", &listener, PROXY, b""),
        ("version 1", &listener, PROXY, b"PROXY TCP4 192.0.2.7 198.51.100.1 4660 443\r\n"),
        ("a header twice", &listener, PROXY, &[FROM_192_0_2_7, FROM_192_0_2_8].concat()),
        ("switched off", &TestListener::start(&options(false)), PROXY, FROM_192_0_2_7),
    ] {
        assert_eq!(seen(listener, from, first, "").await, "", "{why}");
    }
    let reached = listener.paths();
    assert_eq!(reached.len(), 4, "rejected connections do not reach the service: {reached:?}");
}

#[tokio::test]
async fn proxy_protocol_comes_before_tls() {
    let listener = TestListener::start(&Options { tls: true, ..options(true) });
    let mut stream = connect_from(&listener, PROXY).await;
    stream.write_all(FROM_192_0_2_7).await.unwrap();
    let mut stream = listener.handshake(stream, &["http/1.1"]).await;
    stream.write_all(&get("/address", "Connection: close\r\n")).await.unwrap();
    let answers = RawResponse::parse_all(&read_to_close(&mut stream).await);
    assert_eq!(answers[0].body, b"192.0.2.7");
}

#[tokio::test]
async fn a_missing_proxy_header_closes_the_connection() {
    let listener = TestListener::start(&options(true));
    for sent in [&b""[..], &FROM_192_0_2_7[..20], &FROM_192_0_2_7[..1]] {
        let mut stream = connect_from(&listener, PROXY).await;
        let start = Instant::now();
        stream.write_all(sent).await.unwrap();
        assert!(read_to_close(&mut stream).await.is_empty());
        assert!(start.elapsed() >= HEADER_TIMEOUT && start.elapsed() < LONG);
    }
}

#[tokio::test]
async fn connections_are_counted_by_client_not_by_proxy() {
    for proxy_protocol in [true, false] {
        let listener = TestListener::start(&Options {
            connections_per_client_max: 1,
            ..options(proxy_protocol)
        });
        let first = if proxy_protocol { FROM_192_0_2_7 } else { b"" };
        let mut hanging = connect_from(&listener, PROXY).await;
        hanging.write_all(&[first, &get("/hang", "")].concat()).await.unwrap();
        eventually("the request hangs", || listener.probe.hanging() == 1).await;
        if proxy_protocol {
            assert_eq!(
                seen(&listener, PROXY, FROM_192_0_2_7, "").await,
                "",
                "a second connection of the client"
            );
            assert_eq!(seen(&listener, PROXY, FROM_192_0_2_8, "").await, "192.0.2.8");
            assert_eq!(seen(&listener, PROXY, LOCAL, "").await, PROXY);
        } else {
            assert_eq!(
                seen(&listener, PROXY, b"", "").await,
                PROXY,
                "the proxy itself has no limit"
            );
        }
        drop(hanging);
        eventually("all connections are closed", || listener.running.connections() == 0).await;
        assert_ne!(seen(&listener, PROXY, first, "").await, "", "the connection no longer counts");
    }
}
