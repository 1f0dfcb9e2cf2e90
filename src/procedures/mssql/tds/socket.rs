//! The socket below TLS. It counts the bytes that the kernel has accepted, and wraps the handshake
//! in packets.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The length of a TDS packet header (MS-TDS 2.2.3.1).
pub(super) const HEADER_BYTES: usize = 8;
/// The maximum packet length before the login negotiates a packet size.
const HANDSHAKE_PACKET_BYTES_MAX: usize = 4096;
/// The maximum packet length. The driver negotiates its default packet size.
pub(super) const PACKET_BYTES_MAX: usize = 4096;
/// The packet type of a remote procedure call.
pub(super) const RPC: u8 = 0x03;
/// The packet type of PRELOGIN, which also carries the TLS handshake (MS-TDS 2.2.6.5).
pub(super) const PRELOGIN: u8 = 0x12;
/// The status bit of the last packet of a message.
pub(super) const END_OF_MESSAGE: u8 = 0x01;
/// The first bytes of TLS records: change cipher spec, alert, handshake, application data.
const TLS_RECORDS: std::ops::RangeInclusive<u8> = 0x14..=0x17;

/// Observes a TCP connection whose stream the driver owns.
#[derive(Debug)]
pub(super) struct TcpProbe {
    /// A second handle to the socket, which shares the stream's non-blocking mode.
    handle: std::net::TcpStream,
    written: AtomicU64,
}

impl TcpProbe {
    pub(super) fn new(stream: &TcpStream) -> io::Result<Self> {
        let handle = SockRef::from(stream).try_clone()?.into();
        Ok(Self { handle, written: AtomicU64::new(0) })
    }

    /// Returns the number of bytes that the kernel has accepted.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    fn count(&self, count: usize) {
        self.written.fetch_add(u64::try_from(count).unwrap_or_default(), Ordering::AcqRel);
    }

    /// Returns whether an idle connection is usable. It is usable if neither data nor the end of
    /// the stream has arrived.
    pub(super) fn is_quiet(&self) -> bool {
        let peeked = self.handle.peek(&mut [0]);
        matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// The stream below TLS. During the handshake, TLS records are sent inside PRELOGIN packets.
#[derive(Debug)]
pub(super) struct TdsSocket {
    stream: TcpStream,
    tcp: Arc<TcpProbe>,
    /// Whether written bytes are wrapped in packets.
    wraps: bool,
    /// Handshake bytes that the next flush wraps in packets.
    plain: BytesMut,
    packets: BytesMut,
    /// Whether received bytes are wrapped in packets. This is the case until the first bare record
    /// arrives.
    unwraps: bool,
    header: [u8; HEADER_BYTES],
    header_read: usize,
    payload_left: usize,
}

impl TdsSocket {
    /// Creates a socket before its TLS handshake.
    pub(super) fn new(stream: TcpStream, tcp: Arc<TcpProbe>) -> Self {
        Self {
            stream,
            tcp,
            wraps: true,
            plain: BytesMut::new(),
            packets: BytesMut::new(),
            unwraps: true,
            header: [0; HEADER_BYTES],
            header_read: 0,
            payload_left: 0,
        }
    }

    /// Creates a socket whose TLS handshake is not wrapped in packets (TDS 8).
    pub(super) fn without_packets(stream: TcpStream, tcp: Arc<TcpProbe>) -> Self {
        Self { wraps: false, unwraps: false, ..Self::new(stream, tcp) }
    }

    /// Ends the handshake. From then on, records are written without packets.
    pub(super) fn end_handshake(&mut self) {
        self.wraps = false;
    }

    /// Reads packet headers until payload follows, or until a bare record shows that packets have
    /// ended.
    fn poll_header(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.payload_left == 0 && self.unwraps {
            // The first byte is read alone, because TLS 1.3 session tickets come bare or in
            // packets.
            let end = if self.header_read == 0 { 1 } else { HEADER_BYTES };
            let Some(into) = self.header.get_mut(self.header_read..end) else {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            };
            let mut into = ReadBuf::new(into);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut into))?;
            let count = into.filled().len();
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.header_read += count;
            let [first, _, high, low, ..] = self.header;
            if TLS_RECORDS.contains(&first) {
                self.unwraps = false;
            } else if self.header_read == HEADER_BYTES {
                self.header_read = 0;
                let length = usize::from(u16::from_be_bytes([high, low]));
                self.payload_left = length.saturating_sub(HEADER_BYTES);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_packets(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.plain.is_empty() {
            let payload = self
                .plain
                .split_to(self.plain.len().min(HANDSHAKE_PACKET_BYTES_MAX - HEADER_BYTES));
            let status = if self.plain.is_empty() { END_OF_MESSAGE } else { 0 };
            let length = u16::try_from(payload.len() + HEADER_BYTES).unwrap_or_default();
            self.packets.put_slice(&[PRELOGIN, status]);
            self.packets.put_u16(length);
            self.packets.put_slice(&[0; 4]);
            self.packets.put_slice(&payload);
        }
        while !self.packets.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.packets))?;
            self.tcp.count(count);
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.packets.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for TdsSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.unwraps {
            ready!(this.poll_header(cx))?;
        }
        if !this.unwraps && this.header_read > 0 {
            // The byte that identified the record is part of it.
            let [first, ..] = this.header;
            this.header_read = 0;
            buffer.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        if !this.unwraps {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        let wanted = buffer.remaining().min(this.payload_left);
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(wanted));
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        buffer.advance(count);
        this.payload_left -= count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TdsSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.wraps {
            self.plain.put_slice(from);
            return Poll::Ready(Ok(from.len()));
        }
        ready!(self.poll_packets(cx))?;
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, from))?;
        self.tcp.count(count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_packets(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_packets(cx)
    }
}
