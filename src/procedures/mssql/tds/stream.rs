//! The stream over which the driver speaks TDS, on top of an established TLS session. The first
//! request after a connection was returned to its pool resets the connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::tls::ClientStream;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::joined_calls::JoinedCalls;
use super::reply::{ReplyEnd, ReplyTracker};
use super::socket::{END_OF_MESSAGE, HEADER_BYTES, PRELOGIN, RPC, TdsSocket};
use super::stream_state::StreamState;

/// The status bit that makes the server reset the connection before it executes the request (MS-TDS
/// 2.2.3.1.2). As with `sp_reset_connection`, the reset removes open transactions, SET options,
/// session context, application locks and temporary tables, but without a round trip.
const RESET_CONNECTION: u8 = 0x08;
/// The packet type of a batch.
const BATCH: u8 = 0x01;
/// The packet types that may carry the reset bit.
const REQUESTS: [u8; 2] = [BATCH, RPC];
/// The complete packet that cancels a request (MS-TDS 2.2.1.7). Its packet number is ignored.
const ATTENTION: [u8; HEADER_BYTES] = [0x06, END_OF_MESSAGE, 0, 8, 0, 0, 1, 0];
/// The error text for data that was not requested.
const UNEXPECTED: &str = "the server sent data that was not requested";
/// The number of bytes read at a time while the stream settles before a request.
const DRAIN_BYTES: usize = 512;
/// If this many bytes are buffered, the stream writes them before it accepts more.
const BUFFERED_BYTES_MAX: usize = 32 * 1024;

/// An action that the stream must complete before the driver can read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PendingAction {
    None,
    /// Write the buffered cancel request before more of the answer is read.
    SendAttention,
    /// Wait until all outstanding data from the server has arrived before writing a request.
    Settle,
}

/// The stream given to the driver.
#[derive(Debug)]
pub(crate) struct TdsStream {
    tls: ClientStream<TdsSocket>,
    state: Arc<StreamState>,
    /// The server's answer to PRELOGIN, read before the driver was created.
    prelogin: BytesMut,
    /// Whether the driver's own PRELOGIN must still be dropped, because fjord's own was already
    /// answered.
    drops_prelogin: bool,
    buffered: BytesMut,
    header: BytesMut,
    payload_left: usize,
    /// Whether the current packet is being dropped.
    is_dropped: bool,
    is_last: bool,
    /// The length of the current packet, if it contains a complete batch.
    batch_bytes: Option<usize>,
    /// The current message, if remote procedure calls are added to it.
    joined: Option<JoinedCalls>,
    pending: PendingAction,
    reply: ReplyTracker,
    /// Bytes that arrived after the end of an answer.
    surplus: BytesMut,
}

impl TdsStream {
    /// Creates a stream over an established TLS session. `prelogin` is the answer to the driver's
    /// PRELOGIN.
    pub(super) fn new(
        tls: ClientStream<TdsSocket>,
        state: Arc<StreamState>,
        prelogin: BytesMut,
    ) -> Self {
        Self {
            tls,
            state,
            prelogin,
            drops_prelogin: true,
            buffered: BytesMut::new(),
            header: BytesMut::with_capacity(HEADER_BYTES),
            payload_left: 0,
            is_dropped: false,
            is_last: true,
            batch_bytes: None,
            joined: None,
            pending: PendingAction::None,
            reply: ReplyTracker::default(),
            surplus: BytesMut::new(),
        }
    }

