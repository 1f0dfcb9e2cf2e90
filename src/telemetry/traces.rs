//! Spans of sampled requests: recorded when they end, handed to the exporter, never waited for.
//!
//! Nothing here costs more than a look at a flag while no collector is configured.

use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Counter, counter, names, traceparent};
use crate::cli::Role;
use crate::config::TracesConfig;
use crate::config::traces::ParentSampling;

mod batch;
mod export;

pub use export::Exporter;

/// What takes spans: one for the process, as the metrics' recorder is.
static RECORDER: OnceLock<Recorder> = OnceLock::new();

#[derive(Debug)]
struct Recorder {
    spans: mpsc::Sender<Span>,
    /// New traces whose lowest 56 bits are below this are recorded.
    sampled_below: u64,
    parent_sampling: ParentSampling,
    dropped: Dropped,
}

struct Dropped(Counter);

impl std::fmt::Debug for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dropped")
    }
}

/// What a span is about, for whoever draws the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request that is served.
    Server,
    /// A call of another service, waited for.
    Client,
    /// A message that is sent.
    Producer,
    /// A message that is worked on.
    Consumer,
}

/// An attribute's value. A path, a parameter or another text of a caller never becomes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A constant of the code.
    Word(&'static str),
    /// A name of the catalogue or the configuration.
    Name(String),
    /// A number.
    Number(i64),
}

/// A span that has begun: its place in the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    trace: u128,
    id: u64,
    parent: Option<u64>,
    began: Instant,
}

/// What is told of a span when it ends.
#[derive(Clone, Debug)]
pub struct Told {
    /// What it is about.
    pub kind: Kind,
    /// A name of few values.
    pub name: String,
    /// Attributes by their names in the semantic conventions, and ours.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed, in one word.
    pub error: Option<&'static str>,
}

/// A span that has ended.
#[derive(Clone, Debug)]
struct Span {
    open: Open,
    ended: Instant,
    told: Told,
}

/// Starts the export of spans. May be called once in a process. `tls` is the TLS configuration for the connection to the
/// collector; without one the connection is plain text.
///
/// # Errors
/// Describes why the HTTP client cannot be built.
pub fn start(
    config: &TracesConfig,
    role: Role,
    tls: Option<ClientConfig>,
) -> Result<Exporter, String> {
    let (spans, ended) = mpsc::channel(config.spans_max);
    let exporter = Exporter::start(config, role, tls, ended)?;
    let dropped = Dropped(counter(&names::TRACE_SPANS, &[(names::RESULT, "dropped".to_owned())]));
    // At zero from the start, so that the first one has an increase that an alert sees.
    dropped.0.increment(0);
    let recorder = Recorder {
        spans,
        sampled_below: sampled_below(config.sample_ratio),
        parent_sampling: config.parent_sampling,
        dropped,
    };
    if RECORDER.set(recorder).is_err() {
        tracing::error!("traces were exported before: where to stays as it was");
    }
    Ok(exporter)
}

/// The bound below which the lowest 56 bits of a trace's id lie for this share of all.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of 0 to 1 of 2^56 fits, and nobody misses a fraction of it"
)]
fn sampled_below(ratio: f64) -> u64 {
    /// 2^56: so many random bits a trace's id has at least (W3C Trace Context level 2).
    const RANDOM: f64 = 72_057_594_037_927_936.0;
    (ratio.clamp(0.0, 1.0) * RANDOM) as u64
}

/// Whether a new trace is recorded.
pub(super) fn is_sampled(trace_id: &str) -> bool {
    let Some(recorder) = RECORDER.get() else { return false };
    let lowest = u128::from_str_radix(trace_id, 16).map(|id| id & ((1 << 56) - 1));
    lowest.is_ok_and(|lowest| lowest < u128::from(recorder.sampled_below))
}

/// Whether a request is recorded whose trace is a caller's that does not decide. By chance, not by its id: that is the
/// caller's choice too.
pub(super) fn is_sampled_by_chance() -> bool {
    RECORDER.get().is_some_and(|recorder| rand::random::<u64>() >> 8 < recorder.sampled_below)
}

/// Whose callers decide. A process that records nothing believes no more than one that does.
pub(super) fn parent_sampling() -> ParentSampling {
    RECORDER.get().map(|recorder| recorder.parent_sampling).unwrap_or_default()
}

/// Whether the span that a `traceparent` names is recorded, and we record.
#[must_use]
pub fn is_recorded(traceparent: &str) -> bool {
    RECORDER.get().is_some() && traceparent::recorded(traceparent).is_some()
}

/// Begins a span below the one that a `traceparent` names, if that one is recorded and we record.
#[must_use]
pub fn open(traceparent: Option<&str>) -> Option<Open> {
    RECORDER.get()?;
    let (trace, parent) = traceparent::recorded(traceparent?)?;
    Some(Open { trace, id: traceparent::random_id(), parent: Some(parent), began: Instant::now() })
}

/// The span that a `traceparent` names, if it is recorded and we record.
pub(super) fn opened(traceparent: &str, parent: Option<u64>, began: Instant) -> Option<Open> {
    RECORDER.get()?;
    let (trace, id) = traceparent::recorded(traceparent)?;
    Some(Open { trace, id, parent, began })
}

impl Open {
    /// The same span, which began only then.
    #[must_use]
    pub fn since(self, began: Instant) -> Self {
        Self { began, ..self }
    }

    /// The `traceparent` for what happens below this span.
    #[must_use]
    pub fn traceparent(&self) -> Arc<str> {
        format!("00-{:032x}-{:016x}-01", self.trace, self.id).into()
    }

    /// The span ends now. Never waits: where too many spans wait already it is dropped and counted.
    pub fn end(self, told: Told) {
        self.end_at(Instant::now(), told);
    }

    /// The span has ended.
    pub fn end_at(self, ended: Instant, told: Told) {
        let Some(recorder) = RECORDER.get() else { return };
        if recorder.spans.try_send(Span { open: self, ended, told }).is_err() {
            recorder.dropped.0.increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_ids_is_sampled() {
        let half = sampled_below(0.5);
        assert_eq!((sampled_below(0.0), half, sampled_below(1.0)), (0, 1 << 55, 1 << 56));
    }
}
