//! What reaches a waiting request from outside: replies to it, and its turns in the hold.

use crate::envelope::{EnvelopeError, Reply, WorkerId};
use crate::message::Subject;

/// Messages that wait to be read by one request. An answer in more parts than this is not read in time.
pub const MAIL_MAX: usize = 1024;

/// One piece of news for a request.
#[derive(Debug)]
pub enum Mail {
    /// A reply to one of its attempts.
    Reply {
        /// The attempt.
        attempt: u32,
        /// Whose it is, when it says so: a worker of the request's queue.
        worker: Option<WorkerId>,
        /// The reply, or why it cannot be read.
        reply: Result<Reply, EnvelopeError>,
        /// Whether there was room for its bytes; without it they are gone.
        has_room: bool,
    },
    /// What the hold says.
    Turn(Turn),
}

/// What the hold tells a waiting request.
#[derive(Debug)]
pub enum Turn {
    /// It is the oldest now: it may ask the group again when its pause is over.
    Head,
    /// The queue has members again: ask now.
    Ask,
    /// It has lost its place: too many wait, and it came last.
    Full,
    /// A slot is free for it.
    Offered(Subject),
}
