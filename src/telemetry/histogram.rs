//! How times are distributed: a few atomic numbers each. The exporter's own histograms keep every time that was measured
//! in a list until somebody asks or tidies up: megabytes a second under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of every histogram, in seconds: from a fast row to the longest session.
pub(super) const BUCKETS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// How times are distributed. Cheap to clone; every clone counts the same.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<Times>);

#[derive(Debug, Default)]
struct Times {
    /// How many were in each bucket, and not in the one before; the last is beyond every bound.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    nanos: AtomicU64,
}

/// What a histogram holds at one moment.
#[derive(Debug)]
pub(super) struct Held {
    /// How many were at most as long as each bound.
    pub(super) buckets: [u64; BUCKETS.len()],
    /// How many there were.
    pub(super) count: u64,
    /// All of them together, in seconds.
    pub(super) seconds: f64,
}

impl Histogram {
    /// Counts one more, of so many seconds. What is no time is none.
    pub fn record(&self, seconds: f64) {
        let bucket = BUCKETS.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.0.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_nanos();
        self.0.nanos.fetch_add(u64::try_from(nanos).unwrap_or_default(), Ordering::Relaxed);
    }

    pub(super) fn held(&self) -> Held {
        let mut count = 0;
        let mut all = self.0.buckets.iter().map(|bucket| {
            count += bucket.load(Ordering::Relaxed);
            count
        });
        let buckets = std::array::from_fn(|_| all.next().unwrap_or_default());
        // The one beyond every bound.
        all.for_each(drop);
        let seconds = Duration::from_nanos(self.0.nanos.load(Ordering::Relaxed)).as_secs_f64();
        Held { buckets, count, seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_that_it_fits() {
        let times = Histogram::default();
        for seconds in [0.0, 0.001, 0.0011, 59.0, 61.0, f64::NAN, -1.0] {
            times.record(seconds);
        }
        let held = times.held();
        assert_eq!(held.count, 7);
        assert_eq!(held.buckets.first(), Some(&4), "what is no time counts as none");
        assert_eq!(held.buckets.get(1), Some(&5));
        assert_eq!(held.buckets.last(), Some(&6), "one is beyond every bound");
        assert!((held.seconds - 120.0021).abs() < 1e-6, "{held:?}");
    }
}