    /// Buffers bytes from the driver, packet by packet. Returns the number of bytes consumed.
    fn buffer(&mut self, mut from: &[u8]) -> usize {
        let offered = from.len();
        while !from.is_empty() && self.buffered.len() < BUFFERED_BYTES_MAX {
            if self.payload_left == 0 {
                let wanted = HEADER_BYTES.saturating_sub(self.header.len()).min(from.len());
                let (part, rest) = from.split_at(wanted);
                self.header.extend_from_slice(part);
                from = rest;
                if self.header.len() == HEADER_BYTES {
                    self.begin_packet();
                }
            } else {
                let room = BUFFERED_BYTES_MAX.saturating_sub(self.buffered.len());
                let (part, rest) = from.split_at(self.payload_left.min(from.len()).min(room));
                match &mut self.joined {
                    Some(joined) => joined.push(part, &mut self.buffered),
                    None if !self.is_dropped => self.buffered.extend_from_slice(part),
                    None => {}
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
        self.is_dropped = self.drops_prelogin && kind == PRELOGIN;
        let mut preceding = Bytes::new();
        if begins && !self.is_dropped {
            self.pending = PendingAction::Settle;
            self.state.begin_request();
            if kind == RPC {
                preceding = self.state.begin_procedure_call();
            }
        }
        let is_batch = begins && self.is_last && kind == BATCH;
        self.batch_bytes = is_batch.then_some(usize::from(length));
        let resets = REQUESTS.contains(&kind) && self.state.take_reset();
        let status = if resets { status | RESET_CONNECTION } else { status };
        if !preceding.is_empty() {
            self.joined = Some(JoinedCalls::new(preceding, status & !END_OF_MESSAGE));
        }
        if !self.is_dropped && self.joined.is_none() {
            let [high, low] = length.to_be_bytes();
            self.buffered.extend_from_slice(&[kind, status, high, low]);
            self.buffered.extend_from_slice(&self.header);
        }
        self.header.clear();
        self.end_packet();
    }

    fn end_packet(&mut self) {
        if self.payload_left == 0 && self.is_last {
            if let Some(joined) = self.joined.take() {
                joined.end(&mut self.buffered);
            }
            if let Some(bytes) = self.batch_bytes.take() {
                self.rewrite_batch(bytes);
            }
            if self.is_dropped {
                self.drops_prelogin = false;
            } else {
                self.state.complete_request();
            }
        }
    }

    /// Replaces a buffered batch that queries the columns of a table type. No part of it has been
    /// written yet.
    fn rewrite_batch(&mut self, bytes: usize) {
        let Some(start) = self.buffered.len().checked_sub(bytes) else { return };
        let replacement =
            self.buffered.get(start..).and_then(|packet| self.state.replacement(packet));
        if let Some(replacement) = replacement {
            self.buffered.truncate(start);
            self.buffered.extend_from_slice(&replacement);
        }
    }

    /// Waits until all earlier requests are answered. As a result, no request is sent while a
    /// cancel request is unacknowledged, and no request receives the answer to another one.
    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.pending == PendingAction::Settle {
            let is_cancelling = self.state.is_cancelling();
            if self.surplus.is_empty() {
                let mut chunk = [0; DRAIN_BYTES];
                let mut read = ReadBuf::new(&mut chunk);
                match Pin::new(&mut self.tls).poll_read(cx, &mut read)? {
                    Poll::Pending if is_cancelling => return Poll::Pending,
                    Poll::Pending => {
                        self.pending = PendingAction::None;
                        break;
                    }
                    Poll::Ready(()) if read.filled().is_empty() => {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    Poll::Ready(()) => self.surplus.extend_from_slice(read.filled()),
                }
            }
            let (count, end) = self.reply.follow(&self.surplus);
            self.surplus.advance(count);
            self.record_found();
            match end {
                None if is_cancelling => {}
                Some(end) if is_cancelling && end.acknowledges => {
                    self.state.record_acknowledgement();
                }
                _ => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        UNEXPECTED,
                    )));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends a cancel request if the owner has asked for one.
    fn poll_attention(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state.take_attention() {
            self.buffered.extend_from_slice(&ATTENTION);
            self.pending = PendingAction::SendAttention;
        }
        if self.pending == PendingAction::SendAttention {
            ready!(self.poll_buffered(cx))?;
            ready!(Pin::new(&mut self.tls).poll_flush(cx))?;
            self.pending = PendingAction::None;
        }
        Poll::Ready(Ok(()))
    }

    /// Records the messages and the columns in UTF-8 found in the bytes that were followed last.
    fn record_found(&mut self) {
        let messages = self.reply.take_messages();
        if !messages.is_empty() {
            self.state.record_messages(messages);
        }
        let columns = self.reply.take_utf8_columns();
        if !columns.is_empty() {
            self.state.record_utf8_columns(columns);
        }
    }

    /// Records the findings in the bytes that were followed last.
    fn record_reply(&mut self, end: Option<ReplyEnd>) {
        self.record_found();
        if let Some(end) = end {
            self.state.record_answer(end);
        }
    }

    fn poll_buffered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.buffered.is_empty() {
            let count = ready!(Pin::new(&mut self.tls).poll_write(cx, &self.buffered))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.buffered.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for TdsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prelogin.is_empty() {
            let count = self.prelogin.len().min(buffer.remaining());
            buffer.put_slice(&self.prelogin.split_to(count));
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_attention(cx))?;
        let this = &mut *self;
        if !this.surplus.is_empty() {
            let part = this.surplus.get(..buffer.remaining()).unwrap_or(&this.surplus);
            let (count, end) = this.reply.follow(part);
            buffer.put_slice(&this.surplus.split_to(count));
            this.record_reply(end);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.tls).poll_read(cx, buffer))?;
        let arrived = buffer.filled().get(before..).unwrap_or_default();
        let (count, end) = this.reply.follow(arrived);
        if count < arrived.len() {
            // The driver gets one answer at a time. It would mistake the rest for the next answer.
            this.surplus.extend_from_slice(arrived.get(count..).unwrap_or_default());
            buffer.set_filled(before + count);
        }
        this.record_reply(end);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TdsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.buffered.len() >= BUFFERED_BYTES_MAX {
            ready!(self.poll_settled(cx))?;
            ready!(self.poll_buffered(cx))?;
        }
        Poll::Ready(Ok(self.buffer(from)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_settled(cx))?;
        ready!(self.poll_buffered(cx))?;
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_buffered(cx))?;
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
