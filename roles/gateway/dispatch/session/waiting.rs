//! A session that waits: for a turn, for the first sign of an attempt, and for its time to be over.

use std::time::Duration;

use tokio::time::Instant;

use crate::catalogue::Execution;
use crate::problem::ProblemKind;
use crate::roles::gateway::dispatch::timing::Needs;

use super::{Action, Destination, Ending, Phase, Session, Step, Unsent, Why};

impl Session {
    /// What an attempt needs, as it is known now.
    pub fn set_needs(&mut self, needs: Needs) {
        self.needs = needs;
    }

    /// Until when it waits for a turn: what is left then is too short for an attempt. At most half of its time is kept for
    /// that, so that a queue whose calls became long is tried all the same.
    pub(super) fn held_end(&self) -> Instant {
        if !self.attempts.none_open() {
            return self.place_end;
        }
        let whole = self.terms.session.max(self.terms.timeout);
        let sign = self.needs.sign.min(self.terms.timeout / 2);
        let answer = self.needs.answer.min(whole / 2);
        (self.place_end - sign).min(self.end - answer)
    }

    /// Whether it waits for a turn and has the time to use it.
    pub(super) fn may_start(&self, now: Instant) -> bool {
        self.is_held() && now < self.held_end()
    }

    /// The wait queue or the byte budget is full. An attempt that may have been executed is still waited for.
    pub(super) fn finds_no_place(&mut self, step: &mut Step<'_>) {
        if self.attempts.none_open() {
            return self.end(Ending::Problem(ProblemKind::Overloaded), step);
        }
        step.actions.push(Action::Unhold);
        self.phase = Phase::Sent { attempt: self.attempts.made(), until: self.place_end };
    }

    pub(super) fn hold(&mut self, why: Why, step: &mut Step<'_>) {
        self.phase = Phase::Held;
        self.why = why;
        step.actions.push(Action::Hold(why));
    }

    pub(super) fn release(&mut self, to: Destination, step: &mut Step<'_>) {
        step.actions.push(Action::Unhold);
        self.send(to, step);
    }

    pub(super) fn send(&mut self, to: Destination, step: &mut Step<'_>) {
        let attempt = self.attempts.open(step.now);
        self.direct = matches!(to, Destination::Direct(_)).then_some(attempt);
        let until = step.now + self.sign_timeout(step.now);
        self.phase = Phase::Sent { attempt, until };
        self.sent_at = step.now;
        let budget = self.end.saturating_duration_since(step.now);
        step.actions.push(Action::Publish { attempt, to, budget });
    }

    pub(super) fn not_sent(&mut self, attempt: u32, why: Unsent, step: &mut Step<'_>) {
        self.attempts.close(attempt);
        if !self.is_sent(attempt) {
            return;
        }
        match why {
            Unsent::BusDown => self.hold(Why::BusDown, step),
            Unsent::TooLarge => self.end(Ending::Problem(ProblemKind::BodyTooLarge), step),
            Unsent::NoRoom => self.finds_no_place(step),
        }
    }

    /// Nothing was heard of an attempt: nothing was granted, so sending it again is safe for
    /// at-most-once requests, and harmless by declaration for the others.
    pub(super) fn unheard(&mut self, attempt: u32, step: &mut Step<'_>) {
        self.why = Why::Unheard;
        step.actions.push(Action::Unheard(attempt));
        if self.may_resubmit(step) {
            step.actions.push(Action::Resubmitted("unheard"));
            return self.send(Destination::Group, step);
        }
        let is_last = self.resubmissions + 1 >= self.terms.attempts;
        // Others may have used the retry budget up for now.
        let until = if is_last { self.place_end } else { step.now + self.terms.accept_timeout };
        self.phase = Phase::Sent { attempt, until };
    }

    /// How long the attempt that is sent now may be unheard of. The first one is followed soon; what is left of the time
    /// is for all that may still follow.
    fn sign_timeout(&self, now: Instant) -> Duration {
        let accept_timeout = self.terms.accept_timeout;
        if self.resubmissions == 0 {
            return accept_timeout;
        }
        let left = self.terms.attempts.saturating_sub(self.resubmissions);
        (self.place_end.saturating_duration_since(now) / left.max(1)).max(accept_timeout)
    }

    pub(super) fn may_resubmit(&mut self, step: &mut Step<'_>) -> bool {
        let may = self.resubmissions + 1 < self.terms.attempts && (step.may_resubmit)();
        if may {
            self.resubmissions += 1;
        }
        may
    }

    /// The time to be taken, or the whole session, is over.
    pub(super) fn out_of_time(&mut self, step: &mut Step<'_>) {
        let may_run = match self.terms.execution {
            Execution::AtMostOnce => self.granted.is_some(),
            Execution::AtLeastOnce => !self.attempts.none_open(),
        };
        let kind = if !may_run {
            self.why.problem()
        } else if self.granted.is_some() {
            ProblemKind::OutcomeUnknown
        } else if self.terms.session > self.terms.timeout && step.now >= self.end {
            ProblemKind::SessionTimedOut
        } else {
            ProblemKind::AttemptTimedOut
        };
        if may_run {
            self.cancel_all(step);
        }
        self.end(Ending::Problem(kind), step);
    }
}

impl Why {
    /// The problem of a request that waited for this reason until its budget was spent.
    fn problem(self) -> ProblemKind {
        match self {
            Self::Busy => ProblemKind::Busy,
            Self::NoWorkers => ProblemKind::NoWorkers,
            Self::BusDown => ProblemKind::BusDown,
            Self::Unheard => ProblemKind::NotExecuted,
        }
    }
}
