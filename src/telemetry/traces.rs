//! Spans of sampled requests. A span that ends is queued for the exporter without blocking.
//!
//! If no collector is configured, recording costs only an atomic load. A reload replaces the recorder and its exporter.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Counter, counter, names, traceparent};
use crate::cli::Role;
use crate::config::TracesConfig;
use crate::config::tls::ClientTlsConfig;
use crate::config::traces::ParentSampling;
use crate::file_version::FileVersion;
use crate::lifecycle::Tasks;

mod batch;
mod export;

use export::{Exporter, PreparedExporter};

/// The recorder of this process.
static RECORDER: ArcSwapOption<SpanRecorder> = ArcSwapOption::const_empty();
/// The exporter of the recorder's spans, and the configuration from which it was created.
static EXPORT: Mutex<Option<(ExportOrigin, Exporter)>> = Mutex::new(None);

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

/// The value of an attribute. It is never a path, a parameter or other text from a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeValue {
    /// A constant in the code.
    Constant(&'static str),
    /// A name from the catalogue or the configuration.
    Name(String),
    /// A number.
    Number(i64),
}

/// A span that has started, with its ids and start time.
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
    /// The error type if the span failed, for example the name of an outcome.
    pub error: Option<&'static str>,
}

/// A span that has ended.
#[derive(Clone, Debug)]
struct EndedSpan {
    handle: SpanHandle,
    ended: Instant,
    data: SpanData,
}

/// The configuration of an export, and the versions of the files named in it.
#[derive(Clone, Debug, PartialEq)]
struct ExportOrigin(TracesConfig, Vec<Option<FileVersion>>);

/// An export of spans that has been prepared but not started.
#[derive(Debug)]
pub struct PreparedTraces(TracesChange);

#[derive(Debug)]
enum TracesChange {
    /// The current state is kept, whether spans are being exported or not.
    None,
    /// No more spans are recorded.
    Stop,
    /// Spans are sent to this collector from now on.
    Start(Box<(ExportOrigin, PreparedExporter, Role)>),
}

/// Prepares the export of spans according to a configuration. Changes nothing yet. `tls` creates the TLS configuration
/// for the connection to the collector. Without it, the connection is unencrypted.
///
/// # Errors
/// Returns a description if the TLS files cannot be used or the HTTP client cannot be built.
pub fn prepare(
    config: Option<&TracesConfig>,
    role: Role,
    tls: impl FnOnce(&ClientTlsConfig) -> Result<ClientConfig, String>,
) -> Result<PreparedTraces, String> {
    let Some(config) = config else {
        let is_stopped = lock_export().is_none();
        return Ok(PreparedTraces(if is_stopped {
            TracesChange::None
        } else {
            TracesChange::Stop
        }));
    };
    let files = config.tls.iter().flat_map(ClientTlsConfig::files);
    let origin = ExportOrigin(config.clone(), files.map(FileVersion::read).collect());
    if lock_export().as_ref().is_some_and(|(current, _)| *current == origin) {
        return Ok(PreparedTraces(TracesChange::None));
    }
    let tls = config.tls.as_ref().map(tls).transpose()?;
    let exporter = PreparedExporter::new(config, tls)?;
    Ok(PreparedTraces(TracesChange::Start(Box::new((origin, exporter, role)))))
}

impl PreparedTraces {
    /// Starts the export. Spans that are still queued for the previous export are sent in the background.
    pub fn apply(self) {
        let next = match self.0 {
            TracesChange::None => return,
            TracesChange::Stop => {
                RECORDER.store(None);
                None
            }
            TracesChange::Start(parts) => {
                let (origin, exporter, role) = *parts;
                let config = &origin.0;
                let (ended, receiver) = mpsc::channel(config.spans_max);
                let exporter = exporter.start(role, receiver);
                let result = [(names::RESULT, "dropped".to_owned())];
                let dropped = DroppedSpans(counter(&names::TRACE_SPANS, &result));
                // This initializes the series to 0. Otherwise, an alert on its increase would miss the first dropped
                // span.
                dropped.0.increment(0);
                RECORDER.store(Some(Arc::new(SpanRecorder {
                    ended,
                    sampled_below: sampled_below(config.sample_ratio),
                    parent_sampling: config.parent_sampling,
                    dropped,
                })));
                Some((origin, exporter))
            }
        };
        let previous = std::mem::replace(&mut *lock_export(), next);
        if let Some((_, exporter)) = previous {
            let _detached = Tasks::new().spawn_background(exporter.flush());
        }
    }
}

