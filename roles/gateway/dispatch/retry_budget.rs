//! The retry budget: a limit on resubmissions, which would otherwise amplify an overload.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// The bucket can always hold the tokens that the minimum rate (`floor_per_second`) adds in this
/// many seconds.
const FLOOR_BURST_SECONDS: f64 = 10.0;

/// A token bucket: every request adds a fraction of a token, and every resubmission takes one.
#[derive(Debug)]
pub struct RetryBudget {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    percent: f64,
    floor_per_second: f64,
    tokens: f64,
    updated_at: Instant,
}

impl RetryBudget {
    /// Creates a budget that allows resubmissions for `percent` of the requests, plus `floor` resubmissions per second.
    #[must_use]
    pub fn new(percent: u32, floor: u32, now: Instant) -> Self {
        let floor = f64::from(floor);
        let (tokens, percent) = (floor * FLOOR_BURST_SECONDS, f64::from(percent) / 100.0);
        Self {
            state: Mutex::new(State { percent, floor_per_second: floor, tokens, updated_at: now }),
        }
    }

    /// Replaces the share and the floor.
    pub fn set_limits(&self, percent: u32, floor: u32) {
        let mut state = self.lock();
        state.percent = f64::from(percent) / 100.0;
        state.floor_per_second = f64::from(floor);
    }

    /// Adds the share for one new request.
    pub fn deposit(&self, now: Instant) {
        self.with(now, |tokens, percent| *tokens += percent);
    }

    /// Withdraws one resubmission. Returns `false` if the budget is exhausted.
    pub fn withdraw(&self, now: Instant) -> bool {
        self.with(now, |tokens, _| {
            let may = *tokens >= 1.0;
            if may {
                *tokens -= 1.0;
            }
            may
        })
    }

    fn with<T>(&self, now: Instant, change: impl FnOnce(&mut f64, f64) -> T) -> T {
        let mut state = self.lock();
        let percent = state.percent;
        let passed = now.saturating_duration_since(state.updated_at).as_secs_f64();
        state.updated_at = state.updated_at.max(now);
        state.tokens += passed * state.floor_per_second;
        let result = change(&mut state.tokens, percent);
        // The capacity: the tokens that the floor adds in ten seconds or the share of a hundred requests, whichever is
        // larger.
        let capacity = (state.floor_per_second * FLOOR_BURST_SECONDS).max(100.0 * percent);
        state.tokens = state.tokens.min(capacity);
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn resubmissions_stop_when_the_share_is_spent() {
        let start = Instant::now();
        let budget = RetryBudget::new(20, 1, start);
        let burst = (0..1000).filter(|_| budget.withdraw(start)).count();
        assert_eq!(burst, 10, "ten seconds of the floor");
        for _ in 0..50 {
            budget.deposit(start);
        }
        let share = (0..1000).filter(|_| budget.withdraw(start)).count();
        assert!((9..=10).contains(&share), "20 % of 50 requests, got {share}");
        let later = start + Duration::from_secs(3);
        let floor = (0..1000).filter(|_| budget.withdraw(later)).count();
        assert_eq!(floor, 3, "one per second");
    }
}
