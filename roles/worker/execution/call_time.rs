//! Measures the calls to one endpoint, to decide whether another call can still finish in time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A new sample has a weight of `1 / WEIGHT` in the moving mean.
const WEIGHT: u64 = 16;

/// A moving mean of the time for which calls to an endpoint occupy a slot. Simultaneous calls can
/// overwrite each other's samples. This is harmless: the mean only decides which calls are not
/// worth starting.
#[derive(Debug, Default)]
pub struct CallTime {
    /// The mean in nanoseconds, or 0 until a call has ended.
    mean: AtomicU64,
}

impl CallTime {
    /// Adds the duration of a call that ran to completion.
    pub fn record(&self, took: Duration) {
        let sample = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let mean = match self.mean.load(Ordering::Relaxed) {
            0 => sample,
            before => before - before / WEIGHT + sample / WEIGHT,
        };
        self.mean.store(mean.max(1), Ordering::Relaxed);
    }

    /// Adds the duration of a call that was stopped at its deadline. Such a duration can only raise
    /// the mean. It is ignored until a call has run to completion, because the first call may have
    /// waited for a database that was starting.
    pub fn record_at_least(&self, took: Duration) {
        let mean = self.mean.load(Ordering::Relaxed);
        if mean != 0 && took.as_nanos() > u128::from(mean) {
            self.record(took);
        }
    }

    /// Returns whether a call can be expected to end within `left`. Always returns `true` until a
    /// call has ended. Each refusal lowers the mean, so that calls are eventually tried again if
    /// they have become shorter.
    #[must_use]
    pub fn fits_within(&self, left: Duration) -> bool {
        let mean = self.mean.load(Ordering::Relaxed);
        let admits = Duration::from_nanos(mean) <= left;
        if !admits {
            self.mean.store(mean - mean / WEIGHT, Ordering::Relaxed);
        }
        admits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_admitted_until_one_has_ended() {
        let time = CallTime::default();
        assert!(time.fits_within(Duration::ZERO));
        time.record(Duration::from_millis(10));
        assert!(time.fits_within(Duration::from_millis(10)));
        assert!(!time.fits_within(Duration::from_millis(9)));
    }

    #[test]
    fn a_call_is_tried_again_after_some_refusals() {
        let time = CallTime::default();
        time.record(Duration::from_secs(12));
        let refusals = (0..100).take_while(|_| !time.fits_within(Duration::from_secs(1))).count();
        assert!((1..60).contains(&refusals), "{refusals}");
    }

    #[test]
    fn a_stopped_call_raises_the_mean_and_never_lowers_it() {
        let time = CallTime::default();
        time.record(Duration::from_secs(1));
        time.record_at_least(Duration::from_millis(1));
        assert!(!time.fits_within(Duration::from_millis(999)));
        let time = CallTime::default();
        time.record_at_least(Duration::from_secs(3));
        assert!(time.fits_within(Duration::ZERO), "no call has ended yet");
        time.record(Duration::from_secs(1));
        for _ in 0..100 {
            time.record_at_least(Duration::from_secs(3));
        }
        assert!(!time.fits_within(Duration::from_secs(2)));
    }

    #[test]
    fn the_mean_follows_the_calls() {
        let time = CallTime::default();
        time.record(Duration::from_secs(10));
        for _ in 0..200 {
            time.record(Duration::from_millis(1));
        }
        assert!(time.fits_within(Duration::from_millis(20)));
        time.record(Duration::MAX);
        assert!(
            !time.fits_within(Duration::from_hours(1)),
            "the longest time neither overflows nor is ignored"
        );
    }
}
