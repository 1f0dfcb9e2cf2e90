//! What each reply means for a session.

use crate::catalogue::Execution;
use crate::envelope::{Control, Final, RefusalReason, Reply};
use crate::message::Subject;
use crate::problem::ProblemKind;

use super::attempts::Broken;
use super::{Action, Ending, Granted, Phase, Session, Step, Why};

impl Session {
    /// A reply that keeps to the protocol.
    pub(super) fn hear(&mut self, attempt: u32, reply: Reply, step: &mut Step<'_>) {
        if self.stream.is_some() {
            return self.hear_on(attempt, reply, step);
        }
        match reply {
            // The worker that offered its slot is gone. That says nothing of the others.
            Reply::NoResponders if self.direct == Some(attempt) => {
                self.refused(attempt, RefusalReason::Unavailable, step);
            }
            Reply::NoResponders => {
                self.attempts.close(attempt);
                if self.is_sent(attempt) {
                    self.hold(Why::NoWorkers, step);
                }
            }
            Reply::Claim { control } => self.hear_claim(attempt, control, step),
            Reply::Refused { reason, control } => {
                if self.voids_grant(attempt, control.as_ref()) {
                    self.granted = None;
                    if self.client_left {
                        // Nobody waits for it any more: it is placed nowhere else.
                        self.attempts.close(attempt);
                        return self.end(Ending::ClientGone, step);
                    }
                } else if self.granted.is_some() {
                    // Another copy was refused; the granted one runs on.
                    return self.attempts.close(attempt);
                }
                self.refused(attempt, reason, step);
            }
            Reply::Offer { direct } => {
                step.actions.push(Action::Tell { to: direct, control: Control::Decline });
            }
            Reply::Progress { control } => {
                if self.is_heard(attempt) {
                    self.attempts.control(attempt, control);
                    self.runs(attempt, step);
                }
            }
            Reply::Answered { control } => {
                if self.is_heard(attempt) {
                    self.attempts.control(attempt, Some(control.clone()));
                    self.runs(attempt, step);
                    step.actions.push(Action::Tell { to: control, control: Control::Repeat });
                }
            }
            Reply::Part { number, bytes, head, control } => {
                if self.is_heard(attempt) {
                    self.runs(attempt, step);
                    if let (1, Some(head), Some(control)) = (number, head, control)
                        && self.terms.window > 0
                        && !self.attempts.has_parts(attempt)
                    {
                        self.begin(attempt, (head, control), bytes, step);
                    } else if self.attempts.part(attempt, number, bytes).is_err() {
                        self.broken(step);
                    }
                }
            }
            Reply::Final(answer) => self.hear_final(attempt, answer, step),
        }
    }

    /// A reply that cannot be read, or not be kept.
    pub(super) fn hear_unusable(&mut self, attempt: u32, step: &mut Step<'_>) {
        if self.is_heard(attempt) {
            self.broken(step);
        }
    }

    /// May this worker execute? The first claim is granted, every other denied.
    pub(super) fn hear_claim(&mut self, attempt: u32, control: Subject, step: &mut Step<'_>) {
        let again =
            self.granted.as_ref().is_some_and(|granted| granted.control.as_ref() == Some(&control));
        let first = self.granted.is_none() && self.attempts.is_open(attempt);
        if !again && !first {
            let control_word = Control::Deny;
            step.actions.push(Action::Tell { to: control, control: control_word });
            return;
        }
        if first {
            self.attempts.control(attempt, Some(control.clone()));
            if self.terms.execution == Execution::AtMostOnce {
                self.granted = Some(Granted { attempt, control: Some(control.clone()) });
            }
            self.runs(attempt, step);
        }
        step.actions.push(Action::Tell { to: control, control: Control::Grant });
    }

    /// Whether a refusal comes from the very job that was granted: it says that it never started.
    fn voids_grant(&self, attempt: u32, control: Option<&Subject>) -> bool {
        self.granted.as_ref().is_some_and(|granted| {
            granted.attempt == attempt && control.is_some() && granted.control.as_ref() == control
        })
    }

    /// Whether what this attempt says counts: it is still open, and nobody else was granted.
    fn is_heard(&self, attempt: u32) -> bool {
        self.attempts.is_open(attempt)
            && self.granted.as_ref().is_none_or(|granted| granted.attempt == attempt)
    }

    /// A worker has it: wait on, up to the session's end.
    pub(super) fn runs(&mut self, attempt: u32, step: &mut Step<'_>) {
        if self.is_held() {
            step.actions.push(Action::Unhold);
        }
        if self.terms.execution == Execution::AtMostOnce && self.granted.is_none() {
            // It runs without having asked (a worker that does not claim): as good as granted.
            self.granted = Some(Granted { attempt, control: None });
        }
        self.phase = Phase::Running { attempt, lost_at: step.now + self.terms.silence };
    }

    fn hear_final(&mut self, attempt: u32, answer: Final, step: &mut Step<'_>) {
        if !self.is_heard(attempt) {
            return;
        }
        match self.attempts.whole(attempt, answer) {
            Ok(answer) => self.answer(answer, step),
            Err(Broken) => self.broken(step),
        }
    }

    /// An answer that cannot be passed on.
    pub(super) fn broken(&mut self, step: &mut Step<'_>) {
        self.cancel_all(step);
        let kind = match self.terms.execution {
            Execution::AtMostOnce if self.granted.is_some() => ProblemKind::BadAnswerOutcomeUnknown,
            _ => ProblemKind::BadAnswer,
        };
        self.end(Ending::Problem(kind), step);
    }
}
