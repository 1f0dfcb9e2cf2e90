//! The current values of metrics, summed by a label. `/metrics` is rendered from the same storage.

use std::collections::BTreeMap;

use super::distribution::{Distribution, count_as_f64};
use super::names::Metric;
use super::registry::{self, Instrument, LabelValue};

/// Returns the values of a counter or gauge, grouped by one of its labels and summed over all others.
#[must_use]
pub fn sums(metric: &Metric, label: &str) -> BTreeMap<String, f64> {
    sums_where(metric, label, |_| true)
}

/// Like `sums`, but includes only series with matching labels.
#[must_use]
pub fn sums_where(
    metric: &Metric,
    label: &str,
    matches: impl Fn(&dyn Fn(&str) -> String) -> bool,
) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for_each_value(metric, |value_of, value| {
        if matches(value_of) {
            *sums.entry(value_of(label)).or_default() += value;
        }
    });
    sums
}

/// Calls `visit` for each series of a counter or gauge. The arguments of `visit` are a function that returns the value
/// of a label, and the value of the series.
pub fn for_each_value(metric: &Metric, mut visit: impl FnMut(&dyn Fn(&str) -> String, f64)) {
    registry::for_each_of(metric, |labels, instrument| {
        let value = match instrument {
            Instrument::Counter(counter) => count_as_f64(registry::counter_value(counter)),
            Instrument::Gauge(gauge) => registry::gauge_value(gauge),
            Instrument::Histogram(_) => return,
        };
        visit(&|name| label_value(labels, name), value);
    });
}

/// Returns the distributions of a histogram, grouped by one of its labels and added up over all others.
#[must_use]
pub fn distributions(metric: &Metric, label: &str) -> BTreeMap<String, Distribution> {
    let mut distributions: BTreeMap<String, Distribution> = BTreeMap::new();
    for_each_distribution(metric, |value_of, times| {
        distributions.entry(value_of(label)).or_default().add(&times);
    });
    distributions
}

/// Calls `visit` for each series of a histogram, like `for_each_value`.
pub fn for_each_distribution(
    metric: &Metric,
    mut visit: impl FnMut(&dyn Fn(&str) -> String, Distribution),
) {
    registry::for_each_of(metric, |labels, instrument| {
        if let Instrument::Histogram(histogram) = instrument {
            visit(&|name| label_value(labels, name), histogram.distribution());
        }
    });
}

/// Returns the value of a label, or an empty string if the series does not have it.
fn label_value(labels: &[LabelValue], name: &str) -> String {
    labels
        .iter()
        .find(|(each, _)| *each == name)
        .map(|(_, value)| value.clone())
        .unwrap_or_default()
}

/// Converts the value of a counter to a count. Negative values become 0.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are far below 2^53, and negative values become 0"
)]
pub fn to_count(value: f64) -> u64 {
    value.max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{counter, gauge, histogram, names};

    fn is_near(value: Option<&f64>, expected: f64) -> bool {
        value.is_some_and(|value| (value - expected).abs() < 1e-9)
    }

    #[test]
    fn values_are_summed_over_the_other_labels() {
        let labels = |queue: &str, outcome: &str| {
            [(names::QUEUE, queue.to_owned()), (names::OUTCOME, outcome.to_owned())]
        };
        counter(&names::WORKER_CALLS, &labels("snapshot-a", "ok")).increment(7);
        counter(&names::WORKER_CALLS, &labels("snapshot-a", "busy")).increment(2);
        counter(&names::WORKER_CALLS, &labels("snapshot-b", "ok")).increment(1);
        let calls = sums(&names::WORKER_CALLS, names::QUEUE);
        assert!(is_near(calls.get("snapshot-a"), 9.0) && is_near(calls.get("snapshot-b"), 1.0));
        let succeeded =
            sums_where(&names::WORKER_CALLS, names::QUEUE, |label| label(names::OUTCOME) == "ok");
        assert!(is_near(succeeded.get("snapshot-a"), 7.0), "{succeeded:?}");
        gauge(&names::BACKEND_UP, &[(names::DATABASE, "snapshot".to_owned())]).set(1.0);
        let up = sums(&names::BACKEND_UP, names::DATABASE);
        assert!(is_near(up.get("snapshot"), 1.0), "{up:?}");
    }

    #[test]
    fn distributions_hold_counts_sums_and_bounds() {
        let label = [(names::QUEUE, "snapshot".to_owned())];
        let times = histogram(&names::WORKER_CALL_DURATION, &label);
        times.record(0.003);
        times.record(61.0);
        let found = distributions(&names::WORKER_CALL_DURATION, names::QUEUE);
        let found = &found["snapshot"];
        assert_eq!(found.count, 2);
        assert!((found.seconds - 61.003).abs() < 1e-6, "{found:?}");
        assert_eq!(found.buckets.first(), Some(&(0.0001, 0)));
        assert_eq!(found.buckets.last(), Some(&(60.0, 1)), "the other exceeds every bound");
        assert!(distributions(&names::PANICS, names::COMPONENT).is_empty());
    }
}
