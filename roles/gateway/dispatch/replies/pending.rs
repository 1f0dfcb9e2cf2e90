//! A request that is waiting for replies, and the bytes of the replies that its session has not
//! read.

use tokio::sync::mpsc;

use crate::catalogue::Execution;
use crate::envelope::{EnvelopeError, Reply};
use crate::roles::gateway::client::byte_budget::{Reservation, SMALL_BYTES};
use crate::roles::gateway::dispatch::message::{AttemptReply, SessionMessage};

/// The limits of the answer to a request.
#[derive(Debug)]
pub struct ReplyLimits {
    /// The reservation to which the bytes of the answer are charged.
    pub reservation: Reservation,
    /// The number of parts that may be in transit to the client. With 0, the answer is assembled.
    pub window: u32,
    /// The execution guarantee of the request. It determines whether the answer may be dropped.
    pub execution: Execution,
}

/// One request that is waiting for replies.
#[derive(Debug)]
pub(super) struct PendingRequest {
    pub(super) queue: u32,
    pub(super) messages: mpsc::Sender<SessionMessage>,
    limits: ReplyLimits,
    /// Whether a streamed answer has begun. From then on, the window limits the number of parts.
    is_streaming: bool,
    /// The total size of the parts that were received but not charged.
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

    /// Returns the charge for a reply, or `None` if its bytes are not charged. If there is no room,
    /// parts of an assembled answer are dropped. At-least-once answers are dropped too: the client
    /// gets a 502 and can send the request again. At-most-once finals and the rest of a stream are
    /// never dropped.
    pub(super) fn charge_for(
        &mut self,
        reply: &Result<Reply, EnvelopeError>,
    ) -> Option<ByteCharge> {
        let may_be_dropped = self.limits.execution == Execution::AtLeastOnce && !self.is_streaming;
        let (is_charged, is_limited) = match reply {
            Ok(Reply::Part { number, bytes, head, .. }) => {
                self.is_streaming |= *number == 1 && head.is_some() && self.limits.window > 0;
                if self.is_streaming {
                    // Only the first part may be dropped (`may_be_dropped` was computed before the
                    // stream began), because the client has received nothing yet.
                    (Reservation::counts(bytes), may_be_dropped)
                } else {
                    (self.exceeds_small_bytes(bytes.len()), true)
                }
            }
            Ok(Reply::Final(answer)) => (Reservation::counts(&answer.body), may_be_dropped),
            _ => return None,
        };
        let charge = || ByteCharge {
            reservation: self.limits.reservation.empty_for_same_client(),
            is_limited,
        };
        is_charged.then(charge)
    }

    /// Returns whether to charge a part of an answer that is assembled. Parts are not charged while
    /// their total size is small.
    fn exceeds_small_bytes(&mut self, bytes: usize) -> bool {
        let total = self.uncharged_bytes.saturating_add(bytes);
        if total <= SMALL_BYTES {
            self.uncharged_bytes = total;
        }
        total > SMALL_BYTES
    }
}

impl ByteCharge {
    /// Charges the bytes of a reply until they are dropped. If the budget is exhausted, removes the
    /// bytes from the reply and returns `false`.
    fn apply(self, reply: &mut Reply) -> bool {
        let bytes = match reply {
            Reply::Part { bytes, .. } => bytes,
            Reply::Final(answer) => &mut answer.body,
            _ => return true,
        };
        let received = std::mem::take(bytes);
        let charged = if self.is_limited {
            self.reservation.try_attach(received)
        } else {
            Ok(self.reservation.attach(received))
        };
        let has_room = charged.is_ok();
        *bytes = charged.unwrap_or_default();
        has_room
    }
}

/// Sends a reply to its session. Returns the reply if the session's channel is full or closed.
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
