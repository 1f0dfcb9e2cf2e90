//! The messages that a session receives: replies to its attempts and signals from the wait queue.

use crate::envelope::{EnvelopeError, Reply, WorkerId};
use crate::message::Subject;

/// The capacity of a session's channel. If the session reads too slowly, replies are lost, so an
/// answer with more parts than this can fail.
pub const SESSION_MESSAGES_MAX: usize = 1024;

/// A message for a session.
#[derive(Debug)]
pub enum SessionMessage {
    /// A reply to one of the session's attempts.
    Reply(AttemptReply),
    /// A signal from the wait queue.
    Signal(QueueSignal),
}

/// A reply to one attempt.
#[derive(Debug)]
pub struct AttemptReply {
    /// The number of the attempt.
    pub attempt: u32,
    /// The worker that sent the reply, if the reply names one that serves the request's queue.
    pub worker: Option<WorkerId>,
    /// The reply, or the error if it cannot be parsed.
    pub reply: Result<Reply, EnvelopeError>,
    /// Whether the byte budget had room for the reply's bytes. If not, the bytes were dropped.
    pub has_room: bool,
}

/// A signal from the wait queue to a waiter.
#[derive(Debug)]
pub enum QueueSignal {
    /// The waiter is now the next to be served. After a delay, it may send its request to the group again.
    Head,
    /// The queue has members again. The waiter may send its request to the group now.
    SendToGroup,
    /// The waiter was evicted as the last waiter of a full queue.
    QueueFull,
    /// A worker offers the waiter a free slot at this subject.
    SlotOffered(Subject),
}
