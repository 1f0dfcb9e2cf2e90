//! Grants and denies claims: at most one job may execute an at-most-once request.

use crate::catalogue::Execution;
use crate::envelope::Control;
use crate::message::Subject;

use super::{Session, SessionAction, StepContext};

/// The permission to execute an at-most-once request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    attempt: u32,
    /// The control subject of the job, or `None` if the worker started without a claim.
    control: Option<Subject>,
}

impl Grant {
    /// Returns whether this is the grant for the attempt.
    pub(super) fn is_for(&self, attempt: u32) -> bool {
        self.attempt == attempt
    }

    /// Returns whether the grant was given to the job with this control subject.
    pub(super) fn was_given_to(&self, control: &Subject) -> bool {
        self.control.as_ref() == Some(control)
    }
}

impl Session {
    /// Answers a claim. An at-most-once request gets one grant. If the claim is repeated, so is the
    /// grant.
    pub(super) fn on_claim(
        &mut self,
        attempt: u32,
        control: Subject,
        context: &mut StepContext<'_>,
    ) {
        let is_repeated = self.grant.as_ref().is_some_and(|grant| grant.was_given_to(&control));
        let is_first = self.grant.is_none() && self.attempts.is_open(attempt);
        if !is_repeated && !is_first {
            let deny = SessionAction::SendControl { to: control, control: Control::Deny };
            return context.actions.push(deny);
        }
        if is_first {
            self.attempts.set_control(attempt, Some(control.clone()));
            if self.options.execution == Execution::AtMostOnce {
                self.grant = Some(Grant { attempt, control: Some(control.clone()) });
            }
            self.set_running(attempt, context);
        }
        context.actions.push(SessionAction::SendControl { to: control, control: Control::Grant });
    }

    /// Returns whether a refusal comes from the granted job, which means that the job never
    /// started.
    pub(super) fn revokes_grant(&self, attempt: u32, control: Option<&Subject>) -> bool {
        let (Some(grant), Some(control)) = (&self.grant, control) else { return false };
        grant.attempt == attempt && grant.was_given_to(control)
    }

    /// Returns whether replies to this attempt count: the attempt must be open, and the grant must
    /// not have been given to another attempt.
    pub(super) fn is_eligible(&self, attempt: u32) -> bool {
        self.attempts.is_open(attempt)
            && self.grant.as_ref().is_none_or(|grant| grant.attempt == attempt)
    }

    /// Counts the start of an at-most-once request without a claim as a grant.
    pub(super) fn grant_without_claim(&mut self, attempt: u32) {
        if self.options.execution == Execution::AtMostOnce && self.grant.is_none() {
            self.grant = Some(Grant { attempt, control: None });
        }
    }
}
