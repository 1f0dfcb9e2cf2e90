//! Spans of sampled requests. A span that ends is put into the exporter's queue without waiting.
//!
//! Without a configured collector, recording costs only an atomic load.

use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Counter, counter, names, traceparent};
use crate::cli::Role;
use crate::config::TracesConfig;
use crate::config::traces::ParentSampling;

mod batch;
mod export;

pub use export::{Exporter, SpanClient};

/// The recorder of this process.
static RECORDER: OnceLock<SpanRecorder> = OnceLock::new();

#[derive(Debug)]
struct SpanRecorder {
    ended: mpsc::Sender<EndedSpan>,
    /// A new trace is recorded if the lowest 56 bits of its id are below this bound.
    sampled_below: u64,
    parent_sampling: ParentSampling,
    dropped: DroppedSpans,
}

struct DroppedSpans(Counter);

impl std::fmt::Debug for DroppedSpans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DroppedSpans")
    }
}

/// The kind of a span, as OpenTelemetry defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Serving a request.
    Server,
    /// Calling another service and waiting for the result.
    Client,
    /// Sending a message.
    Producer,
    /// Processing a message.
    Consumer,
}

/// The value of an attribute. It is never a path, a parameter or any other text from a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeValue {
    /// A constant of the code.
    Constant(&'static str),
    /// A name from the catalogue or the configuration.
    Name(String),
    /// A number.
    Number(i64),
}

/// A span that has begun, with its ids and its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanHandle {
    trace: u128,
    id: u64,
    parent: Option<u64>,
    began: Instant,
}

/// The data that is added to a span when it ends.
#[derive(Clone, Debug)]
pub struct SpanData {
    /// The kind.
    pub kind: SpanKind,
    /// The name, from a small set of values.
    pub name: String,
    /// Attributes with names from the semantic conventions, or beginning with `fjord.`.
    pub attributes: Vec<(&'static str, AttributeValue)>,
    /// The error if the span failed, for instance an outcome.
    pub error: Option<&'static str>,
}

/// A span that has ended.
#[derive(Clone, Debug)]
struct EndedSpan {
    handle: SpanHandle,
    ended: Instant,
    data: SpanData,
}

/// Starts exporting spans with this client. Can be called once per process.
pub fn start(config: &TracesConfig, role: Role, client: SpanClient) -> Exporter {
    let (ended, receiver) = mpsc::channel(config.spans_max);
    let exporter = Exporter::start(config, role, client, receiver);
    let dropped =
        DroppedSpans(counter(&names::TRACE_SPANS, &[(names::RESULT, "dropped".to_owned())]));
    // Starts the series at 0. Otherwise, an alert on its increase would miss the first drop.
    dropped.0.increment(0);
    let recorder = SpanRecorder {
        ended,
        sampled_below: sampled_below(config.sample_ratio),
        parent_sampling: config.parent_sampling,
        dropped,
    };
    if RECORDER.set(recorder).is_err() {
        tracing::error!("the export of traces was started twice; the first collector is kept");
    }
    exporter
}

/// Returns the bound that selects a share of all trace ids by their lowest 56 bits.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of 0 to 1 of 2^56 fits, and the fraction does not matter"
)]
fn sampled_below(ratio: f64) -> u64 {
    /// 2^56: a trace id has at least 56 random bits (W3C Trace Context level 2).
    const RANDOM_IDS: f64 = 72_057_594_037_927_936.0;
    (ratio.clamp(0.0, 1.0) * RANDOM_IDS) as u64
}

/// Returns whether a new trace is recorded.
pub(super) fn is_sampled(trace_id: &str) -> bool {
    let Some(recorder) = RECORDER.get() else { return false };
    let lowest = u128::from_str_radix(trace_id, 16).map(|id| id & ((1 << 56) - 1));
    lowest.is_ok_and(|lowest| lowest < u128::from(recorder.sampled_below))
}

/// Decides at random whether to record a request in the trace of a client that is not permitted to
/// decide this. The decision does not depend on the trace id, because the client chooses that as
/// well.
pub(super) fn is_sampled_at_random() -> bool {
    RECORDER.get().is_some_and(|recorder| rand::random::<u64>() >> 8 < recorder.sampled_below)
}

/// Returns which callers decide with their `sampled` flag. Returns the default if this process records nothing.
pub(super) fn parent_sampling() -> ParentSampling {
    RECORDER.get().map(|recorder| recorder.parent_sampling).unwrap_or_default()
}

/// Returns whether this process records spans and the span that `traceparent` names is recorded.
#[must_use]
pub fn is_recorded(traceparent: &str) -> bool {
    RECORDER.get().is_some() && traceparent::recorded_ids(traceparent).is_some()
}

/// Begins a child of the recorded span that `traceparent` names, if this process records spans.
#[must_use]
pub fn begin_child(traceparent: Option<&str>) -> Option<SpanHandle> {
    RECORDER.get()?;
    let (trace, parent) = traceparent::recorded_ids(traceparent?)?;
    let id = traceparent::random_span_id();
    Some(SpanHandle { trace, id, parent: Some(parent), began: Instant::now() })
}

/// Returns the span that `traceparent` names, if it is recorded and this process records spans.
pub(super) fn recorded_span(
    traceparent: &str,
    parent: Option<u64>,
    began: Instant,
) -> Option<SpanHandle> {
    RECORDER.get()?;
    let (trace, id) = traceparent::recorded_ids(traceparent)?;
    Some(SpanHandle { trace, id, parent, began })
}

impl SpanHandle {
    /// Returns the same span with a different start.
    #[must_use]
    pub fn starting_at(self, began: Instant) -> Self {
        Self { began, ..self }
    }

    /// Returns the `traceparent` for children of this span.
    #[must_use]
    pub fn traceparent(&self) -> Arc<str> {
        format!("00-{:032x}-{:016x}-01", self.trace, self.id).into()
    }

    /// Ends the span now. Never waits: if the exporter's queue is full, drops and counts the span.
    pub fn end(self, data: SpanData) {
        self.end_at(Instant::now(), data);
    }

    /// Ends the span at `ended`. Like `end`, does not wait.
    pub fn end_at(self, ended: Instant, data: SpanData) {
        let Some(recorder) = RECORDER.get() else { return };
        if recorder.ended.try_send(EndedSpan { handle: self, ended, data }).is_err() {
            recorder.dropped.0.increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_share_of_all_ids() {
        let half = sampled_below(0.5);
        assert_eq!((sampled_below(0.0), half, sampled_below(1.0)), (0, 1 << 55, 1 << 56));
    }
}
