//! The body of a response. It is complete, received from a worker while it is sent, or produced piece by
//! piece.

use std::fmt::Debug;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{io, mem};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{mpsc, watch};

use crate::lifecycle::Cancel;
use crate::roles::gateway::client::byte_budget::BudgetExhausted;
use crate::roles::gateway::client::byte_budget::Reservation;

/// The body of a response.
#[derive(Debug)]
pub enum ResponseBody {
    /// A complete body.
    Whole(Bytes),
    /// A body that is received while it is sent.
    Streamed(StreamedBody),
    /// A body that is produced piece by piece while it is sent.
    Produced(Box<dyn BodyProducer>),
}

/// Produces a body piece by piece.
pub trait BodyProducer: Debug + Send {
    /// Returns whether nothing is left to be produced.
    fn is_complete(&self) -> bool;
    /// Returns the number of bytes that are still to be produced, if it is known.
    fn remaining(&self) -> Option<u64>;
    /// Produces the next piece, which takes a few milliseconds at most. It is empty only at the end.
    ///
    /// # Errors
    /// An error if the piece cannot be produced. The body is then truncated.
    fn produce(&mut self) -> io::Result<Bytes>;
}

/// The maximum number of bytes that are encoded before other tasks get their turn. Encoding them
/// takes a few milliseconds at most.
const ENCODED_BYTES_MAX: usize = 128 * 1024;

/// A body that is received from a worker while it is sent to the client.
#[derive(Debug)]
pub struct StreamedBody {
    chunks: mpsc::Receiver<StreamChunk>,
    /// The number of chunks that the client's connection has consumed.
    consumed: watch::Sender<u32>,
    is_complete: bool,
    ended: Cancel,
    /// The encoder that compresses the body, if any.
    encoder: Option<Box<ChunkEncoder>>,
    /// The reservation for the memory of the encoder and of its output.
    reservation: Option<Reservation>,
}

/// Encodes large chunks piece by piece.
#[derive(Debug)]
struct ChunkEncoder {
    encoder: Box<dyn BodyEncoder>,
    /// The rest of a chunk, which is still to be encoded.
    unencoded: Bytes,
    /// Whether other tasks have had their turn since the last piece was encoded.
    has_yielded: bool,
}

impl ChunkEncoder {
    fn encode_next(&mut self) -> io::Result<Bytes> {
        self.has_yielded = false;
        let piece = self.unencoded.split_to(self.unencoded.len().min(ENCODED_BYTES_MAX));
        if self.unencoded.is_empty() {
            // An empty rest would keep the chunk's memory reserved.
            self.unencoded = Bytes::new();
        }
        self.encoder.encode(&piece)
    }
}

/// Encodes a body chunk by chunk.
pub trait BodyEncoder: Debug + Send {
    /// Encodes a chunk.
    ///
    /// # Errors
    /// An error if the chunk cannot be encoded. The body is then truncated.
    fn encode(&mut self, bytes: &[u8]) -> io::Result<Bytes>;
    /// Ends the body and returns its last bytes.
    ///
    /// # Errors
    /// Same as `encode`.
    fn finish(self: Box<Self>) -> io::Result<Bytes>;
}

/// A part of a streamed body.
#[derive(Debug)]
pub(in crate::roles::gateway) enum StreamChunk {
    /// Bytes of the body.
    Bytes(Bytes),
    /// The end of the body. A body without it is truncated.
    End,
}

/// The error for a body that ended too early. The client must not treat it as complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the response was truncated")]
pub struct Truncated;

impl StreamedBody {
    /// Creates a body that reads `chunks` and reports to `consumed` how many it has read. `ended`
    /// must be cancelled when no more chunks will follow.
    pub(in crate::roles::gateway) fn new(
        chunks: mpsc::Receiver<StreamChunk>,
        consumed: watch::Sender<u32>,
        ended: Cancel,
        reservation: Option<Reservation>,
    ) -> Self {
        Self { chunks, consumed, is_complete: false, ended, encoder: None, reservation }
    }

    /// Creates the body of a response to HEAD, which is never read and has no known length.
    #[must_use]
    pub fn unread() -> Self {
        let (ended, (_, chunks)) = (Cancel::new(), mpsc::channel(1));
        ended.cancel();
        Self::new(chunks, watch::Sender::new(0), ended, None)
    }

