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

/// A connection's bytes without what hyper answers by itself.
#[derive(Debug)]
pub(super) struct Held<IO> {
    io: IO,
    due: Due,
    place: Place,
    /// What hyper would have answered with.
    status: Option<StatusCode>,
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
    pub(super) fn new(io: IO, due: Due) -> Self {
        Self { io, due, place: Place::Start, status: None }
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

impl<IO: AsyncRead + Unpin> AsyncRead for Held<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Held<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let ours = self.ours(std::iter::once(bytes));
        let Some(own) = bytes.get(..ours.bytes).filter(|own| !own.is_empty() || bytes.is_empty())
        else {
            self.hold(bytes);
            return Poll::Ready(Ok(bytes.len()));
        };
        let written = std::task::ready!(Pin::new(&mut self.io).poll_write(context, own))?;
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
        if ours.bytes < all {
            // Rare: piece by piece.
            let first = pieces.iter().find(|piece| !piece.is_empty());
            return self.poll_write(context, first.map_or(&[], |piece| &**piece));
        }
        let result = Pin::new(&mut self.io).poll_write_vectored(context, pieces);
        let written = std::task::ready!(result)?;
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
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    const OURS: &str = "HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n";
    /// A body that looks like an answer.
    const BODY: &str = "HTTP/1.1 400 Bad Request\r\n\r\nxx";
    const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    const HEAD: &str = "HTTP/1.1 304 Not Modified\r\n\r\n";
    /// With a chunk that looks like the last one.
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\n\r\n1E\r\nHTTP/1.1 400 Bad Request\r\n\r\nxx\r\n\
                           5\r\n0\r\n\r\n\r\n0\r\n\r\n";
    const HYPERS: &str =
        "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n";

    /// What reaches the wire, and what is held back, however the bytes are cut.
    async fn check(due: &[Length], texts: &[&str], expected: &[&str], status: Option<u16>) {
        for cut in [1, 13, 16, usize::MAX] {
            let held = Due::default();
            for length in due {
                held.announce(*length);
            }
            let mut io = Held::new(Vec::new(), held);
            for text in texts {
                // hyper writes heads whole; a body may be cut anywhere.
                let cut =
                    if [BODY, CHUNKED].contains(text) && cut >= 13 { cut } else { usize::MAX };
                for piece in text.as_bytes().chunks(cut.min(text.len())) {
                    io.write_all(piece).await.unwrap();
                }
            }
            let (wire, left) = io.into_inner();
            assert_eq!(String::from_utf8(wire).unwrap(), expected.concat(), "{cut}");
            let status = status.map(|status| StatusCode::from_u16(status).unwrap());
            assert_eq!(left, status.map_or(Left::Between, Left::Refused));
        }
    }

    #[tokio::test]
    async fn what_is_not_due_is_held_back_and_nothing_else() {
        check(&[Some(30)], &[OURS, BODY], &[OURS, BODY], None).await;
        check(&[Some(30)], &[CONTINUE, OURS, BODY], &[CONTINUE, OURS, BODY], None).await;
        check(&[Some(0), Some(30)], &[HEAD, OURS, BODY], &[HEAD, OURS, BODY], None).await;
        check(&[], &[HYPERS], &[], Some(431)).await;
        check(&[], &[CONTINUE, HYPERS], &[CONTINUE], Some(431)).await;
        check(&[Some(30)], &[OURS, BODY, HYPERS], &[OURS, BODY], Some(431)).await;
        check(&[None, Some(30)], &[CHUNKED, OURS, BODY, HYPERS], &[CHUNKED, OURS, BODY], Some(431))
            .await;
        let together = [OURS, BODY, HYPERS].concat();
        check(&[Some(30)], &[&together], &[OURS, BODY], Some(431)).await;
    }

    /// A head byte by byte.
    fn go_through_bytes(last: &mut u32, bytes: &[u8]) -> usize {
        for (at, byte) in bytes.iter().enumerate() {
            *last = *last << 8 | u32::from(*byte);
            if *last == HEAD_END {
                return at + 1;
            }
        }
        bytes.len()
    }

    proptest::proptest! {
        #[test]
        fn a_head_ends_where_it_does_byte_by_byte(
            text in "[\r\n:x]{0,40}",
            before in "[\r\nx]{0,4}",
            cuts in proptest::collection::vec(1..9usize, 1..20),
        ) {
            let mut last = before.bytes().fold(0, |last, byte| last << 8 | u32::from(byte));
            let mut reference = last;
            proptest::prop_assume!(last != HEAD_END);
            let (mut rest, mut cuts) = (text.as_bytes(), cuts.into_iter().cycle());
            while !rest.is_empty() && reference != HEAD_END {
                let piece = &rest[..cuts.next().unwrap().min(rest.len())];
                let end = go_through_bytes(&mut reference, piece);
                let mut at = 0;
                while at < piece.len() && last != HEAD_END {
                    at += go_through_line(&mut last, &piece[at..]);
                }
                proptest::prop_assert_eq!((at, last), (end, reference));
                rest = &rest[piece.len()..];
            }
        }
    }

    #[tokio::test]
    async fn a_short_write_is_gone_on_with() {
        let (client, mut server) = tokio::io::duplex(7);
        let due = Due::default();
        due.announce(Some(30));
        let mut io = Held::new(client, due);
        let reading = async {
            let mut read = String::new();
            tokio::io::AsyncReadExt::read_to_string(&mut server, &mut read).await.unwrap();
            read
        };
        let writing = async {
            io.write_all([CONTINUE, OURS, BODY, CONTINUE, HYPERS].concat().as_bytes())
                .await
                .unwrap();
            let (client, left) = io.into_inner();
            drop(client);
            left
        };
        let (read, left) = tokio::join!(reading, writing);
        assert_eq!(read, [CONTINUE, OURS, BODY, CONTINUE].concat());
        assert_eq!(left, Left::Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }

    #[tokio::test]
    async fn an_answer_that_is_not_whole_is_known() {
        let due = Due::default();
        due.announce(Some(30));
        let mut io = Held::new(Vec::new(), due.clone());
        io.write_all([OURS, "HTTP/1.1 4"].concat().as_bytes()).await.unwrap();
        assert_eq!(io.into_inner().1, Left::Within);
        due.announce(None);
        let mut io = Held::new(Vec::new(), due.clone());
        io.write_all(CHUNKED.strip_suffix("0\r\n\r\n").unwrap().as_bytes()).await.unwrap();
        assert_eq!(io.into_inner().1, Left::Within, "its last chunk is missing");
        due.announce(Some(0));
        assert_eq!(Held::new(Vec::<u8>::new(), due).into_inner().1, Left::Within, "not begun");
    }
}
