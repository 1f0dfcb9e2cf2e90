//! The end of a process: requests that run are answered, connections end, nothing waits for ever.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::edge::{Answer, Edge, LONG, eventually, get, read_to_close};

#[tokio::test]
async fn a_drain_answers_what_runs_and_closes_what_is_idle() {
    let edge = Edge::plain();
    let mut idle = edge.connect().await;
    idle.write_all(&get("/", "")).await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let mut busy = edge.connect().await;
    busy.write_all(&get("/hang", "")).await.unwrap();
    eventually("the request hangs", || edge.probe.hanging() == 1).await;

    let running = edge.running.clone();
    let clients = async {
        read_to_close(&mut idle).await;
        // Whoever came before the drain is still let in, for a moment.
        eventually("nobody is accepted any more", || {
            std::net::TcpStream::connect(edge.address()).is_err()
        })
        .await;
        edge.probe.release();
        let answers = Answer::parse_all(&read_to_close(&mut busy).await);
        assert_eq!(Answer::statuses(&answers), [200]);
        assert!(answers[0].has("connection: close"), "{answers:?}");
    };
    let (is_clean, ()) = tokio::join!(running.drain(LONG), clients);
    assert!(is_clean);
}

#[tokio::test]
async fn a_drain_cuts_off_what_does_not_end() {
    let edge = Edge::plain();
    let mut stuck = edge.connect().await;
    stuck.write_all(&get("/hang", "")).await.unwrap();
    eventually("the request hangs", || edge.probe.hanging() == 1).await;
    let start = Instant::now();
    assert!(!edge.running.drain(Duration::from_millis(200)).await);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!((edge.running.connections(), edge.probe.hanging()), (0, 0));
}

#[tokio::test]
async fn a_request_sent_before_the_drain_is_answered() {
    for _ in 0..5 {
        let edge = Edge::plain();
        // Written before the accept loop has even seen the connection.
        let mut stream = std::net::TcpStream::connect(edge.address()).unwrap();
        std::io::Write::write_all(&mut stream, &get("/", "")).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(stream).unwrap();
        let (is_clean, bytes) = tokio::join!(edge.running.drain(LONG), read_to_close(&mut stream));
        assert!(is_clean);
        assert_eq!(Answer::statuses(&Answer::parse_all(&bytes)), [200]);
    }
}
