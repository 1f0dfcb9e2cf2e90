//! A response that is sent before the whole request has been read reaches the client, and the next
//! request on the connection is served.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::support::eventually::for_a_while;

use super::http2::{connect, request};
use super::test_listener::{
    BODY_BYTES_MAX, Options, RawResponse, TestListener, get, read_to_close,
};

/// A path whose service does not read the body.
const UNREAD: &str = "/peer";

fn announced(path: &str, headers: &str, length: usize) -> Vec<u8> {
    let head = "POST PATH HTTP/1.1\r\nHost: localhost\r\nHEADERSContent-Length: LENGTH\r\n\r\n";
    let head = head.replace("PATH", path).replace("HEADERS", headers);
    head.replace("LENGTH", &length.to_string()).into_bytes()
}

fn chunked(path: &str, length: usize) -> Vec<u8> {
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunks = format!("3e8\r\n{}\r\n", "x".repeat(1000)).repeat(length / 1000);
    format!("{head}{chunks}0\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn a_request_after_an_unread_body_is_answered() {
    let listener = TestListener::plain();
    let small = [announced(UNREAD, "", 40_000), vec![b'x'; 40_000]].concat();
    let too_large = [announced("/", "", 40_000), vec![b'x'; 40_000]].concat();
    let next = get("/next", "Connection: close\r\n");
    for (sent, status) in [
        (small, 200),
        (chunked(UNREAD, 40_000), 200),
        (too_large, 413),
        (chunked("/", 40_000), 413),
    ] {
        // The body is sent immediately, or most of it is sent after the response.
        for at in [sent.len(), 200] {
            let mut stream = listener.connect().await;
            let (first, rest) = sent.split_at(at);
            stream.write_all(first).await.unwrap();
            if !rest.is_empty() {
                for_a_while(Duration::from_millis(50)).await;
            }
            stream.write_all(&[rest, &next].concat()).await.unwrap();
            let answers = RawResponse::parse_all(&read_to_close(&mut stream).await);
            assert_eq!(RawResponse::statuses(&answers), [status, 200], "{at} bytes at first");
            assert!(!answers[0].has("connection: close"), "{answers:?}");
        }
    }
}

#[tokio::test]
async fn a_body_too_large_to_discard_closes_the_connection_with_connection_close() {
    let listener = TestListener::plain();
    let expectation = "Expect: 100-continue\r\n";
    for (sent, at_once) in [
        (announced(UNREAD, "", 100_000), true),
        (announced(UNREAD, expectation, 1_000), true),
        (announced("/", expectation, BODY_BYTES_MAX + 1), true),
        // The rest of the body is small enough that the gateway waits for it.
        ([announced(UNREAD, "", 1_000), vec![b'x'; 10]].concat(), false),
        (chunked(UNREAD, 100_000), true),
    ] {
        let mut stream = listener.connect().await;
        let start = Instant::now();
        stream.write_all(&sent).await.unwrap();
        let answers = RawResponse::parse_all(&read_to_close(&mut stream).await);
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert!(answers[0].has("connection: close"), "{answers:?}");
        let took = start.elapsed();
        assert_eq!(took < Duration::from_millis(900), at_once, "{took:?}");
    }
}

/// Sends a large body completely before reading the response, as most clients do.
async fn send_and_read<IO: AsyncRead + AsyncWrite + Unpin>(mut stream: IO, body: &[u8]) {
    stream.write_all(&announced("/", "", body.len())).await.unwrap();
    for chunk in body.chunks(64 * 1024) {
        stream.write_all(chunk).await.expect("the gateway reads");
    }
    stream.flush().await.unwrap();
    let answers = RawResponse::parse_all(&read_to_close(&mut stream).await);
    assert_eq!(RawResponse::statuses(&answers), [413]);
    answers[0].assert_problem(413);
    assert!(answers[0].has("connection: close"), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_arrives_at_a_client_that_sends_20_mb_first() {
    let (plain, tls) = (TestListener::plain(), TestListener::tls());
    let body = vec![b'x'; 20_000_000];
    for _ in 0..10 {
        send_and_read(plain.connect().await, &body).await;
        send_and_read(tls.connect_tls(&["http/1.1"]).await, &body).await;
    }
}

#[tokio::test]
async fn a_lingering_connection_counts_against_the_limit() {
    let listener =
        TestListener::start(&Options { connections_per_client_max: 1, ..Options::default() });
    let mut stream = listener.connect().await;
    stream.write_all(&announced("/", "", 1_000_000_000)).await.unwrap();
    let start = Instant::now();
    let (mut reader, mut writer) = stream.into_split();
    let sending = async {
        let chunk = vec![b'x'; 64 * 1024];
        let mut sent = 0;
        while writer.write_all(&chunk).await.is_ok() {
            sent += chunk.len();
            assert!(sent < 200_000_000, "the gateway must stop reading");
        }
        sent
    };
    let reading = async {
        let mut answer = Vec::new();
        drop(tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut answer).await);
        let mut second = listener.connect().await;
        assert!(read_to_close(&mut second).await.is_empty(), "the connection limit is reached");
        answer
    };
    let (sent, answer) = tokio::join!(sending, reading);
    assert_eq!(RawResponse::statuses(&RawResponse::parse_all(&answer)), [413]);
    assert!(sent > 50_000_000, "{sent} bytes in {:?}", start.elapsed());
    listener.assert_serves().await;
}

#[tokio::test]
async fn an_http2_client_may_finish_its_body_after_the_response() {
    let listener = TestListener::tls();
    let (mut sender, _connection) = connect(&listener).await;
    for _ in 0..5 {
        let uri = format!("https://localhost{UNREAD}");
        let (answer, mut body) = sender.send_request(request(&uri), false).unwrap();
        body.send_data(Bytes::from(vec![b'x'; 10_000]), false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        // The rest exceeds the flow control windows, so the gateway must read and discard it.
        for chunk in 0..20 {
            for_a_while(Duration::from_millis(5)).await;
            body.reserve_capacity(16_000);
            let mut capacity = 0;
            while capacity < 16_000 {
                let more = std::future::poll_fn(|context| body.poll_capacity(context)).await;
                capacity = more.expect("the stream is open").expect("the stream is not reset");
            }
            body.send_data(Bytes::from(vec![b'x'; 16_000]), chunk == 19)
                .expect("the stream is not reset");
        }
    }
}
