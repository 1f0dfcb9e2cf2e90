//! How soon to connect again: a link that does not last is tried ever more rarely.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

/// The first pause before connecting again; it doubles up to the configured maximum.
const DELAY_FIRST: Duration = Duration::from_millis(50);
/// A connection that lasted so long was a steady one.
const STEADY: Duration = Duration::from_secs(30);
/// Doublings beyond which the maximum is reached anyway.
const DOUBLINGS_MAX: u32 = 16;

/// Paces connections. Whoever sends a message that ends them cannot make more of them than this.
#[derive(Debug)]
pub(super) struct Pace {
    max: Duration,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    connected_at: Option<Instant>,
    /// Connections in a row that did not last.
    short: u32,
}

impl Pace {
    /// Nothing was connected yet.
    pub(super) fn new(max: Duration) -> Self {
        Self { max, last: Mutex::default() }
    }

    /// A connection was made.
    pub(super) fn connected(&self, now: Instant) {
        self.lock().connected_at = Some(now);
    }

    /// A connection was lost.
    pub(super) fn lost(&self, now: Instant) {
        let mut last = self.lock();
        let Some(at) = last.connected_at.take() else { return };
        last.short = if now - at < STEADY { last.short.saturating_add(1) } else { 0 };
    }

    /// The pause before the next attempt: exponential with full jitter, so that a restarted cluster is not met by
    /// everybody at once.
    pub(super) fn delay(&self, attempts: usize) -> Duration {
        rand::rng().random_range(Duration::ZERO..=self.ceiling(attempts))
    }

    fn ceiling(&self, attempts: usize) -> Duration {
        // The first short one is no pattern yet.
        let short = self.lock().short.saturating_sub(1);
        let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
        let doublings = attempts.saturating_add(short).min(DOUBLINGS_MAX);
        DELAY_FIRST.saturating_mul(1 << doublings).min(self.max)
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_with_attempts_and_with_connections_that_do_not_last() {
        let pace = Pace::new(Duration::from_secs(4));
        let ceiling = |attempts| pace.ceiling(attempts).as_millis();
        assert_eq!([ceiling(0), ceiling(1), ceiling(3), ceiling(99)], [50, 100, 400, 4000]);
        let mut now = Instant::now();
        for expected in [50, 100, 200, 400, 800, 1600, 3200, 4000, 4000] {
            pace.connected(now);
            now += Duration::from_secs(1);
            pace.lost(now);
            assert_eq!(ceiling(0), expected);
        }
        pace.connected(now);
        pace.lost(now + STEADY);
        assert_eq!(ceiling(0), 50);
    }
}
