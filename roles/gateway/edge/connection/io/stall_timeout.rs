//! Adds write timeouts and a lingering close, which hyper lacks. A connection ends if its peer stops reading. A close
//! does not destroy the last response, and the kernel does not keep the unsent data of an abandoned connection.

use std::fmt;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::future::BoxFuture;
use crate::lifecycle::Cancel;

use super::super::activity::{ConnectionActivity, DELIVERED_BYTES_MIN};
use super::socket::HasTcpSocket;
use super::tcp_delivery::{DeliveryWatch, TcpDelivery};

/// The time for which a closed connection still reads data from its peer (nginx: `lingering_time`). Most clients read a
/// response only after they have sent their whole request.
pub(in super::super) const LINGER: Duration = Duration::from_secs(30);
/// The time for which a closed connection waits for its peer after the process has begun to stop. The kernel delivers
/// the remaining data.
pub(in super::super) const LINGER_AT_STOP: Duration = Duration::from_secs(1);
/// The number of bytes that the peer may still send after the connection was closed.
pub(in super::super) const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The minimum pause between two checks of whether the peer has received its response. The checks
/// begin when no more data is read from the peer.
const CHECK_PAUSE_MIN: Duration = Duration::from_millis(10);
/// The maximum pause between these checks.
const CHECK_PAUSE_MAX: Duration = Duration::from_millis(500);
/// The size of the buffer for discarded data.
const DISCARD_BYTES: usize = 8 * 1024;

/// A byte stream that lingers on close, and whose writes fail if the peer accepts too little within the stall limit.
#[derive(Debug)]
pub(in super::super) struct StallTimeout<IO: HasTcpSocket> {
    io: IO,
    stall_limit: Duration,
    /// The check that begins with the first write, restarts when a write blocks, and ends when the peer has acknowledged
    /// everything.
    watch: Option<DeliveryWatch>,
    /// Whether anything has been written since a check last found nothing pending.
    has_written: bool,
    linger: Option<Linger>,
    activity: Arc<ConnectionActivity>,
    /// Cancelled when the process stops.
    stop: Cancel,
    /// Whether the close was orderly. If so, the kernel may deliver the data that it still holds.
    is_closed_in_order: bool,
}

/// The state between closing our side and the end of the connection.
struct Linger {
    stopped: BoxFuture<'static, ()>,
    /// Checks whether the peer accepts enough data while the connection lingers.
    watch: DeliveryWatch,
    /// The reads from the peer, or `None` after they have ended.
    reads: Option<DiscardReads>,
    /// The next check of whether the peer has received everything, and the pause before it.
    next_check: Pin<Box<Sleep>>,
    pause: Duration,
}

/// Reads and discards, within limits, the data that a peer sends after we have closed our side.
#[derive(Debug)]
struct DiscardReads {
    end: Pin<Box<Sleep>>,
    bytes_left: usize,
    /// The number of bytes received since the last check.
    read_bytes: u64,
}

impl DiscardReads {
    fn new() -> Self {
        let end = Box::pin(tokio::time::sleep(LINGER));
        Self { end, bytes_left: LINGER_BYTES_MAX, read_bytes: 0 }
    }

    /// Discards the data that the peer sends, until the peer closes its side, or has sent data for too long or sent too
    /// much.
    fn poll<IO: AsyncRead + Unpin>(&mut self, io: &mut IO, context: &mut Context<'_>) -> Poll<()> {
        while self.bytes_left > 0 && self.end.as_mut().poll(context).is_pending() {
            let mut space = [0; DISCARD_BYTES];
            let mut discarded = ReadBuf::new(&mut space);
            let result = ready!(Pin::new(&mut *io).poll_read(context, &mut discarded));
            let count = discarded.filled().len();
            // Over TLS, an end without `close_notify` is an error.
            if result.is_err() || count == 0 {
                break;
            }
            self.bytes_left = self.bytes_left.saturating_sub(count);
            self.read_bytes += count as u64;
        }
        Poll::Ready(())
    }
}

impl Linger {
    fn new(stop: Cancel, stall_limit: Duration) -> Self {
        let stopped = Box::pin(async move {
            stop.cancelled().await;
            tokio::time::sleep(LINGER_AT_STOP).await;
        });
        let (watch, reads) = (DeliveryWatch::new(stall_limit), Some(DiscardReads::new()));
        let (pause, next_check) = (CHECK_PAUSE_MIN, Box::pin(tokio::time::sleep(CHECK_PAUSE_MIN)));
        Self { stopped, watch, reads, next_check, pause }
    }

    /// Waits until the peer has received everything or has stopped reading and sending. Returns whether the kernel may deliver
    /// the data that it still holds.
    fn poll<IO: AsyncRead + HasTcpSocket + Unpin>(
        &mut self,
        io: &mut IO,
        context: &mut Context<'_>,
    ) -> Poll<bool> {
        loop {
            if self.stopped.as_mut().poll(context).is_ready() {
                return Poll::Ready(true);
            }
            while let Poll::Ready(progress) = self.watch.poll(context, io) {
                let read_bytes = self.reads.as_mut().map(|reads| &mut reads.read_bytes);
                let is_sending =
                    read_bytes.is_some_and(|bytes| mem::take(bytes) >= DELIVERED_BYTES_MIN);
                if !progress.is_enough && !is_sending {
                    return Poll::Ready(!progress.is_pending);
                }
            }
            if let Some(reads) = &mut self.reads {
                ready!(reads.poll(io, context));
                self.reads = None;
            }
            if !TcpDelivery::query(io).is_pending {
                return Poll::Ready(true);
            }
            ready!(self.next_check.as_mut().poll(context));
            self.pause = (self.pause * 2).min(CHECK_PAUSE_MAX);
            self.next_check.as_mut().reset(Instant::now() + self.pause);
        }
    }
}

