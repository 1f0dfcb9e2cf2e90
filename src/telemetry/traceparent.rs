//! The `traceparent` header of W3C Trace Context. Parses received values and formats new ones.

use std::ops::Range;
use std::sync::Arc;

use rand::RngExt;

/// The flag of a recorded trace.
pub(super) const SAMPLED: u8 = 1;
/// The position of the trace id in a `traceparent`.
pub(super) const TRACE_ID: Range<usize> = 3..35;

/// Formats a `traceparent` of version 00.
pub(super) fn format(trace_id: &str, span_id: &str, flags: u8) -> Arc<str> {
    let flags = if flags == 0 { "00" } else { "01" };
    ["00", trace_id, span_id, flags].join("-").into()
}

/// Returns the trace id of a valid `traceparent`.
pub(super) fn trace_id(traceparent: &str) -> Option<&str> {
    parse(traceparent).map(|parsed| parsed.trace_id)
}

/// Returns the trace id and span id of a valid `traceparent` whose span is recorded.
pub(super) fn recorded_ids(traceparent: &str) -> Option<(u128, u64)> {
    let TraceParent { trace_id, span_id, .. } =
        parse(traceparent).filter(|parsed| parsed.flags & SAMPLED != 0)?;
    Some((u128::from_str_radix(trace_id, 16).ok()?, u64::from_str_radix(span_id, 16).ok()?))
}

/// Returns a new span id.
pub(super) fn random_span_id() -> u64 {
    // An id that consists of zeros is invalid.
    rand::rng().random::<u64>() | 1
}

/// The fields of a `traceparent`.
#[derive(Debug)]
pub(super) struct TraceParent<'a> {
    pub(super) trace_id: &'a str,
    pub(super) span_id: &'a str,
    pub(super) flags: u8,
}

/// Parses a `traceparent` (W3C Trace Context, section 3.2). Ignores fields that later versions add.
pub(super) fn parse(text: &str) -> Option<TraceParent<'_>> {
    let mut fields = text.get(..55)?.split('-');
    let version = fields.next().filter(|f| is_hex(f, 2) && *f != "ff")?;
    let trace_id = fields.next().filter(|f| is_hex(f, 32) && f.bytes().any(|b| b != b'0'))?;
    let span_id = fields.next().filter(|f| is_hex(f, 16) && f.bytes().any(|b| b != b'0'))?;
    let flags = fields.next().filter(|f| is_hex(f, 2))?;
    let has_valid_length = if version == "00" {
        text.len() == 55
    } else {
        matches!(text.as_bytes().get(55), None | Some(b'-'))
    };
    has_valid_length.then_some(())?;
    Some(TraceParent { trace_id, span_id, flags: u8::from_str_radix(flags, 16).ok()? & SAMPLED })
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns the hexadecimal digits of a new id, two for each byte.
pub(super) fn random_hex<const BYTES: usize>() -> [[u8; 2]; BYTES] {
    let mut bytes: [u8; BYTES] = rand::rng().random();
    // An id that consists of zeros is invalid.
    if let Some(last) = bytes.last_mut() {
        *last |= 1;
    }
    // This function runs up to twice per request. A formatted write per byte would account for most
    // of the function's cost.
    let digit = |half: u8| if half < 10 { b'0' + half } else { b'a' + half - 10 };
    bytes.map(|byte| [digit(byte >> 4), digit(byte & 15)])
}

/// Returns the digits of `random_hex` as text.
pub(super) fn as_text(digits: &[[u8; 2]]) -> &str {
    // This cannot fail because the digits are ASCII.
    str::from_utf8(digits.as_flattened()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn invalid_headers_are_rejected() {
        let later = format!("{}-more", VALID.replacen("00-", "01-", 1));
        assert!(parse(VALID).is_some());
        assert!(parse(&later).is_some(), "a later version may have more fields");
        for invalid in [
            "",
            "00",
            &VALID.to_uppercase(),
            &VALID.replacen("00-", "ff-", 1),
            &format!("{VALID}-more"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-zz",
            "00-0af7651916cd43dd8448eb211c80319cé-b7ad6b7169203331-01",
        ] {
            assert!(parse(invalid).is_none(), "{invalid}");
        }
    }
}
