//! The memory of one request and its answer, charged to the byte budget.

use crate::envelope::{Final, Request};
use crate::roles::gateway::client::byte_budget::Reservation;
use crate::roles::gateway::dispatch::replies::ReplyLimits;

/// The memory that a request has reserved and that its answer can reserve.
#[derive(Debug)]
pub struct AnswerReservation {
    keeps_answer: bool,
    reservation: Reservation,
}

impl AnswerReservation {
    /// Wraps the reservation of a request. Without `keeps_answer` (HEAD), an
    /// answer in parts has no body.
    #[must_use]
    pub fn new(keeps_answer: bool, reservation: Reservation) -> Self {
        Self { keeps_answer, reservation }
    }

    /// Returns whether the parts of an answer are kept.
    pub(in crate::roles::gateway::dispatch) fn keeps_answer(&self) -> bool {
        self.keeps_answer
    }

    /// Returns whether the byte budget has room for another answer.
    pub(super) fn has_room(&self) -> bool {
        self.reservation.budget_has_room()
    }

    /// Returns the limits of the replies to a request.
    pub(in crate::roles::gateway::dispatch) fn reply_limits(
        &self,
        request: &Request,
    ) -> ReplyLimits {
        let (window, execution) = (request.window, request.execution);
        ReplyLimits { reservation: self.empty_for_same_client(), window, execution }
    }

    /// Returns an empty reservation for the same client.
    pub(super) fn empty_for_same_client(&self) -> Reservation {
        self.reservation.empty_for_same_client()
    }

    /// Charges `bytes` for an answer that was assembled from parts, until its body is dropped.
    pub(super) fn charge_assembled(&mut self, answer: &mut Final, bytes: usize) {
        self.reservation.add(bytes);
        let empty = self.reservation.empty_for_same_client();
        let reservation = std::mem::replace(&mut self.reservation, empty);
        answer.body = reservation.attach(std::mem::take(&mut answer.body));
    }

    pub(super) fn into_reservation(self) -> Reservation {
        self.reservation
    }
}
