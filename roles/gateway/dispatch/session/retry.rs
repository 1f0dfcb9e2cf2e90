//! Decides whether to send a request again after a refusal, a timeout or the loss of its worker.

use std::time::Duration;

use tokio::time::Instant;

use crate::envelope::RefusalReason;
use crate::problem::ProblemKind;

use super::{
    Destination, PublishFailure, ResubmitReason, Session, SessionAction, SessionEnd, State,
    StepContext, WaitReason,
};

/// The maximum number of refusals (`draining`, `unavailable`, `paused`) after each of which the request is sent again
/// immediately. After more refusals than this, the whole group is probably leaving or paused. The request then waits,
/// and the count starts again when a member accepts requests.
const IMMEDIATE_RETRIES_MAX: u32 = 8;

impl Session {
    /// Handles a refusal. The worker has not executed this attempt and will not execute it.
    pub(super) fn on_refused(
        &mut self,
        attempt: u32,
        reason: RefusalReason,
        context: &mut StepContext<'_>,
    ) {
        let is_current = self.is_sent(attempt) || self.is_running(attempt);
        self.attempts.close(attempt);
        if !is_current {
            return;
        }
        match reason {
            RefusalReason::Busy => self.wait(WaitReason::Busy, context),
            RefusalReason::Expired if self.attempts.none_open() => {
                self.end(SessionEnd::Problem(ProblemKind::Expired), context);
            }
            RefusalReason::Draining | RefusalReason::Unavailable | RefusalReason::Paused
                if self.immediate_retries < IMMEDIATE_RETRIES_MAX
                    && context.now < self.waiting_deadline() =>
            {
                self.immediate_retries += 1;
                self.resubmit(ResubmitReason::Refused(reason), context);
            }
            RefusalReason::Draining | RefusalReason::Unavailable | RefusalReason::Expired => {
                self.wait(WaitReason::Busy, context);
            }
            RefusalReason::Paused => self.wait(WaitReason::Paused, context),
        }
    }

    /// Handles an attempt without a timely reply. No claim was granted, so an at-most-once request can safely be sent
    /// again. An at-least-once request may run twice by definition.
    pub(super) fn on_no_reply(&mut self, attempt: u32, context: &mut StepContext<'_>) {
        self.wait_reason = WaitReason::NoReply;
        context.actions.push(SessionAction::NoReply(attempt));
        let is_too_late = context.now >= self.accept_deadline;
        if !is_too_late && self.may_resubmit(context) {
            return self.resubmit(ResubmitReason::NoReply, context);
        }
        let is_last = is_too_late || self.resubmissions + 1 >= self.options.attempts;
        // Unless this was the last attempt, only the retry budget is exhausted, and it may recover.
        let retry_at = if is_last {
            self.first_reply_deadline()
        } else {
            context.now + self.options.accept_timeout
        };
        self.state = State::Sent { attempt, retry_at };
    }

    /// Handles a worker that ran the call and stopped reporting progress.
    pub(super) fn worker_lost(&mut self, context: &mut StepContext<'_>) {
        if self.stream.is_some() {
            return self.lost_during_stream(context);
        }
        if self.grant.is_some() {
            return self.end(SessionEnd::Problem(ProblemKind::OutcomeUnknown), context);
        }
        if context.now >= self.deadline {
            return self.end_at_deadline(context);
        }
        if !self.may_resubmit(context) {
            return self.end(SessionEnd::Problem(ProblemKind::AttemptTimedOut), context);
        }
        self.accept_deadline = (context.now + self.options.timeout).min(self.deadline);
        self.resubmit(ResubmitReason::WorkerLost, context);
    }

    /// Handles an attempt that was certainly not sent.
    pub(super) fn on_publish_failed(
        &mut self,
        attempt: u32,
        failure: PublishFailure,
        context: &mut StepContext<'_>,
    ) {
        self.attempts.close(attempt);
        if !self.is_sent(attempt) {
            return;
        }
        match failure {
            PublishFailure::BusDown => self.wait(WaitReason::BusDown, context),
            PublishFailure::TooLarge => {
                self.end(SessionEnd::Problem(ProblemKind::BodyTooLarge), context);
            }
            PublishFailure::NoAnswerMemory => self.overloaded(context),
        }
    }

    fn resubmit(&mut self, reason: ResubmitReason, context: &mut StepContext<'_>) {
        context.actions.push(SessionAction::CountResubmission(reason));
        self.send(Destination::Group, context);
    }

    /// Returns whether the attempt limit and the retry budget allow another attempt, and if so
    /// counts it.
    fn may_resubmit(&mut self, context: &mut StepContext<'_>) -> bool {
        let may = self.resubmissions + 1 < self.options.attempts && (context.may_resubmit)();
        if may {
            self.resubmissions += 1;
        }
        may
    }

    /// Returns the time to wait for the first reply to the attempt that is being sent. The wait is short after the
    /// first attempt, and later attempts share the remaining time.
    pub(super) fn first_reply_timeout(&self, now: Instant) -> Duration {
        let accept_timeout = self.options.accept_timeout;
        if self.resubmissions == 0 {
            return accept_timeout;
        }
        let attempts_left = self.options.attempts.saturating_sub(self.resubmissions);
        let time_left = self.accept_deadline.saturating_duration_since(now);
        (time_left / attempts_left.max(1)).max(accept_timeout)
    }
}
