//! Handles workers' replies before an answer begins to stream.

use crate::catalogue::Execution;
use crate::envelope::{Control, Final, RefusalReason, Reply};
use crate::problem::ProblemKind;

use super::attempts::InvalidParts;
use super::streaming::StreamStart;
use super::{Session, SessionAction, SessionEnd, StepContext, WaitReason};

impl Session {
    /// Handles a reply that conforms to the protocol.
    pub(super) fn on_reply(&mut self, attempt: u32, reply: Reply, context: &mut StepContext<'_>) {
        if self.stream.is_some() {
            return self.on_reply_while_streaming(attempt, reply, context);
        }
        match reply {
            // Only the worker that offered the slot is gone. Other workers may still be available.
            Reply::NoResponders if self.attempt_at_offered_slot == Some(attempt) => {
                self.on_refused(attempt, RefusalReason::Unavailable, context);
            }
            Reply::NoResponders => {
                self.attempts.close(attempt);
                if self.is_sent(attempt) {
                    self.wait(WaitReason::NoWorkers, context);
                }
            }
            Reply::Claim { control } => self.on_claim(attempt, control, context),
            Reply::Refused { reason, control } => {
                if self.revokes_grant(attempt, control.as_ref()) {
                    self.grant = None;
                    if self.client_left {
                        // The client is no longer waiting for the answer, so the request is not sent
                        // again.
                        self.attempts.close(attempt);
                        return self.end(SessionEnd::ClientGone, context);
                    }
                } else if let Some(grant) = &self.grant {
                    // Another copy was refused, but the granted one continues. Both can belong to the same
                    // attempt.
                    if !grant.is_for(attempt) {
                        self.attempts.close(attempt);
                    }
                    return;
                }
                self.on_refused(attempt, reason, context);
            }
            Reply::Offer { direct } => {
                let decline = SessionAction::SendControl { to: direct, control: Control::Decline };
                context.actions.push(decline);
            }
            Reply::Progress { control } => {
                if self.is_eligible(attempt) {
                    self.attempts.set_control(attempt, control);
                    self.set_running(attempt, context);
                }
            }
            Reply::Answered { control } => {
                if self.is_eligible(attempt) {
                    self.attempts.set_control(attempt, Some(control.clone()));
                    self.set_running(attempt, context);
                    let resend =
                        SessionAction::SendControl { to: control, control: Control::Resend };
                    context.actions.push(resend);
                }
            }
            Reply::Part { number, bytes, head, control } => {
                if !self.is_eligible(attempt) {
                    return;
                }
                self.set_running(attempt, context);
                if let (1, Some(head), Some(control)) = (number, head, control)
                    && self.options.window > 0
                    && !self.attempts.has_parts(attempt)
                {
                    self.begin_stream(StreamStart { attempt, head, control }, bytes, context);
                } else if self.attempts.add_part(attempt, number, bytes).is_err() {
                    self.bad_answer(context);
                }
            }
            Reply::Final(answer) => self.on_final(attempt, answer, context),
        }
    }

    /// Handles a reply that cannot be parsed or had to be dropped.
    pub(super) fn on_unusable_reply(&mut self, attempt: u32, context: &mut StepContext<'_>) {
        if self.is_eligible(attempt) {
            self.bad_answer(context);
        }
    }

    fn on_final(&mut self, attempt: u32, answer: Final, context: &mut StepContext<'_>) {
        if !self.is_eligible(attempt) {
            return;
        }
        match self.attempts.assemble(attempt, answer) {
            Ok(assembled) => {
                self.assembled_bytes = assembled.bytes;
                self.answer(assembled.answer, context);
            }
            Err(InvalidParts) => self.bad_answer(context),
        }
    }

    /// Ends the session because the answer cannot be forwarded.
    pub(super) fn bad_answer(&mut self, context: &mut StepContext<'_>) {
        self.cancel_all(context);
        let kind = match self.options.execution {
            Execution::AtMostOnce if self.grant.is_some() => ProblemKind::BadAnswerOutcomeUnknown,
            _ => ProblemKind::BadAnswer,
        };
        self.end(SessionEnd::Problem(kind), context);
    }
}
