//! Histograms of durations. Each histogram is stored as a few atomic counters. The exporter's own
//! histograms keep every recorded duration until the next scrape, so they grow by megabytes per
//! second under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::distribution::Distribution;

/// The bucket bounds of histograms in seconds. They range from a phase without I/O to the longest
/// session.
pub(super) const BOUNDS: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];

/// A histogram of durations. Clones share their counters.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<BucketCounters>);

#[derive(Debug, Default)]
struct BucketCounters {
    /// The number of durations in each bucket, not cumulative. The last bucket contains durations
    /// above all bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl Histogram {
    /// Records a duration in seconds. A value that is not a valid duration, such as NaN, counts as
    /// 0.
    pub fn record(&self, seconds: f64) {
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.0.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_nanos();
        self.0.nanos.fetch_add(u64::try_from(nanos).unwrap_or_default(), Ordering::Relaxed);
    }

    /// Returns the distribution of all durations recorded so far.
    pub(super) fn distribution(&self) -> Distribution {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BOUNDS.len());
        for (index, bucket) in self.0.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            buckets.extend(BOUNDS.get(index).map(|bound| (*bound, count)));
        }
        let seconds = Duration::from_nanos(self.0.nanos.load(Ordering::Relaxed)).as_secs_f64();
        Distribution { count, seconds, buckets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_that_holds_it() {
        let times = Histogram::default();
        for seconds in [0.0, 0.0001, 0.00011, 59.0, 61.0, f64::NAN, -1.0] {
            times.record(seconds);
        }
        let found = times.distribution();
        assert_eq!(found.count, 7);
        assert_eq!(found.buckets[0], (0.0001, 4), "NaN and negative values count as 0");
        assert_eq!(found.buckets[1], (0.00025, 5));
        assert_eq!(found.buckets.last(), Some(&(60.0, 6)), "one duration exceeds every bound");
        assert!((found.seconds - 120.000_21).abs() < 1e-6, "{found:?}");
    }
}
