//! Who has ended its sending side still gets its answer; whose client has left is not worked for.

use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockFilter, SockRef};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::support::eventually::for_a_while;

use super::edge::{Answer, BODY_IDLE, Edge, LARGE, LONG, eventually, get, read_to_close};
use super::http2::request;
use super::stalled::held;

/// Longer than an answer may take before the client is tried.
const LATER: Duration = Duration::from_millis(800);

/// Sends, ends its sending side, and reads what comes.
async fn half_close<IO: AsyncRead + AsyncWrite + Unpin>(mut stream: IO, sent: &[u8]) -> Vec<u8> {
    stream.write_all(sent).await.unwrap();
    stream.shutdown().await.unwrap();
    read_to_close(&mut stream).await
}

#[tokio::test]
async fn who_sends_nothing_more_gets_its_answer() {
    let (plain, tls) = (Edge::plain(), Edge::tls());
    let head = |path: &str| format!("{path} HTTP/1.1\r\nHost: localhost\r\n");
    let two = [get("/", ""), get("/next", "")].concat();
    for (sent, expected) in [
        (get("/", ""), &[200][..]),
        (format!("{}Content-Length: 5\r\n\r\nhello", head("POST /")).into_bytes(), &[200]),
        (
            format!("{}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", head("POST /"))
                .into_bytes(),
            &[200],
        ),
        (two, &[200, 200]),
        (b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n".to_vec(), &[200]),
        // A body that ends before its end is none.
        (format!("{}Content-Length: 5\r\n\r\nhell", head("POST /")).into_bytes(), &[400]),
        (format!("{}Content-Le", head("POST /")).into_bytes(), &[]),
    ] {
        let text = String::from_utf8_lossy(&sent).into_owned();
        for read in [
            half_close(plain.connect().await, &sent).await,
            half_close(tls.connect_tls(&["http/1.1"]).await, &sent).await,
        ] {
            let statuses = Answer::statuses(&Answer::parse_all(&read));
            assert_eq!(statuses, expected, "{text:?}");
        }
    }
    let large = half_close(plain.connect().await, &get("/large", "")).await;
    assert!(large.len() > LARGE, "{}", large.len());
}

#[tokio::test]
async fn who_waits_for_long_is_tried_with_an_interim_response() {
    for edge in [Edge::plain(), Edge::tls()] {
        for (version, expected) in [("1.1", &[100, 200][..]), ("1.0", &[200])] {
            let sent = format!("GET /hang HTTP/{version}\r\nHost: localhost\r\n\r\n");
            let releasing = async {
                eventually("the request hangs", || edge.probe.hanging() == 1).await;
                for_a_while(LATER).await;
                assert_eq!(edge.probe.hanging(), 1, "it was not given up");
                edge.probe.release();
            };
            let reading = async {
                if edge.is_tls() {
                    half_close(edge.connect_tls(&["http/1.1"]).await, sent.as_bytes()).await
                } else {
                    half_close(edge.connect().await, sent.as_bytes()).await
                }
            };
            let (read, ()) = tokio::join!(reading, releasing);
            let answers = Answer::parse_all(&read);
            assert_eq!(Answer::statuses(&answers), expected);
            assert_eq!(answers.last().unwrap().body, b"released");
        }
    }
}

#[tokio::test]
async fn who_has_left_is_not_worked_for_however_it_left() {
    for edge in [Edge::plain(), Edge::tls()] {
        for says_so in [false, true] {
            let start = Instant::now();
            if edge.is_tls() {
                let mut stream = edge.connect_tls(&["http/1.1"]).await;
                leave(&edge, &mut stream, says_so).await;
            } else {
                leave(&edge, &mut edge.connect().await, says_so).await;
            }
            eventually("the request is dropped", || edge.probe.hanging() == 0).await;
            eventually("the connection is over", || edge.running.connections() == 0).await;
            assert!(start.elapsed() < LONG / 3, "{:?}", start.elapsed());
        }
    }
}

/// Asks, and ends its sending side or does not; the caller drops it.
async fn leave<IO: AsyncRead + AsyncWrite + Unpin>(edge: &Edge, stream: &mut IO, says_so: bool) {
    stream.write_all(&get("/hang", "")).await.unwrap();
    stream.flush().await.unwrap();
    eventually("the request hangs", || edge.probe.hanging() == 1).await;
    if says_so {
        stream.shutdown().await.unwrap();
    }
}

/// Has the system throw away what comes for the socket: it acknowledges nothing any more, as if its machine were gone.
fn vanish(socket: &impl AsFd) {
    // BPF_RET, of no bytes (linux/filter.h).
    SockRef::from(socket).attach_filter(&[SockFilter::new(0x06, 0, 0, 0)]).unwrap();
}

/// What is answered at once, and what is still worked for when the client no longer is.
fn answered_and_hanging() -> Vec<u8> {
    [get("/", ""), get("/hang", "")].concat()
}

/// The request that hangs is dropped, and so is the connection.
async fn assert_is_noticed(edge: &Edge) {
    eventually("both requests came", || edge.paths().len() == 2).await;
    let start = Instant::now();
    eventually("the request is dropped", || edge.probe.hanging() == 0).await;
    eventually("the connection is over", || edge.running.connections() == 0).await;
    assert!(start.elapsed() < BODY_IDLE * 10, "{:?}", start.elapsed());
    assert_eq!(held(edge.address().port()), (0, 0), "the system holds nothing");
}

#[tokio::test]
async fn who_vanishes_before_it_has_an_answer_is_not_worked_for() {
    let edge = Edge::plain();
    let mut client = edge.connect().await;
    vanish(&client);
    client.write_all(&answered_and_hanging()).await.unwrap();
    assert_is_noticed(&edge).await;

    let edge = Edge::tls();
    let mut client = edge.connect_tls(&["http/1.1"]).await;
    vanish(client.get_ref().0);
    client.write_all(&answered_and_hanging()).await.unwrap();
    client.flush().await.unwrap();
    assert_is_noticed(&edge).await;
}

#[tokio::test]
async fn who_vanishes_over_http2_is_not_worked_for() {
    let edge = Edge::tls();
    let client = edge.connect().await.into_std().unwrap();
    let socket = client.try_clone().unwrap();
    let client = TcpStream::from_std(client).unwrap();
    let stream = edge.shake_hands(client, &["h2"]).await;
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let _connection = fjord::lifecycle::Tasks::new().spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    vanish(&socket);
    let _answers = ["https://localhost/", "https://localhost/hang"]
        .map(|target| sender.send_request(request(target), true).unwrap());
    assert_is_noticed(&edge).await;
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_is_not_worked_for() {
    let edge = Edge::plain();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(edge.address()).await.unwrap();
    let sent = [get("/medium", ""), get("/hang", "")].concat();
    client.write_all(&sent).await.unwrap();
    assert_is_noticed(&edge).await;
}

#[tokio::test]
async fn a_silent_client_is_probed() {
    let edge = Edge::plain();
    let _client = edge.connect().await;
    let port = format!(":{:04X}", edge.address().port());
    // The columns of proc(5): local address, remote address, state, queues, timer. 2 is that of keepalive.
    let is_probed = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        table.lines().any(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            columns[1].ends_with(&port) && columns[3] == "01" && columns[5].starts_with("02:")
        })
    };
    eventually("it is probed", is_probed).await;
}
