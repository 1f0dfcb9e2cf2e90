//! Counts dropped replies whose sender must not reply to the attempt, and logs some of them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::message::Subject;
use crate::telemetry::{counter, names};

/// The maximum number of log lines for each reason in each `PERIOD`, so that a flood cannot fill
/// the disk.
const LINES_MAX: u32 = 10;
/// The period to which `LINES_MAX` applies.
const PERIOD: Duration = Duration::from_secs(10);

/// The reason why a reply is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyRejection {
    /// The token does not match the queue, request and attempt: the subject was guessed.
    Token,
    /// The reply names a subject that does not belong to a worker of the queue.
    Subject,
    /// The attempt belongs to another worker.
    Worker,
}

impl ReplyRejection {
    /// Returns the label in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Subject => "subject",
            Self::Worker => "worker",
        }
    }
}

/// Counts rejected replies and limits the rate of their log lines.
#[derive(Debug, Default)]
pub struct RejectionCounter([Mutex<Option<LogPeriod>>; 3]);

/// The log lines of the current period.
#[derive(Debug)]
struct LogPeriod {
    since: Instant,
    lines: u32,
}

impl RejectionCounter {
    /// Records a rejected reply for `queue`. `named` is the worker's subject in the reply.
    pub fn record(&self, why: ReplyRejection, queue: Option<&str>, named: Option<&Subject>) {
        let reason = [(names::REASON, why.as_str().to_owned())];
        counter(&names::GATEWAY_REPLIES_REJECTED, &reason).increment(1);
        if self.may_log(why, Instant::now()) {
            tracing::warn!(
                reason = why.as_str(),
                queue = queue.unwrap_or("unknown"),
                worker = named.map_or("unnamed", Subject::as_str),
                "dropping a reply: its sender is not permitted to reply to this request"
            );
        }
    }

    fn may_log(&self, why: ReplyRejection, now: Instant) -> bool {
        let [token, subject, worker] = &self.0;
        let period = match why {
            ReplyRejection::Token => token,
            ReplyRejection::Subject => subject,
            ReplyRejection::Worker => worker,
        };
        let mut period = period.lock().unwrap_or_else(PoisonError::into_inner);
        let period = period.get_or_insert(LogPeriod { since: now, lines: 0 });
        if now.saturating_duration_since(period.since) >= PERIOD {
            *period = LogPeriod { since: now, lines: 0 };
        }
        period.lines = period.lines.saturating_add(1);
        period.lines <= LINES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_logged_at_a_limited_rate() {
        let (rejections, start) = (RejectionCounter::default(), Instant::now());
        let lines = |why, now| (0..100).filter(|_| rejections.may_log(why, now)).count();
        assert_eq!(lines(ReplyRejection::Token, start), 10);
        assert_eq!(lines(ReplyRejection::Token, start + PERIOD / 2), 0);
        assert_eq!(
            lines(ReplyRejection::Worker, start + PERIOD / 2),
            10,
            "the reasons are limited separately"
        );
        assert_eq!(lines(ReplyRejection::Token, start + PERIOD), 10);
    }
}
