//! A connection's bytes with the limits that hyper lacks: a peer that stops reading ends it, a close does not destroy the
//! last answer, and what nobody took is not left to the system when it is over.

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

use super::activity::{Activity, TAKEN_BYTES_MIN};
use super::delivery::{Delivery, DeliveryWatch};
use super::socket::Socket;

/// How long a connection that has ended takes what its peer still sends (nginx: `lingering_time`). Most clients look for an
/// answer only when they have sent everything.
pub(super) const LINGER: Duration = Duration::from_secs(30);
/// How long a connection that has ended waits for its peer once the process stops: the system delivers the rest.
pub(super) const LINGER_AT_STOP: Duration = Duration::from_secs(1);
/// What a peer may still send meanwhile.
pub(super) const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How soon, and how often at least, it is looked whether a peer that is not heard any more has its answer.
const LOOK_MIN: Duration = Duration::from_millis(10);
/// See `LOOK_MIN`.
const LOOK_MAX: Duration = Duration::from_millis(500);
/// One read of what is thrown away.
const DISCARD_BYTES: usize = 8 * 1024;

/// The bytes of a connection, paced.
#[derive(Debug)]
pub(super) struct Paced<IO: Socket> {
    io: IO,
    stall_limit: Duration,
    /// Runs from when something was written, anew from when the system took nothing, until the peer has everything.
    watch: Option<DeliveryWatch>,
    /// Whether something was written since nothing of it was seen to be pending.
    has_written: bool,
    linger: Option<Linger>,
    activity: Arc<Activity>,
    /// Given when the process stops.
    stop: Cancel,
    /// Whether it has ended in good order: what the system holds of it may be delivered.
    has_ended: bool,
}

/// What bounds the time after our end.
struct Linger {
    stopped: BoxFuture<'static, ()>,
    /// What the peer takes meanwhile.
    watch: DeliveryWatch,
    /// None once no more is read of what the peer sends.
    hearing: Option<Hearing>,
    /// When it is looked again whether the peer has everything, and the pause before that.
    look: Pin<Box<Sleep>>,
    pause: Duration,
}

/// What bounds what a peer sends after our end.
#[derive(Debug)]
struct Hearing {
    end: Pin<Box<Sleep>>,
    bytes_left: usize,
    /// What came since the last look at what the peer takes.
    heard_bytes: u64,
}

impl Hearing {
    fn begin() -> Self {
        let end = Box::pin(tokio::time::sleep(LINGER));
        Self { end, bytes_left: LINGER_BYTES_MAX, heard_bytes: 0 }
    }

    /// Throws away what the peer sends, until it has ended its side or has sent for too long, or too much.
    fn poll<IO: AsyncRead + Unpin>(&mut self, io: &mut IO, context: &mut Context<'_>) -> Poll<()> {
        while self.bytes_left > 0 && self.end.as_mut().poll(context).is_pending() {
            let mut space = [0; DISCARD_BYTES];
            let mut discarded = ReadBuf::new(&mut space);
            let result = ready!(Pin::new(&mut *io).poll_read(context, &mut discarded));
            let count = discarded.filled().len();
            // Over TLS an end without its goodbye is an error.
            if result.is_err() || count == 0 {
                break;
            }
            self.bytes_left = self.bytes_left.saturating_sub(count);
            self.heard_bytes += count as u64;
        }
        Poll::Ready(())
    }
}

impl Linger {
    fn begin(stop: Cancel, stall_limit: Duration) -> Self {
        let stopped = Box::pin(async move {
            stop.cancelled().await;
            tokio::time::sleep(LINGER_AT_STOP).await;
        });
        let (watch, hearing) = (DeliveryWatch::new(stall_limit), Some(Hearing::begin()));
        let (pause, look) = (LOOK_MIN, Box::pin(tokio::time::sleep(LOOK_MIN)));
        Self { stopped, watch, hearing, look, pause }
    }

