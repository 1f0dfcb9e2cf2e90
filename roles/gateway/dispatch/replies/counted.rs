//! Counts the bytes of replies from the moment they come: what waits to be read by its request is in memory as well.

use tokio::sync::mpsc;

use crate::catalogue::Execution;
use crate::envelope::{EnvelopeError, Reply, WorkerId};
use crate::roles::gateway::client::byte_budget::Reservation;
use crate::roles::gateway::client::byte_budget::SMALL_BYTES;
use crate::roles::gateway::dispatch::mail::Mail;

/// Limits on the answer to a request.
#[derive(Debug)]
pub struct Expected {
    /// The budget to which the bytes of the answer are charged.
    pub room: Reservation,
    /// How many parts may be on their way to the client; 0: the answer is sent whole.
    pub window: u32,
    /// An at-least-once answer may be dropped (502) when there is no room.
    pub execution: Execution,
}

/// One request that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) queue: u32,
    pub(super) mail: mpsc::Sender<Mail>,
    expected: Expected,
    /// Whether its answer has begun with its first part: then the window bounds what comes.
    streams: bool,
    /// Bytes of small parts that came and do not count.
    uncounted: usize,
}

/// What counts the bytes of a reply.
pub(super) struct Counting {
    room: Reservation,
    /// Whether they need room that is free.
    is_bounded: bool,
}

impl Waiting {
    pub(super) fn new(queue: u32, mail: mpsc::Sender<Mail>, expected: Expected) -> Self {
        Self { queue, mail, expected, streams: false, uncounted: 0 }
    }

    /// What counts a reply's bytes, when they count: parts of an answer that is put together need free room, and so does what
    /// can be asked for again. The whole answer of a request that runs at most once is never dropped, and an answer that
    /// has begun is passed on.
    pub(super) fn counting(&mut self, reply: &Result<Reply, EnvelopeError>) -> Option<Counting> {
        let may_be_dropped = self.expected.execution == Execution::AtLeastOnce && !self.streams;
        let (counts, is_bounded) = match reply {
            Ok(Reply::Part { number, bytes, head, .. }) => {
                self.streams |= *number == 1 && head.is_some() && self.expected.window > 0;
                if self.streams {
                    // The client has not seen any of the first part, so it may still be dropped.
                    (Reservation::counts(bytes), may_be_dropped)
                } else {
                    (self.gathers(bytes.len()), true)
                }
            }
            Ok(Reply::Final(answer)) => (Reservation::counts(&answer.body), may_be_dropped),
            _ => return None,
        };
        counts.then(|| Counting { room: self.expected.room.another(), is_bounded })
    }

    /// Whether a part of an answer that is put together counts: the first of them do not, as long as all together are small.
    fn gathers(&mut self, bytes: usize) -> bool {
        let sum = self.uncounted.saturating_add(bytes);
        if sum <= SMALL_BYTES {
            self.uncounted = sum;
        }
        sum > SMALL_BYTES
    }
}

impl Counting {
    /// The same reply, its bytes counted for as long as anybody has them; whether there was room for them.
    fn count(self, mut reply: Reply) -> (Reply, bool) {
        let bytes = match &mut reply {
            Reply::Part { bytes, .. } => bytes,
            Reply::Final(answer) => &mut answer.body,
            _ => return (reply, true),
        };
        let came = std::mem::take(bytes);
        let kept = if self.is_bounded { self.room.keep(came) } else { Ok(self.room.holding(came)) };
        let has_room = kept.is_ok();
        *bytes = kept.unwrap_or_default();
        (reply, has_room)
    }
}

/// Hands a reply to its request; gives it back when that takes none any more.
pub(super) fn post(
    mail: &mpsc::Sender<Mail>,
    counting: Option<Counting>,
    (attempt, worker, reply): (u32, Option<WorkerId>, Result<Reply, EnvelopeError>),
) -> Option<Reply> {
    let (reply, has_room) = match (counting, reply) {
        (Some(counting), Ok(reply)) => {
            let (reply, has_room) = counting.count(reply);
            (Ok(reply), has_room)
        }
        (_, reply) => (reply, true),
    };
    match mail.try_send(Mail::Reply { attempt, worker, reply, has_room }).err()?.into_inner() {
        Mail::Reply { reply, .. } => reply.ok(),
        Mail::Turn(_) => None,
    }
}
