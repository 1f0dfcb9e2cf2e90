//! The body of a request. The service borrows it, and either reads all of it within the limits or leaves it unread.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::gateway::{BODY_COPIES, HttpLimits};
use crate::problem::{Problem, ProblemKind};
use crate::roles::gateway::client::byte_budget::Reservation;
use crate::roles::gateway::client::byte_budget::SMALL_BYTES;
use crate::roles::gateway::client::byte_budget::overloaded;

/// The capacity of a growing body, as a multiple of its length.
const GROWTH: usize = 8;

/// The body of a request, which the connection lends to the service. `unread_body` handles any part
/// that the service leaves unread.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    /// Whether the client expects `100 Continue` (RFC 9110 §10.1.1), which has not been sent yet.
    expects_continue: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    /// The body was read to its end.
    Complete,
    /// The framing of the body is invalid, or the client has disconnected.
    Broken,
}

impl RequestBody {
    pub(in super::super) fn new(incoming: Incoming, headers: &HeaderMap) -> Self {
        let state = if incoming.is_end_stream() { State::Complete } else { State::Reading };
        // `filter` rejects every other expectation.
        let expects_continue = state == State::Reading && headers.contains_key(header::EXPECT);
        Self { incoming, expects_continue, state }
    }

    pub(in super::super) fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    pub(super) fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// Reads and discards the rest of the body. Returns whether the body ended within the limits. Safe to drop and to call
    /// again.
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
        self.is_complete()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // The poll below makes hyper send `100 Continue`.
        self.expects_continue = false;
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(context));
        match &frame {
            None => self.state = State::Complete,
            Some(Err(_)) => self.state = State::Broken,
            Some(Ok(_)) if self.incoming.is_end_stream() => self.state = State::Complete,
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.is_complete()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Reads a body of at most `bytes_max` bytes. Reserves room for the body and for the message that it is converted to.
/// Trailers are discarded. Dropping the future loses the chunks that it has read.
///
/// # Errors
/// `BodyTooLarge`, before anything is read if the length is announced; `RequestTimeout` if a chunk or the whole body is late;
/// `MalformedBody` if the framing is invalid; `Overloaded` if there is no room for the body.
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
        let detail = format!("the body must not exceed {bytes_max} bytes");
        Problem::with_detail(ProblemKind::BodyTooLarge, detail)
    };
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    if body.is_end_stream() {
        // Most requests have no body.
        return Ok(Bytes::new());
    }
    let announced = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let announced_room = announced.unwrap_or(0).saturating_mul(BODY_COPIES);
    room.can_grow_to(announced_room).map_err(|_exhausted| overloaded())?;
    let most = announced.unwrap_or(bytes_max).min(bytes_max);
    let mut body = body;
    let deadline = Instant::now() + limits.body_timeout;
    let mut read = BodyChunks::None;
    loop {
        let idle = Instant::now() + limits.body_idle_timeout;
        let next = timeout_at(deadline.min(idle), body.frame()).await;
        let frame = match next {
            Err(_) => return Err(Problem::new(ProblemKind::RequestTimeout)),
            Ok(None) => return Ok(read.into_bytes()),
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "cannot read the request body");
                let detail = "the framing of the body violates HTTP";
                return Err(Problem::with_detail(ProblemKind::MalformedBody, detail));
            }
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(chunk) = frame.into_data() else { continue };
        if read.len() + chunk.len() > bytes_max {
            return Err(too_large());
        }
        let capacity = read.capacity_with(chunk.len(), most);
        room.grow_to(capacity.saturating_mul(BODY_COPIES)).map_err(|_exhausted| overloaded())?;
        read = read.append(chunk, capacity);
    }
}

/// The chunks of a body. Most bodies consist of a single chunk, which is not copied.
enum BodyChunks {
    None,
    One(Bytes),
    Many(Vec<u8>),
}

impl BodyChunks {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(chunk) => chunk.len(),
            Self::Many(chunks) => chunks.len(),
        }
    }

    /// Returns the capacity needed to append `more` bytes, if the complete body has at most `most` bytes. The capacity
    /// grows to eight times the received length, capped at `most`, and not immediately to the announced length. The
    /// memory that a client occupies is thus proportional to the data that it sends. With smaller steps, the allocator
    /// would have more blocks of different sizes when many bodies grow at the same time.
    fn capacity_with(&self, more: usize, most: usize) -> usize {
        let length = self.len() + more;
        match self {
            Self::None => length,
            Self::Many(chunks) if length <= chunks.capacity() => chunks.capacity(),
            Self::One(_) | Self::Many(_) => {
                length.saturating_mul(GROWTH).max(SMALL_BYTES).min(most).max(length)
            }
        }
    }

    /// Appends a chunk, growing to `capacity`.
    fn append(self, chunk: Bytes, capacity: usize) -> Self {
        match self {
            Self::None => Self::One(chunk),
            Self::One(first) => {
                let mut chunks = Vec::with_capacity(capacity);
                chunks.extend_from_slice(&first);
                chunks.extend_from_slice(&chunk);
                Self::Many(chunks)
            }
            Self::Many(mut chunks) => {
                chunks.reserve_exact(capacity.saturating_sub(chunks.len()));
                chunks.extend_from_slice(&chunk);
                Self::Many(chunks)
            }
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::None => Bytes::new(),
            Self::One(chunk) => chunk,
            Self::Many(chunks) => chunks.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use crate::roles::gateway::client::byte_budget::ByteBudget;
    use crate::roles::gateway::client::network::ClientNetwork;

    use super::*;

    const KIB: usize = 1024;

    #[tokio::test]
    async fn a_body_reserves_room_for_its_message_too() {
        let limits = HttpLimits {
            buffered_bytes_max: 100 * KIB,
            buffered_bytes_per_client_max: 100 * KIB,
            ..super::super::filter::tests::limits()
        };
        let budget = ByteBudget::new(&limits);
        for (bytes, reserved) in [(1, Some(0)), (50 * KIB, Some(100 * KIB)), (50 * KIB + 1, None)] {
            let mut room = budget
                .enter(ClientNetwork::new([192, 0, 2, 1].into(), 56))
                .expect("the budget is unused");
            let body = Full::new(Bytes::from(vec![b'x'; bytes]));
            let read = read_body(body, KIB * KIB, &limits, &mut room).await;
            assert_eq!(read.ok().map(|_| budget.held()), reserved, "{bytes}");
        }
    }

    #[test]
    fn a_body_occupies_memory_in_proportion_to_the_received_bytes_up_to_its_limit() {
        for (most, chunk, count) in
            [(1024 * KIB, KIB, 1024), (1000, 1, 1000), (100 * KIB, 60 * KIB, 1)]
        {
            let mut read = BodyChunks::None;
            for number in 1..=count {
                let room = read.capacity_with(chunk, most);
                read = read.append(vec![b'x'; chunk].into(), room);
                let received = number * chunk;
                assert_eq!(read.len(), received);
                assert!(
                    room >= received && room <= most.min((GROWTH * received).max(SMALL_BYTES)),
                    "{room}"
                );
                if let BodyChunks::Many(chunks) = &read {
                    assert_eq!(chunks.capacity(), room, "{received}");
                }
            }
            assert_eq!(read.into_bytes().len(), count * chunk);
        }
    }
}
