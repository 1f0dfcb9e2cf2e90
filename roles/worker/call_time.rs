//! How long calls of one endpoint take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A new call counts for one part in this many.
const WEIGHT: u64 = 16;

/// A moving mean of the time that an endpoint's calls hold a slot. Calls that end at the same moment may overwrite each
/// other's sample: the mean decides only what is not worth starting.
#[derive(Debug, Default)]
pub struct CallTime {
    /// Nanoseconds; 0 until a call has ended.
    mean: AtomicU64,
}

impl CallTime {
    /// Adds a call.
    pub fn record(&self, took: Duration) {
        let sample = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let mean = match self.mean.load(Ordering::Relaxed) {
            0 => sample,
            before => before - before / WEIGHT + sample / WEIGHT,
        };
        self.mean.store(mean.max(1), Ordering::Relaxed);
    }

    /// Whether a call that has this much time left will probably not end in time. Never before a call has ended.
    #[must_use]
    pub fn exceeds(&self, left: Duration) -> bool {
        Duration::from_nanos(self.mean.load(Ordering::Relaxed)) > left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_too_short_until_a_call_has_ended() {
        let time = CallTime::default();
        assert!(!time.exceeds(Duration::ZERO));
        time.record(Duration::from_millis(10));
        assert!(time.exceeds(Duration::from_millis(9)));
        assert!(!time.exceeds(Duration::from_millis(10)));
    }

    #[test]
    fn the_mean_follows_what_calls_take() {
        let time = CallTime::default();
        time.record(Duration::from_secs(10));
        for _ in 0..200 {
            time.record(Duration::from_millis(1));
        }
        assert!(!time.exceeds(Duration::from_millis(20)));
        time.record(Duration::MAX);
        assert!(time.exceeds(Duration::from_hours(1)), "a long call counts, and nothing overflows");
    }
}
