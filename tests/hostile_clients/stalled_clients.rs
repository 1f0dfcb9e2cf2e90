//! After a client that reads nothing is disconnected, none of its data is left in a send buffer.

use std::fs;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use super::test_listener::{LONG, Options, TestListener, eventually, get, read_to_close};

const CLIENTS: usize = 40;

/// Returns the number of connections on `port` that have unsent or unacknowledged data, and the
/// number of bytes of that data (/proc/net/tcp, see proc(5)).
pub(super) fn unsent_data(port: u16) -> (usize, u64) {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let mut found = (0, 0);
    for line in table.lines().skip(1) {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let local = columns[1].rsplit_once(':').unwrap().1;
        let unsent = u64::from_str_radix(columns[4].split_once(':').unwrap().0, 16).unwrap();
        // Every state counts except LISTEN (0A), where the column counts connections.
        if u16::from_str_radix(local, 16) == Ok(port) && unsent > 0 && columns[3] != "0A" {
            found = (found.0 + 1, found.1 + unsent);
        }
    }
    found
}

async fn connect(listener: &TestListener) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(listener.address()).await.unwrap()
}

#[tokio::test]
async fn disconnected_clients_leave_no_data_in_send_buffers() {
    // This is long enough for all clients to have unsent data at the same time.
    let body_idle_timeout = Duration::from_secs(3);
    let connections_per_client_max = CLIENTS;
    let options = Options { connections_per_client_max, body_idle_timeout, ..Options::default() };
    let listener = TestListener::start(&options);
    let port = listener.address().port();
    for half_closes in [false, true] {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = connect(&listener).await;
            client.write_all(&get("/large", "")).await.unwrap();
            if half_closes {
                client.shutdown().await.unwrap();
            }
            clients.push(client);
        }
        eventually("all connections have unsent data", || unsent_data(port).0 == CLIENTS).await;
        let (_, unsent) = unsent_data(port);
        // TCP_NOTSENT_LOWAT limits the unsent data to a socket buffer and one or two segments.
        assert!(unsent < CLIENTS as u64 * 512 * 1024, "{unsent} bytes");
        let mut refused = listener.connect().await;
        assert!(read_to_close(&mut refused).await.is_empty(), "the connection limit is reached");
        eventually("all connections are closed", || listener.running.connections() == 0).await;
        assert_eq!(unsent_data(port), (0, 0), "closed connections leave no data");
        drop(clients);
    }
    listener.assert_serves().await;
}

#[tokio::test]
async fn a_connection_counts_toward_the_limit_while_its_send_buffer_has_data() {
    for half_closes in [false, true] {
        let listener =
            TestListener::start(&Options { connections_per_client_max: 1, ..Options::default() });
        let port = listener.address().port();
        let mut client = connect(&listener).await;
        // The response fits into the send buffer but exceeds the client's receive buffer.
        client.write_all(&get("/medium", "Connection: close\r\n")).await.unwrap();
        eventually("the response is written", || unsent_data(port).0 == 1).await;
        if half_closes {
            client.shutdown().await.unwrap();
        }
        let mut second = listener.connect().await;
        assert!(read_to_close(&mut second).await.is_empty(), "the connection limit is reached");
        // The number of connections is read first, because a connection that no longer counts must
        // not have left data in its send buffer.
        eventually("the connection is closed", || {
            let (connections, unsent_data) = (listener.running.connections(), unsent_data(port));
            assert!(
                connections == 1 || unsent_data == (0, 0),
                "{unsent_data:?} unsent after the connection was closed"
            );
            connections == 0
        })
        .await;
        listener.assert_serves().await;
    }
}

#[tokio::test]
async fn a_tls_connection_counts_toward_the_limit_while_its_send_buffer_has_data() {
    for sends_close_notify in [true, false] {
        let listener = TestListener::start(&Options {
            tls: true,
            connections_per_client_max: 1,
            ..Options::default()
        });
        let port = listener.address().port();
        let mut client = listener.handshake(connect(&listener).await, &["http/1.1"]).await;
        client.write_all(&get("/medium", "Connection: close\r\n")).await.unwrap();
        eventually("the response is written", || unsent_data(port).0 == 1).await;
        if sends_close_notify {
            client.shutdown().await.unwrap();
        } else {
            client.get_mut().0.shutdown().await.unwrap();
        }
        eventually("the connection is closed", || {
            // The number of connections is read first, as above.
            let (connections, unsent_data) = (listener.running.connections(), unsent_data(port));
            assert!(
                connections == 1 || unsent_data == (0, 0),
                "{unsent_data:?} unsent after the connection was closed"
            );
            connections == 0
        })
        .await;
    }
}

#[tokio::test]
async fn a_client_that_reads_its_response_and_leaves_no_longer_counts() {
    let body_idle_timeout = LONG;
    let listener = TestListener::start(&Options { body_idle_timeout, ..Options::default() });
    let started = Instant::now();
    for half_closes in [false, true] {
        let mut client = listener.connect().await;
        client.write_all(&get("/medium", "Connection: close\r\n")).await.unwrap();
        if half_closes {
            // Like `nc -N`, the client closes its sending side.
            client.shutdown().await.unwrap();
        }
        assert!(read_to_close(&mut client).await.len() > 64 * 1024);
        drop(client);
        eventually("the connection is closed", || listener.running.connections() == 0).await;
    }
    assert!(started.elapsed() < LONG / 2, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_response_can_be_read_after_the_connection_was_closed() {
    let listener = TestListener::plain();
    let mut client = listener.connect().await;
    client.write_all(&get("/peer", "Connection: close\r\n")).await.unwrap();
    eventually("the connection is closed", || {
        listener.paths().len() == 1 && listener.running.connections() == 0
    })
    .await;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("no reset");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
