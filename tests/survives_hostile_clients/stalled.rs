//! Clients that take nothing: when they are given up, the system holds nothing of them either.

use std::fs;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use super::edge::{Edge, LONG, Options, eventually, get, read_to_close};

const CLIENTS: usize = 40;

/// What the system holds of answers for the clients of this port, and of how many (proc(5), /proc/net/tcp).
pub(super) fn held(port: u16) -> (usize, u64) {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let mut found = (0, 0);
    for line in table.lines().skip(1) {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let local = columns[1].rsplit_once(':').unwrap().1;
        let unsent = u64::from_str_radix(columns[4].split_once(':').unwrap().0, 16).unwrap();
        // Whatever its state: one that listens holds nothing.
        if u16::from_str_radix(local, 16) == Ok(port) && unsent > 0 && columns[3] != "0A" {
            found = (found.0 + 1, found.1 + unsent);
        }
    }
    found
}

async fn connect(edge: &Edge) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(edge.address()).await.unwrap()
}

#[tokio::test]
async fn nothing_is_left_of_clients_that_take_nothing() {
    // Long enough for all of them to be served first.
    let body_idle_timeout = Duration::from_secs(3);
    let connections_per_client_max = CLIENTS;
    let options = Options { connections_per_client_max, body_idle_timeout, ..Options::default() };
    let edge = Edge::start(&options);
    let port = edge.address().port();
    for says_so in [false, true] {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = connect(&edge).await;
            client.write_all(&get("/large", "")).await.unwrap();
            if says_so {
                client.shutdown().await.unwrap();
            }
            clients.push(client);
        }
        eventually("all are served", || held(port).0 == CLIENTS).await;
        let (_, unsent) = held(port);
        // More than a socket holds by itself goes nowhere (TCP_NOTSENT_LOWAT), a segment or two apart.
        assert!(unsent < CLIENTS as u64 * 512 * 1024, "{unsent} bytes");
        let mut refused = edge.connect().await;
        assert!(read_to_close(&mut refused).await.is_empty(), "all places are taken");
        eventually("all are given up", || edge.running.connections() == 0).await;
        assert_eq!(held(port), (0, 0), "their places are free, so the system holds nothing");
        drop(clients);
    }
    edge.assert_serves().await;
}

#[tokio::test]
async fn a_place_is_kept_for_as_long_as_the_system_holds_an_answer() {
    for says_so in [false, true] {
        let edge = Edge::start(&Options { connections_per_client_max: 1, ..Options::default() });
        let port = edge.address().port();
        let mut client = connect(&edge).await;
        // All of it fits into what the system takes, and none of it into what the client does.
        client.write_all(&get("/medium", "Connection: close\r\n")).await.unwrap();
        eventually("it is written", || held(port).0 == 1).await;
        if says_so {
            client.shutdown().await.unwrap();
        }
        let mut second = edge.connect().await;
        assert!(read_to_close(&mut second).await.is_empty(), "the place is taken");
        // Looked at in this order: what the system holds of a place that was free before is not ours.
        eventually("it is given up", || {
            let (connections, held) = (edge.running.connections(), held(port));
            assert!(connections == 1 || held == (0, 0), "{held:?} without a place");
            connections == 0
        })
        .await;
        edge.assert_serves().await;
    }
}

#[tokio::test]
async fn a_place_is_kept_over_tls_however_its_client_ends_its_side() {
    for says_goodbye in [true, false] {
        let edge = Edge::start(&Options {
            tls: true,
            connections_per_client_max: 1,
            ..Options::default()
        });
        let port = edge.address().port();
        let mut client = edge.shake_hands(connect(&edge).await, &["http/1.1"]).await;
        client.write_all(&get("/medium", "Connection: close\r\n")).await.unwrap();
        eventually("it is written", || held(port).0 == 1).await;
        if says_goodbye {
            client.shutdown().await.unwrap();
        } else {
            client.get_mut().0.shutdown().await.unwrap();
        }
        eventually("it is given up", || {
            // In this order, as above.
            let (connections, held) = (edge.running.connections(), held(port));
            assert!(connections == 1 || held == (0, 0), "{held:?} without a place");
            connections == 0
        })
        .await;
    }
}

#[tokio::test]
async fn who_takes_its_answer_and_leaves_has_its_place_back_at_once() {
    let body_idle_timeout = LONG;
    let edge = Edge::start(&Options { body_idle_timeout, ..Options::default() });
    let started = Instant::now();
    for is_first in [false, true] {
        let mut client = edge.connect().await;
        client.write_all(&get("/medium", "Connection: close\r\n")).await.unwrap();
        if is_first {
            // As `nc -N` does.
            client.shutdown().await.unwrap();
        }
        assert!(read_to_close(&mut client).await.len() > 64 * 1024);
        drop(client);
        eventually("it is over", || edge.running.connections() == 0).await;
    }
    assert!(started.elapsed() < LONG / 2, "{:?}", started.elapsed());
}

#[tokio::test]
async fn who_reads_late_still_gets_its_answer() {
    let edge = Edge::plain();
    let mut client = edge.connect().await;
    client.write_all(&get("/peer", "Connection: close\r\n")).await.unwrap();
    eventually("the connection is over", || {
        edge.paths().len() == 1 && edge.running.connections() == 0
    })
    .await;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("no reset");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
