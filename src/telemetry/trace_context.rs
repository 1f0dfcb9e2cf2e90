//! The W3C Trace Context of a request. It is taken from the client or created, and is passed on to
//! workers. The ids from a client are not trusted for any other purpose.

use std::sync::Arc;

use tokio::time::Instant;

use super::traceparent::{self, SAMPLED, TRACE_ID, as_text, random_hex};
use super::traces::{self, SpanHandle};
use crate::config::traces::ParentSampling;
use crate::envelope::request::TRACESTATE_BYTES_MAX;

/// The maximum number of entries in a `tracestate` (W3C Trace Context, section 3.3.1.1).
const TRACESTATE_ENTRIES_MAX: usize = 32;

/// The trace of a request and the request's own span in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    traceparent: Arc<str>,
    /// The id of the client's span.
    parent: Option<u64>,
    state: Option<String>,
    /// The client's `sampled` flag, if it takes effect after authentication.
    sampled_if_authenticated: Option<bool>,
}

impl TraceContext {
    /// Creates a span in the client's trace. If the client sent no valid `traceparent`, creates the
    /// span in a new trace. Whether the span is recorded is decided at random, unless
    /// `traces.parent_sampling` lets the client decide.
    #[must_use]
    pub fn from_headers(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        let span_id = random_hex::<8>();
        let span_id = as_text(&span_id);
        let Some(client) = traceparent.and_then(traceparent::parse) else {
            let trace_id = random_hex::<16>();
            let trace_id = as_text(&trace_id);
            let flags = if traces::is_sampled(trace_id) { SAMPLED } else { 0 };
            let traceparent = traceparent::format(trace_id, span_id, flags);
            return Self { traceparent, parent: None, state: None, sampled_if_authenticated: None };
        };
        let client_flag = client.flags & SAMPLED != 0;
        let (is_sampled, sampled_if_authenticated) = match traces::parent_sampling() {
            ParentSampling::Always => (client_flag, None),
            ParentSampling::Authenticated => (traces::is_sampled_at_random(), Some(client_flag)),
            ParentSampling::Never => (traces::is_sampled_at_random(), None),
        };
        Self {
            traceparent: traceparent::format(client.trace_id, span_id, u8::from(is_sampled)),
            sampled_if_authenticated,
            parent: u64::from_str_radix(client.span_id, 16).ok(),
            state: tracestate.filter(|state| is_valid_tracestate(state)).map(ToOwned::to_owned),
        }
    }

    /// Applies the client's `sampled` flag after authentication if the configuration permits that.
    pub fn on_authenticated(&mut self) {
        let Some(is_sampled) = self.sampled_if_authenticated.take() else { return };
        let flags = if is_sampled { "01" } else { "00" };
        if let Some((start, before)) = self.traceparent.rsplit_once('-')
            && before != flags
        {
            self.traceparent = [start, flags].join("-").into();
        }
    }

    /// Returns the `traceparent` for the next hop.
    #[must_use]
    pub fn traceparent(&self) -> &Arc<str> {
        &self.traceparent
    }

    /// Returns the client's `tracestate`, which is passed to the next hop unchanged.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Returns the trace id, which appears in every log line of the request.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        // `traceparent::format` wrote the header, so the header has a known length.
        self.traceparent.get(TRACE_ID).unwrap_or_default()
    }

    /// Returns the request's own span if it is recorded.
    #[must_use]
    pub fn span(&self, began: Instant) -> Option<SpanHandle> {
        traces::recorded_span(&self.traceparent, self.parent, began)
    }
}

fn is_valid_tracestate(text: &str) -> bool {
    text.len() <= TRACESTATE_BYTES_MAX
        && text.split(',').count() <= TRACESTATE_ENTRIES_MAX
        && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_trace_is_continued_with_a_new_span() {
        let mut ours = TraceContext::from_headers(Some(GOOD), Some("a=1,b=2"));
        assert!(ours.traceparent().ends_with("-00"), "the client is not authenticated");
        ours.on_authenticated();
        assert_eq!(ours.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert!(ours.traceparent().starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
        assert!(ours.traceparent().ends_with("-01"));
        assert!(!ours.traceparent().contains("b7ad6b7169203331"), "the span is new");
        assert_eq!(ours.tracestate(), Some("a=1,b=2"));
    }

    #[test]
    fn an_invalid_header_starts_a_new_trace() {
        for invalid in ["", &GOOD.to_uppercase()] {
            let ours = TraceContext::from_headers(Some(invalid), Some("a=1"));
            assert_eq!(ours.tracestate(), None, "{invalid}");
            assert_eq!(ours.traceparent().len(), 55);
            assert!(traceparent::parse(ours.traceparent()).is_some(), "{ours:?}");
        }
    }
}
