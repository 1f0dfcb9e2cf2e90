//! An answer that goes to its client while it still comes.

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::config::limits::WINDOW_PARTS;
use crate::envelope::AnswerHead;
use crate::lifecycle::Cancel;
use crate::roles::gateway::client::byte_budget::Reservation;
use crate::roles::gateway::dispatch::session::Ending;
use crate::roles::gateway::response::StreamChunk;
use crate::roles::gateway::response::StreamedBody;
use crate::telemetry::context;

use super::{Guard, Placed, Ride, Stop};

/// Pieces beyond the window that have room on their way to the client: the last one, and the word that it was.
const LAST_PIECES: usize = 2;

/// An answer that has begun, with what brings the rest of it.
#[derive(Debug)]
pub struct Begun {
    /// How it begins.
    pub head: AnswerHead,
    /// What comes.
    pub body: StreamedBody,
    /// What brings it.
    pub rest: Rest,
}

/// What brings the rest of an answer. Dropped before it does, it takes the client for gone.
#[derive(Debug)]
pub struct Rest {
    pub(super) guard: Guard,
    pub(super) ended: Cancel,
}

/// What the client of a streaming answer does.
pub(super) enum PieceEvent {
    /// It has consumed this many pieces in total.
    Consumed(u32),
    /// It has disconnected.
    ClientGone,
}

/// The way of the pieces to the client.
#[derive(Debug)]
pub(super) struct Pieces {
    to: mpsc::Sender<StreamChunk>,
    consumed: watch::Receiver<u32>,
    /// Whether a piece found no room: then the answer must not be told whole.
    lacks: bool,
}

impl Pieces {
    /// The way, and the body at its end.
    pub(super) fn open(window: u32, ended: Cancel, room: Reservation) -> (Self, StreamedBody) {
        let pieces = usize::try_from(window.min(WINDOW_PARTS.ceiling)).unwrap_or_default();
        let (sender, receiver) = mpsc::channel(pieces + LAST_PIECES);
        let (consumed_sender, consumed) = watch::channel(0);
        let body = StreamedBody::new(receiver, consumed_sender, ended, Some(room));
        (Self { to: sender, consumed, lacks: false }, body)
    }

    /// Passes bytes on. There is room: the session keeps the worker to its window.
    pub(super) fn pass(&mut self, bytes: Bytes) {
        self.put(StreamChunk::Bytes(bytes));
    }

    /// Says that they were all. If one was not, this end says nothing, and the body is cut off.
    pub(super) fn end(mut self) {
        if !self.lacks {
            self.put(StreamChunk::End);
        }
    }

    fn put(&mut self, piece: StreamChunk) {
        self.lacks |= matches!(self.to.try_send(piece), Err(mpsc::error::TrySendError::Full(_)));
        debug_assert!(!self.lacks, "a worker is kept to its window");
    }

    /// Waits until the client consumes pieces or disconnects. Safe to drop.
    pub(super) async fn next_event(&mut self) -> PieceEvent {
        tokio::select! {
            biased;
            Ok(()) = self.consumed.changed() => {
                PieceEvent::Consumed(*self.consumed.borrow_and_update())
            }
            () = self.to.closed() => PieceEvent::ClientGone,
        }
    }
}

impl Ride {
    /// The beginning of an answer.
    pub(super) fn begin(&mut self, head: AnswerHead) -> Stop {
        let window = self.request.window;
        let room = self.wanted.another();
        let (pieces, body) = Pieces::open(window, Cancel::new(), room);
        self.pieces = Some(pieces);
        Stop::Begun(head, body)
    }

    /// Tells the body of an answer that has begun whether that was all of it, and counts one that was put together.
    pub(super) fn end(&mut self, mut ending: Ending) -> Ending {
        if let Ending::Final(answer) = &mut ending {
            self.wanted.keep(answer);
        }
        if let Some(pieces) = self.pieces.take()
            && matches!(ending, Ending::Final(_))
        {
            pieces.end();
        }
        ending
    }
}

impl Rest {
    /// How many attempts were made.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.guard.0.as_ref().map_or(0, |ride| ride.session.attempts_made())
    }

    /// Brings the rest in a task of its own, and says then how it ended.
    pub fn bring(mut self, ended: impl FnOnce(&Placed) + Send + 'static) {
        let Some(tasks) = self.guard.0.as_ref().map(|ride| ride.placer.tasks.clone()) else {
            return;
        };
        let _detached = tasks.spawn(context::inherit(async move {
            let _ended = self.ended.cancel_on_drop();
            if let Some(ride) = self.guard.0.as_mut() {
                let ending = ride.run_on().await;
                if let Some(ride) = self.guard.0.take() {
                    ended(&ride.finish(ending));
                }
            }
        }));
    }
}
