//! The socket under a connection's TLS: it counts what the kernel took and frames the TLS handshake.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Every TDS packet starts with this many bytes (MS-TDS 2.2.3.1).
pub(super) const HEADER_BYTES: usize = 8;
/// A packet before the login says otherwise is this long at most.
const PACKET_BYTES_MAX: usize = 4096;
/// The packet type of PRELOGIN, which also carries the TLS handshake (MS-TDS 2.2.6.5).
pub(super) const PRELOGIN: u8 = 0x12;
/// The status bit of a message's last packet.
pub(super) const END_OF_MESSAGE: u8 = 0x01;
/// The first byte of a TLS record: change cipher spec, alert, handshake, application data.
const TLS_RECORDS: std::ops::RangeInclusive<u8> = 0x14..=0x17;

/// What can still be seen of a TCP connection while the driver owns the stream on top of it.
#[derive(Debug)]
pub(super) struct Tcp {
    /// A second handle of the same socket: it shares the stream's non-blocking mode.
    peephole: std::net::TcpStream,
    written: AtomicU64,
}

impl Tcp {
    /// Looks at a connected stream.
    pub(super) fn of(stream: &TcpStream) -> io::Result<Self> {
        let peephole = SockRef::from(stream).try_clone()?.into();
        Ok(Self { peephole, written: AtomicU64::new(0) })
    }

    /// Bytes that the kernel took so far.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    fn wrote(&self, count: usize) {
        self.written.fetch_add(u64::try_from(count).unwrap_or_default(), Ordering::AcqRel);
    }

    /// Whether an idle connection is still usable: nothing may have come, not even its end.
    pub(super) fn is_quiet(&self) -> bool {
        let seen = self.peephole.peek(&mut [0]);
        matches!(seen, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// The stream under TLS. While the handshake runs its records travel inside PRELOGIN packets.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    tcp: Arc<Tcp>,
    /// What is written goes into packets.
    wraps: bool,
    /// The handshake's bytes that wait for the flush, which makes packets of them.
    plain: BytesMut,
    packets: BytesMut,
    /// What is read comes in packets until the first bare record.
    unwraps: bool,
    header: [u8; HEADER_BYTES],
    header_read: usize,
    payload_left: usize,
}

impl Socket {
    /// A socket whose TLS handshake is to come.
    pub(super) fn new(stream: TcpStream, tcp: Arc<Tcp>) -> Self {
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

    /// The handshake is done: records are written bare from now on.
    pub(super) fn handshake_done(&mut self) {
        self.wraps = false;
    }

    /// Reads packet headers until payload follows, or a bare record says that there are no more packets.
    fn poll_header(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.payload_left == 0 && self.unwraps {
            // Byte by byte at first: a server with TLS 1.3 may send its tickets bare or in a packet.
            let upto = if self.header_read == 0 { 1 } else { HEADER_BYTES };
            let Some(into) = self.header.get_mut(self.header_read..upto) else {
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
            let payload =
                self.plain.split_to(self.plain.len().min(PACKET_BYTES_MAX - HEADER_BYTES));
            let status = if self.plain.is_empty() { END_OF_MESSAGE } else { 0 };
            let length = u16::try_from(payload.len() + HEADER_BYTES).unwrap_or_default();
            self.packets.put_slice(&[PRELOGIN, status]);
            self.packets.put_u16(length);
            self.packets.put_slice(&[0; 4]);
            self.packets.put_slice(&payload);
        }
        while !self.packets.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.packets))?;
            self.tcp.wrote(count);
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.packets.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Socket {
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
            // The byte that told the record apart belongs to it.
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

impl AsyncWrite for Socket {
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
        self.tcp.wrote(count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_packets(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_packets(cx)
    }
}
