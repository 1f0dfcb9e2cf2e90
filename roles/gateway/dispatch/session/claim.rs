//! Grants and denies claims: at most one job may execute an at-most-once request.

use crate::catalogue::Execution;
use crate::envelope::Control;
use crate::message::Subject;

use super::{Session, SessionAction, State, StepContext};

/// The permission to execute an at-most-once request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    attempt: u32,
    /// The control subject of the job; `None` for a worker that started without a claim.
    control: Option<Subject>,
}

impl Grant {
    /// Whether it was given to the job with this control subject.
    pub(super) fn is_of(&self, control: &Subject) -> bool {
        self.control.as_ref() == Some(control)
    }
}

impl Session {
    /// Answers a worker that asks whether it may execute: grants the first claim and denies every other.
    pub(super) fn on_claim(
        &mut self,
        attempt: u32,
        control: Subject,
        context: &mut StepContext<'_>,
    ) {
        let is_repeated = self.grant.as_ref().is_some_and(|grant| grant.is_of(&control));
        let is_first = self.grant.is_none() && self.attempts.is_open(attempt);
        if !is_repeated && !is_first {
            let deny = SessionAction::Tell { to: control, control: Control::Deny };
            return context.actions.push(deny);
        }
        if is_first {
            self.attempts.set_control(attempt, Some(control.clone()));
            if self.options.execution == Execution::AtMostOnce {
                self.grant = Some(Grant { attempt, control: Some(control.clone()) });
            }
            self.set_running(attempt, context);
        }
        context.actions.push(SessionAction::Tell { to: control, control: Control::Grant });
    }

    /// Whether a refusal comes from the very job that was granted, which thereby says that it never started.
    pub(super) fn revokes_grant(&self, attempt: u32, control: Option<&Subject>) -> bool {
        let (Some(grant), Some(control)) = (&self.grant, control) else { return false };
        grant.attempt == attempt && grant.is_of(control)
    }

    /// Whether replies to this attempt count: it is open, and no other attempt was granted.
    pub(super) fn is_eligible(&self, attempt: u32) -> bool {
        self.attempts.is_open(attempt)
            && self.grant.as_ref().is_none_or(|grant| grant.attempt == attempt)
    }

    /// A worker runs the call: waits for its answer until the session's deadline.
    pub(super) fn set_running(&mut self, attempt: u32, context: &mut StepContext<'_>) {
        if self.is_waiting() {
            context.actions.push(SessionAction::LeaveQueue);
        }
        if self.options.execution == Execution::AtMostOnce && self.grant.is_none() {
            // A worker that does not claim runs it: this counts as granted.
            self.grant = Some(Grant { attempt, control: None });
        }
        self.state = State::Running { attempt, lost_at: context.now + self.options.silence };
    }
}
