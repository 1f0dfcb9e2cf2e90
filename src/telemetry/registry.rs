//! All metric series of this process, for the exporter and for snapshots.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use metrics::{Counter, Gauge};

use super::histogram::Histogram;
use super::names::{Metric, MetricKind};

/// A label and its value. The value is never text from a request, so the number of series is bounded.
pub type LabelValue = (&'static str, String);

type Series = BTreeMap<Box<[LabelValue]>, Instrument>;

static FAMILIES: LazyLock<RwLock<BTreeMap<&'static str, SeriesFamily>>> =
    LazyLock::new(RwLock::default);

/// A metric and its series, keyed by labels.
struct SeriesFamily {
    metric: Metric,
    series: Series,
}

/// The storage of one series. Clones share it.
#[derive(Clone, Debug)]
pub(super) enum Instrument {
    Counter(Arc<AtomicU64>),
    /// The bits of an `f64`.
    Gauge(Arc<AtomicU64>),
    Histogram(Histogram),
}

impl Instrument {
    fn new(kind: MetricKind) -> Self {
        match kind {
            MetricKind::Counter => Self::Counter(Arc::default()),
            MetricKind::Gauge => Self::Gauge(Arc::default()),
            MetricKind::Histogram => Self::Histogram(Histogram::default()),
        }
    }
}

pub(super) fn counter_value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Acquire)
}

pub(super) fn gauge_value(gauge: &AtomicU64) -> f64 {
    f64::from_bits(gauge.load(Ordering::Acquire))
}

/// Returns the counter of a metric with these labels. On hot paths, the caller should keep the returned handle.
pub fn counter(metric: &Metric, labels: &[LabelValue]) -> Counter {
    match instrument(metric, labels) {
        Instrument::Counter(counter) => Counter::from_arc(counter),
        _ => Counter::noop(),
    }
}

/// Returns the gauge of a metric with these labels.
pub fn gauge(metric: &Metric, labels: &[LabelValue]) -> Gauge {
    match instrument(metric, labels) {
        Instrument::Gauge(gauge) => Gauge::from_arc(gauge),
        _ => Gauge::noop(),
    }
}

/// Returns the histogram of a metric with these labels.
#[must_use]
pub fn histogram(metric: &Metric, labels: &[LabelValue]) -> Histogram {
    match instrument(metric, labels) {
        Instrument::Histogram(histogram) => histogram,
        _ => Histogram::default(),
    }
}

/// Returns the series of a metric with these labels. Creates it on first use.
fn instrument(metric: &Metric, labels: &[LabelValue]) -> Instrument {
    let families = FAMILIES.read().unwrap_or_else(PoisonError::into_inner);
    let known = families.get(metric.name).and_then(|family| family.series.get(labels)).cloned();
    drop(families);
    known.unwrap_or_else(|| {
        let mut families = FAMILIES.write().unwrap_or_else(PoisonError::into_inner);
        let new_family = || SeriesFamily { metric: *metric, series: Series::new() };
        let family = families.entry(metric.name).or_insert_with(new_family);
        let series = family.series.entry(labels.into());
        series.or_insert_with(|| Instrument::new(metric.kind)).clone()
    })
}

/// Removes the series of the given metrics that have a label. Handles of removed series no longer affect the exported
/// metrics.
pub fn remove(metrics: &[Metric], label: &LabelValue) {
    let mut families = FAMILIES.write().unwrap_or_else(PoisonError::into_inner);
    for metric in metrics {
        if let Some(family) = families.get_mut(metric.name) {
            family.series.retain(|labels, _| !labels.contains(label));
        }
    }
}

/// Calls `visit` with each series, ordered by metric name.
pub(super) fn for_each(mut visit: impl FnMut(&Metric, &[LabelValue], &Instrument)) {
    let families = FAMILIES.read().unwrap_or_else(PoisonError::into_inner);
    for SeriesFamily { metric, series } in families.values() {
        for (labels, instrument) in series {
            visit(metric, labels, instrument);
        }
    }
}

/// Calls `visit` with each series of one metric.
pub(super) fn for_each_of(metric: &Metric, mut visit: impl FnMut(&[LabelValue], &Instrument)) {
    let families = FAMILIES.read().unwrap_or_else(PoisonError::into_inner);
    let series = families.get(metric.name).into_iter().flat_map(|family| &family.series);
    for (labels, instrument) in series {
        visit(labels, instrument);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::names;

    #[test]
    fn a_removed_series_is_forgotten_and_others_are_not() {
        let label = |value: &str| [(names::QUEUE, value.to_owned())];
        let old = gauge(&names::WORKER_LIMIT, &label("removed-a"));
        old.set(1.0);
        gauge(&names::WORKER_LIMIT, &label("removed-b")).set(2.0);
        remove(&[names::WORKER_LIMIT], &label("removed-a")[0]);
        old.set(3.0);
        let mut seen = Vec::new();
        for_each_of(&names::WORKER_LIMIT, |labels, _| seen.push(labels[0].1.clone()));
        assert!(!seen.contains(&"removed-a".to_owned()), "{seen:?}");
        assert!(seen.contains(&"removed-b".to_owned()), "{seen:?}");
        gauge(&names::WORKER_LIMIT, &label("removed-a")).set(4.0);
        let mut value = None;
        for_each_of(&names::WORKER_LIMIT, |labels, instrument| {
            if let (Instrument::Gauge(gauge), "removed-a") = (instrument, labels[0].1.as_str()) {
                value = Some(gauge_value(gauge));
            }
        });
        assert_eq!(value, Some(4.0), "the old handle has no effect");
    }

    #[test]
    fn equal_labels_share_one_series() {
        let label = |value: &str| [(names::QUEUE, value.to_owned())];
        counter(&names::GATEWAY_ARRIVALS, &label("registry-a")).increment(2);
        counter(&names::GATEWAY_ARRIVALS, &label("registry-a")).increment(1);
        counter(&names::GATEWAY_ARRIVALS, &label("registry-b")).increment(5);
        let mut values = BTreeMap::new();
        for_each_of(&names::GATEWAY_ARRIVALS, |labels, instrument| {
            if let Instrument::Counter(value) = instrument {
                values.insert(labels[0].1.clone(), counter_value(value));
            }
        });
        assert_eq!(values.get("registry-a"), Some(&3));
        assert_eq!(values.get("registry-b"), Some(&5));
    }
}
