//! A request that waits for replies, and the bytes of replies that its session has not read yet.

use tokio::sync::mpsc;

use crate::catalogue::Execution;
use crate::envelope::{EnvelopeError, Reply};
use crate::roles::gateway::client::byte_budget::{Reservation, SMALL_BYTES};
use crate::roles::gateway::dispatch::message::{AttemptReply, SessionMessage};

/// The limits of the answer to a request.
#[derive(Debug)]
pub struct ReplyLimits {
    /// The budget to which the bytes of the answer are charged.
    pub reservation: Reservation,
    /// How many parts may be on their way to the client; 0: the answer is assembled first.
    pub window: u32,
    /// Whether the answer may be dropped (502) when the budget is exhausted: only if the request is at-least-once.
    pub execution: Execution,
}

/// One request that waits for replies.
#[derive(Debug)]
pub(super) struct PendingRequest {
    pub(super) queue: u32,
    pub(super) messages: mpsc::Sender<SessionMessage>,
    limits: ReplyLimits,
    /// Whether the first part of a streaming answer was received: from then on the window limits the parts.
    is_streaming: bool,
    /// The bytes of small parts that were received and not charged.
    uncharged_bytes: usize,
}

/// A charge for the bytes of one reply.
pub(super) struct ByteCharge {
    reservation: Reservation,
    /// Whether the reply is dropped if the budget is exhausted.
    is_limited: bool,
}

impl PendingRequest {
    pub(super) fn new(
        queue: u32,
        messages: mpsc::Sender<SessionMessage>,
        limits: ReplyLimits,
    ) -> Self {
        Self { queue, messages, limits, is_streaming: false, uncharged_bytes: 0 }
    }

    /// Returns the charge for a reply; `None` if its bytes are not charged. Parts of an answer that is assembled are
    /// dropped if the budget is exhausted, and so is an at-least-once answer, which can be requested again. A complete
    /// answer of an at-most-once request is never dropped, nor is a part of a streaming answer.
    pub(super) fn charge_for(
        &mut self,
        reply: &Result<Reply, EnvelopeError>,
    ) -> Option<ByteCharge> {
        let may_be_dropped = self.limits.execution == Execution::AtLeastOnce && !self.is_streaming;
        let (is_charged, is_limited) = match reply {
            Ok(Reply::Part { number, bytes, head, .. }) => {
                self.is_streaming |= *number == 1 && head.is_some() && self.limits.window > 0;
                if self.is_streaming {
                    // The client has not received the first part yet, so that one may still be dropped.
                    (Reservation::counts(bytes), may_be_dropped)
                } else {
                    (self.exceeds_small_bytes(bytes.len()), true)
                }
            }
            Ok(Reply::Final(answer)) => (Reservation::counts(&answer.body), may_be_dropped),
            _ => return None,
        };
        let charge = || ByteCharge { reservation: self.limits.reservation.another(), is_limited };
        is_charged.then(charge)
    }

    /// Whether a part of an answer that is assembled is charged. The first parts are not, as long as they are small in
    /// total.
    fn exceeds_small_bytes(&mut self, bytes: usize) -> bool {
        let total = self.uncharged_bytes.saturating_add(bytes);
        if total <= SMALL_BYTES {
            self.uncharged_bytes = total;
        }
        total > SMALL_BYTES
    }
}

impl ByteCharge {
    /// Charges the bytes of a reply until they are dropped. Returns `false`, and removes them, if the budget is
    /// exhausted.
    fn apply(self, reply: &mut Reply) -> bool {
        let bytes = match reply {
            Reply::Part { bytes, .. } => bytes,
            Reply::Final(answer) => &mut answer.body,
            _ => return true,
        };
        let received = std::mem::take(bytes);
        let charged = if self.is_limited {
            self.reservation.keep(received)
        } else {
            Ok(self.reservation.holding(received))
        };
        let has_room = charged.is_ok();
        *bytes = charged.unwrap_or_default();
        has_room
    }
}

/// Sends a reply to its session. Returns it if the session does not take it.
pub(super) fn deliver(
    messages: &mpsc::Sender<SessionMessage>,
    charge: Option<ByteCharge>,
    mut reply: AttemptReply,
) -> Option<Reply> {
    if let (Some(charge), Ok(received)) = (charge, &mut reply.reply) {
        reply.has_room = charge.apply(received);
    }
    match messages.try_send(SessionMessage::Reply(reply)).err()?.into_inner() {
        SessionMessage::Reply(reply) => reply.reply.ok(),
        SessionMessage::Signal(_) => None,
    }
}
