//! Holds back what hyper answers by itself on an HTTP/1.1 connection, so that it can be answered like everything else.
//!
//! hyper refuses a head that it cannot read with a bare status: no problem document, no request id, no line in a log. It
//! cannot be told not to. But every answer of ours is announced here with its length, before a byte of it is written, so
//! whatever begins where no answer is due is hyper's own. It is the last that hyper writes.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::StatusCode;
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::framing::Framing;
use super::half_closed::HalfClosed;
use super::socket::Socket;

/// The start of the only answers that come before the one that is due (RFC 9110 §15.2).
const INTERIM: &[u8] = b"HTTP/1.1 100 ";
/// Where the status stands in the first line.
const STATUS: std::ops::Range<usize> = 9..12;
/// A line's break.
const BREAK_BYTES: u64 = 2;
/// The end of a head.
const HEAD_END: u32 = u32::from_be_bytes(*b"\r\n\r\n");

/// The lengths of the bodies of answers that were made and not written yet; none: it is written in chunks. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Due(Arc<Mutex<VecDeque<Length>>>);

/// The bytes of a body. Without them it is chunked (RFC 9112 §7.1).
type Length = Option<u64>;

impl Due {
    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Announces the next answer.
    pub(super) fn announce(&self, body_bytes: Length) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(body_bytes);
    }
}

/// A connection's bytes without what hyper answers by itself, and without what it should not read.
#[derive(Debug)]
pub(super) struct Held<IO> {
    io: IO,
    due: Due,
    place: Place,
    /// What hyper would have answered with.
    status: Option<StatusCode>,
    framing: Framing,
    activity: Arc<Activity>,
    /// Of a client that sends nothing more and waits for its answer.
    half_closed: Option<HalfClosed>,
}

/// What hyper left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Every answer is whole; hyper would have said this.
    Refused(StatusCode),
    /// Every answer is whole, and hyper had nothing to say.
    Between,
    /// An answer is not whole: whatever were written now would be taken for a part of it.
    Within,
}

/// Where in the answers the next byte to be written is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// At the start of one.
    Start,
    /// In a head, with the last four bytes of it and the length of the body behind it.
    Head { last: u32, body: Length },
    /// In a body, with so many bytes left.
    Body(u64),
    /// In the size of a chunk, as far as it was written.
    Size(u64),
    /// In a chunk, with so many bytes left; the break at its end is two of them.
    Chunk(u64),
}

/// What is ours of some bytes.
#[derive(Clone, Copy, Debug)]
struct Ours {
    bytes: usize,
    /// The place behind them.
    place: Place,
    /// How many of the answers that were due begin in them.
    begun: usize,
}

impl<IO> Held<IO> {
    pub(super) fn new(io: IO, due: Due, activity: Arc<Activity>) -> Self {
        let (place, framing) = (Place::Start, Framing::default());
        Self { io, due, place, status: None, framing, activity, half_closed: None }
    }

    /// Whether an answer has been made and is not written to its end.
    fn is_writing(&self) -> bool {
        !matches!(self.place, Place::Start) || !self.due.is_empty()
    }

    /// The connection, and what is to be said on it.
    pub(super) fn into_inner(self) -> (IO, Left) {
        let left = match (self.status, self.place) {
            (Some(status), _) => Left::Refused(status),
            (None, Place::Start) if self.due.is_empty() => Left::Between,
            (None, _) => Left::Within,
        };
        (self.io, left)
    }

    /// How many of these bytes are ours, and where they lead.
    fn ours<'a>(&self, pieces: impl Iterator<Item = &'a [u8]>) -> Ours {
        let due = self.due.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = due.iter().copied();
        let mut ours = Ours { bytes: 0, place: self.place, begun: 0 };
        for piece in pieces {
            let walked = walk(&mut ours.place, piece, piece.len(), &mut || {
                let next = due.next();
                ours.begun += usize::from(next.is_some());
                next
            });
            ours.bytes += walked;
            if walked < piece.len() {
                break;
            }
        }
        ours
    }

    /// Goes on by what was written.
    fn advance<'a>(
        &mut self,
        pieces: impl Iterator<Item = &'a [u8]>,
        ours: Ours,
        mut written: usize,
    ) {
        let mut due = self.due.0.lock().unwrap_or_else(PoisonError::into_inner);
        if written == ours.bytes {
            // Nearly always. The way was gone already.
            self.place = ours.place;
            due.drain(..ours.begun);
            return;
        }
        for piece in pieces {
            let now = written.min(piece.len());
            written -= now;
            walk(&mut self.place, piece, now, &mut || due.pop_front());
        }
    }

    /// Takes note of what is not ours.
    fn hold(&mut self, bytes: &[u8]) {
        let status = bytes.get(STATUS).and_then(|digits| StatusCode::from_bytes(digits).ok());
        self.status = self.status.or(status).or(Some(StatusCode::BAD_REQUEST));
    }
}

