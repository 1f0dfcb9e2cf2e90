//! A circuit breaker. It limits the rate at which fjord dials a database that is down or refuses
//! the login.

use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::jitter::jittered;
use crate::procedures::mssql::error_numbers::LoginFailure;

/// The pause after the first failure. It doubles with each further failure.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The maximum pause while the database cannot be reached.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The first pause after refused credentials. It is long because each attempt can lock the account, and doubles each
/// time.
const PAUSE_REFUSED: Duration = Duration::from_secs(30);
/// The maximum pause after refused credentials. A reload ends it.
const PAUSE_REFUSED_MAX: Duration = Duration::from_mins(5);
/// The range of the factor by which pauses vary, so that workers do not reconnect at the same time.
pub(in crate::procedures::mssql) const JITTER: RangeInclusive<f64> = 0.8..=1.2;

/// A circuit breaker that opens at the first failure, and then admits one attempt after each pause.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// The number of pauses after refused logins, since the last success or change of the password.
    refusals: u32,
    open_until: Option<Instant>,
    /// The end of the pause after the last refused login.
    refused_until: Option<Instant>,
}

impl Breaker {
    /// Returns whether an attempt can be made now. An attempt takes at most `attempt_max`. After a
    /// failure, only one caller gets `true` after each pause.
    pub(super) fn try_admit(&self, now: Instant, attempt_max: Duration) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.open_until {
            Some(until) if now < until => false,
            Some(_) => {
                // No second attempt is admitted until this one has ended.
                state.open_until = Some(now + attempt_max);
                true
            }
            None => true,
        }
    }

    /// Returns whether the breaker is open. If it is, no attempt can be made now.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.open_until.is_some_and(|until| now < until)
    }

    /// Returns whether the last attempt succeeded, or no attempt has been made yet.
    pub(super) fn is_closed(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).failures == 0
    }

    /// Records a successful attempt, which closes the breaker.
    pub(super) fn record_success(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    /// Ends the pause after a failure, because the next attempt may succeed. Until that attempt has
    /// ended, no other attempt is admitted. With another password, the next pause is short again.
    pub(super) fn end_pause(&self, now: Instant, has_other_password: bool) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.open_until = state.open_until.map(|until| until.min(now));
        state.refused_until = None;
        if has_other_password {
            state.refusals = 0;
        }
    }

    /// Records a failed attempt. Returns whether this is the first failure of an outage.
    pub(super) fn record_failure(&self, failure: LoginFailure, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = match failure {
            LoginFailure::Refused => {
                // Attempts that began before the pause count as one.
                if state.refused_until.is_none_or(|until| until <= now) {
                    state.refusals = state.refusals.saturating_add(1);
                }
                let doublings = state.refusals.saturating_sub(1).min(10);
                PAUSE_REFUSED.saturating_mul(1 << doublings).min(PAUSE_REFUSED_MAX)
            }
            LoginFailure::Unreachable => {
                PAUSE_MIN.saturating_mul(1 << state.failures.min(10)).min(PAUSE_MAX)
            }
        };
        state.failures = state.failures.saturating_add(1);
        let until = now + jittered(pause, JITTER);
        if failure == LoginFailure::Refused {
            state.refused_until = Some(until);
        }
        // An attempt that ends at the same time must not shorten the pause after a refused login.
        state.open_until = state.refused_until.max(Some(until));
        state.failures == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTEMPT: Duration = Duration::from_secs(5);

    #[test]
    fn one_attempt_is_admitted_after_each_pause() {
        let breaker = Breaker::default();
        let start = Instant::now();
        assert!(breaker.try_admit(start, ATTEMPT));
        assert!(breaker.record_failure(LoginFailure::Unreachable, start));
        assert!(!breaker.try_admit(start, ATTEMPT));
        let later = start + PAUSE_MIN.mul_f64(1.3);
        assert!(breaker.try_admit(later, ATTEMPT));
        assert!(!breaker.try_admit(later, ATTEMPT));
        assert!(!breaker.record_failure(LoginFailure::Unreachable, later));
        breaker.record_success();
        assert!(breaker.try_admit(later, ATTEMPT) && breaker.try_admit(later, ATTEMPT));
    }

    #[test]
    fn an_unreachable_server_does_not_shorten_the_pause_after_a_refused_login() {
        let breaker = Breaker::default();
        let start = Instant::now();
        assert!(breaker.try_admit(start, ATTEMPT) && breaker.try_admit(start, ATTEMPT));
        breaker.record_failure(LoginFailure::Refused, start);
        breaker.record_failure(LoginFailure::Unreachable, start);
        assert!(breaker.is_open(start + PAUSE_REFUSED.mul_f64(0.7)));
        breaker.end_pause(start, true);
        assert!(breaker.try_admit(start, ATTEMPT));
    }

    #[test]
    fn refused_credentials_are_not_tried_again_within_24_seconds() {
        let breaker = Breaker::default();
        let start = Instant::now();
        breaker.record_failure(LoginFailure::Refused, start);
        assert!(!breaker.try_admit(start + PAUSE_REFUSED.mul_f64(0.79), ATTEMPT));
        assert!(breaker.try_admit(start + PAUSE_REFUSED.mul_f64(1.21), ATTEMPT));
    }

    #[test]
    fn refused_credentials_are_tried_seldom() {
        let breaker = Breaker::default();
        let (start, mut attempts) = (Instant::now(), 0);
        for second in 0..15 * 60 {
            let now = start + Duration::from_secs(second);
            if breaker.try_admit(now, ATTEMPT) {
                breaker.record_failure(LoginFailure::Refused, now);
                attempts += 1;
            }
        }
        assert!((5..=7).contains(&attempts), "{attempts}");
        // A reload admits one attempt. With another password, the pauses are short again.
        let reload = start + Duration::from_mins(15);
        breaker.end_pause(reload, false);
        assert!(breaker.try_admit(reload, ATTEMPT));
        breaker.record_failure(LoginFailure::Refused, reload);
        assert!(!breaker.try_admit(reload + PAUSE_REFUSED.mul_f64(1.21), ATTEMPT));
        breaker.end_pause(reload, true);
        assert!(breaker.try_admit(reload, ATTEMPT));
        breaker.record_failure(LoginFailure::Refused, reload);
        assert!(breaker.try_admit(reload + PAUSE_REFUSED.mul_f64(1.21), ATTEMPT));
    }

    #[test]
    fn attempts_that_are_refused_together_have_one_pause() {
        let breaker = Breaker::default();
        let start = Instant::now();
        for _ in 0..4 {
            breaker.record_failure(LoginFailure::Refused, start);
        }
        assert!(breaker.try_admit(start + PAUSE_REFUSED.mul_f64(1.21), ATTEMPT));
    }

    #[test]
    fn one_attempt_is_admitted_after_a_pause_was_ended() {
        let breaker = Breaker::default();
        let start = Instant::now();
        breaker.end_pause(start, true);
        assert!(!breaker.is_open(start));
        breaker.record_failure(LoginFailure::Refused, start);
        breaker.end_pause(start, true);
        assert!(breaker.try_admit(start, ATTEMPT));
        assert!(!breaker.try_admit(start, ATTEMPT));
    }
}
