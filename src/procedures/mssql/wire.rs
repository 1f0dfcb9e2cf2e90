//! The stream that the driver speaks TDS over: TLS is already up, and every pooled call starts on a reset session.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use crate::tls::ClientStream;
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::{END_OF_MESSAGE, HEADER_BYTES, PRELOGIN, Socket, Tcp};

/// The status bit that makes the server reset the session before it reads the request (MS-TDS 2.2.3.1.2).
/// It is what `sp_reset_connection` is on the wire: open transactions, SET options, session context,
/// application locks and temporary tables of the call before are gone, without a round trip.
const RESET_CONNECTION: u8 = 0x08;
/// A batch, a remote procedure call: the packet types that may carry the reset.
const REQUESTS: [u8; 2] = [0x01, 0x03];
/// What is kept back at most until it is written.
const HELD_BYTES_MAX: usize = 32 * 1024;

/// What the owner of a connection knows and says about the stream inside the driver.
#[derive(Debug)]
pub(super) struct Marks {
    tcp: Arc<Tcp>,
    reset: AtomicBool,
    complete: AtomicBool,
    start: AtomicU64,
}

impl Marks {
    /// Marks for a stream over this connection.
    pub(super) fn new(tcp: Arc<Tcp>) -> Self {
        Self {
            tcp,
            reset: AtomicBool::new(false),
            complete: AtomicBool::new(false),
            start: AtomicU64::new(0),
        }
    }

    /// The next request resets the session first.
    pub(super) fn reset_next(&self) {
        self.reset.store(true, Ordering::Release);
    }

    /// A call starts: from here on it counts whether it was sent.
    pub(super) fn call_starts(&self) {
        self.complete.store(false, Ordering::Release);
        self.start.store(self.tcp.written(), Ordering::Release);
    }

    /// Whether the server can have seen the whole request, which is when it may have run.
    pub(super) fn may_have_run(&self) -> bool {
        self.complete.load(Ordering::Acquire)
            && self.tcp.written() > self.start.load(Ordering::Acquire)
    }

    /// Whether an idle connection is still usable.
    pub(super) fn is_quiet(&self) -> bool {
        self.tcp.is_quiet()
    }
}

/// The stream given to the driver.
#[derive(Debug)]
pub(super) struct Wire {
    tls: ClientStream<Socket>,
    marks: Arc<Marks>,
    /// The server's answer to PRELOGIN, read before the driver existed.
    greeting: BytesMut,
    /// The driver's own PRELOGIN goes nowhere: ours was answered.
    swallows: bool,
    held: BytesMut,
    header: BytesMut,
    payload_left: usize,
    skips: bool,
    is_last: bool,
}

impl Wire {
    /// A stream over an established TLS session; `greeting` answers the driver's PRELOGIN.
    pub(super) fn new(tls: ClientStream<Socket>, marks: Arc<Marks>, greeting: BytesMut) -> Self {
        Self {
            tls,
            marks,
            greeting,
            swallows: true,
            held: BytesMut::new(),
            header: BytesMut::with_capacity(HEADER_BYTES),
            payload_left: 0,
            skips: false,
            is_last: false,
        }
    }

    /// Takes what the driver writes, packet by packet, and says how much it took.
    fn take(&mut self, mut from: &[u8]) -> usize {
        let offered = from.len();
        while !from.is_empty() && self.held.len() < HELD_BYTES_MAX {
            if self.payload_left == 0 {
                let wanted = HEADER_BYTES.saturating_sub(self.header.len()).min(from.len());
                let (part, rest) = from.split_at(wanted);
                self.header.extend_from_slice(part);
                from = rest;
                if self.header.len() == HEADER_BYTES {
                    self.begin_packet();
                }
            } else {
                let room = HELD_BYTES_MAX.saturating_sub(self.held.len());
                let (part, rest) = from.split_at(self.payload_left.min(from.len()).min(room));
                if !self.skips {
                    self.held.extend_from_slice(part);
                }
                self.payload_left -= part.len();
                from = rest;
                self.end_packet();
            }
        }
        offered - from.len()
    }

    fn begin_packet(&mut self) {
        let (kind, status) = (self.header.get_u8(), self.header.get_u8());
        let length = self.header.get_u16();
        self.payload_left = usize::from(length).saturating_sub(HEADER_BYTES);
        self.is_last = status & END_OF_MESSAGE != 0;
        self.skips = self.swallows && kind == PRELOGIN;
        let resets = REQUESTS.contains(&kind) && self.marks.reset.swap(false, Ordering::AcqRel);
        if !self.skips {
            let status = if resets { status | RESET_CONNECTION } else { status };
            let [high, low] = length.to_be_bytes();
            self.held.extend_from_slice(&[kind, status, high, low]);
            self.held.extend_from_slice(&self.header);
        }
        self.header.clear();
        self.end_packet();
    }

    fn end_packet(&mut self) {
        if self.payload_left == 0 && self.is_last {
            if self.skips {
                self.swallows = false;
            } else {
                // Before a byte of it is written: from here on the server may come to see all of it.
                self.marks.complete.store(true, Ordering::Release);
            }
        }
    }

    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let count = ready!(Pin::new(&mut self.tls).poll_write(cx, &self.held))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.greeting.is_empty() {
            let count = self.greeting.len().min(buffer.remaining());
            buffer.put_slice(&self.greeting.split_to(count));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.tls).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.held.len() >= HELD_BYTES_MAX {
            ready!(self.poll_held(cx))?;
        }
        Poll::Ready(Ok(self.take(from)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_held(cx))?;
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_held(cx))?;
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
