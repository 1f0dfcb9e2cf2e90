//! Distinguishes a client that has closed its sending side and is waiting for its response (`nc -N`) from a client that
//! has disconnected.
//!
//! In both cases, reads return the end of the stream. However, a client that has disconnected answers any data with a
//! reset. So if the request is not answered quickly, we send an interim response, which an HTTP/1.1 client ignores (RFC
//! 9110 §15.2).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep};

use super::socket::HasTcpSocket;

/// An interim response that most clients ignore. Some clients know no other interim response.
const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// The time to wait for the response before the first interim response is sent.
const PROBE_AFTER: Duration = Duration::from_millis(250);
/// The interval between interim responses, which are repeated because the client may disconnect later.
const PROBE_INTERVAL: Duration = Duration::from_secs(20);
/// The interval at which the socket is checked for a reset.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// A client that has closed its sending side.
#[derive(Debug)]
pub(super) struct HalfClosed {
    next_check: Pin<Box<Sleep>>,
    probe_at: Instant,
    /// The part of an interim response that the kernel has not accepted yet.
    unsent: &'static [u8],
}

impl HalfClosed {
    pub(super) fn new() -> Self {
        let probe_at = Instant::now() + PROBE_AFTER;
        Self { next_check: Box::pin(sleep(CHECK_INTERVAL)), probe_at, unsent: &[] }
    }

    /// Resolves with an error once the client is known to have disconnected. Interim responses are sent only if `may_write` is
    /// set.
    pub(super) fn poll_disconnected<IO>(
        &mut self,
        io: &mut IO,
        context: &mut Context<'_>,
        may_write: bool,
    ) -> Poll<io::Error>
    where
        IO: AsyncWrite + HasTcpSocket + Unpin,
    {
        loop {
            ready!(self.next_check.as_mut().poll(context));
            let now = Instant::now();
            self.next_check.as_mut().reset(now + CHECK_INTERVAL);
            if let Some(error) = io.socket().and_then(|socket| socket.take_error().ok()?) {
                return Poll::Ready(error);
            }
            if may_write && now >= self.probe_at {
                self.probe_at = now + PROBE_INTERVAL;
                // The rest of an earlier interim response must precede anything else.
                if self.unsent.is_empty() {
                    self.unsent = INTERIM;
                }
                if let Poll::Ready(Err(error)) = self.poll_finish_interim(io, context) {
                    return Poll::Ready(error);
                }
            }
        }
    }

    /// Writes the rest of an interim response. Nothing else may be written before it is complete.
    pub(super) fn poll_finish_interim<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let written = ready!(Pin::new(&mut *io).poll_write(context, self.unsent))?;
            self.unsent = self.unsent.get(written..).unwrap_or_default();
            // TLS needs the flush. A pending flush does not matter, because the next write is flushed as well.
            let _flushed = Pin::new(&mut *io).poll_flush(context)?;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    /// A stream to a client that stops reading.
    struct SlowClient {
        room: usize,
        received: Vec<u8>,
    }

    impl AsyncWrite for SlowClient {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let written = self.room.min(bytes.len());
            self.room -= written;
            self.received.extend_from_slice(&bytes[..written]);
            if written == 0 { Poll::Pending } else { Poll::Ready(Ok(written)) }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl HasTcpSocket for SlowClient {
        fn socket(&self) -> Option<&TcpStream> {
            None
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_partly_written_interim_response_is_completed_before_the_next_begins() {
        let mut client = SlowClient { room: 5, received: Vec::new() };
        let mut half_closed = HalfClosed::new();
        let left = poll_fn(|context| half_closed.poll_disconnected(&mut client, context, true));
        assert!(timeout(PROBE_AFTER * 2, left).await.is_err());
        assert_eq!(client.received, INTERIM[..5]);
        client.room = INTERIM.len();
        let left = poll_fn(|context| half_closed.poll_disconnected(&mut client, context, true));
        assert!(timeout(PROBE_INTERVAL, left).await.is_err());
        assert_eq!(client.received, INTERIM);
    }
}
