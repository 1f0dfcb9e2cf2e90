//! Sends the chunks of a streamed answer to the response body.

use bytes::Bytes;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::watch;

use crate::config::limits::WINDOW_PARTS;
use crate::lifecycle::Cancel;
use crate::roles::gateway::client::byte_budget::Reservation;
use crate::roles::gateway::response::{StreamChunk, StreamedBody};

/// The capacity beyond the window: for the last chunk and the end-of-stream marker.
const LAST_PIECES: usize = 2;

/// The session's end of the channel to a response body.
#[derive(Debug)]
pub(super) struct BodySender {
    pieces: mpsc::Sender<StreamChunk>,
    consumed: watch::Receiver<u32>,
    /// Whether a chunk was lost because the channel was full. The response must then be cut off.
    has_lost_chunk: bool,
}

/// An event from the client of a streamed answer.
#[derive(Debug)]
pub(super) enum BodyEvent {
    /// The total number of chunks that the client's connection has consumed.
    Consumed(u32),
    /// The client has disconnected.
    Dropped,
}

impl BodySender {
    /// Creates the channel and the response body at its other end.
    pub(super) fn new(
        window: u32,
        ended: Cancel,
        reservation: Reservation,
    ) -> (Self, StreamedBody) {
        let window = usize::try_from(window.min(WINDOW_PARTS.ceiling)).unwrap_or_default();
        let (sender, receiver) = mpsc::channel(window + LAST_PIECES);
        let (consumed_sender, consumed) = watch::channel(0);
        let body = StreamedBody::new(receiver, consumed_sender, ended, Some(reservation));
        (Self { pieces: sender, consumed, has_lost_chunk: false }, body)
    }

    /// Sends a chunk. The channel has room, because the session limits the worker to its window.
    pub(super) fn send(&mut self, bytes: Bytes) {
        self.try_send(StreamChunk::Bytes(bytes));
    }

    /// Ends the response as complete, or cuts it off if a chunk was lost.
    pub(super) fn finish(mut self) {
        if !self.has_lost_chunk {
            self.try_send(StreamChunk::End);
        }
    }

    fn try_send(&mut self, piece: StreamChunk) {
        self.has_lost_chunk |= matches!(self.pieces.try_send(piece), Err(TrySendError::Full(_)));
        debug_assert!(!self.has_lost_chunk, "a worker is limited to its window");
    }

    /// Waits for the next event from the client. This method is cancel safe.
    pub(super) async fn next_event(&mut self) -> BodyEvent {
        tokio::select! {
            biased;
            Ok(()) = self.consumed.changed() => {
                BodyEvent::Consumed(*self.consumed.borrow_and_update())
            }
            () = self.pieces.closed() => BodyEvent::Dropped,
        }
    }
}
