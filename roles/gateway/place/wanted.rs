//! What is wanted of an answer, and where there is room for it.

use crate::envelope::{EnvelopeError, Reply};
use crate::roles::gateway::byte_budget::Reservation;
use crate::roles::gateway::session::Event;

/// What is wanted of an answer, and what it may hold.
#[derive(Debug)]
pub struct Wanted {
    /// Whether its parts are wanted; without them an answer in parts has no body (HEAD).
    pub keeps_answer: bool,
    /// What the request holds, and what parts that are put together will.
    pub room: Reservation,
}

impl Wanted {
    /// A reply for the session; a part of an answer that is put together only when there is room for it.
    pub(super) fn heard(
        &mut self,
        streams: bool,
        attempt: u32,
        reply: Result<Reply, EnvelopeError>,
    ) -> Event {
        if let Ok(Reply::Part { bytes, .. }) = &reply
            && !streams
            && self.keeps_answer
            && self.room.grow(bytes.len()).is_err()
        {
            tracing::warn!("an answer cannot be put together: no room for more bytes");
            return Event::NoRoom { attempt };
        }
        Event::Heard { attempt, reply }
    }
}
