//! Replies that are dropped because whoever sent them may not speak for the request: counted, and logged at a bounded
//! pace.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::message::Subject;
use crate::telemetry::{counter, names};

/// Lines that are logged for a reason in each `PERIOD` at most: whoever sends many must not fill the disk.
const LINES_MAX: u32 = 10;
/// See `LINES_MAX`.
const PERIOD: Duration = Duration::from_secs(10);

/// Why a reply is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The token of its subject is not the one of that queue, request and attempt: the subject was guessed.
    Token,
    /// It names a subject that is not one of the queue's workers.
    Subject,
    /// Another worker has the attempt.
    Worker,
}

impl Rejection {
    /// The word in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Subject => "subject",
            Self::Worker => "worker",
        }
    }
}

/// Counts rejected replies.
#[derive(Debug, Default)]
pub struct Rejections([Mutex<Option<Lines>>; 3]);

/// The lines of the current period.
#[derive(Debug)]
struct Lines {
    since: Instant,
    count: u32,
}

impl Rejections {
    /// A reply is dropped. `named` is the subject that it names as its worker's, `queue` the one that it speaks for.
    pub fn note(&self, why: Rejection, queue: Option<&str>, named: Option<&Subject>) {
        let reason = [(names::REASON, why.as_str().to_owned())];
        counter(&names::GATEWAY_REPLIES_REJECTED, &reason).increment(1);
        if self.has_room(why, Instant::now()) {
            tracing::warn!(
                reason = why.as_str(),
                queue = queue.unwrap_or("unknown"),
                worker = named.map_or("unnamed", Subject::as_str),
                "a reply was dropped: its sender may not speak for this request"
            );
        }
    }

    fn has_room(&self, why: Rejection, now: Instant) -> bool {
        let [token, subject, worker] = &self.0;
        let lines = match why {
            Rejection::Token => token,
            Rejection::Subject => subject,
            Rejection::Worker => worker,
        };
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = lines.get_or_insert(Lines { since: now, count: 0 });
        if now.saturating_duration_since(lines.since) >= PERIOD {
            *lines = Lines { since: now, count: 0 };
        }
        lines.count = lines.count.saturating_add(1);
        lines.count <= LINES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_logged_at_a_bounded_pace() {
        let (rejections, start) = (Rejections::default(), Instant::now());
        let lines = |why, now| (0..100).filter(|_| rejections.has_room(why, now)).count();
        assert_eq!(lines(Rejection::Token, start), 10);
        assert_eq!(lines(Rejection::Token, start + PERIOD / 2), 0);
        assert_eq!(lines(Rejection::Worker, start + PERIOD / 2), 10, "one hides no other");
        assert_eq!(lines(Rejection::Token, start + PERIOD), 10);
    }
}