    /// Reserves the memory of an encoder.
    ///
    /// # Errors
    /// `BudgetExhausted`: the body must be sent unencoded, to leave memory for other responses.
    pub fn reserve_encoder(&mut self, encoder_bytes: usize) -> Result<(), BudgetExhausted> {
        self.reservation.as_mut().map_or(Ok(()), |room| room.grow_optional(encoder_bytes))
    }

    /// Encodes the body with `encoder`.
    #[must_use]
    pub fn encoded(self, encoder: Box<dyn BodyEncoder>) -> Self {
        let encoder = ChunkEncoder { encoder, unencoded: Bytes::new(), has_yielded: false };
        Self { encoder: Some(Box::new(encoder)), ..self }
    }

    /// Counts the bytes that the encoder has produced.
    fn count_encoded(&self, encoded: io::Result<Bytes>) -> Result<Frame<Bytes>, Truncated> {
        let encoded = encoded.map_err(|_| Truncated)?;
        let reservation = self.reservation.as_ref().map(Reservation::empty_for_same_client);
        Ok(Frame::data(match reservation {
            Some(reservation) => reservation.attach(encoded),
            None => encoded,
        }))
    }

    /// Returns a `Cancel` that is cancelled when no more chunks will be received. The client can
    /// still have chunks to read.
    #[must_use]
    pub fn ended(&self) -> &Cancel {
        &self.ended
    }

    /// Encodes the next piece of a chunk. The chunk counts as consumed once all of it is encoded.
    fn encode_next(&mut self) -> Option<Result<Frame<Bytes>, Truncated>> {
        let encoder = self.encoder.as_mut()?;
        let result = encoder.encode_next();
        if encoder.unencoded.is_empty() {
            self.consumed.send_modify(|chunks| *chunks += 1);
        }
        Some(self.count_encoded(result))
    }

    fn poll_chunk(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Truncated>>> {
        if self.is_complete {
            return Poll::Ready(None);
        }
        if let Some(encoder) = &mut self.encoder
            && !encoder.unencoded.is_empty()
        {
            if !mem::replace(&mut encoder.has_yielded, true) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(self.encode_next());
        }
        match ready!(self.chunks.poll_recv(context)) {
            Some(StreamChunk::Bytes(bytes)) => match &mut self.encoder {
                Some(encoder) if !bytes.is_empty() => {
                    encoder.unencoded = bytes;
                    Poll::Ready(self.encode_next())
                }
                _ => {
                    self.consumed.send_modify(|chunks| *chunks += 1);
                    Poll::Ready(Some(Ok(Frame::data(bytes))))
                }
            },
            Some(StreamChunk::End) => {
                self.is_complete = true;
                let last = self.encoder.take().map(|encoder| encoder.encoder.finish());
                Poll::Ready(last.map(|last| self.count_encoded(last)))
            }
            None => Poll::Ready(Some(Err(Truncated))),
        }
    }
}

impl ResponseBody {
    /// Returns the complete body.
    ///
    /// # Errors
    /// The body itself if it is not complete.
    pub fn into_whole(self) -> Result<Bytes, Self> {
        match self {
            Self::Whole(body) => Ok(body),
            incomplete => Err(incomplete),
        }
    }
}

impl Default for ResponseBody {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl From<Bytes> for ResponseBody {
    fn from(body: Bytes) -> Self {
        Self::Whole(body)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Truncated;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Truncated>>> {
        match self.get_mut() {
            Self::Whole(body) => {
                let body = mem::take(body);
                Poll::Ready((!body.is_empty()).then(|| Ok(Frame::data(body))))
            }
            Self::Streamed(body) => body.poll_chunk(context),
            Self::Produced(body) if body.is_complete() => Poll::Ready(None),
            Self::Produced(body) => {
                let piece = body.produce().ok();
                let piece = piece.filter(|piece| !piece.is_empty() || body.is_complete());
                Poll::Ready(Some(piece.map(Frame::data).ok_or(Truncated)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_empty(),
            Self::Streamed(body) => body.is_complete,
            Self::Produced(body) => body.is_complete(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => SizeHint::with_exact(body.len() as u64),
            Self::Streamed(_) => SizeHint::default(),
            Self::Produced(body) => {
                body.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
        }
    }
}
