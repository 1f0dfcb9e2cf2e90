//! A plain connection of the driver's own on which every request resets the session first, as the backend's do.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Every packet starts with: kind, status, length, and four bytes more (MS-TDS 2.2.3.1).
const HEADER_BYTES: usize = 8;
/// A batch, a remote procedure call.
const REQUESTS: [u8; 2] = [0x01, 0x03];
const END_OF_MESSAGE: u8 = 0x01;
const RESET_CONNECTION: u8 = 0x08;

/// The stream. What is written is kept until the flush, so that each packet is whole.
#[derive(Debug)]
pub(crate) struct Resetting {
    tcp: TcpStream,
    resets: bool,
    /// Packets, the last one perhaps in part; those before `whole` are ready to be written.
    packets: Vec<u8>,
    whole: usize,
    is_start: bool,
}

impl Resetting {
    /// A stream over a connected one; without `resets` it only passes on.
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

impl AsyncRead for Resetting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Resetting {
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
