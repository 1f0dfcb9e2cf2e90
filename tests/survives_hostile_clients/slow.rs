//! Clients that are slow on purpose: each is ended in time, none keeps others from being served.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::eventually::for_a_while;

use super::edge::{
    Answer, BODY_IDLE, BODY_TIMEOUT, Edge, HEADER_TIMEOUT, IDLE_TIMEOUT, LARGE, LONG, Options,
    eventually, get, read_to_close,
};

/// How late a timer may be on a busy machine; and how long a connection that has ended waits for its client's end.
const SLACK: Duration = Duration::from_secs(4);

/// Writes a byte now and then until the other side closes.
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
async fn a_head_that_does_not_come_ends_the_connection() {
    let edge = Edge::plain();
    for sent in [&b""[..], b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n"] {
        let mut stream = edge.connect().await;
        let start = Instant::now();
        stream.write_all(sent).await.unwrap();
        let answers = Answer::parse_all(&read_to_close(&mut stream).await);
        assert!(start.elapsed() < HEADER_TIMEOUT + SLACK, "{:?}", start.elapsed());
        if sent.is_empty() {
            assert!(answers.is_empty(), "nothing was asked: {answers:?}");
        } else {
            answers[0].assert_problem(408);
            assert!(answers[0].has("connection: close"));
        }
    }
}

#[tokio::test]
async fn a_head_that_trickles_ends_the_connection() {
    let edge = Edge::plain();
    let mut stream = edge.connect().await;
    let start = Instant::now();
    trickle(&mut stream, &get(&format!("/{}", "a".repeat(200)), "")).await;
    assert!(start.elapsed() < HEADER_TIMEOUT + SLACK, "{:?}", start.elapsed());
    assert!(edge.paths().is_empty());
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_its_time_and_then_closed() {
    let edge = Edge::plain();
    let start = Instant::now();
    let answers = edge.tell(&get("/", "")).await;
    assert_eq!(Answer::statuses(&answers), [200]);
    let took = start.elapsed();
    assert!(took >= IDLE_TIMEOUT && took < IDLE_TIMEOUT + SLACK, "{took:?}");
}

#[tokio::test]
async fn a_head_that_does_not_come_on_a_kept_connection_is_late_too() {
    let edge = Edge::plain();
    let mut stream = edge.connect().await;
    stream.write_all(&get("/", "")).await.unwrap();
    let mut first = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut first).await.unwrap();
    let start = Instant::now();
    stream.write_all(b"GET / HT").await.unwrap();
    let rest = [&first[..], &read_to_close(&mut stream).await].concat();
    let answers = Answer::parse_all(&rest);
    assert_eq!(Answer::statuses(&answers), [200, 408]);
    answers[1].assert_problem(408);
    let took = start.elapsed();
    assert!(took >= HEADER_TIMEOUT / 2 && took < IDLE_TIMEOUT, "{took:?}");
}

#[tokio::test]
async fn a_head_behind_an_answer_that_is_not_taken_yet_is_late_after_it() {
    let body_idle_timeout = LONG;
    let edge = Edge::start(&Options { body_idle_timeout, ..Options::default() });
    let mut stream = edge.connect().await;
    stream.write_all(&get("/large", "")).await.unwrap();
    eventually("the request came", || edge.paths().len() == 1).await;
    stream.write_all(b"GET / HT").await.unwrap();
    // The client has not read for longer than a head may take: that is no fault of its next request.
    for_a_while(HEADER_TIMEOUT * 4).await;
    let answers = Answer::parse_all(&read_to_close(&mut stream).await);
    assert_eq!(Answer::statuses(&answers), [200, 408], "each answer is whole");
    assert_eq!(answers[0].body.len(), LARGE);
    assert!(answers[0].body.iter().all(|byte| *byte == b'x'), "and nothing else stands in it");
}

#[tokio::test]
async fn a_body_that_stops_is_a_408() {
    let edge = Edge::plain();
    let start = Instant::now();
    let sent = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\nhello";
    let answers = edge.tell(sent).await;
    answers[0].assert_problem(408);
    assert!(answers[0].has("connection: close"));
    assert!(start.elapsed() < BODY_IDLE + SLACK, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_body_that_trickles_is_a_408_when_its_time_is_over() {
    let edge = Edge::plain();
    let mut stream = edge.connect().await;
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
        () = trickling => panic!("the connection ended without an answer"),
        read = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut answer) => { read.unwrap(); }
    }
    Answer::parse_all(&answer)[0].assert_problem(408);
    let took = start.elapsed();
    assert!(took >= BODY_TIMEOUT && took < BODY_TIMEOUT + SLACK, "{took:?}");
}

#[tokio::test]
async fn a_client_that_stops_reading_is_ended() {
    let edge = Edge::plain();
    let mut stream = edge.connect().await;
    stream.write_all(&get("/large", "")).await.unwrap();
    eventually("the request came", || edge.paths().len() == 1).await;
    eventually("the connection ended", || edge.running.connections() == 0).await;
}

#[tokio::test]
async fn a_client_that_reads_a_little_now_and_then_is_ended() {
    let edge = Edge::plain();
    let mut stream = edge.connect().await;
    stream.write_all(&get("/large", "")).await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let start = Instant::now();
    let mut piece = [0; 64];
    while edge.running.connections() > 0 || edge.paths().is_empty() {
        ticks.tick().await;
        drop(tokio::io::AsyncReadExt::read(&mut stream, &mut piece).await);
        assert!(start.elapsed() < LONG, "it is still served");
    }
}

#[tokio::test]
async fn a_client_that_reads_steadily_gets_all_of_it() {
    let edge = Edge::plain();
    let mut stream = edge.connect().await;
    stream.write_all(&get("/large", "Connection: close\r\n")).await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let mut piece = vec![0; 512 * 1024];
    let mut read = 0;
    while let Ok(count @ 1..) = tokio::io::AsyncReadExt::read(&mut stream, &mut piece).await {
        read += count;
        ticks.tick().await;
    }
    assert!(read > LARGE, "{read}");
}

#[tokio::test]
async fn a_handshake_that_does_not_come_ends_the_connection() {
    let edge = Edge::tls();
    for sent in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = edge.connect().await;
        let start = Instant::now();
        stream.write_all(sent).await.unwrap();
        assert!(read_to_close(&mut stream).await.is_empty());
        assert!(start.elapsed() < HEADER_TIMEOUT + SLACK, "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn many_slow_clients_keep_nobody_out() {
    let edge = Edge::plain();
    let mut slow = Vec::new();
    for _ in 0..150 {
        let mut stream = edge.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: lo").await.unwrap();
        slow.push(stream);
    }
    edge.assert_serves().await;
    eventually("all are ended", || edge.running.connections() == 0).await;
}
