//! The trace context of a request (W3C Trace Context): accepted from the client or created, and sent to the worker.

use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;

use super::traceparent::{SAMPLED, as_text, format, parse, random_hex};
use super::traces::{self, Open};
use crate::config::traces::ParentSampling;
use crate::envelope::request::TRACESTATE_BYTES_MAX;

/// The position of the trace id in a `traceparent`.
const TRACE_ID: Range<usize> = 3..35;

/// The trace of a request, and the gateway's span in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    traceparent: Arc<str>,
    /// The client's span.
    parent: Option<u64>,
    state: Option<String>,
    /// Whether the client has sampled the trace, if that applies once it is authenticated.
    is_sampled_by_client: Option<bool>,
}

impl TraceContext {
    /// Creates a span in the client's trace, or a new trace if the client sent no valid one. `traces.parent_sampling`
    /// defines whether the client decides if it is recorded; otherwise it is sampled at random.
    #[must_use]
    pub fn continued(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        let span_id = random_hex::<8>();
        let span_id = as_text(&span_id);
        let Some(client) = traceparent.and_then(parse) else {
            let trace_id = random_hex::<16>();
            let trace_id = as_text(&trace_id);
            let flags = if traces::is_sampled(trace_id) { SAMPLED } else { 0 };
            let traceparent = format(trace_id, span_id, flags);
            return Self { traceparent, parent: None, state: None, is_sampled_by_client: None };
        };
        let by_client = client.flags & SAMPLED != 0;
        let (is_sampled, is_sampled_by_client) = match traces::parent_sampling() {
            ParentSampling::Always => (by_client, None),
            ParentSampling::Authenticated => (traces::is_sampled_by_chance(), Some(by_client)),
            ParentSampling::Never => (traces::is_sampled_by_chance(), None),
        };
        Self {
            traceparent: format(client.trace_id, span_id, u8::from(is_sampled)),
            is_sampled_by_client,
            parent: u64::from_str_radix(client.span_id, 16).ok(),
            state: tracestate.filter(|state| is_state(state)).map(ToOwned::to_owned),
        }
    }

    /// Applies the sampling decision of the client after its authentication, if it is not applied to all clients.
    pub fn authenticated(&mut self) {
        let Some(is_sampled) = self.is_sampled_by_client.take() else { return };
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

    /// Returns the client's `tracestate`, which is forwarded unchanged.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Returns the trace id, which is on every log line of the request.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        // Created by `format`, so it need not be parsed.
        self.traceparent.get(TRACE_ID).unwrap_or_default()
    }

    /// Returns the span, if it is recorded.
    #[must_use]
    pub fn span(&self, began: Instant) -> Option<Open> {
        traces::opened(&self.traceparent, self.parent, began)
    }
}

fn is_state(text: &str) -> bool {
    text.len() <= TRACESTATE_BYTES_MAX
        && text.split(',').count() <= 32
        && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_trace_is_continued_with_a_new_span() {
        let mut context = TraceContext::continued(Some(GOOD), Some("a=1,b=2"));
        assert!(context.traceparent().ends_with("-00"), "the client is not authenticated");
        context.authenticated();
        assert_eq!(context.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert!(context.traceparent().starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
        assert!(context.traceparent().ends_with("-01"));
        assert!(!context.traceparent().contains("b7ad6b7169203331"), "the span is new");
        assert_eq!(context.tracestate(), Some("a=1,b=2"));
    }

    #[test]
    fn an_invalid_traceparent_starts_a_new_trace() {
        let later = format!("{}-more", GOOD.replacen("00-", "01-", 1));
        assert!(parse(&later).is_some(), "a later version may have more fields");
        for bad in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD.replacen("00-", "ff-", 1),
            &format!("{GOOD}-more"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-zz",
            "00-0af7651916cd43dd8448eb211c80319cé-b7ad6b7169203331-01",
        ] {
            let context = TraceContext::continued(Some(bad), Some("a=1"));
            assert_eq!(context.tracestate(), None, "{bad}");
            assert_eq!(context.traceparent().len(), 55);
            assert!(parse(context.traceparent()).is_some(), "a created traceparent is valid");
        }
    }
}
