//! What is wanted of an answer, and where there is room for it.

use bytes::Bytes;

use crate::envelope::{Final, Request};
use crate::roles::gateway::client::byte_budget::Reservation;
use crate::roles::gateway::dispatch::replies::Expected;

/// What is wanted of an answer, and what it may hold.
#[derive(Debug)]
pub struct Wanted {
    keeps_answer: bool,
    room: Reservation,
    /// Whether the answer is put together from parts.
    has_parts: bool,
}

impl Wanted {
    /// All of an answer, or, without its parts, none of one in parts (HEAD). `room` is what the request holds.
    #[must_use]
    pub fn new(keeps_answer: bool, room: Reservation) -> Self {
        Self { keeps_answer, room, has_parts: false }
    }

    /// Whether parts are wanted.
    pub(super) fn keeps_answer(&self) -> bool {
        self.keeps_answer
    }

    /// Whether the byte budget has room for another answer.
    pub(super) fn has_room(&self) -> bool {
        self.room.others_leave_room()
    }

    /// Limits on the answer, for the reply table.
    pub(super) fn expected(&self, request: &Request) -> Expected {
        let (window, execution) = (request.window, request.execution);
        Expected { room: self.another(), window, execution }
    }

    /// Nothing yet, counted for the same client.
    pub(super) fn another(&self) -> Reservation {
        self.room.another()
    }

    /// So many bytes of parts, when there are any, are about to be put together with the last: for a moment they are
    /// there twice.
    pub(super) fn put_together(&mut self, part_bytes: usize, last: &Bytes) {
        if self.keeps_answer && part_bytes > 0 && !self.has_parts {
            self.room.add(part_bytes + last.len());
            self.has_parts = true;
        }
    }

    /// Counts an answer that was put together for as long as anybody has it.
    pub(super) fn keep(&mut self, answer: &mut Final) {
        if std::mem::take(&mut self.has_parts) {
            let again = self.room.another();
            let room = std::mem::replace(&mut self.room, again);
            answer.body = room.holding(std::mem::take(&mut answer.body));
        }
    }

    /// What the request holds.
    pub(super) fn into_room(self) -> Reservation {
        self.room
    }
}
