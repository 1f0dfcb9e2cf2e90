//! Clients that take nothing: when they are given up, the system holds nothing of them either.

use std::fs;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::edge::{Edge, Options, eventually, get, read_to_close};

/// What the system holds of answers for the clients of this port, and of how many (proc(5), /proc/net/tcp).
fn held(port: u16) -> (usize, u64) {
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
async fn a_place_is_kept_for_as_long_as_the_system_holds_an_answer() {
    let edge = Edge::start(&Options { connections_per_client_max: 1, ..Options::default() });
    let port = edge.address().port();
    let mut client = connect(&edge).await;
    // All of it fits into what the system takes, and none of it into what the client does.
    client.write_all(&get("/medium", "Connection: close\r\n")).await.unwrap();
    eventually("it is written", || held(port).0 == 1).await;
    let mut second = edge.connect().await;
    assert!(read_to_close(&mut second).await.is_empty(), "the place is taken");
    eventually("it is given up", || edge.running.connections() == 0).await;
    assert_eq!(held(port), (0, 0));
    edge.assert_serves().await;
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
