//! A stream that resets the connection with each request of the driver's client, as fjord does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The length of a packet's header: the type, the status, the length, and four more bytes (MS-TDS
/// 2.2.3.1).
const HEADER_BYTES: usize = 8;
/// The packet types of requests: SQL batch and RPC.
const REQUESTS: [u8; 2] = [0x01, 0x03];
const END_OF_MESSAGE: u8 = 0x01;
const RESET_CONNECTION: u8 = 0x08;

/// A stream that buffers written bytes and sends only complete packets when it is flushed.
#[derive(Debug)]
pub(crate) struct ResettingStream {
    tcp: TcpStream,
    resets: bool,
    /// The buffered packets. The first `whole` bytes are complete packets.
    packets: Vec<u8>,
    whole: usize,
    is_start: bool,
}

impl ResettingStream {
    /// Wraps a TCP connection. Without `resets`, all bytes pass unchanged.
    pub(crate) fn new(tcp: TcpStream, resets: bool) -> Self {
        Self { tcp, resets, packets: Vec::new(), whole: 0, is_start: true }
    }

    fn mark(&mut self) {
        while let Some([kind, status, high, low, ..]) = self.packets.get_mut(self.whole..) {
            let length = usize::from(u16::from_be_bytes([*high, *low])).max(HEADER_BYTES);
            if self.is_start && self.resets && REQUESTS.contains(kind) {
                *status |= RESET_CONNECTION;
            }
            let is_end = *status & END_OF_MESSAGE != 0;
            if self.packets.len() < self.whole + length {
                return;
            }
            self.is_start = is_end;
            self.whole += length;
        }
    }
}

impl AsyncRead for ResettingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ResettingStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.packets.extend_from_slice(from);
        self.mark();
        Poll::Ready(Ok(from.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.whole > 0 {
            let this = &mut *self;
            let packets = this.packets.get(..this.whole).unwrap_or_default();
            let count = ready!(Pin::new(&mut this.tcp).poll_write(cx, packets))?;
            this.packets.drain(..count);
            this.whole -= count;
        }
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
