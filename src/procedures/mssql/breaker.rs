//! Keeps a database that is away, or refuses our login, from being dialled over and over.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::errors::LoginFailure;

/// The pause after the first failure; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause while the database is away.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The pause after refused credentials: each attempt may lock the account.
const PAUSE_REFUSED: Duration = Duration::from_secs(30);
/// How far a pause is varied to each side, so that a fleet does not come back in step.
const JITTER: f64 = 0.2;

/// Open while dialling has no hope. At the end of each pause a single attempt is let through.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    closed_until: Option<Instant>,
}

impl Breaker {
    /// Whether an attempt may be made now. While failures last this is true for one caller per pause.
    pub(super) fn admits(&self, now: Instant, attempt: Duration) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.closed_until {
            Some(until) if now < until => false,
            Some(_) => {
                // Until this attempt has ended nobody else tries.
                state.closed_until = Some(now + attempt);
                true
            }
            None => true,
        }
    }

    /// Whether no attempt may be made now.
    pub(super) fn holds(&self, now: Instant) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed_until.is_some_and(|until| now < until)
    }

    /// Whether the last attempt succeeded, or none was made.
    pub(super) fn is_closed(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).failures == 0
    }

    /// An attempt succeeded.
    pub(super) fn succeeded(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    /// An attempt failed. Says whether it is the first one of an outage.
    pub(super) fn failed(&self, failure: LoginFailure, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = match failure {
            LoginFailure::Refused => PAUSE_REFUSED,
            LoginFailure::Away => {
                PAUSE_MIN.saturating_mul(1 << state.failures.min(10)).min(PAUSE_MAX)
            }
        };
        state.failures = state.failures.saturating_add(1);
        state.closed_until = Some(now + jittered(pause));
        state.failures == 1
    }
}

/// A duration varied at random by up to a fifth.
pub(super) fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(1.0 + rand::random_range(-JITTER..=JITTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTEMPT: Duration = Duration::from_secs(5);

    #[test]
    fn one_attempt_is_let_through_after_each_pause() {
        let breaker = Breaker::default();
        let start = Instant::now();
        assert!(breaker.admits(start, ATTEMPT));
        assert!(breaker.failed(LoginFailure::Away, start));
        assert!(!breaker.admits(start, ATTEMPT));
        let later = start + PAUSE_MIN.mul_f64(1.3);
        assert!(breaker.admits(later, ATTEMPT));
        assert!(!breaker.admits(later, ATTEMPT));
        assert!(!breaker.failed(LoginFailure::Away, later));
        breaker.succeeded();
        assert!(breaker.admits(later, ATTEMPT) && breaker.admits(later, ATTEMPT));
    }

    #[test]
    fn refused_credentials_are_not_hammered() {
        let breaker = Breaker::default();
        let start = Instant::now();
        breaker.failed(LoginFailure::Refused, start);
        assert!(!breaker.admits(start + PAUSE_REFUSED.mul_f64(0.79), ATTEMPT));
        assert!(breaker.admits(start + PAUSE_REFUSED.mul_f64(1.21), ATTEMPT));
    }
}
