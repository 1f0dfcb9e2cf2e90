//! Limits on sizes and counts. The response to a request that exceeds a limit names the limit.

use tokio::io::AsyncWriteExt;

use super::test_listener::{
    BODY_BYTES_MAX, Options, RawResponse, TestListener, eventually, get, read_to_close,
};

#[tokio::test]
async fn a_long_uri_is_a_414() {
    let answers = TestListener::plain().exchange(&get(&format!("/{}", "a".repeat(1024)), "")).await;
    answers[0].assert_problem(414);
    assert!(answers[0].has("connection: close"));
}

#[tokio::test]
async fn many_or_large_headers_are_a_431() {
    let listener = TestListener::plain();
    let many = (0..20).map(|n| format!("A{n}: b\r\n")).collect::<Vec<_>>().concat();
    let large = format!("A: {}\r\n", "b".repeat(4096));
    for headers in [many, large] {
        let answers = listener.exchange(&get("/", &headers)).await;
        answers[0].assert_problem(431);
    }
    assert!(listener.paths().is_empty(), "none of them reached the service");
}

#[tokio::test]
async fn endless_headers_are_a_431() {
    let listener = TestListener::plain();
    let endless = format!("A: {}", "b".repeat(100_000));
    for headers in [endless, "A: b\r\n".repeat(10_000)] {
        let answers = listener.exchange(&get("/", &headers)).await;
        answers[0].assert_problem(431);
        assert_eq!(answers.len(), 1);
    }
    listener.assert_serves().await;
}

#[tokio::test]
async fn a_body_may_be_as_long_as_its_limit() {
    let listener = TestListener::plain();
    let announced = |length: usize| {
        let head =
            format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        [head.into_bytes(), vec![b'x'; length]].concat()
    };
    let chunked = |length: usize| {
        let head = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunks = "1\r\nx\r\n".repeat(length);
        format!("{head}{chunks}0\r\n\r\n").into_bytes()
    };
    for (sent, expected) in [
        (announced(BODY_BYTES_MAX), 200),
        (announced(BODY_BYTES_MAX + 1), 413),
        (chunked(BODY_BYTES_MAX), 200),
        (chunked(BODY_BYTES_MAX + 1), 413),
    ] {
        let answers = listener.exchange(&sent).await;
        assert_eq!(RawResponse::statuses(&answers), [expected]);
        if expected == 413 {
            answers[0].assert_problem(413);
        }
    }
}

#[tokio::test]
async fn a_connection_past_a_limit_is_closed_at_once() {
    for options in [
        Options { connections_max: 1, ..Options::default() },
        Options { connections_per_client_max: 1, ..Options::default() },
    ] {
        let listener = TestListener::start(&options);
        let mut first = listener.connect().await;
        first.write_all(&get("/hang", "")).await.unwrap();
        eventually("the request hangs", || listener.probe.hanging() == 1).await;
        let mut second = listener.connect().await;
        assert!(read_to_close(&mut second).await.is_empty(), "{options:?}");
        assert_eq!(listener.probe.hanging(), 1, "the first connection is not affected");
        drop(first);
        eventually("the connection no longer counts", || listener.running.connections() == 0).await;
        listener.assert_serves().await;
    }
}

#[tokio::test]
async fn an_unknown_host_is_a_421() {
    let hosts = vec!["api.test".to_owned()];
    let listener = TestListener::start(&Options { hosts, ..Options::default() });
    let answers = listener.exchange(&get("/", "")).await;
    answers[0].assert_problem(421);
    let fine = b"GET / HTTP/1.1\r\nHost: API.test:8443\r\nConnection: close\r\n\r\n";
    assert_eq!(RawResponse::statuses(&listener.exchange(fine).await), [200]);
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_connection_stays_open() {
    let listener = TestListener::plain();
    let sent = [get("/panic", "X-Request-Id: story-1\r\n"), get("/", "Connection: close\r\n")];
    let answers = listener.exchange(&sent.concat()).await;
    assert_eq!(RawResponse::statuses(&answers), [500, 200]);
    answers[0].assert_problem(500);
    assert!(answers[0].has("x-request-id: story-1"));
}

#[tokio::test]
async fn a_disconnect_drops_the_request() {
    let listener = TestListener::plain();
    let mut stream = listener.connect().await;
    stream.write_all(&get("/hang", "")).await.unwrap();
    eventually("the request hangs", || listener.probe.hanging() == 1).await;
    drop(stream);
    eventually("the request is dropped", || listener.probe.hanging() == 0).await;
}

#[tokio::test]
async fn head_has_the_length_of_get_and_no_body() {
    let listener = TestListener::plain();
    let sent = b"HEAD /hang HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    listener.probe.release();
    let mut stream = listener.connect().await;
    stream.write_all(sent).await.unwrap();
    let bytes = String::from_utf8(read_to_close(&mut stream).await).unwrap();
    assert!(bytes.contains("content-length: 8\r\n") && bytes.ends_with("\r\n\r\n"), "{bytes}");
}

#[tokio::test]
async fn tls_clients_get_hsts_and_are_identified_by_certificate() {
    let listener = TestListener::start(&Options {
        tls: true,
        client_certificates: true,
        ..Options::default()
    });
    let mut stream = listener.connect_tls(&["http/1.1"]).await;
    stream.write_all(&get("/peer", "Connection: close\r\n")).await.unwrap();
    let answers = RawResponse::parse_all(&read_to_close(&mut stream).await);
    answers[0].assert_fixed_headers();
    assert_eq!(answers[0].body, b"dns:localhost");
    assert!(answers[0].has("strict-transport-security: max-age=31536000"), "{answers:?}");
    assert!(!answers[0].head.contains("\nserver:"), "no banner");
}

#[tokio::test]
async fn tls_without_a_common_parameter_ends_with_an_alert() {
    use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
    let listener = TestListener::tls();
    // The server has only an ECDSA certificate, so it cannot use the client's RSA cipher suite.
    let cipher_suites = vec![cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
    let provider = rustls::crypto::CryptoProvider { cipher_suites, ..default_provider() };
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let name = "localhost".try_into().unwrap();
    let error = connector.connect(name, listener.connect().await).await.unwrap_err();
    assert!(error.to_string().contains("HandshakeFailure"), "{error}");
}
