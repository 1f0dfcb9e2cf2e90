//! During a drain, running requests are answered, connections are closed, and nothing waits forever.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::test_listener::{LONG, RawResponse, TestListener, eventually, get, read_to_close};

#[tokio::test]
async fn a_drain_answers_running_requests_and_closes_idle_connections() {
    let listener = TestListener::plain();
    let mut idle = listener.connect().await;
    idle.write_all(&get("/", "")).await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let mut busy = listener.connect().await;
    busy.write_all(&get("/hang", "")).await.unwrap();
    eventually("the request hangs", || listener.probe.hanging() == 1).await;

    let running = listener.running.clone();
    let clients = async {
        read_to_close(&mut idle).await;
        // The listener is closed shortly after the drain begins.
        eventually("the listener is closed", || {
            std::net::TcpStream::connect(listener.address()).is_err()
        })
        .await;
        listener.probe.release();
        let answers = RawResponse::parse_all(&read_to_close(&mut busy).await);
        assert_eq!(RawResponse::statuses(&answers), [200]);
        assert!(answers[0].has("connection: close"), "{answers:?}");
    };
    let (is_clean, ()) = tokio::join!(running.drain(LONG), clients);
    assert!(is_clean);
}

#[tokio::test]
async fn a_drain_cuts_off_requests_that_do_not_end() {
    let listener = TestListener::plain();
    let mut stuck = listener.connect().await;
    stuck.write_all(&get("/hang", "")).await.unwrap();
    eventually("the request hangs", || listener.probe.hanging() == 1).await;
    let start = Instant::now();
    assert!(!listener.running.drain(Duration::from_millis(200)).await);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!((listener.running.connections(), listener.probe.hanging()), (0, 0));
}

#[tokio::test]
async fn a_request_sent_before_the_drain_is_answered() {
    for _ in 0..5 {
        let listener = TestListener::plain();
        // The request is written before the accept loop can accept the connection.
        let mut stream = std::net::TcpStream::connect(listener.address()).unwrap();
        std::io::Write::write_all(&mut stream, &get("/", "")).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(stream).unwrap();
        let (is_clean, bytes) =
            tokio::join!(listener.running.drain(LONG), read_to_close(&mut stream));
        assert!(is_clean);
        assert_eq!(RawResponse::statuses(&RawResponse::parse_all(&bytes)), [200]);
    }
}
