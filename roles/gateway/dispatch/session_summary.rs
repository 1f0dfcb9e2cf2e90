//! The summary of one request's session.

use std::time::Duration;

use crate::envelope::Final;
use crate::outcome::Outcome;
use crate::problem::{Problem, ProblemKind};
use crate::roles::gateway::client::byte_budget::Reservation;

use super::session::SessionEnd;

/// The end of a request's session, and its durations.
#[derive(Debug)]
pub struct SessionSummary {
    /// How the session ended.
    pub end: SessionEnd,
    /// The delay after which the client should retry a request that was certainly not executed.
    pub retry_after: Option<Duration>,
    /// The wait until the last attempt was sent or, after a 503, until the session ended.
    pub queue_wait: Duration,
    /// The time from the end of that wait to the end of the session.
    pub exchange_time: Duration,
    /// The number of attempts.
    pub attempts: u32,
    /// The memory that the request and its answer have reserved.
    pub reservation: Option<Reservation>,
}

/// A session that ended without a complete answer.
#[derive(Debug)]
pub struct DispatchFailure {
    /// The problem to send to the client.
    pub problem: Problem,
    /// The outcome for logs and metrics.
    pub outcome: Outcome,
}

impl SessionSummary {
    /// Returns the result of a request that was not sent.
    pub(super) fn from_problem(kind: ProblemKind, retry_after: Option<Duration>) -> Self {
        let (queue_wait, exchange_time) = (Duration::ZERO, Duration::ZERO);
        let end = SessionEnd::Problem(kind);
        Self { end, retry_after, queue_wait, exchange_time, attempts: 0, reservation: None }
    }

    /// Returns the answer to send to the client, or the problem to send instead.
    ///
    /// # Errors
    /// `DispatchFailure` unless the session ended with a complete answer.
    pub fn into_answer(self) -> Result<Final, DispatchFailure> {
        let outcome = self.end.outcome();
        let problem = match self.end {
            SessionEnd::Answer(answer) => return Ok(answer),
            SessionEnd::Problem(kind) => {
                Problem { retry_after: self.retry_after, ..Problem::new(kind) }
            }
            SessionEnd::CutOff(_) => Problem::new(ProblemKind::BadAnswer),
            // The client has disconnected and does not receive this problem.
            SessionEnd::ClientGone => Problem::new(ProblemKind::Cancelled),
        };
        Err(DispatchFailure { problem, outcome })
    }
}
