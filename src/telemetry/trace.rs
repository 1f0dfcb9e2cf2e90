//! W3C Trace Context: accepted from the client or made, carried through NATS, never trusted further than that.

use std::ops::Range;
use std::sync::Arc;

use rand::RngExt;
use tokio::time::Instant;

use super::traces::{self, Open};
use crate::config::traces::ParentSampling;
use crate::envelope::request::TRACESTATE_BYTES_MAX;

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;
/// Where the trace's id stands in a `traceparent`.
const TRACE_ID: Range<usize> = 3..35;

/// The trace that a request belongs to, and our own span in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    traceparent: Arc<str>,
    /// The client's own span.
    parent: Option<u64>,
    state: Option<String>,
    /// What the client wants recorded, where that counts once it has proved who it is.
    wanted: Option<bool>,
}

impl TraceContext {
    /// Our span in the client's trace; a trace of its own when the client sent none that is valid. Chance decides whether
    /// it is recorded, unless `traces.parent_sampling` lets the client do that.
    #[must_use]
    pub fn continued(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        let span_id = random_hex::<8>();
        let span_id = as_text(&span_id);
        let Some(theirs) = traceparent.and_then(parse) else {
            let trace_id = random_hex::<16>();
            let trace_id = as_text(&trace_id);
            let flags = if traces::is_sampled(trace_id) { SAMPLED } else { 0 };
            let traceparent = written(trace_id, span_id, flags);
            return Self { traceparent, parent: None, state: None, wanted: None };
        };
        let is_wanted = theirs.flags & SAMPLED != 0;
        let (is_sampled, wanted) = match traces::parent_sampling() {
            ParentSampling::Always => (is_wanted, None),
            ParentSampling::Authenticated => (traces::is_sampled_by_chance(), Some(is_wanted)),
            ParentSampling::Never => (traces::is_sampled_by_chance(), None),
        };
        Self {
            traceparent: written(theirs.trace_id, span_id, u8::from(is_sampled)),
            wanted,
            parent: u64::from_str_radix(theirs.span_id, 16).ok(),
            state: tracestate.filter(|state| is_state(state)).map(ToOwned::to_owned),
        }
    }

    /// The client has proved who it is: what it wants recorded counts, where that is so.
    pub fn authenticated(&mut self) {
        let Some(is_wanted) = self.wanted.take() else { return };
        let flags = if is_wanted { "01" } else { "00" };
        if let Some((start, before)) = self.traceparent.rsplit_once('-')
            && before != flags
        {
            self.traceparent = [start, flags].join("-").into();
        }
    }

    /// The `traceparent` that the next hop gets.
    #[must_use]
    pub fn traceparent(&self) -> &Arc<str> {
        &self.traceparent
    }

    /// The `tracestate` that the next hop gets, as it came.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The trace's id: on every log line of the request.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        // Written by us: no need to look whether it is valid.
        self.traceparent.get(TRACE_ID).unwrap_or_default()
    }

    /// Our span, if it is recorded.
    #[must_use]
    pub fn span(&self, began: Instant) -> Option<Open> {
        traces::opened(&self.traceparent, self.parent, began)
    }
}

fn written(trace_id: &str, span_id: &str, flags: u8) -> Arc<str> {
    let flags = if flags == 0 { "00" } else { "01" };
    ["00", trace_id, span_id, flags].join("-").into()
}

/// The trace's id in a `traceparent`, when it is valid.
#[must_use]
pub fn trace_id(traceparent: &str) -> Option<&str> {
    parse(traceparent).map(|parsed| parsed.trace_id)
}

/// The ids of trace and span in a `traceparent`, when it is valid and that span is recorded.
pub(super) fn recorded(traceparent: &str) -> Option<(u128, u64)> {
    let Parsed { trace_id, span_id, .. } = parse(traceparent).filter(|p| p.flags & SAMPLED != 0)?;
    Some((u128::from_str_radix(trace_id, 16).ok()?, u64::from_str_radix(span_id, 16).ok()?))
}

/// A new span's id.
pub(super) fn random_id() -> u64 {
    // All zeroes is not a valid id.
    rand::rng().random::<u64>() | 1
}

/// What a `traceparent` says.
#[derive(Debug)]
struct Parsed<'a> {
    trace_id: &'a str,
    span_id: &'a str,
    flags: u8,
}

/// Reads a `traceparent` (§3.2). Of an unknown version the first 55 characters count.
fn parse(text: &str) -> Option<Parsed<'_>> {
    let mut fields = text.get(..55)?.split('-');
    let version = fields.next().filter(|f| is_hex(f, 2) && *f != "ff")?;
    let trace_id = fields.next().filter(|f| is_hex(f, 32) && f.bytes().any(|b| b != b'0'))?;
    let span_id = fields.next().filter(|f| is_hex(f, 16) && f.bytes().any(|b| b != b'0'))?;
    let flags = fields.next().filter(|f| is_hex(f, 2))?;
    let whole = if version == "00" {
        text.len() == 55
    } else {
        matches!(text.as_bytes().get(55), None | Some(b'-'))
    };
    whole.then_some(())?;
    Some(Parsed { trace_id, span_id, flags: u8::from_str_radix(flags, 16).ok()? & SAMPLED })
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_state(text: &str) -> bool {
    text.len() <= TRACESTATE_BYTES_MAX
        && text.split(',').count() <= 32
        && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
}

/// The digits of a new id, two for each byte.
fn random_hex<const BYTES: usize>() -> [[u8; 2]; BYTES] {
    let mut bytes: [u8; BYTES] = rand::rng().random();
    // All zeroes is not a valid id.
    if let Some(last) = bytes.last_mut() {
        *last |= 1;
    }
    // Twice for every request: a formatted write for each byte would be most of its cost.
    let digit = |half: u8| if half < 10 { b'0' + half } else { b'a' + half - 10 };
    bytes.map(|byte| [digit(byte >> 4), digit(byte & 15)])
}

fn as_text(digits: &[[u8; 2]]) -> &str {
    // It cannot fail: digits are ASCII.
    str::from_utf8(digits.as_flattened()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_trace_goes_on_with_a_span_of_our_own() {
        let mut ours = TraceContext::continued(Some(GOOD), Some("a=1,b=2"));
        assert!(ours.traceparent().ends_with("-00"), "nobody has proved who it is");
        ours.authenticated();
        assert_eq!(ours.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert!(ours.traceparent().starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
        assert!(ours.traceparent().ends_with("-01"));
        assert!(!ours.traceparent().contains("b7ad6b7169203331"), "the span is new");
        assert_eq!(ours.tracestate(), Some("a=1,b=2"));
    }

    #[test]
    fn what_is_not_valid_starts_a_new_trace() {
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
            let ours = TraceContext::continued(Some(bad), Some("a=1"));
            assert_eq!(ours.tracestate(), None, "{bad}");
            assert_eq!(ours.traceparent().len(), 55);
            assert!(parse(ours.traceparent()).is_some(), "what we make is valid");
        }
    }
}
