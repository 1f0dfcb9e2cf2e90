//! The stream that the driver speaks TDS over: TLS is already up, and every pooled call starts on a reset session.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::tls::ClientStream;
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::answer::Answer;
use super::marks::Marks;
use super::socket::{END_OF_MESSAGE, HEADER_BYTES, PRELOGIN, Socket};

/// The status bit that makes the server reset the session before it reads the request (MS-TDS 2.2.3.1.2).
/// It is what `sp_reset_connection` is on the wire: open transactions, SET options, session context,
/// application locks and temporary tables of the call before are gone, without a round trip.
const RESET_CONNECTION: u8 = 0x08;
/// The packet type of a batch.
const BATCH: u8 = 0x01;
/// The packet type of a remote procedure call.
const RPC: u8 = 0x03;
/// The packet types that may carry the reset.
const REQUESTS: [u8; 2] = [BATCH, RPC];
/// The whole packet that asks the server to stop what it does (MS-TDS 2.2.1.7). Its number is ignored.
const ATTENTION: [u8; HEADER_BYTES] = [0x06, END_OF_MESSAGE, 0, 8, 0, 0, 1, 0];
/// What ends a connection that cannot be told any more.
const UNASKED: &str = "the server said what nobody had asked for";
/// What is read at once where the driver does not listen.
const LOOK_BYTES: usize = 512;
/// What is kept back at most until it is written.
const HELD_BYTES_MAX: usize = 32 * 1024;

/// What has to be done before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// Nothing.
    Nothing,
    /// A cancel is written, before an answer is read on.
    Stop,
    /// What is left to come is waited for, before a request is written.
    Settle,
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
    /// The length of the packet that is taken, where a whole batch is in it.
    batch_bytes: Option<usize>,
    first: First,
    answer: Answer,
    /// What came after the end of an answer.
    surplus: BytesMut,
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
            is_last: true,
            batch_bytes: None,
            first: First::Nothing,
            answer: Answer::default(),
            surplus: BytesMut::new(),
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
        let begins = std::mem::replace(&mut self.is_last, status & END_OF_MESSAGE != 0);
        self.skips = self.swallows && kind == PRELOGIN;
        if begins && !self.skips {
            self.first = First::Settle;
            self.marks.request_begins();
            if kind == RPC {
                self.marks.procedure_call_begins();
            }
        }
        let is_batch = begins && self.is_last && kind == BATCH;
        self.batch_bytes = is_batch.then_some(usize::from(length));
        let resets = REQUESTS.contains(&kind) && self.marks.takes_reset();
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
            if let Some(bytes) = self.batch_bytes.take() {
                self.replace_question(bytes);
            }
            if self.skips {
                self.swallows = false;
            } else {
                self.marks.request_is_whole();
            }
        }
    }

    /// Puts another question in the place of the driver's about a table's columns. Nothing of it is written yet.
    fn replace_question(&mut self, bytes: usize) {
        let Some(start) = self.held.len().checked_sub(bytes) else { return };
        let instead = self.held.get(start..).and_then(|packet| self.marks.replacement(packet));
        if let Some(instead) = instead {
            self.held.truncate(start);
            self.held.extend_from_slice(&instead);
        }
    }

    /// Waits until nothing is left to come of what was asked before: a request never follows a cancel whose
    /// acknowledgement is outstanding, and never meets an answer that is not its own.
    fn poll_gate(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.first == First::Settle {
            let is_cancelling = self.marks.is_cancelling();
            if self.surplus.is_empty() {
                let mut chunk = [0; LOOK_BYTES];
                let mut look = ReadBuf::new(&mut chunk);
                match Pin::new(&mut self.tls).poll_read(cx, &mut look)? {
                    Poll::Pending if is_cancelling => return Poll::Pending,
                    Poll::Pending => {
                        self.first = First::Nothing;
                        break;
                    }
                    Poll::Ready(()) if look.filled().is_empty() => {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    Poll::Ready(()) => self.surplus.extend_from_slice(look.filled()),
                }
            }
            let (count, ended) = self.answer.follow(&self.surplus);
            self.surplus.advance(count);
            match ended {
                None if is_cancelling => {}
                Some(ended) if is_cancelling && ended.acknowledges => self.marks.acknowledged(),
                _ => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, UNASKED))),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the cancel that is asked for.
    fn poll_attention(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.marks.takes_attention() {
            self.held.extend_from_slice(&ATTENTION);
            self.first = First::Stop;
        }
        if self.first == First::Stop {
            ready!(self.poll_held(cx))?;
            ready!(Pin::new(&mut self.tls).poll_flush(cx))?;
            self.first = First::Nothing;
        }
        Poll::Ready(Ok(()))
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
        ready!(self.poll_attention(cx))?;
        let this = &mut *self;
        if !this.surplus.is_empty() {
            let part = this.surplus.get(..buffer.remaining()).unwrap_or(&this.surplus);
            let (count, ended) = this.answer.follow(part);
            buffer.put_slice(&this.surplus.split_to(count));
            if let Some(ended) = ended {
                this.marks.answered(ended);
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.tls).poll_read(cx, buffer))?;
        let came = buffer.filled().get(before..).unwrap_or_default();
        let (count, ended) = this.answer.follow(came);
        if count < came.len() {
            // The driver gets one answer at a time: it would take what follows for the next one.
            this.surplus.extend_from_slice(came.get(count..).unwrap_or_default());
            buffer.set_filled(before + count);
        }
        if let Some(ended) = ended {
            this.marks.answered(ended);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.held.len() >= HELD_BYTES_MAX {
            ready!(self.poll_gate(cx))?;
            ready!(self.poll_held(cx))?;
        }
        Poll::Ready(Ok(self.take(from)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_gate(cx))?;
        ready!(self.poll_held(cx))?;
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_held(cx))?;
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
