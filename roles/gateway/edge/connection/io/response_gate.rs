//! Holds back the error responses that hyper generates itself on an HTTP/1.1 connection.
//!
//! When hyper cannot parse the head of a request, it writes a bare status without a problem document, request id or log
//! line, and no option prevents that. hyper parses a head only after it has written the response to the previous
//! request. Therefore, if hyper writes anything except `100 Continue` while it has no response to write, the data is
//! one of these error responses. hyper writes nothing after the error.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::activity::ConnectionActivity;
use super::half_close::HalfClosed;
use super::request_framing::RequestFraming;
use super::socket::HasTcpSocket;

/// The start of the interim response with which hyper requests the body (RFC 9110 §15.2.1).
const INTERIM: &[u8] = b"HTTP/1.1 100 ";
/// The position of the status in the first line of a response.
const STATUS: std::ops::Range<usize> = 9..12;

/// Tracks whether hyper still has a response to write. Cheap to clone; all clones track the same connection.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct ResponseTracker(Arc<TrackedResponse>);

#[derive(Debug, Default)]
struct TrackedResponse {
    /// Whether hyper is still reading the response's body.
    is_open: AtomicBool,
    /// Whether a part of the response may still have to be written or flushed.
    is_unwritten: AtomicBool,
}

/// A response whose body hyper is still reading. The body owns this value.
#[derive(Debug)]
pub(in super::super) struct OpenResponse(ResponseTracker);

impl ResponseTracker {
    /// Records that hyper is about to get a response. hyper has at most one response at a time.
    pub(in super::super) fn begin(&self) -> OpenResponse {
        self.0.is_open.store(true, Ordering::Release);
        self.0.is_unwritten.store(true, Ordering::Release);
        OpenResponse(self.clone())
    }

    /// Records that everything that hyper had buffered was written and flushed.
    fn record_flush(&self) {
        if !self.0.is_open.load(Ordering::Acquire) {
            self.0.is_unwritten.store(false, Ordering::Release);
        }
    }

    fn is_unwritten(&self) -> bool {
        self.0.is_unwritten.load(Ordering::Acquire)
    }
}

impl Drop for OpenResponse {
    fn drop(&mut self) {
        self.0.0.is_open.store(false, Ordering::Release);
    }
}

/// A byte stream that discards hyper's own error responses and corrupts ambiguous request framing.
#[derive(Debug)]
pub(in super::super) struct ResponseGate<IO> {
    io: IO,
    responses: ResponseTracker,
    /// The status of the response that was held back.
    held_status: Option<StatusCode>,
    framing: RequestFraming,
    activity: Arc<ConnectionActivity>,
    /// Set once the client has closed its sending side while it waits for a response.
    half_closed: Option<HalfClosed>,
}

impl<IO> ResponseGate<IO> {
    pub(in super::super) fn new(
        io: IO,
        responses: ResponseTracker,
        activity: Arc<ConnectionActivity>,
    ) -> Self {
        let framing = RequestFraming::default();
        Self { io, responses, held_status: None, framing, activity, half_closed: None }
    }

    /// Returns the status with which hyper rejected a request.
    pub(in super::super) fn held_status(&self) -> Option<StatusCode> {
        self.held_status
    }

    /// Returns whether the last response is incomplete. If so, the client would treat anything else that is written now
    /// as part of that response.
    pub(in super::super) fn is_within_response(&self) -> bool {
        self.responses.is_unwritten()
    }

    pub(in super::super) fn into_inner(self) -> IO {
        self.io
    }

    /// Returns whether hyper writes these bytes for a request that it has accepted.
    fn is_forwardable(&self, bytes: &[u8]) -> bool {
        self.responses.is_unwritten() || bytes.starts_with(INTERIM) || bytes.is_empty()
    }

    fn hold_back(&mut self, bytes: &[u8]) {
        let status = bytes.get(STATUS).and_then(|digits| StatusCode::from_bytes(digits).ok());
        self.held_status = self.held_status.or(status).or(Some(StatusCode::BAD_REQUEST));
    }
}

impl<IO: AsyncWrite + HasTcpSocket + Unpin> ResponseGate<IO> {
    /// Delays the end of the client's data while a complete request is answered, unless the client has disconnected.
    /// Otherwise, hyper would treat every client that has closed its sending side as disconnected.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_writing = self.is_within_response();
        let is_answering = is_writing || self.activity.is_running();
        if !self.framing.is_between_requests() || !is_answering {
            return Poll::Ready(Ok(()));
        }
        let may_write = !is_writing && self.activity.accepts_interim();
        let half_closed = self.half_closed.get_or_insert_with(HalfClosed::new);
        half_closed.poll_disconnected(&mut self.io, context, may_write).map(Err)
    }
}

impl<IO: AsyncRead + AsyncWrite + HasTcpSocket + Unpin> AsyncRead for ResponseGate<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.half_closed.is_some() {
            return self.poll_end(context);
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        let read = buffer.filled_mut().get_mut(before..).unwrap_or_default();
        if read.is_empty() {
            return self.poll_end(context);
        }
        self.framing.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for ResponseGate<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(half_closed) = &mut this.half_closed {
            ready!(half_closed.poll_finish_interim(&mut this.io, context))?;
        }
        if !this.is_forwardable(bytes) {
            this.hold_back(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut this.io).poll_write(context, bytes))?;
        this.activity.add_delivered(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        if !self.is_forwardable(first) || self.half_closed.is_some() {
            // This is rare, so writing one slice at a time is sufficient.
            return self.poll_write(context, first);
        }
        let result = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        let written = ready!(result)?;
        self.activity.add_delivered(written as u64);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes only after it has written everything that it had buffered.
        ready!(Pin::new(&mut self.io).poll_flush(context))?;
        self.responses.record_flush();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held_status.is_some() {
            // The problem document has not been written yet.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
