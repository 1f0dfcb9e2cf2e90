//! Clients that are slow on purpose are disconnected in time and do not affect other clients.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::eventually::for_a_while;

use super::test_listener::{
    BODY_IDLE, BODY_TIMEOUT, HEADER_TIMEOUT, IDLE_TIMEOUT, LARGE, LONG, Options, RawResponse,
    TestListener, eventually, get, read_to_close,
};

/// The maximum delay of a timer on a busy machine, plus the linger time of a closed connection.
const SLACK: Duration = Duration::from_secs(4);

/// Writes bytes one at a time, with pauses, until the peer closes the connection.
async fn trickle(stream: &mut TcpStream, bytes: &[u8]) {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    for byte in bytes {
        ticks.tick().await;
        if stream.write_all(std::slice::from_ref(byte)).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn an_incomplete_head_closes_the_connection() {
    let listener = TestListener::plain();
    for sent in [&b""[..], b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n"] {
        let mut stream = listener.connect().await;
        let start = Instant::now();
        stream.write_all(sent).await.unwrap();
        let answers = RawResponse::parse_all(&read_to_close(&mut stream).await);
        assert!(start.elapsed() < HEADER_TIMEOUT + SLACK, "{:?}", start.elapsed());
        if sent.is_empty() {
            assert!(answers.is_empty(), "no request was begun: {answers:?}");
        } else {
            answers[0].assert_problem(408);
            assert!(answers[0].has("connection: close"));
        }
    }
}

#[tokio::test]
async fn a_head_sent_byte_by_byte_closes_the_connection() {
    let listener = TestListener::plain();
    let mut stream = listener.connect().await;
    let start = Instant::now();
    trickle(&mut stream, &get(&format!("/{}", "a".repeat(200)), "")).await;
    assert!(start.elapsed() < HEADER_TIMEOUT + SLACK, "{:?}", start.elapsed());
    assert!(listener.paths().is_empty());
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_its_time_and_then_closed() {
    let listener = TestListener::plain();
    let start = Instant::now();
    let answers = listener.exchange(&get("/", "")).await;
    assert_eq!(RawResponse::statuses(&answers), [200]);
    let took = start.elapsed();
    assert!(took >= IDLE_TIMEOUT && took < IDLE_TIMEOUT + SLACK, "{took:?}");
}

#[tokio::test]
async fn an_incomplete_head_on_a_kept_connection_is_a_408() {
    let listener = TestListener::plain();
    let mut stream = listener.connect().await;
    stream.write_all(&get("/", "")).await.unwrap();
    let mut first = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut first).await.unwrap();
    let start = Instant::now();
    stream.write_all(b"GET / HT").await.unwrap();
    let rest = [&first[..], &read_to_close(&mut stream).await].concat();
    let answers = RawResponse::parse_all(&rest);
    assert_eq!(RawResponse::statuses(&answers), [200, 408]);
    answers[1].assert_problem(408);
    let took = start.elapsed();
    assert!(took >= HEADER_TIMEOUT / 2 && took < IDLE_TIMEOUT, "{took:?}");
}

#[tokio::test]
async fn the_head_timeout_does_not_run_while_a_response_is_written() {
    let body_idle_timeout = LONG;
    let listener = TestListener::start(&Options { body_idle_timeout, ..Options::default() });
    let mut stream = listener.connect().await;
    stream.write_all(&get("/large", "")).await.unwrap();
    eventually("the request arrived", || listener.paths().len() == 1).await;
    stream.write_all(b"GET / HT").await.unwrap();
    // The client does not read for longer than the head timeout. The timeout must not run during that
    // time.
    for_a_while(HEADER_TIMEOUT * 4).await;
    let answers = RawResponse::parse_all(&read_to_close(&mut stream).await);
    assert_eq!(RawResponse::statuses(&answers), [200, 408], "each response is complete");
    assert_eq!(answers[0].body.len(), LARGE);
    assert!(answers[0].body.iter().all(|byte| *byte == b'x'), "the body is unchanged");
}

#[tokio::test]
async fn a_body_that_stops_is_a_408() {
    let listener = TestListener::plain();
    let start = Instant::now();
    let sent = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\nhello";
    let answers = listener.exchange(sent).await;
    answers[0].assert_problem(408);
    assert!(answers[0].has("connection: close"));
    assert!(start.elapsed() < BODY_IDLE + SLACK, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_body_sent_byte_by_byte_is_a_408_after_its_timeout() {
    let listener = TestListener::plain();
    let mut stream = listener.connect().await;
    let head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let start = Instant::now();
    let (mut reader, mut writer) = stream.into_split();
    let trickling = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        while writer.write_all(b"x").await.is_ok() {
            ticks.tick().await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = trickling => panic!("the connection was closed without a response"),
        read = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut answer) => { read.unwrap(); }
    }
    RawResponse::parse_all(&answer)[0].assert_problem(408);
    let took = start.elapsed();
    assert!(took >= BODY_TIMEOUT && took < BODY_TIMEOUT + SLACK, "{took:?}");
}

#[tokio::test]
async fn a_client_that_stops_reading_is_disconnected() {
    let listener = TestListener::plain();
    let mut stream = listener.connect().await;
    stream.write_all(&get("/large", "")).await.unwrap();
    eventually("the request arrived", || listener.paths().len() == 1).await;
    eventually("the connection is closed", || listener.running.connections() == 0).await;
}

#[tokio::test]
async fn a_client_that_reads_too_little_is_disconnected() {
    let listener = TestListener::plain();
    let mut stream = listener.connect().await;
    stream.write_all(&get("/large", "")).await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let start = Instant::now();
    let mut buffer = [0; 64];
    while listener.running.connections() > 0 || listener.paths().is_empty() {
        ticks.tick().await;
        drop(tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await);
        assert!(start.elapsed() < LONG, "the connection is not closed");
    }
}

#[tokio::test]
async fn a_client_that_reads_steadily_gets_the_whole_response() {
    let listener = TestListener::plain();
    let mut stream = listener.connect().await;
    stream.write_all(&get("/large", "Connection: close\r\n")).await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let mut buffer = vec![0; 512 * 1024];
    let mut read = 0;
    while let Ok(count @ 1..) = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await {
        read += count;
        ticks.tick().await;
    }
    assert!(read > LARGE, "{read}");
}

#[tokio::test]
async fn an_incomplete_handshake_closes_the_connection() {
    let listener = TestListener::tls();
    for sent in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = listener.connect().await;
        let start = Instant::now();
        stream.write_all(sent).await.unwrap();
        assert!(read_to_close(&mut stream).await.is_empty());
        assert!(start.elapsed() < HEADER_TIMEOUT + SLACK, "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn many_slow_clients_do_not_affect_others() {
    let listener = TestListener::plain();
    let mut slow = Vec::new();
    for _ in 0..150 {
        let mut stream = listener.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: lo").await.unwrap();
        slow.push(stream);
    }
    listener.assert_serves().await;
    eventually("all connections are closed", || listener.running.connections() == 0).await;
}
