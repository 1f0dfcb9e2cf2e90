//! Clients that omit something that the listener expects: TLS, the negotiation of HTTP/2, or `Host` in an
//! HTTP/1.0 request.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::test_listener::{LONG, Options, TestListener};

/// The start of HTTP/2 with prior knowledge (RFC 9113 §3.4), with an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Sends bytes and returns everything that the listener sends until it closes the connection.
async fn exchange(listener: &TestListener, sent: &[u8]) -> Vec<u8> {
    let mut stream: TcpStream = listener.connect().await;
    stream.write_all(sent).await.unwrap();
    let mut received = Vec::new();
    let reading = stream.read_to_end(&mut received);
    timeout(LONG, reading).await.expect("the connection is closed").unwrap();
    received
}

#[tokio::test]
async fn plain_http_on_a_tls_port_gets_a_400_in_plain_http() {
    let listener = TestListener::tls();
    for request in [
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
        "GET / HTTP/1.0\r\n\r\n",
    ] {
        let response = String::from_utf8(exchange(&listener, request.as_bytes()).await).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 ") || head.starts_with("HTTP/1.0 400 "), "{head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains("content-type: application/problem+json"), "{head}");
        assert!(head.contains("connection: close"), "{head}");
        assert!(!head.contains("strict-transport-security"), "{head}");
        assert!(body.contains("this port serves HTTPS only"), "{body}");
    }
    assert_eq!(listener.paths(), Vec::<String>::new(), "no request reaches the service");
}

#[tokio::test]
async fn http2_that_was_not_negotiated_gets_goaway_with_the_reason() {
    for (listener, error, detail) in [
        (TestListener::tls(), 0xc, "this port serves HTTPS only"),
        (TestListener::plain(), 0xd, "expected HTTP/1.1"),
    ] {
        let frames = exchange(&listener, PREFACE).await;
        let (settings, goaway) = frames.split_at(9);
        assert_eq!(settings, [0, 0, 0, 4, 0, 0, 0, 0, 0], "an empty SETTINGS frame");
        let (head, payload) = goaway.split_at(9);
        assert_eq!((usize::from(head[2]), head[3]), (payload.len(), 7), "a whole GOAWAY frame");
        assert_eq!(payload[..8], [0, 0, 0, 0, 0, 0, 0, error]);
        let text = String::from_utf8_lossy(&payload[8..]).into_owned();
        assert!(text.contains(detail), "{text}");
    }
}

#[tokio::test]
async fn http_1_0_needs_no_host() {
    let hosts = vec!["api.example".to_owned()];
    let listener = TestListener::start(&Options { hosts, ..Options::default() });
    for (request, status) in [
        ("GET / HTTP/1.0\r\n\r\n", "200"),
        ("GET / HTTP/1.0\r\nHost: api.example.\r\n\r\n", "200"),
        ("GET / HTTP/1.0\r\nHost: evil.example\r\n\r\n", "421"),
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "400"),
    ] {
        let response = String::from_utf8(exchange(&listener, request.as_bytes()).await).unwrap();
        assert_eq!(response.split(' ').nth(1), Some(status), "{request:?}: {response}");
    }
}
