//! Tells a client that has ended its sending side and waits for its answer (`nc -N`) from one that has left.
//!
//! Both look the same: an end of what they send. But whatever is written to one that has left comes back as a reset. So
//! something is written to it while its call runs: an interim response, which a client of HTTP/1.1 passes over (RFC 9110
//! §15.2). A call that is answered soon is answered without it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep};

use super::socket::Socket;

/// The interim response that the most clients pass over: of the others some know none.
const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// How long an answer may take before the client is tried.
const TRY_AFTER: Duration = Duration::from_millis(250);
/// How often it is tried again: it may leave later.
const TRY_INTERVAL: Duration = Duration::from_secs(20);
/// How often it is looked whether a reset came.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// A client that sends nothing more.
#[derive(Debug)]
pub(super) struct HalfClosed {
    look: Pin<Box<Sleep>>,
    try_at: Instant,
    /// What of an interim response the system had no room for.
    unsent: &'static [u8],
}

impl HalfClosed {
    pub(super) fn new() -> Self {
        let try_at = Instant::now() + TRY_AFTER;
        Self { look: Box::pin(sleep(LOOK_INTERVAL)), try_at, unsent: &[] }
    }

    /// Waits until the client is known to have left: with an error. `may_write` while it may get an interim response.
    pub(super) fn poll_left<IO>(
        &mut self,
        io: &mut IO,
        context: &mut Context<'_>,
        may_write: bool,
    ) -> Poll<io::Error>
    where
        IO: AsyncWrite + Socket + Unpin,
    {
        loop {
            ready!(self.look.as_mut().poll(context));
            let now = Instant::now();
            self.look.as_mut().reset(now + LOOK_INTERVAL);
            if let Some(error) = io.socket().and_then(|socket| socket.take_error().ok()?) {
                return Poll::Ready(error);
            }
            if may_write && now >= self.try_at {
                self.try_at = now + TRY_INTERVAL;
                self.unsent = INTERIM;
                if let Poll::Ready(Err(error)) = self.poll_finish(io, context) {
                    return Poll::Ready(error);
                }
            }
        }
    }

    /// Writes the rest of an interim response that was begun: nothing else may come before that.
    pub(super) fn poll_finish<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let written = ready!(Pin::new(&mut *io).poll_write(context, self.unsent))?;
            self.unsent = self.unsent.get(written..).unwrap_or_default();
            // Its own way to the system, when TLS is between: what is written next flushes as well.
            let _flushed = Pin::new(&mut *io).poll_flush(context)?;
        }
        Poll::Ready(Ok(()))
    }
}
