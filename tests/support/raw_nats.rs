//! A NATS client that uses no client library. As a worker, it can send arbitrary messages at full
//! speed.

use std::fmt::Write as _;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A connection to a NATS server without TLS.
#[derive(Debug)]
pub(crate) struct RawNatsClient {
    stream: BufReader<TcpStream>,
}

/// A received message.
#[derive(Debug)]
pub(crate) struct RawNatsMessage {
    /// The reply subject, or an empty string if there is none.
    pub(crate) reply: String,
}

impl RawNatsClient {
    /// Connects and joins a queue group.
    pub(crate) async fn join(server: SocketAddr, subject: &str, group: &str) -> Self {
        let stream = TcpStream::connect(server).await.expect("the server listens");
        let mut client = Self { stream: BufReader::new(stream) };
        let connect = "CONNECT {\"headers\":true,\"verbose\":false}\r\n";
        client.write(format!("{connect}SUB {subject} {group} 1\r\nPING\r\n").as_bytes()).await;
        while client.line().await != "PONG" {}
        client
    }

    /// Waits for the next message.
    pub(crate) async fn next(&mut self) -> RawNatsMessage {
        loop {
            let line = self.line().await;
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["PING"] => self.write(b"PONG\r\n").await,
                ["PONG" | "+OK"] | ["INFO", ..] => {}
                // The fields are the subject, the subscription id, the reply subject, the number of
                // header bytes, and the total number of bytes.
                ["HMSG", _, _, reply, _, bytes] | ["MSG", _, _, reply, bytes] => {
                    return self.message(reply, bytes).await;
                }
                ["HMSG", _, _, _, bytes] | ["MSG", _, _, bytes] => {
                    return self.message("", bytes).await;
                }
                _ => panic!("{line}"),
            }
        }
    }

    async fn message(&mut self, reply: &str, bytes: &str) -> RawNatsMessage {
        let bytes: usize = bytes.parse().expect("the size is a number");
        let mut payload = vec![0; bytes + 2];
        self.stream.read_exact(&mut payload).await.expect("the message can be read");
        RawNatsMessage { reply: reply.to_owned() }
    }

    /// Publishes a message.
    pub(crate) async fn publish(&mut self, to: &str, headers: &[(&str, &str)], payload: &[u8]) {
        self.publish_from(to, "", headers, payload).await;
    }

    /// Publishes a message with a reply subject.
    pub(crate) async fn publish_from(
        &mut self,
        to: &str,
        reply: &str,
        headers: &[(&str, &str)],
        payload: &[u8],
    ) {
        let mut head = "NATS/1.0\r\n".to_owned();
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").expect("writing to a String cannot fail");
        }
        head.push_str("\r\n");
        let (before, all) = (head.len(), head.len() + payload.len());
        let line = format!("HPUB {to} {reply} {before} {all}\r\n{head}");
        self.write(&[line.as_bytes(), payload, b"\r\n"].concat()).await;
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let count = self.stream.read_line(&mut line).await.expect("the line can be read");
        assert!(count > 0, "the server has closed the connection");
        line.trim_end().to_owned()
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the server accepts the bytes");
    }
}
