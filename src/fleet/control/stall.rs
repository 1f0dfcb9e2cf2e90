//! Detects that this process was suspended. Commands that arrived during the suspension must not be treated as new.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The interval between two checks.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// The minimum gap between two checks that counts as a stall. Messages may have waited for this process during the gap.
const STALL_MIN: Duration = Duration::from_secs(1);

/// Records when this process was last known to be reading its messages.
#[derive(Debug)]
pub(super) struct StallDetector(Mutex<State>);

#[derive(Debug)]
struct State {
    checked_at: Instant,
    /// The last check before a stall. Present until the messages that arrived during the stall have been read.
    stalled_since: Option<Instant>,
}

impl StallDetector {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(State { checked_at: now, stalled_since: None }))
    }

    /// Must be called every `CHECK_INTERVAL`. Returns whether messages that arrived during a stall may still be unread.
    /// Once they have been read, `caught_up` must be called.
    pub(super) fn check(&self, now: Instant) -> bool {
        let mut state = self.lock();
        if let Some(since) = state.stall(now) {
            state.stalled_since = Some(since);
        }
        state.checked_at = now;
        state.stalled_since.is_some()
    }

    /// Records that the messages of a stall, all of which had been received at `flushed_at`, have been read. If the
    /// process has been suspended again since `flushed_at`, the stall does not end. The time spent waiting for the
    /// confirmation does not count as another stall.
    pub(super) fn caught_up(&self, flushed_at: Instant, now: Instant) {
        let mut state = self.lock();
        if now.saturating_duration_since(flushed_at) < STALL_MIN {
            state.stalled_since = None;
        }
        state.checked_at = now;
    }

    /// Returns the earliest time at which a message that is read now may have arrived.
    pub(super) fn arrival(&self, now: Instant) -> Instant {
        self.lock().stall(now).unwrap_or(now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns the start of the current stall, if there is one.
    fn stall(&self, now: Instant) -> Option<Instant> {
        let is_stalled = now.saturating_duration_since(self.checked_at) >= STALL_MIN;
        self.stalled_since.or(is_stalled.then_some(self.checked_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_old_as_the_stall_before_it() {
        let start = Instant::now();
        let detector = StallDetector::new(start);
        let at = |millis| start + Duration::from_millis(millis);
        assert!(!detector.check(at(250)));
        assert_eq!(detector.arrival(at(900)), at(900), "a busy process");
        assert_eq!(detector.arrival(at(5_000)), at(250), "read before the next check");
        assert!(detector.check(at(5_001)));
        assert_eq!(detector.arrival(at(5_002)), at(250), "read after the next check");
        assert!(detector.check(at(5_250)));
        detector.caught_up(at(5_260), at(5_510));
        assert!(!detector.check(at(5_510)));
        assert_eq!(detector.arrival(at(5_600)), at(5_600));
    }

    #[test]
    fn a_long_round_trip_is_not_another_stall_and_a_second_stall_is_not_forgotten() {
        let start = Instant::now();
        let detector = StallDetector::new(start);
        let at = |millis| start + Duration::from_millis(millis);
        assert!(detector.check(at(2_000)));
        detector.caught_up(at(3_500), at(3_750));
        assert!(!detector.check(at(3_750)));
        assert!(detector.check(at(6_000)));
        detector.caught_up(at(6_100), at(9_000));
        assert!(detector.check(at(9_000)), "suspended while it read the messages");
        assert_eq!(detector.arrival(at(9_010)), at(3_750));
    }
}
