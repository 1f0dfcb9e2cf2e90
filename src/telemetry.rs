//! Metrics, logs and traces.

pub use metrics::{Counter, Gauge};

pub mod conditions;
pub mod context;
mod distribution;
pub mod exposition;
mod histogram;
pub mod logs;
pub mod names;
mod registry;
mod scrape_format;
pub mod snapshot;
pub mod trace_context;
mod traceparent;
pub mod traces;

pub use distribution::{Distribution, count_as_f64};
pub use histogram::Histogram;
pub use registry::{LabelValue, counter, gauge, histogram, remove};
pub use scrape_format::Format;

/// Formats an error and its causes on one line. A cause whose text is already included is omitted.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text_of_cause = cause.to_string();
        if !text.contains(&text_of_cause) {
            text.push_str(": ");
            text.push_str(&text_of_cause);
        }
        next = cause.source();
    }
    text
}
