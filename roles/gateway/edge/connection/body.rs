//! A request's body: lent to the service, which reads it whole and within its limits, or not at all.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::gateway::HttpLimits;
use crate::problem::{Problem, ProblemKind};
use crate::roles::gateway::client::byte_budget::Reservation;
use crate::roles::gateway::client::byte_budget::SMALL_BYTES;
use crate::roles::gateway::client::byte_budget::overloaded;

/// How much more than what came a body may take up.
const GROWTH: usize = 8;

/// A request's body as its connection lends it to the service. What the service leaves unread is the connection's to
/// deal with: see `early`.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    /// Whether its client waits to be asked for it (RFC 9110 §10.1.1), and was not.
    waits: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// It was read to its end.
    Over,
    /// Its framing is broken, or its client has left.
    Broken,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, headers: &HeaderMap) -> Self {
        let state = if incoming.is_end_stream() { State::Over } else { State::Open };
        // `filter` knows no other expectation.
        let waits = state == State::Open && headers.contains_key(header::EXPECT);
        Self { incoming, waits, state }
    }

    /// Whether nothing of it is still to come.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Whether its client waits to be asked for it, and was not.
    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    /// Reads on and throws away. Says whether the end came within these bounds. Safe to drop and to call again.
    pub(super) async fn drain(&mut self, bytes_max: usize, limit: Duration) -> bool {
        let reading = async {
            let mut bytes = 0;
            while let Some(Ok(frame)) = self.frame().await {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                if bytes > bytes_max {
                    return;
                }
            }
        };
        drop(timeout(limit, reading).await);
        self.is_over()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // hyper asks the client for it now.
        self.waits = false;
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(context));
        match &frame {
            None => self.state = State::Over,
            Some(Err(_)) => self.state = State::Broken,
            Some(Ok(_)) if self.incoming.is_end_stream() => self.state = State::Over,
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Reads a body of at most so many bytes, for which there is room. Trailers are dropped. Safe to drop and to call again.
///
/// # Errors
/// `BodyTooLarge`, before anything is read when the length is announced; `RequestTimeout` when a piece or
/// the whole is late; `MalformedBody` when the framing is broken; `Overloaded` when there is no room for it.
pub async fn read_body<B>(
    body: B,
    bytes_max: usize,
    limits: &HttpLimits,
    room: &mut Reservation,
) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let too_large = || {
        let detail = format!("the body may have {bytes_max} bytes at most");
        Problem::with_detail(ProblemKind::BodyTooLarge, detail)
    };
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    if body.is_end_stream() {
        // Most requests have none, and nothing to wait for.
        return Ok(Bytes::new());
    }
    let announced = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    room.could_reach(announced.unwrap_or(0)).map_err(|_no_room| overloaded())?;
    let most = announced.unwrap_or(bytes_max).min(bytes_max);
    let mut body = body;
    let deadline = Instant::now() + limits.body_timeout;
    let mut read = Pieces::None;
    loop {
        let idle = Instant::now() + limits.body_idle_timeout;
        let next = timeout_at(deadline.min(idle), body.frame()).await;
        let frame = match next {
            Err(_) => return Err(Problem::new(ProblemKind::RequestTimeout)),
            Ok(None) => return Ok(read.into_bytes()),
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "a request's body cannot be read");
                let detail = "the body is not framed as HTTP requires";
                return Err(Problem::with_detail(ProblemKind::MalformedBody, detail));
            }
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(piece) = frame.into_data() else { continue };
        if read.len() + piece.len() > bytes_max {
            return Err(too_large());
        }
        let room_bytes = read.room_with(piece.len(), most);
        room.reach(room_bytes).map_err(|_no_room| overloaded())?;
        read = read.with(piece, room_bytes);
    }
}

/// Most bodies come in one piece, which then is not copied.
enum Pieces {
    None,
    One(Bytes),
    Many(Vec<u8>),
}

impl Pieces {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(piece) => piece.len(),
            Self::Many(pieces) => pieces.len(),
        }
    }

    /// What it takes up with so many bytes more, when it has `most` in the end: eight times what came, and not what was
    /// announced, so that a client holds little more than it sends. With smaller steps more bodies grow side by side, and
    /// leave blocks of more sizes to the allocator.
    fn room_with(&self, more: usize, most: usize) -> usize {
        let length = self.len() + more;
        match self {
            Self::None => length,
            Self::Many(pieces) if length <= pieces.capacity() => pieces.capacity(),
            Self::One(_) | Self::Many(_) => {
                length.saturating_mul(GROWTH).max(SMALL_BYTES).min(most).max(length)
            }
        }
    }

    /// With a piece more, taking up so much.
    fn with(self, piece: Bytes, room_bytes: usize) -> Self {
        match self {
            Self::None => Self::One(piece),
            Self::One(first) => {
                let mut pieces = Vec::with_capacity(room_bytes);
                pieces.extend_from_slice(&first);
                pieces.extend_from_slice(&piece);
                Self::Many(pieces)
            }
            Self::Many(mut pieces) => {
                pieces.reserve_exact(room_bytes.saturating_sub(pieces.len()));
                pieces.extend_from_slice(&piece);
                Self::Many(pieces)
            }
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::None => Bytes::new(),
            Self::One(piece) => piece,
            Self::Many(pieces) => pieces.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    #[test]
    fn a_body_takes_up_a_few_times_what_came_and_never_more_than_it_may_have() {
        for (most, piece, count) in
            [(1024 * KIB, KIB, 1024), (1000, 1, 1000), (100 * KIB, 60 * KIB, 1)]
        {
            let mut read = Pieces::None;
            for number in 1..=count {
                let room = read.room_with(piece, most);
                read = read.with(vec![b'x'; piece].into(), room);
                let came = number * piece;
                assert_eq!(read.len(), came);
                assert!(
                    room >= came && room <= most.min((GROWTH * came).max(SMALL_BYTES)),
                    "{room}"
                );
                if let Pieces::Many(pieces) = &read {
                    assert_eq!(pieces.capacity(), room, "{came}");
                }
            }
            assert_eq!(read.into_bytes().len(), count * piece);
        }
    }
}
