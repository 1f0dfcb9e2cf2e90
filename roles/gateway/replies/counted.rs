//! Counts the bytes of replies from the moment they come: what waits to be read by its request is in memory as well.

use tokio::sync::mpsc;

use crate::envelope::{EnvelopeError, Reply, WorkerId};
use crate::roles::gateway::byte_budget::Reservation;
use crate::roles::gateway::mail::Mail;

/// One request that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) queue: u32,
    pub(super) mail: mpsc::Sender<Mail>,
    /// For whom bytes are counted that come for it.
    room: Reservation,
    /// How many parts may be on their way to it; 0: they all come at once.
    window: u32,
    /// Whether its answer has begun with its first part: then the window bounds what comes.
    streams: bool,
}

/// What counts the bytes of a reply.
pub(super) struct Counting {
    room: Reservation,
    /// Whether they need room that is free.
    is_bounded: bool,
}

impl Waiting {
    pub(super) fn new(
        queue: u32,
        mail: mpsc::Sender<Mail>,
        room: Reservation,
        window: u32,
    ) -> Self {
        Self { queue, mail, room, window, streams: false }
    }

    /// What counts a reply's bytes, when they count: parts of an answer that is put together need free room, an answer that is
    /// there, or has begun, is passed on.
    pub(super) fn counting(&mut self, reply: &Result<Reply, EnvelopeError>) -> Option<Counting> {
        let (bytes, is_bounded) = match reply {
            Ok(Reply::Part { number, bytes, head, .. }) => {
                self.streams |= *number == 1 && head.is_some() && self.window > 0;
                (bytes, !self.streams)
            }
            Ok(Reply::Final(answer)) => (&answer.body, false),
            _ => return None,
        };
        Reservation::counts(bytes).then(|| Counting { room: self.room.another(), is_bounded })
    }
}

impl Counting {
    /// The same reply, its bytes counted for as long as anybody has them; whether there was room for them.
    fn count(self, reply: Reply) -> (Reply, bool) {
        match reply {
            Reply::Part { number, bytes, head, control } => {
                let kept = if self.is_bounded {
                    self.room.keep(bytes)
                } else {
                    Ok(self.room.holding(bytes))
                };
                let has_room = kept.is_ok();
                let bytes = kept.unwrap_or_default();
                (Reply::Part { number, bytes, head, control }, has_room)
            }
            Reply::Final(mut answer) => {
                answer.body = self.room.holding(answer.body);
                (Reply::Final(answer), true)
            }
            other => (other, true),
        }
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
        _ => None,
    }
}