/// Sends the queued spans and stops the export. This takes at most 2 seconds. Call this just before the process exits.
pub async fn flush() {
    let exporter = lock_export().take();
    if let Some((_, exporter)) = exporter {
        exporter.flush().await;
    }
}

fn lock_export() -> std::sync::MutexGuard<'static, Option<(ExportOrigin, Exporter)>> {
    EXPORT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the bound that selects a share of all trace ids by their lowest 56 bits.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most 2^56, which fits into u64; the fractional part does not matter"
)]
fn sampled_below(ratio: f64) -> u64 {
    /// 2^56. A trace id has at least 56 random bits (W3C Trace Context level 2).
    const RANDOM_IDS: f64 = 72_057_594_037_927_936.0;
    (ratio.clamp(0.0, 1.0) * RANDOM_IDS) as u64
}

/// Returns whether a new trace is recorded.
pub(super) fn is_sampled(trace_id: &str) -> bool {
    let Some(recorder) = &*RECORDER.load() else { return false };
    let lowest = u128::from_str_radix(trace_id, 16).map(|id| id & ((1 << 56) - 1));
    lowest.is_ok_and(|lowest| lowest < u128::from(recorder.sampled_below))
}

/// Decides at random whether to record a request in the trace of a client that is not permitted to decide this itself.
/// The trace id is not used for the decision, because the client chooses it too.
pub(super) fn is_sampled_at_random() -> bool {
    RECORDER
        .load()
        .as_ref()
        .is_some_and(|recorder| rand::random::<u64>() >> 8 < recorder.sampled_below)
}

/// Returns the callers whose `sampled` flag decides whether a request is recorded. Returns the default if this process
/// records nothing.
pub(super) fn parent_sampling() -> ParentSampling {
    RECORDER.load().as_ref().map(|recorder| recorder.parent_sampling).unwrap_or_default()
}

/// Returns whether this process records spans and the span named in `traceparent` is recorded.
#[must_use]
pub fn is_recorded(traceparent: &str) -> bool {
    RECORDER.load().is_some() && traceparent::recorded_ids(traceparent).is_some()
}

/// Starts a child of the span named in `traceparent` if that span is recorded and this process records spans.
#[must_use]
pub fn begin_child(traceparent: Option<&str>) -> Option<SpanHandle> {
    RECORDER.load().as_ref()?;
    let (trace, parent) = traceparent::recorded_ids(traceparent?)?;
    let id = traceparent::random_span_id();
    Some(SpanHandle { trace, id, parent: Some(parent), began: Instant::now() })
}

/// Returns the span named in `traceparent` if it is recorded and this process records spans.
pub(super) fn recorded_span(
    traceparent: &str,
    parent: Option<u64>,
    began: Instant,
) -> Option<SpanHandle> {
    RECORDER.load().as_ref()?;
    let (trace, id) = traceparent::recorded_ids(traceparent)?;
    Some(SpanHandle { trace, id, parent, began })
}

impl SpanHandle {
    /// Returns the same span with a different start time.
    #[must_use]
    pub fn starting_at(self, began: Instant) -> Self {
        Self { began, ..self }
    }

    /// Returns the `traceparent` for children of this span.
    #[must_use]
    pub fn traceparent(&self) -> Arc<str> {
        format!("00-{:032x}-{:016x}-01", self.trace, self.id).into()
    }

    /// Ends the span now. Never blocks: if the exporter's queue is full, the span is dropped and counted.
    pub fn end(self, data: SpanData) {
        self.end_at(Instant::now(), data);
    }

    /// Ends the span at `ended`. Like `end`, never blocks.
    pub fn end_at(self, ended: Instant, data: SpanData) {
        let Some(recorder) = &*RECORDER.load() else { return };
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