impl fmt::Debug for Linger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Linger").field("reads", &self.reads).finish_non_exhaustive()
    }
}

impl<IO: HasTcpSocket> StallTimeout<IO> {
    pub(in super::super) fn new(
        io: IO,
        stall_limit: Duration,
        activity: Arc<ConnectionActivity>,
        stop: Cancel,
    ) -> Self {
        // `StallTimeout` decides whether the peer accepts enough. The kernel's limit would also end connections to peers that
        // accept a little at a time.
        let result = io.socket().map(|socket| SockRef::from(socket).set_tcp_user_timeout(None));
        if let Some(Err(error)) = result {
            tracing::debug!(%error, "cannot set TCP_USER_TIMEOUT");
        }
        Self {
            io,
            stall_limit,
            watch: None,
            has_written: false,
            linger: None,
            activity,
            stop,
            is_closed_in_order: false,
        }
    }

    /// Returns the result of a write, or an error if the write is pending and the peer accepts too little.
    fn check_write<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.activity.record_write();
            self.has_written = true;
            return result;
        }
        if !self.activity.is_blocked() {
            self.activity.block();
            self.watch = None;
        }
        let limit = self.stall_limit;
        let watch = self.watch.get_or_insert_with(|| DeliveryWatch::new(limit));
        loop {
            let progress = ready!(watch.poll(context, &self.io));
            if !progress.is_enough {
                return Poll::Ready(Err(stalled()));
            }
            if progress.bytes > 0 {
                self.activity.record_write();
                self.activity.add_delivered(progress.bytes);
            }
        }
    }

    /// Checks once per stall limit whether the peer acknowledges any of the data that the kernel holds for it. While data is
    /// unacknowledged, the kernel sends no keepalive probes, so without this check a vanished peer would go unnoticed for a
    /// quarter of an hour.
    fn check_delivery(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.watch.is_none() && self.has_written {
            self.watch = Some(DeliveryWatch::new_unblocked(self.stall_limit));
        }
        while let Some(watch) = &mut self.watch {
            let Poll::Ready(progress) = watch.poll(context, &self.io) else { break };
            if progress.is_stuck {
                return Err(stalled());
            }
            if !progress.is_pending {
                self.watch = None;
                self.has_written = false;
            }
        }
        Ok(())
    }
}

/// Counts a peer that accepts too little, and returns the error.
fn stalled() -> io::Error {
    super::super::count_refused("write_stalled");
    io::Error::new(io::ErrorKind::TimedOut, "the peer has stopped reading")
}

impl<IO: HasTcpSocket> Drop for StallTimeout<IO> {
    /// Discards the data that the kernel still holds for the peer of an abandoned connection. The kernel would otherwise keep
    /// it for minutes, although the connection no longer counts towards the connection limits.
    fn drop(&mut self) {
        if self.is_closed_in_order {
            return;
        }
        if let Some(Err(error)) = self.io.socket().map(TcpStream::set_zero_linger) {
            tracing::debug!(%error, "cannot set SO_LINGER");
        }
    }
}

impl<IO: HasTcpSocket> HasTcpSocket for StallTimeout<IO> {
    fn socket(&self) -> Option<&TcpStream> {
        self.io.socket()
    }
}

impl<IO: AsyncRead + HasTcpSocket + Unpin> AsyncRead for StallTimeout<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.activity.is_queried() {
            self.activity.answer_query(TcpDelivery::query(&self.io).acknowledged_bytes);
        }
        let result = Pin::new(&mut self.io).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.record_read();
        }
        result
    }
}

impl<IO: AsyncRead + AsyncWrite + HasTcpSocket + Unpin> AsyncWrite for StallTimeout<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(context, bytes);
        self.check_write(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(context, pieces);
        self.check_write(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(context);
        if result.is_pending() {
            return self.check_write(context, result);
        }
        // hyper flushes whenever it has written everything, and whenever it is woken, even if it had nothing to write.
        // Therefore, a flush is not recorded as a write.
        if self.activity.is_blocked() {
            self.activity.unblock();
        }
        let checked = self.check_delivery(context);
        result.map(|result| result.and(checked))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            let result = Pin::new(&mut self.io).poll_shutdown(context);
            ready!(self.check_write(context, result))?;
        }
        let this = &mut *self;
        let linger = this.linger.get_or_insert_with(|| {
            this.activity.record_close();
            Linger::new(this.stop.clone(), this.stall_limit)
        });
        // Closing a socket that has unread data sends RST, which destroys any data that the peer has not read yet. That
        // includes the response that gives the reason for closing the connection (RFC 9112 §9.6). Therefore, the data
        // that the peer sends is read and discarded.
        this.is_closed_in_order = ready!(linger.poll(&mut this.io, context));
        if !this.is_closed_in_order {
            super::super::count_refused("write_stalled");
        }
        Poll::Ready(Ok(()))
    }
}
