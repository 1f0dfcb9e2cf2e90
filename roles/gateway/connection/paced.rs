//! A connection's bytes with the limits that hyper lacks: a peer that stops reading ends it, and a close
//! does not destroy the last answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::activity::Activity;

/// How long a closing connection waits for its peer to close too.
const LINGER: Duration = Duration::from_secs(1);
/// What a peer may still send meanwhile.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// One read of what is thrown away.
const DISCARD_BYTES: usize = 4 * 1024;

/// The bytes of a connection, paced.
#[derive(Debug)]
pub(super) struct Paced<IO> {
    io: IO,
    stall_limit: Duration,
    /// Runs while the peer takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
    linger: Option<Linger>,
    activity: Arc<Activity>,
}

#[derive(Debug)]
struct Linger {
    end: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl<IO> Paced<IO> {
    pub(super) fn new(io: IO, stall_limit: Duration, activity: Arc<Activity>) -> Self {
        Self { io, stall_limit, stall: None, linger: None, activity }
    }

    /// Passes on what a write came to; one that is pending for too long is an error.
    fn paced<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stall = None;
            self.activity.wrote();
            return result;
        }
        let limit = self.stall_limit;
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(stall.as_mut().poll(context));
        super::refused("write_stalled");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer has stopped reading")))
    }
}

impl<IO: AsyncRead + Unpin> Paced<IO> {
    /// Reads on after our end: data that nobody read makes the system send RST, and RST throws away
    /// what the peer has not read yet, the answer that told why (RFC 9112 §9.6).
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger.get_or_insert_with(|| Linger {
            end: Box::pin(tokio::time::sleep(LINGER)),
            bytes_left: LINGER_BYTES_MAX,
        });
        loop {
            if linger.end.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            let mut space = [0; DISCARD_BYTES];
            let mut discarded = ReadBuf::new(&mut space);
            let result = ready!(Pin::new(&mut self.io).poll_read(context, &mut discarded));
            let count = discarded.filled().len();
            linger.bytes_left = linger.bytes_left.saturating_sub(count);
            if result.is_err() || count == 0 || linger.bytes_left == 0 {
                return Poll::Ready(());
            }
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Paced<IO> {
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

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Paced<IO> {
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
        // Nothing may have been there to flush: only waiting counts here.
        if result.is_ready() { result } else { self.paced(context, result) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            let result = Pin::new(&mut self.io).poll_shutdown(context);
            ready!(self.paced(context, result))?;
        }
        self.poll_linger(context).map(Ok)
    }
}
