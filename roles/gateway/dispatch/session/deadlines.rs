//! The deadlines of a session: for a worker to accept the request, for that worker's next message,
//! and for the end of the session.

use std::time::Duration;

use tokio::time::Instant;

use crate::catalogue::Execution;
use crate::problem::ProblemKind;

use super::{AttemptEstimate, Session, SessionAction, SessionEnd, State, StepContext};

/// The time for which the session keeps waiting after its deadline for the worker's own timeout
/// reply.
const ANSWER_GRACE: Duration = Duration::from_millis(100);
/// The time by which the first reply to an at-least-once request may be later than expected, even if the deadline passes
/// in the meantime. Without it, a request that is sent shortly before its deadline and refused shortly after it would end
/// as possibly executed.
const FIRST_REPLY_GRACE: Duration = Duration::from_millis(100);

impl Session {
    /// Sets the expected duration of an attempt.
    pub fn set_estimate(&mut self, estimate: AttemptEstimate) {
        self.estimate = estimate;
    }

    /// Records that a worker has reported that it is running the call. The session then waits for
    /// the answer until its deadline, as long as the worker keeps reporting.
    pub(super) fn set_running(&mut self, attempt: u32, context: &mut StepContext<'_>) {
        if self.is_waiting() {
            context.actions.push(SessionAction::LeaveQueue);
        }
        self.grant_without_claim(attempt);
        self.state =
            State::Running { attempt, lost_at: context.now + self.options.progress_timeout };
    }

    /// Returns when the next `Timer` event is due.
    #[must_use]
    pub fn wake_at(&self) -> Instant {
        match self.state {
            State::Waiting => self.waiting_deadline(),
            State::Ended => self.accept_deadline,
            State::Sent { retry_at, .. } => retry_at.min(self.first_reply_deadline()),
            State::Running { lost_at, .. } => lost_at.min(self.deadline + ANSWER_GRACE),
        }
    }

    /// Returns the time until which the next `Timer` event can be postponed, if that event is about
    /// a silent worker and not about a deadline.
    #[must_use]
    pub fn silence_may_last_until(&self) -> Option<Instant> {
        let (wake_at, end) = match self.state {
            State::Sent { retry_at, .. } => (retry_at, self.first_reply_deadline()),
            State::Running { lost_at, .. } => (lost_at, self.deadline + ANSWER_GRACE),
            State::Waiting | State::Ended => return None,
        };
        (wake_at < end).then_some(end)
    }

    /// Returns whether the session is waiting and has enough time left for an attempt.
    pub(super) fn may_start(&self, now: Instant) -> bool {
        self.is_waiting() && now < self.waiting_deadline()
    }

    pub(super) fn on_timer(&mut self, context: &mut StepContext<'_>) {
        let now = context.now;
        match self.state {
            State::Waiting if now >= self.waiting_deadline() => self.end_at_deadline(context),
            State::Sent { .. } if now >= self.first_reply_deadline() => {
                self.end_at_deadline(context);
            }
            State::Running { .. } if now >= self.deadline + ANSWER_GRACE => {
                self.end_at_deadline(context);
            }
            State::Sent { attempt, retry_at } if now >= retry_at => {
                self.on_no_reply(attempt, context);
            }
            State::Running { lost_at, .. } if now >= lost_at => self.worker_lost(context),
            State::Waiting | State::Sent { .. } | State::Running { .. } | State::Ended => {}
        }
    }

    /// Ends the session, because no worker accepted the request in time or the session's deadline
    /// has passed.
    pub(super) fn end_at_deadline(&mut self, context: &mut StepContext<'_>) {
        let may_run = match self.options.execution {
            Execution::AtMostOnce => self.grant.is_some(),
            Execution::AtLeastOnce => !self.attempts.none_open(),
        };
        let kind = if !may_run {
            self.wait_reason.problem()
        } else if self.grant.is_some() {
            ProblemKind::OutcomeUnknown
        } else if self.options.session > self.options.timeout && context.now >= self.deadline {
            ProblemKind::SessionTimedOut
        } else {
            ProblemKind::AttemptTimedOut
        };
        if may_run {
            self.cancel_all(context);
        }
        self.end(SessionEnd::Problem(kind), context);
    }

    /// Returns the time until which a request that has been sent waits for a worker to accept or refuse it.
    pub(super) fn first_reply_deadline(&self) -> Instant {
        match self.options.execution {
            // Without a grant, the request has certainly not been executed.
            Execution::AtMostOnce => self.accept_deadline,
            Execution::AtLeastOnce => {
                let first_reply = self.estimate.first_reply.min(self.options.timeout / 2);
                let expected = self.sent_at + first_reply + FIRST_REPLY_GRACE;
                self.accept_deadline.max(expected.min(self.deadline + ANSWER_GRACE))
            }
        }
    }

    /// Returns the time after which too little time is left for an attempt. At most half of the
    /// session's total time is reserved for the attempt, so that requests are still sent to a queue
    /// whose calls have become slow.
    pub(super) fn waiting_deadline(&self) -> Instant {
        if !self.attempts.none_open() {
            return self.accept_deadline;
        }
        let whole = self.options.session.max(self.options.timeout);
        let first_reply = self.estimate.first_reply.min(self.options.timeout / 2);
        let answer = self.estimate.answer.min(whole / 2);
        (self.accept_deadline - first_reply).min(self.deadline - answer)
    }
}
