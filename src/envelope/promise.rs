//! What only a gateway can know and say: that a request was certainly not executed. A worker that means it refuses.

use serde_json::Value;

/// The status that says it.
const NOT_EXECUTED: u16 = 503;
/// The media type of a problem document (RFC 9457), whose member `effect` says it.
const PROBLEM: &str = "application/problem+json";
/// Longest problem document that is read; ours have some hundred bytes.
const DOCUMENT_BYTES_MAX: usize = 64 << 10;

/// Whether an answer may begin so. One of status 500 or more that is a problem document has to be read first.
pub(super) fn may_begin(status: u16, content_type: &str) -> bool {
    status != NOT_EXECUTED && !is_failure_document(status, content_type)
}

/// Whether an answer, or its last piece, may be passed on. In pieces it is not read.
pub(super) fn may_end(status: u16, content_type: &str, (body, parts): (&[u8], u32)) -> bool {
    if status == NOT_EXECUTED || !is_failure_document(status, content_type) {
        return status != NOT_EXECUTED;
    }
    if parts > 0 || body.len() > DOCUMENT_BYTES_MAX {
        return false;
    }
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    document.get("effect").and_then(Value::as_str) != Some("not-executed")
}

fn is_failure_document(status: u16, content_type: &str) -> bool {
    let start = content_type.get(..PROBLEM.len());
    status >= 500 && start.is_some_and(|start| start.eq_ignore_ascii_case(PROBLEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_worker_says_that_a_request_was_not_executed() {
        let ends = |status, kind, body: &str| may_end(status, kind, (body.as_bytes(), 0));
        assert!(ends(200, "application/json", "{}"));
        assert!(ends(504, PROBLEM, r#"{"effect":"unknown"}"#));
        assert!(ends(500, PROBLEM, "no JSON"));
        assert!(ends(400, PROBLEM, r#"{"effect":"not-executed"}"#), "what is wrong with a request");
        assert!(!ends(503, "", ""));
        for kind in [PROBLEM, "Application/Problem+JSON; charset=utf-8"] {
            assert!(!ends(504, kind, r#"{"effect":"not-executed"}"#), "{kind}");
            assert!(!may_begin(504, kind), "{kind}");
        }
        assert!(!ends(500, PROBLEM, &"x".repeat(DOCUMENT_BYTES_MAX + 1)));
        assert!(!may_end(500, PROBLEM, (b"d\"}", 1)), "its beginning was not read");
        assert!(
            may_begin(200, PROBLEM) && may_begin(500, "text/csv") && !may_begin(503, "text/csv")
        );
    }
}
