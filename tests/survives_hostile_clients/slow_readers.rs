//! Clients that read slowly: who takes 8 KiB in each `body_idle_timeout` gets everything, who takes less is ended.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, Interval, interval, timeout};

use super::edge::{Answer, Edge, Options, SLOW, eventually, get};
use super::http2::request;
use super::stalled::held;

/// In which a client has to take 8 KiB.
const LIMIT: Duration = Duration::from_secs(1);
/// What it takes in that time: a bit more than it has to, twice as much, or half of it.
const JUST_ENOUGH: u32 = 12 * 1024;
const ENOUGH: u32 = 16 * 1024;
const TOO_LITTLE: u32 = 4 * 1024;
/// Enough for a large answer in some seconds, and so little that a write waits for longer than a head may take.
const PLENTY: u32 = 64 * 1024;
/// One read.
const PIECE: u32 = 1024;
/// What is read as fast as it comes: a handshake, and the beginning.
const AT_ONCE: usize = 8 * 1024;
/// The longest of these tests takes half of this.
const VERY_LONG: Duration = Duration::from_mins(1);

/// A connection that is read slowly, and of which the client's system holds next to nothing.
#[derive(Debug)]
struct Slow {
    io: TcpStream,
    ticks: Interval,
    at_once: usize,
    /// Whether a tick came for which nothing was there yet.
    may_read: bool,
}

impl Slow {
    async fn connect(edge: &Edge, bytes_per_limit: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let io = socket.connect(edge.address()).await.unwrap();
        let ticks = interval(LIMIT * PIECE / bytes_per_limit);
        Self { io, ticks, at_once: AT_ONCE, may_read: false }
    }
}

impl AsyncRead for Slow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.at_once == 0 && !self.may_read {
            ready!(self.ticks.poll_tick(context));
            self.may_read = true;
        }
        let mut space = [0; PIECE as usize];
        let most = space.len().min(buffer.remaining());
        let mut piece = ReadBuf::new(&mut space[..most]);
        ready!(Pin::new(&mut self.io).poll_read(context, &mut piece))?;
        self.may_read = false;
        self.at_once = self.at_once.saturating_sub(piece.filled().len());
        buffer.put_slice(piece.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Slow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

fn edge(tls: bool) -> Edge {
    Edge::start(&Options { tls, body_idle_timeout: LIMIT, ..Options::default() })
}

/// How many bytes come, at most so many, until the connection is over.
async fn read(client: &mut Slow, most: usize) -> usize {
    let mut bytes = Vec::new();
    let mut some = client.take(most as u64);
    // A reset ends it too.
    drop(timeout(VERY_LONG, some.read_to_end(&mut bytes)).await.expect("it ends"));
    bytes.len()
}

#[tokio::test]
async fn a_slow_reader_gets_all_of_a_large_answer() {
    let edge = edge(false);
    let mut client = Slow::connect(&edge, ENOUGH).await;
    client.write_all(&get("/slow", "")).await.unwrap();
    let count = read(&mut client, SLOW).await;
    assert!(count >= SLOW, "{count} of {SLOW} bytes");
}

#[tokio::test]
async fn a_slow_reader_that_asks_on_meanwhile_gets_all_answers() {
    for tls in [false, true] {
        let edge = edge(tls);
        let client = Slow::connect(&edge, PLENTY).await;
        let answers = if tls {
            ask_on_meanwhile(edge.shake_hands(client, &["http/1.1"]).await).await
        } else {
            ask_on_meanwhile(client).await
        };
        let lengths: Vec<usize> = answers.iter().map(|answer| answer.body.len()).collect();
        assert_eq!(Answer::statuses(&answers), [200, 200], "TLS: {tls}; {lengths:?} bytes");
        assert_eq!(lengths, [SLOW, 0]);
    }
}

/// Asks, and asks again once the first answer has begun; all answers.
async fn ask_on_meanwhile<IO: AsyncRead + AsyncWrite + Unpin>(mut client: IO) -> Vec<Answer> {
    client.write_all(&get("/slow", "")).await.unwrap();
    client.flush().await.unwrap();
    let mut bytes = vec![0; AT_ONCE / 2];
    client.read_exact(&mut bytes).await.unwrap();
    client.write_all(&get("/next", "Connection: close\r\n")).await.unwrap();
    client.flush().await.unwrap();
    // A reset ends it too.
    drop(timeout(VERY_LONG, client.read_to_end(&mut bytes)).await.expect("it ends"));
    Answer::parse_all(&bytes)
}

#[tokio::test]
async fn a_slow_reader_is_worked_for() {
    let edge = edge(false);
    let mut client = Slow::connect(&edge, ENOUGH).await;
    let asked = [get("/medium", ""), get("/hang", "Connection: close\r\n")].concat();
    client.write_all(&asked).await.unwrap();
    let started = Instant::now();
    let mut bytes = vec![0; 60 * 1024];
    client.read_exact(&mut bytes).await.expect("it is not given up");
    assert!(started.elapsed() > LIMIT * 3, "it was no slow reader: {:?}", started.elapsed());
    edge.probe.release();
    client.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes.ends_with(b"released"));
}

