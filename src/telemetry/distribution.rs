//! A distribution of measured durations. Its quantiles are computed as in Prometheus.

use serde::{Deserialize, Serialize};

/// The distribution of measured durations at a point in time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// The number of durations.
    pub count: u64,
    /// The sum of the durations, in seconds.
    pub seconds: f64,
    /// The upper bounds in seconds in ascending order, each with the number of durations at or
    /// below it.
    pub buckets: Vec<(f64, u64)>,
}

impl Distribution {
    /// Adds the durations of another distribution. Both must have the same bounds, unless one of
    /// them has none.
    pub fn add(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.seconds += other.seconds;
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
        } else {
            for ((_, own), (_, others)) in self.buckets.iter_mut().zip(&other.buckets) {
                *own = own.saturating_add(*others);
            }
        }
    }

    /// Returns the durations that were added after `earlier` was read.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = earlier.buckets.iter().map(|(_, count)| *count);
        let before = before.chain(std::iter::repeat(0));
        let buckets = self.buckets.iter().zip(before);
        Self {
            count: self.count.saturating_sub(earlier.count),
            seconds: (self.seconds - earlier.seconds).max(0.0),
            buckets: buckets.map(|((le, now), was)| (*le, now.saturating_sub(was))).collect(),
        }
    }

    /// Returns the mean in seconds, or `None` if there are no durations.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.seconds / count_as_f64(self.count))
    }

    /// Returns a quantile in seconds. Like Prometheus' `histogram_quantile`, uses linear
    /// interpolation within a bucket. Durations beyond the last bound are treated as equal to that
    /// bound.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let rank = share * count_as_f64(self.count);
        let (mut from, mut below) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            let count = count_as_f64(*count);
            if count >= rank && count > below {
                return Some(from + (bound - from) * (rank - below) / (count - below));
            }
            (from, below) = (*bound, count);
        }
        Some(from)
    }
}

/// Converts a count to a floating-point number.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn count_as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near(value: Option<f64>, expected: f64) -> bool {
        value.is_some_and(|value| (value - expected).abs() < 1e-9)
    }

    #[test]
    fn quantiles_equal_those_of_prometheus() {
        let times =
            Distribution { count: 100, seconds: 12.5, buckets: vec![(0.1, 50), (0.5, 100)] };
        assert!(is_near(times.mean(), 0.125));
        assert!(is_near(times.quantile(0.25), 0.05), "half of the first bucket");
        assert!(is_near(times.quantile(0.99), 0.1 + 0.4 * 0.98));
        let late = times.since(&Distribution {
            count: 50,
            seconds: 2.5,
            buckets: vec![(0.1, 50), (0.5, 50)],
        });
        assert_eq!((late.count, late.buckets[0].1), (50, 0));
        assert!(is_near(late.quantile(0.5), 0.3), "{late:?}");
        assert_eq!(Distribution::default().quantile(0.5), None);
        let mut both = late.clone();
        both.add(&times);
        assert_eq!((both.count, both.buckets[1].1), (150, 150));
    }
}
