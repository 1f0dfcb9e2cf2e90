//! A connection's bytes with the limits that hyper lacks: a peer that stops reading ends it, a close does not destroy the
//! last answer, and what nobody took is not left to the system when it is over.

use std::fmt;
use std::io;
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
use super::socket::Socket;

/// How long a connection that has ended waits for its peer to end it too, while that sends on (nginx:
/// `lingering_time`). Most clients look for an answer only when they have sent everything.
pub(super) const LINGER: Duration = Duration::from_secs(30);
/// The same once the process stops.
pub(super) const LINGER_AT_STOP: Duration = Duration::from_secs(1);
/// How much longer than the system waits for a peer that takes nothing we wait for its end, or for more than next to
/// nothing: by then the peer has everything, or the system has given it up.
const LINGER_SLACK: Duration = Duration::from_secs(1);
/// What a peer may still send meanwhile.
pub(super) const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How soon, and how often at least, it is looked whether a peer that has ended its side has its answer.
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
    /// Runs while the peer takes nothing, or next to nothing.
    stall: Option<Pin<Box<Sleep>>>,
    /// What it has taken since then.
    taken_bytes: usize,
    linger: Option<Linger>,
    activity: Arc<Activity>,
    /// Given when the process stops.
    stop: Cancel,
    /// Whether it has ended in good order.
    has_ended: bool,
}

/// What bounds the time after our end.
struct Linger {
    end: BoxFuture<'static, ()>,
    silence: Pin<Box<Sleep>>,
    silence_max: Duration,
    bytes_left: usize,
    /// What came since the silence began.
    heard_bytes: usize,
    /// When it is looked again whether the system has let go, and the pause before that.
    look: Pin<Box<Sleep>>,
    pause: Duration,
}

impl Linger {
    fn begin(stop: Cancel, silence_max: Duration) -> Self {
        let end = Box::pin(async move {
            let stopped = async {
                stop.cancelled().await;
                tokio::time::sleep(LINGER_AT_STOP).await;
            };
            drop(tokio::time::timeout(LINGER, stopped).await);
        });
        let silence = Box::pin(tokio::time::sleep(silence_max));
        let (bytes_left, pause) = (LINGER_BYTES_MAX, LOOK_MIN);
        let look = Box::pin(tokio::time::sleep(pause));
        Self { end, silence, silence_max, bytes_left, heard_bytes: 0, look, pause }
    }

    /// Waits until it is to be looked again, each time longer.
    fn poll_look(&mut self, context: &mut Context<'_>) -> Poll<()> {
        ready!(self.look.as_mut().poll(context));
        self.pause = (self.pause * 2).min(LOOK_MAX);
        self.look.as_mut().reset(Instant::now() + self.pause);
        Poll::Ready(())
    }
}

impl fmt::Debug for Linger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Linger").field("bytes_left", &self.bytes_left).finish_non_exhaustive()
    }
}

impl<IO: Socket> Paced<IO> {
    pub(super) fn new(
        io: IO,
        stall_limit: Duration,
        activity: Arc<Activity>,
        stop: Cancel,
    ) -> Self {
        Self {
            io,
            stall_limit,
            stall: None,
            taken_bytes: 0,
            linger: None,
            activity,
            stop,
            has_ended: false,
        }
    }

    /// Passes on what a write came to; one that is pending for too long is an error.
    fn paced<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
        taken_bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(result) = result {
            self.activity.wrote();
            let taken = result.as_ref().map_or(0, taken_bytes);
            self.taken_bytes += taken;
            if self.taken_bytes >= TAKEN_BYTES_MIN {
                self.caught_up();
            }
            return Poll::Ready(result);
        }
        let limit = self.stall_limit;
        if self.stall.is_none() {
            self.taken_bytes = 0;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(stall.as_mut().poll(context));
        super::refused("write_stalled");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer has stopped reading")))
    }

    /// The peer has taken enough, or all there was.
    fn caught_up(&mut self) {
        self.stall = None;
        self.taken_bytes = 0;
    }
}

