//! The messages that a session receives: replies to its attempts, and signals of the wait queue.

use crate::envelope::{EnvelopeError, Reply, WorkerId};
use crate::message::Subject;

/// The largest number of unread messages in one session's channel. A session that reads too slowly loses replies, so an
/// answer in more parts than this may be incomplete.
pub const SESSION_MESSAGES_MAX: usize = 1024;

/// One message for a session.
#[derive(Debug)]
pub enum SessionMessage {
    /// A reply to one of the session's attempts.
    Reply(AttemptReply),
    /// A signal of the wait queue.
    Signal(QueueSignal),
}

/// A reply to one attempt.
#[derive(Debug)]
pub struct AttemptReply {
    /// The number of the attempt.
    pub attempt: u32,
    /// The worker that sent the reply, if the reply names one. This worker serves the request's queue.
    pub worker: Option<WorkerId>,
    /// The reply, or the reason why it cannot be parsed.
    pub reply: Result<Reply, EnvelopeError>,
    /// Whether the byte budget had room for the bytes of the reply. If not, the bytes were dropped.
    pub has_room: bool,
}

/// A signal of the wait queue to one waiter.
#[derive(Debug)]
pub enum QueueSignal {
    /// The waiter has become the oldest. It may try the group again (send its request to it) after a delay.
    Head,
    /// The queue has members again. The waiter may try the group now.
    TryGroup,
    /// The waiter was evicted, because it was the youngest one of a full queue.
    QueueFull,
    /// A worker has a free slot for the waiter, at this subject.
    SlotOffered(Subject),
}