    /// Waits until the peer has everything, or takes nothing any more; whether the system may deliver what it holds.
    fn poll<IO: AsyncRead + Socket + Unpin>(
        &mut self,
        io: &mut IO,
        context: &mut Context<'_>,
    ) -> Poll<bool> {
        loop {
            if self.stopped.as_mut().poll(context).is_ready() {
                return Poll::Ready(true);
            }
            while let Poll::Ready(progress) = self.watch.poll(context, io) {
                let heard_bytes = self.hearing.as_mut().map(|hearing| &mut hearing.heard_bytes);
                let is_heard = heard_bytes.is_some_and(|bytes| mem::take(bytes) >= TAKEN_BYTES_MIN);
                if !progress.is_enough && !is_heard {
                    return Poll::Ready(!progress.is_pending);
                }
            }
            if let Some(hearing) = &mut self.hearing {
                ready!(hearing.poll(io, context));
                self.hearing = None;
            }
            if !Delivery::of(io).is_pending {
                return Poll::Ready(true);
            }
            ready!(self.look.as_mut().poll(context));
            self.pause = (self.pause * 2).min(LOOK_MAX);
            self.look.as_mut().reset(Instant::now() + self.pause);
        }
    }
}

impl fmt::Debug for Linger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Linger").field("hearing", &self.hearing).finish_non_exhaustive()
    }
}

impl<IO: Socket> Paced<IO> {
    pub(super) fn new(
        io: IO,
        stall_limit: Duration,
        activity: Arc<Activity>,
        stop: Cancel,
    ) -> Self {
        // Who takes enough is for us to say: the system also ends peers that take a little at a time.
        let lifted = io.socket().map(|socket| SockRef::from(socket).set_tcp_user_timeout(None));
        if let Some(Err(error)) = lifted {
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
            has_ended: false,
        }
    }

    /// Passes on what a write came to; one that is pending while the peer takes too little is an error.
    fn paced<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.activity.wrote();
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
                self.activity.wrote();
                self.activity.took(progress.bytes);
            }
        }
    }

    /// Looks, once in each limit, whether the peer acknowledges anything of what the system holds for it. While it holds
    /// something, it sends no keepalive probes: a peer that has vanished would be noticed after a quarter of an hour.
    fn check_delivery(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.watch.is_none() && self.has_written {
            self.watch = Some(DeliveryWatch::later(self.stall_limit));
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

/// The end of a peer that takes too little.
fn stalled() -> io::Error {
    super::refused("write_stalled");
    io::Error::new(io::ErrorKind::TimedOut, "the peer has stopped reading")
}

impl<IO: Socket> Drop for Paced<IO> {
    /// What the peer of a connection that is given up has not taken, it will not take: the system would keep it for
    /// minutes, while the connection's place is free again.
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        if let Some(Err(error)) = self.io.socket().map(TcpStream::set_zero_linger) {
            tracing::debug!(%error, "cannot set SO_LINGER");
        }
    }
}

impl<IO: Socket> Socket for Paced<IO> {
    fn socket(&self) -> Option<&TcpStream> {
        self.io.socket()
    }
}

impl<IO: AsyncRead + Socket + Unpin> AsyncRead for Paced<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.activity.is_asked() {
            self.activity.acknowledged(Delivery::of(&self.io).acknowledged_bytes);
        }
        let result = Pin::new(&mut self.io).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.read();
        }
        result
    }
}

impl<IO: AsyncRead + AsyncWrite + Socket + Unpin> AsyncWrite for Paced<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(context, bytes);
        self.paced(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(context, pieces);
        self.paced(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(context);
        if result.is_pending() {
            return self.paced(context, result);
        }
        // HTTP flushes when it has written all it had, and whenever it is woken. Nothing may have been there: that is no
        // activity.
        if self.activity.is_blocked() {
            self.activity.unblock();
        }
        let checked = self.check_delivery(context);
        result.map(|result| result.and(checked))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            let result = Pin::new(&mut self.io).poll_shutdown(context);
            ready!(self.paced(context, result))?;
        }
        let this = &mut *self;
        let linger = this.linger.get_or_insert_with(|| {
            this.activity.end();
            Linger::begin(this.stop.clone(), this.stall_limit)
        });
        // Data that nobody read makes the system send RST, and RST throws away what the peer has not read yet, the
        // answer that told why (RFC 9112 §9.6): what it sends is read.
        this.has_ended = ready!(linger.poll(&mut this.io, context));
        if !this.has_ended {
            super::refused("write_stalled");
        }
        Poll::Ready(Ok(()))
    }
}
