//! Counts the response bytes that an HTTP/2 client accepts: DATA and HEADERS frames (RFC 9113 §6). Other frames do not count,
//! because a client can make us write any number of them, for example by sending PING.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::activity::ConnectionActivity;

/// The size of a frame header: length, type, flags and stream.
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// A byte stream that counts the response bytes written to it.
#[derive(Debug)]
pub(in super::super) struct FrameCounter<IO> {
    io: IO,
    position: FramePosition,
    activity: Arc<ConnectionActivity>,
}

/// The position of the next written byte within the frames.
#[derive(Debug, Default)]
struct FramePosition {
    head: [u8; HEAD_BYTES],
    /// The number of bytes of the frame header that have been written.
    head_bytes: usize,
    /// The number of bytes of the payload that have not been written.
    payload_left: usize,
}

impl FramePosition {
    /// Advances over written bytes. Returns the number of bytes that belong to responses.
    fn advance(&mut self, mut bytes: &[u8]) -> u64 {
        let mut counted = 0;
        while !bytes.is_empty() {
            if self.head_bytes < HEAD_BYTES {
                let (now, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES - self.head_bytes));
                for (place, byte) in self.head.iter_mut().skip(self.head_bytes).zip(now) {
                    *place = *byte;
                }
                self.head_bytes += now.len();
                bytes = rest;
                if self.head_bytes == HEAD_BYTES {
                    let [a, b, c, ..] = self.head;
                    self.payload_left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                }
            } else {
                let (now, rest) = bytes.split_at(bytes.len().min(self.payload_left));
                self.payload_left -= now.len();
                let [_, _, _, frame_type, ..] = self.head;
                if frame_type == DATA || frame_type == HEADERS {
                    counted += now.len() as u64;
                }
                bytes = rest;
            }
            if self.head_bytes == HEAD_BYTES && self.payload_left == 0 {
                self.head_bytes = 0;
            }
        }
        counted
    }
}

impl<IO> FrameCounter<IO> {
    pub(in super::super) fn new(io: IO, activity: Arc<ConnectionActivity>) -> Self {
        Self { io, position: FramePosition::default(), activity }
    }

    fn advance<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>, mut written: usize) {
        let mut counted = 0;
        for piece in pieces {
            let now = piece.get(..written.min(piece.len())).unwrap_or_default();
            written -= now.len();
            counted += self.position.advance(now);
        }
        self.activity.add_delivered(counted);
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for FrameCounter<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for FrameCounter<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(context, bytes))?;
        self.advance(std::iter::once(bytes), written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(context, pieces))?;
        self.advance(pieces.iter().map(|piece| &**piece), written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(frame_type: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        [&length[1..], &[frame_type, 0, 0, 0, 0, 1], &vec![0; payload]].concat()
    }

    #[test]
    fn only_responses_count_however_they_are_split() {
        let written: Vec<u8> =
            [(4, 0), (0, 100), (6, 8), (1, 30), (8, 4), (0, 0), (0, 70_000), (6, 8)]
                .into_iter()
                .flat_map(|(frame_type, payload)| frame(frame_type, payload))
                .collect();
        for cut in [1, 8, 9, 10, 4096, written.len()] {
            let mut position = FramePosition::default();
            let counted: u64 = written.chunks(cut).map(|piece| position.advance(piece)).sum();
            assert_eq!(counted, 100 + 30 + 70_000, "in chunks of {cut}");
        }
    }
}
