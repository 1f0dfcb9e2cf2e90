//! A client that closes only its sending side gets its response. The requests of a client that has
//! disconnected are dropped.

use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockFilter, SockRef};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::support::eventually::for_a_while;

use super::http2::request;
use super::stalled_clients::unsent_data;
use super::test_listener::{
    BODY_IDLE, LARGE, LONG, RawResponse, TestListener, eventually, get, read_to_close,
};

/// A delay that is longer than the time for which the gateway waits for a response before it checks that the client
/// is still connected.
const PROBE_DELAY: Duration = Duration::from_millis(800);

/// Sends a request, closes the sending side, and reads until the gateway closes the connection.
async fn half_close<IO: AsyncRead + AsyncWrite + Unpin>(mut stream: IO, sent: &[u8]) -> Vec<u8> {
    stream.write_all(sent).await.unwrap();
    stream.shutdown().await.unwrap();
    read_to_close(&mut stream).await
}

#[tokio::test]
async fn a_client_that_half_closes_gets_its_response() {
    let (plain, tls) = (TestListener::plain(), TestListener::tls());
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
        // An incomplete body is invalid.
        (format!("{}Content-Length: 5\r\n\r\nhell", head("POST /")).into_bytes(), &[400]),
        (format!("{}Content-Le", head("POST /")).into_bytes(), &[]),
    ] {
        let text = String::from_utf8_lossy(&sent).into_owned();
        for read in [
            half_close(plain.connect().await, &sent).await,
            half_close(tls.connect_tls(&["http/1.1"]).await, &sent).await,
        ] {
            let statuses = RawResponse::statuses(&RawResponse::parse_all(&read));
            assert_eq!(statuses, expected, "{text:?}");
        }
    }
    let large = half_close(plain.connect().await, &get("/large", "")).await;
    assert!(large.len() > LARGE, "{}", large.len());
}

#[tokio::test]
async fn a_half_closed_client_that_waits_long_gets_an_interim_response() {
    for listener in [TestListener::plain(), TestListener::tls()] {
        for (version, expected) in [("1.1", &[100, 200][..]), ("1.0", &[200])] {
            let sent = format!("GET /hang HTTP/{version}\r\nHost: localhost\r\n\r\n");
            let releasing = async {
                eventually("the request hangs", || listener.probe.hanging() == 1).await;
                for_a_while(PROBE_DELAY).await;
                assert_eq!(listener.probe.hanging(), 1, "the request was not dropped");
                listener.probe.release();
            };
            let reading = async {
                if listener.is_tls() {
                    half_close(listener.connect_tls(&["http/1.1"]).await, sent.as_bytes()).await
                } else {
                    half_close(listener.connect().await, sent.as_bytes()).await
                }
            };
            let (read, ()) = tokio::join!(reading, releasing);
            let answers = RawResponse::parse_all(&read);
            assert_eq!(RawResponse::statuses(&answers), expected);
            assert_eq!(answers.last().unwrap().body, b"released");
        }
    }
}

#[tokio::test]
async fn the_request_of_a_client_that_has_gone_is_dropped() {
    for listener in [TestListener::plain(), TestListener::tls()] {
        for half_closes in [false, true] {
            let start = Instant::now();
            if listener.is_tls() {
                let mut stream = listener.connect_tls(&["http/1.1"]).await;
                leave(&listener, &mut stream, half_closes).await;
            } else {
                leave(&listener, &mut listener.connect().await, half_closes).await;
            }
            eventually("the request is dropped", || listener.probe.hanging() == 0).await;
            eventually("the connection is closed", || listener.running.connections() == 0).await;
            assert!(start.elapsed() < LONG / 3, "{:?}", start.elapsed());
        }
    }
}

/// Sends a request, and closes the sending side if `half_closes`. The caller then drops the stream.
async fn leave<IO: AsyncRead + AsyncWrite + Unpin>(
    listener: &TestListener,
    stream: &mut IO,
    half_closes: bool,
) {
    stream.write_all(&get("/hang", "")).await.unwrap();
    stream.flush().await.unwrap();
    eventually("the request hangs", || listener.probe.hanging() == 1).await;
    if half_closes {
        stream.shutdown().await.unwrap();
    }
}

/// Makes the socket drop every received packet. It therefore acknowledges nothing, as if its host were down.
fn drop_packets(socket: &impl AsFd) {
    // The filter program is BPF_RET with 0 bytes (linux/filter.h).
    SockRef::from(socket).attach_filter(&[SockFilter::new(0x06, 0, 0, 0)]).unwrap();
}

/// Returns a request that is answered immediately, followed by one that is never answered.
fn answered_and_hanging() -> Vec<u8> {
    [get("/", ""), get("/hang", "")].concat()
}

/// Asserts that the hanging request is dropped and the connection closed.
async fn assert_dropped(listener: &TestListener) {
    eventually("both requests arrived", || listener.paths().len() == 2).await;
    let start = Instant::now();
    eventually("the request is dropped", || listener.probe.hanging() == 0).await;
    eventually("the connection is closed", || listener.running.connections() == 0).await;
    assert!(start.elapsed() < BODY_IDLE * 10, "{:?}", start.elapsed());
    assert_eq!(
        unsent_data(listener.address().port()),
        (0, 0),
        "no data is left in the send buffer"
    );
}

#[tokio::test]
async fn the_request_of_a_client_that_acknowledges_nothing_is_dropped() {
    let listener = TestListener::plain();
    let mut client = listener.connect().await;
    drop_packets(&client);
    client.write_all(&answered_and_hanging()).await.unwrap();
    assert_dropped(&listener).await;

    let listener = TestListener::tls();
    let mut client = listener.connect_tls(&["http/1.1"]).await;
    drop_packets(client.get_ref().0);
    client.write_all(&answered_and_hanging()).await.unwrap();
    client.flush().await.unwrap();
    assert_dropped(&listener).await;
}

#[tokio::test]
async fn the_request_of_an_http2_client_that_acknowledges_nothing_is_dropped() {
    let listener = TestListener::tls();
    let client = listener.connect().await.into_std().unwrap();
    let socket = client.try_clone().unwrap();
    let client = TcpStream::from_std(client).unwrap();
    let stream = listener.handshake(client, &["h2"]).await;
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let _connection = fjord::lifecycle::Tasks::new().spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    drop_packets(&socket);
    let _answers = ["https://localhost/", "https://localhost/hang"]
        .map(|target| sender.send_request(request(target), true).unwrap());
    assert_dropped(&listener).await;
}

#[tokio::test]
async fn the_request_of_a_client_that_reads_nothing_is_dropped() {
    let listener = TestListener::plain();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(listener.address()).await.unwrap();
    let sent = [get("/medium", ""), get("/hang", "")].concat();
    client.write_all(&sent).await.unwrap();
    assert_dropped(&listener).await;
}

#[tokio::test]
async fn a_silent_client_is_probed() {
    let listener = TestListener::plain();
    let _client = listener.connect().await;
    let port = format!(":{:04X}", listener.address().port());
    // Columns 1 to 5 are the local address, remote address, state, queues and timer (proc(5)). Timer 2 is keepalive.
    let is_probed = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        table.lines().any(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            columns[1].ends_with(&port) && columns[3] == "01" && columns[5].starts_with("02:")
        })
    };
    eventually("the keepalive timer runs", is_probed).await;
}
