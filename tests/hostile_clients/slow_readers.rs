//! A client that reads 8 KiB per `body_idle_timeout` gets its whole response. A slower client is
//! disconnected.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, Interval, interval, timeout};

use super::http2::request;
use super::stalled_clients::unsent_data;
use super::test_listener::{Options, RawResponse, SLOW, TestListener, eventually, get};

/// The `body_idle_timeout`, within which a client must read 8 KiB.
const LIMIT: Duration = Duration::from_secs(1);
/// 1.5 times the required bytes per `LIMIT`.
const JUST_ENOUGH: u32 = 12 * 1024;
/// Twice the required bytes per `LIMIT`.
const ENOUGH: u32 = 16 * 1024;
/// Half the required bytes per `LIMIT`.
const TOO_LITTLE: u32 = 4 * 1024;
/// The bytes per `LIMIT` at which a large response takes seconds, and a write takes longer than the
/// head timeout.
const FAST: u32 = 64 * 1024;
const READ_BYTES: u32 = 1024;
/// The number of bytes that are read without delay: the handshake and the start of the response.
const UNDELAYED_BYTES: usize = 8 * 1024;
/// The time limit of a test. The slowest test takes half of it.
const VERY_LONG: Duration = Duration::from_mins(1);

/// A connection that has a small receive buffer and is read slowly.
#[derive(Debug)]
struct SlowStream {
    io: TcpStream,
    ticks: Interval,
    at_once: usize,
    /// Whether the timer has ticked since the last read.
    may_read: bool,
}

impl SlowStream {
    async fn connect(listener: &TestListener, bytes_per_limit: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let io = socket.connect(listener.address()).await.unwrap();
        let ticks = interval(LIMIT * READ_BYTES / bytes_per_limit);
        Self { io, ticks, at_once: UNDELAYED_BYTES, may_read: false }
    }
}

