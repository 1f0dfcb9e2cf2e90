//! Randomizes durations so that the processes of a fleet do not act at the same time.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Returns a random duration in a range of multiples of `duration`, such as `0.8..=1.2`.
#[must_use]
pub fn jittered(duration: Duration, multiples: RangeInclusive<f64>) -> Duration {
    duration.mul_f64(rand::random_range(multiples))
}