/// Whether the system still holds something for the peer. When both have ended and everything was taken, the socket is
/// closed, and has no peer (Linux: `ENOTCONN` of a socket in `TCP_CLOSE`).
fn is_held(io: &impl Socket) -> bool {
    io.socket().is_some_and(|socket| socket.peer_addr().is_ok())
}

impl<IO: AsyncRead + Socket + Unpin> Paced<IO> {
    /// Reads on after our end: data that nobody read makes the system send RST, and RST throws away
    /// what the peer has not read yet, the answer that told why (RFC 9112 §9.6).
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger.get_or_insert_with(|| {
            self.activity.end();
            let limit = self
                .io
                .socket()
                .map(|s| SockRef::from(s).set_tcp_user_timeout(Some(self.stall_limit)));
            if let Some(Err(error)) = limit {
                tracing::debug!(%error, "cannot set TCP_USER_TIMEOUT");
            }
            Linger::begin(self.stop.clone(), self.stall_limit + LINGER_SLACK)
        });
        loop {
            let is_over = linger.end.as_mut().poll(context).is_ready()
                || linger.silence.as_mut().poll(context).is_ready();
            if is_over {
                return Poll::Ready(());
            }
            let mut space = [0; DISCARD_BYTES];
            let mut discarded = ReadBuf::new(&mut space);
            let result = ready!(Pin::new(&mut self.io).poll_read(context, &mut discarded));
            let count = discarded.filled().len();
            linger.bytes_left = linger.bytes_left.saturating_sub(count);
            // Over TLS an end without its goodbye is an error.
            let has_ended = result.is_err() || count == 0;
            if has_ended && is_held(&self.io) {
                // It ends its side too, and may lack some of its answer.
                ready!(linger.poll_look(context));
                continue;
            }
            if has_ended || linger.bytes_left == 0 {
                return Poll::Ready(());
            }
            linger.heard_bytes += count;
            if linger.heard_bytes >= TAKEN_BYTES_MIN {
                linger.heard_bytes = 0;
                linger.silence.as_mut().reset(Instant::now() + linger.silence_max);
            }
        }
    }
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
        self.paced(context, result, |taken| *taken)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(context, pieces);
        self.paced(context, result, |taken| *taken)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(context);
        if result.is_ready() {
            // HTTP flushes when it has written all it had. Nothing may have been there: that is no activity.
            self.caught_up();
            return result;
        }
        self.paced(context, result, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            let result = Pin::new(&mut self.io).poll_shutdown(context);
            ready!(self.paced(context, result, |()| 0))?;
        }
        std::task::ready!(self.poll_linger(context));
        self.has_ended = true;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LIMIT: Duration = Duration::from_secs(10);

    /// Whether an answer arrives at a peer that takes so many bytes at a time, and how long that took.
    async fn taken(piece_bytes: usize, pause: Duration) -> (bool, Duration) {
        let (ours, mut peer) = tokio::io::duplex(1024);
        let mut io = Paced::new(ours, LIMIT, Arc::new(Activity::new()), Cancel::new());
        let start = Instant::now();
        let writing = async {
            let written = io.write_all(&vec![b'x'; 256 * 1024]).await;
            drop(io);
            (written.is_ok(), start.elapsed())
        };
        let reading = async {
            let mut piece = vec![0; piece_bytes];
            while let Ok(1..) = peer.read(&mut piece).await {
                tokio::time::sleep(pause).await;
            }
        };
        tokio::join!(writing, reading).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_next_to_nothing_is_ended() {
        assert_eq!(taken(100, LIMIT / 10).await, (false, LIMIT));
        assert_eq!(taken(1024, LIMIT * 2).await, (false, LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_slow_gets_all_of_it() {
        let (is_whole, took) = taken(1024, LIMIT / 10).await;
        assert!(is_whole && took > LIMIT * 20, "{took:?}");
    }
}