#[tokio::test]
async fn a_slow_reader_gets_all_of_a_large_answer_over_http2() {
    let edge = edge(true);
    // So slowly that a PING would be answered too late.
    let client = Slow::connect(&edge, JUST_ENOUGH).await;
    let stream = edge.shake_hands(client, &["h2"]).await;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 20);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
    let _connection = fjord::lifecycle::Tasks::new().spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let (answer, _) = sender.send_request(request("https://localhost/slow"), true).unwrap();
    let reading = async {
        let mut body = answer.await.unwrap().into_body();
        let mut count = 0;
        while let Some(Ok(bytes)) = body.data().await {
            count += bytes.len();
        }
        count
    };
    assert_eq!(timeout(VERY_LONG, reading).await.expect("it ends"), SLOW);
}

#[tokio::test]
async fn who_reads_less_than_the_bound_is_ended() {
    let edge = edge(false);
    let mut client = Slow::connect(&edge, TOO_LITTLE).await;
    client.write_all(&get("/slow", "")).await.unwrap();
    let started = Instant::now();
    let count = read(&mut client, SLOW).await;
    assert!(count < SLOW / 4, "{count} of {SLOW} bytes");
    assert!(started.elapsed() < LIMIT * 8, "{:?}", started.elapsed());
    eventually("nothing is left of it", || {
        edge.running.connections() == 0 && held(edge.address().port()) == (0, 0)
    })
    .await;
}

#[tokio::test]
async fn a_slow_reader_keeps_its_place_until_it_has_everything() {
    let edge = edge(false);
    let port = edge.address().port();
    let mut client = Slow::connect(&edge, ENOUGH).await;
    client.write_all(&get("/medium", "Connection: close\r\n")).await.unwrap();
    eventually("it is written", || held(port).0 == 1).await;
    let watching = async {
        let mut ticks = interval(LIMIT / 20);
        loop {
            ticks.tick().await;
            // In this order: what the system holds of a place that was free before is not ours.
            let (connections, held) = (edge.running.connections(), held(port));
            assert!(connections == 1 || held == (0, 0), "{held:?} without a place");
        }
    };
    let started = Instant::now();
    let count = tokio::select! {
        count = read(&mut client, usize::MAX) => count,
        () = watching => 0,
    };
    assert!(count > 64 * 1024, "{count} bytes");
    assert!(started.elapsed() > LIMIT * 3, "it was no slow reader: {:?}", started.elapsed());
    drop(client);
    eventually("its place is free", || edge.running.connections() == 0).await;
}

#[tokio::test]
async fn a_slow_reader_that_stops_is_reset() {
    let edge = edge(false);
    let port = edge.address().port();
    let mut client = Slow::connect(&edge, ENOUGH).await;
    client.write_all(&get("/medium", "Connection: close\r\n")).await.unwrap();
    assert_eq!(read(&mut client, 32 * 1024).await, 32 * 1024, "it is served");
    eventually("it is given up", || edge.running.connections() == 0).await;
    assert_eq!(held(port), (0, 0), "the system holds nothing");
    let mut rest = Vec::new();
    client.at_once = usize::MAX;
    let error = timeout(VERY_LONG, client.read_to_end(&mut rest)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
