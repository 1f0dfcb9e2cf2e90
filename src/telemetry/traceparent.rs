//! The header `traceparent` (W3C Trace Context).

use std::sync::Arc;

use rand::RngExt;

/// The flag of a trace that is recorded.
pub(super) const SAMPLED: u8 = 1;

/// Returns the trace id of a valid `traceparent`.
#[must_use]
pub(super) fn trace_id(traceparent: &str) -> Option<&str> {
    parse(traceparent).map(|parsed| parsed.trace_id)
}

/// Returns the ids of trace and span of a valid `traceparent` whose span is recorded.
pub(super) fn recorded(traceparent: &str) -> Option<(u128, u64)> {
    let Traceparent { trace_id, span_id, .. } =
        parse(traceparent).filter(|p| p.flags & SAMPLED != 0)?;
    Some((u128::from_str_radix(trace_id, 16).ok()?, u64::from_str_radix(span_id, 16).ok()?))
}

/// Returns a new span id.
pub(super) fn random_id() -> u64 {
    // All zeroes is not a valid id.
    rand::rng().random::<u64>() | 1
}

/// The fields of a `traceparent`.
#[derive(Debug)]
pub(super) struct Traceparent<'a> {
    pub(super) trace_id: &'a str,
    pub(super) span_id: &'a str,
    pub(super) flags: u8,
}

/// Parses a `traceparent` (§3.2). For unknown versions only the first 55 characters are used.
pub(super) fn parse(text: &str) -> Option<Traceparent<'_>> {
    let mut fields = text.get(..55)?.split('-');
    let version = fields.next().filter(|f| is_hex(f, 2) && *f != "ff")?;
    let trace_id = fields.next().filter(|f| is_hex(f, 32) && f.bytes().any(|b| b != b'0'))?;
    let span_id = fields.next().filter(|f| is_hex(f, 16) && f.bytes().any(|b| b != b'0'))?;
    let flags = fields.next().filter(|f| is_hex(f, 2))?;
    let has_valid_end = if version == "00" {
        text.len() == 55
    } else {
        matches!(text.as_bytes().get(55), None | Some(b'-'))
    };
    has_valid_end.then_some(())?;
    Some(Traceparent { trace_id, span_id, flags: u8::from_str_radix(flags, 16).ok()? & SAMPLED })
}

/// Formats a `traceparent`.
pub(super) fn format(trace_id: &str, span_id: &str, flags: u8) -> Arc<str> {
    let flags = if flags == 0 { "00" } else { "01" };
    ["00", trace_id, span_id, flags].join("-").into()
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns the hexadecimal digits of a new id, two per byte.
pub(super) fn random_hex<const BYTES: usize>() -> [[u8; 2]; BYTES] {
    let mut bytes: [u8; BYTES] = rand::rng().random();
    // All zeroes is not a valid id.
    if let Some(last) = bytes.last_mut() {
        *last |= 1;
    }
    // This runs twice per request, and formatting each byte would be most of its cost.
    let digit = |half: u8| if half < 10 { b'0' + half } else { b'a' + half - 10 };
    bytes.map(|byte| [digit(byte >> 4), digit(byte & 15)])
}

/// Returns hexadecimal digits as text.
pub(super) fn as_text(digits: &[[u8; 2]]) -> &str {
    // The digits are ASCII, so this cannot fail.
    str::from_utf8(digits.as_flattened()).unwrap_or_default()
}