/// Goes through so many of the bytes, up to where something begins that is not due; how far that is. What a head says
/// is read of all the bytes: of one that begins here, a few may be gone through at first.
fn walk(
    place: &mut Place,
    bytes: &[u8],
    limit: usize,
    due: &mut dyn FnMut() -> Option<Length>,
) -> usize {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|_| at < limit) {
        match place {
            Place::Start => {
                let body = if rest.starts_with(INTERIM) { Some(Some(0)) } else { due() };
                let Some(body) = body else { return at };
                *place = Place::Head { last: 0, body };
            }
            Place::Head { last, body } => {
                at += go_through_line(last, rest.get(..limit - at).unwrap_or(rest));
                if *last == HEAD_END {
                    *place = match *body {
                        Some(0) => Place::Start,
                        Some(length) => Place::Body(length),
                        None => Place::Size(0),
                    };
                }
            }
            Place::Body(left) => {
                at += go_through(left, limit - at);
                if *left == 0 {
                    *place = Place::Start;
                }
            }
            Place::Size(size) => {
                let byte = rest.first().copied().unwrap_or_default();
                at += 1;
                match char::from(byte).to_digit(16) {
                    Some(digit) => *size = size.saturating_mul(16).saturating_add(digit.into()),
                    // The last chunk is empty, and hyper writes no trailers for us: a break, and that was all.
                    None if byte == b'\n' && *size == 0 => *place = Place::Body(BREAK_BYTES),
                    None if byte == b'\n' => *place = Place::Chunk(*size + BREAK_BYTES),
                    None => {}
                }
            }
            Place::Chunk(left) => {
                at += go_through(left, limit - at);
                if *left == 0 {
                    *place = Place::Size(0);
                }
            }
        }
    }
    at
}

/// Goes through a head, up to the end of a line or of the bytes; how many that were. A head ends nowhere else.
fn go_through_line(last: &mut u32, bytes: &[u8]) -> usize {
    let line = memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
    // Of a line shorter than four bytes what came before counts too.
    let end = bytes.get(line.saturating_sub(4)..line).unwrap_or_default();
    *last = end.iter().fold(*last, |last, byte| last << 8 | u32::from(*byte));
    line
}

/// Goes through so many bytes at most; how many that were.
fn go_through(left: &mut u64, limit: usize) -> usize {
    let now = usize::try_from(*left).unwrap_or(usize::MAX).min(limit);
    *left -= now as u64;
    now
}

impl<IO: AsyncWrite + Socket + Unpin> Held<IO> {
    /// The end of what the client sends is told only when its answer was written, or when it has left: hyper takes
    /// every client that sends nothing more for one that has left.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_writing = self.is_writing();
        let waits = self.framing.is_between() && (is_writing || self.activity.is_running());
        if !waits {
            return Poll::Ready(Ok(()));
        }
        let may_write = !is_writing && self.activity.takes_interim();
        let half_closed = self.half_closed.get_or_insert_with(HalfClosed::new);
        half_closed.poll_left(&mut self.io, context, may_write).map(Err)
    }
}

impl<IO: AsyncRead + AsyncWrite + Socket + Unpin> AsyncRead for Held<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.half_closed.is_some() {
            return self.poll_end(context);
        }
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        let read = buffer.filled_mut().get_mut(before..).unwrap_or_default();
        if read.is_empty() {
            return self.poll_end(context);
        }
        self.framing.check(read);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Held<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(half_closed) = &mut this.half_closed {
            std::task::ready!(half_closed.poll_finish(&mut this.io, context))?;
        }
        let ours = self.ours(std::iter::once(bytes));
        let Some(own) = bytes.get(..ours.bytes).filter(|own| !own.is_empty() || bytes.is_empty())
        else {
            self.hold(bytes);
            return Poll::Ready(Ok(bytes.len()));
        };
        let written = std::task::ready!(Pin::new(&mut self.io).poll_write(context, own))?;
        self.activity.took(written as u64);
        self.advance(std::iter::once(own), ours, written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: usize = pieces.iter().map(|piece| piece.len()).sum();
        let ours = self.ours(pieces.iter().map(|piece| &**piece));
        if ours.bytes < all || self.half_closed.is_some() {
            // Rare: piece by piece.
            let first = pieces.iter().find(|piece| !piece.is_empty());
            return self.poll_write(context, first.map_or(&[], |piece| &**piece));
        }
        let result = Pin::new(&mut self.io).poll_write_vectored(context, pieces);
        let written = std::task::ready!(result)?;
        self.activity.took(written as u64);
        self.advance(pieces.iter().map(|piece| &**piece), ours, written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.status.is_some() {
            // Our own answer is still to be written.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
