//! Metrics, logs and traces.

pub use metrics::{Counter, Gauge};
use metrics::{Key, Label, Level, Metadata, with_recorder};

pub mod conditions;
pub mod context;
mod exposition;
mod histogram;
pub mod logs;
pub mod names;
pub mod reading;
pub mod recorder;
pub mod trace;
pub mod traces;

pub use exposition::Format;
pub use histogram::Histogram;

use names::Metric;

const METADATA: Metadata<'static> = Metadata::new("fjord", Level::INFO, None);

/// A label's value: one of a closed set, never a path or an id.
pub type LabelValue = (&'static str, String);

fn key(metric: &Metric, labels: &[LabelValue]) -> Key {
    let labels: Vec<Label> =
        labels.iter().map(|(name, value)| Label::new(*name, value.clone())).collect();
    Key::from_parts(metric.name, labels)
}

/// The counter of a metric with these labels. Keep the handle where the path is hot.
pub fn counter(metric: &Metric, labels: &[LabelValue]) -> Counter {
    with_recorder(|recorder| recorder.register_counter(&key(metric, labels), &METADATA))
}

/// The gauge of a metric with these labels.
pub fn gauge(metric: &Metric, labels: &[LabelValue]) -> Gauge {
    with_recorder(|recorder| recorder.register_gauge(&key(metric, labels), &METADATA))
}

/// The histogram of a metric with these labels.
#[must_use]
pub fn histogram(metric: &Metric, labels: &[LabelValue]) -> Histogram {
    recorder::histogram(metric, labels)
}

/// An error with its causes, in a line. A cause that only repeats what stands above it is left out.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}
