//! The messages that a session receives: replies to its attempts, and signals of the wait queue.

use crate::envelope::{EnvelopeError, Reply, WorkerId};
use crate::message::Subject;

/// The largest number of messages that wait to be read by one session. A session that is slower loses replies, so an
/// answer in more parts than this may be incomplete.
pub const SESSION_MESSAGES_MAX: usize = 1024;

/// One message for a session.
#[derive(Debug)]
pub enum SessionMessage {
    /// A reply to one of its attempts.
    Reply(AttemptReply),
    /// A signal of the wait queue.
    Signal(QueueSignal),
}

/// A reply to one attempt.
#[derive(Debug)]
pub struct AttemptReply {
    /// The attempt.
    pub attempt: u32,
    /// The worker that sent it, if the reply names one. It serves the request's queue.
    pub worker: Option<WorkerId>,
    /// The reply, or why it cannot be parsed.
    pub reply: Result<Reply, EnvelopeError>,
    /// Whether the byte budget had room for its bytes. If not, they were dropped.
    pub has_room: bool,
}

/// A signal of the wait queue to one waiter.
#[derive(Debug)]
pub enum QueueSignal {
    /// It has become the oldest: it may try the group again after a delay.
    Head,
    /// The queue has members again: it may try the group now.
    TryGroup,
    /// It was evicted as the youngest waiter of a full queue.
    QueueFull,
    /// A worker has a free slot for it, at this subject.
    SlotOffered(Subject),
}
