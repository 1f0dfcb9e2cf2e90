//! The pause before a reconnect. It grows with each failed attempt and each short-lived connection.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

/// The upper bound of the first pause. The bound doubles until it reaches the configured maximum.
const DELAY_FIRST: Duration = Duration::from_millis(50);
/// The duration after which a connection counts as stable.
const STABLE: Duration = Duration::from_secs(30);
/// The number of doublings after which every permitted maximum is reached.
const DOUBLINGS_MAX: u32 = 16;

/// Limits how often the process connects, even if the server closes every new connection.
#[derive(Debug)]
pub(super) struct ReconnectBackoff {
    max: Duration,
    history: Mutex<History>,
}

#[derive(Debug, Default)]
struct History {
    connected_at: Option<Instant>,
    /// The number of consecutive connections that were too short-lived to count as stable.
    unstable: u32,
}

impl ReconnectBackoff {
    /// Creates the backoff for a process that is not connected yet.
    pub(super) fn new(max: Duration) -> Self {
        Self { max, history: Mutex::default() }
    }

    /// Records that a connection was made.
    pub(super) fn connected(&self, now: Instant) {
        self.lock().connected_at = Some(now);
    }

    /// Records that the connection was lost.
    pub(super) fn lost(&self, now: Instant) {
        let mut history = self.lock();
        let Some(at) = history.connected_at.take() else { return };
        let is_stable = now - at >= STABLE;
        history.unstable = if is_stable { 0 } else { history.unstable.saturating_add(1) };
    }

    /// Returns the pause before the next attempt. It grows exponentially and has full jitter, so
    /// that the clients of a restarted cluster do not all connect at the same time.
    pub(super) fn delay(&self, attempts: usize) -> Duration {
        rand::rng().random_range(Duration::ZERO..=self.ceiling(attempts))
    }

    fn ceiling(&self, attempts: usize) -> Duration {
        // A single unstable connection does not lengthen the pause.
        let unstable = self.lock().unstable.saturating_sub(1);
        let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
        let doublings = attempts.saturating_add(unstable).min(DOUBLINGS_MAX);
        DELAY_FIRST.saturating_mul(1 << doublings).min(self.max)
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_with_attempts_and_with_connections_that_do_not_last() {
        let backoff = ReconnectBackoff::new(Duration::from_secs(4));
        let ceiling = |attempts| backoff.ceiling(attempts).as_millis();
        assert_eq!([ceiling(0), ceiling(1), ceiling(3), ceiling(99)], [50, 100, 400, 4000]);
        let mut now = Instant::now();
        for expected in [50, 100, 200, 400, 800, 1600, 3200, 4000, 4000] {
            backoff.connected(now);
            now += Duration::from_secs(1);
            backoff.lost(now);
            assert_eq!(ceiling(0), expected);
        }
        backoff.connected(now);
        backoff.lost(now + STABLE);
        assert_eq!(ceiling(0), 50);
    }
}