impl AsyncRead for SlowStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.at_once == 0 && !self.may_read {
            ready!(self.ticks.poll_tick(context));
            self.may_read = true;
        }
        let mut space = [0; READ_BYTES as usize];
        let most = space.len().min(buffer.remaining());
        let mut chunk = ReadBuf::new(&mut space[..most]);
        ready!(Pin::new(&mut self.io).poll_read(context, &mut chunk))?;
        self.may_read = false;
        self.at_once = self.at_once.saturating_sub(chunk.filled().len());
        buffer.put_slice(chunk.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SlowStream {
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

fn listener(tls: bool) -> TestListener {
    TestListener::start(&Options { tls, body_idle_timeout: LIMIT, ..Options::default() })
}

/// Reads until the connection is closed or `most` bytes have been read. Returns the number of bytes.
async fn read(client: &mut SlowStream, most: usize) -> usize {
    let mut bytes = Vec::new();
    let mut some = client.take(most as u64);
    // A reset also ends the connection.
    drop(timeout(VERY_LONG, some.read_to_end(&mut bytes)).await.expect("the connection ends"));
    bytes.len()
}

#[tokio::test]
async fn a_slow_reader_gets_all_of_a_large_answer() {
    let listener = listener(false);
    let mut client = SlowStream::connect(&listener, ENOUGH).await;
    client.write_all(&get("/slow", "")).await.unwrap();
    let count = read(&mut client, SLOW).await;
    assert!(count >= SLOW, "{count} of {SLOW} bytes");
}

#[tokio::test]
async fn a_slow_reader_that_pipelines_a_request_gets_both_responses() {
    for tls in [false, true] {
        let listener = listener(tls);
        let client = SlowStream::connect(&listener, FAST).await;
        let answers = if tls {
            pipeline(listener.handshake(client, &["http/1.1"]).await).await
        } else {
            pipeline(client).await
        };
        let lengths: Vec<usize> = answers.iter().map(|answer| answer.body.len()).collect();
        assert_eq!(RawResponse::statuses(&answers), [200, 200], "TLS: {tls}; {lengths:?} bytes");
        assert_eq!(lengths, [SLOW, 0]);
    }
}

/// Sends a second request once the first response has begun, and reads both responses.
async fn pipeline<IO: AsyncRead + AsyncWrite + Unpin>(mut client: IO) -> Vec<RawResponse> {
    client.write_all(&get("/slow", "")).await.unwrap();
    client.flush().await.unwrap();
    let mut bytes = vec![0; UNDELAYED_BYTES / 2];
    client.read_exact(&mut bytes).await.unwrap();
    client.write_all(&get("/next", "Connection: close\r\n")).await.unwrap();
    client.flush().await.unwrap();
    // A reset also ends the connection.
    drop(timeout(VERY_LONG, client.read_to_end(&mut bytes)).await.expect("the connection ends"));
    RawResponse::parse_all(&bytes)
}

#[tokio::test]
async fn the_request_of_a_slow_reader_is_not_dropped() {
    let listener = listener(false);
    let mut client = SlowStream::connect(&listener, ENOUGH).await;
    let requests = [get("/medium", ""), get("/hang", "Connection: close\r\n")].concat();
    client.write_all(&requests).await.unwrap();
    let started = Instant::now();
    let mut bytes = vec![0; 60 * 1024];
    client.read_exact(&mut bytes).await.expect("the connection stays open");
    assert!(started.elapsed() > LIMIT * 3, "the client read too fast: {:?}", started.elapsed());
    listener.probe.release();
    client.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes.ends_with(b"released"));
}

#[tokio::test]
async fn a_slow_reader_gets_all_of_a_large_answer_over_http2() {
    let listener = listener(true);
    // At this rate, the client would acknowledge a PING too late.
    let client = SlowStream::connect(&listener, JUST_ENOUGH).await;
    let stream = listener.handshake(client, &["h2"]).await;
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
    assert_eq!(timeout(VERY_LONG, reading).await.expect("the connection ends"), SLOW);
}

#[tokio::test]
async fn a_reader_slower_than_the_limit_is_disconnected() {
    let listener = listener(false);
    let mut client = SlowStream::connect(&listener, TOO_LITTLE).await;
    client.write_all(&get("/slow", "")).await.unwrap();
    let started = Instant::now();
    let count = read(&mut client, SLOW).await;
    assert!(count < SLOW / 4, "{count} of {SLOW} bytes");
    assert!(started.elapsed() < LIMIT * 8, "{:?}", started.elapsed());
    eventually("the connection is closed and its send buffer empty", || {
        listener.running.connections() == 0 && unsent_data(listener.address().port()) == (0, 0)
    })
    .await;
}

#[tokio::test]
async fn a_slow_reader_counts_until_it_has_read_everything() {
    let listener = listener(false);
    let port = listener.address().port();
    let mut client = SlowStream::connect(&listener, ENOUGH).await;
    client.write_all(&get("/medium", "Connection: close\r\n")).await.unwrap();
    eventually("the response is written", || unsent_data(port).0 == 1).await;
    let watching = async {
        let mut ticks = interval(LIMIT / 20);
        loop {
            ticks.tick().await;
            // The number of connections is read first, because a connection that no longer counts
            // must not have left data in its send buffer.
            let (connections, unsent_data) = (listener.running.connections(), unsent_data(port));
            assert!(
                connections == 1 || unsent_data == (0, 0),
                "{unsent_data:?} unsent after the connection was closed"
            );
        }
    };
    let started = Instant::now();
    let count = tokio::select! {
        count = read(&mut client, usize::MAX) => count,
        () = watching => 0,
    };
    assert!(count > 64 * 1024, "{count} bytes");
    assert!(started.elapsed() > LIMIT * 3, "the client read too fast: {:?}", started.elapsed());
    drop(client);
    eventually("the connection is closed", || listener.running.connections() == 0).await;
}

#[tokio::test]
async fn a_slow_reader_that_stops_is_reset() {
    let listener = listener(false);
    let port = listener.address().port();
    let mut client = SlowStream::connect(&listener, ENOUGH).await;
    client.write_all(&get("/medium", "Connection: close\r\n")).await.unwrap();
    assert_eq!(read(&mut client, 32 * 1024).await, 32 * 1024, "the response arrives");
    eventually("the connection is closed", || listener.running.connections() == 0).await;
    assert_eq!(unsent_data(port), (0, 0), "no data is left in the send buffer");
    let mut rest = Vec::new();
    client.at_once = usize::MAX;
    let error = timeout(VERY_LONG, client.read_to_end(&mut rest)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
