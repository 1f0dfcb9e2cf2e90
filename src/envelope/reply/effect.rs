//! Rejects replies that state that a request was not executed. Only the gateway can state this,
//! because only the gateway knows all attempts. A worker that does not execute a request must
//! refuse it instead.

use serde_json::Value;

/// The status that states that a request was not executed.
const NOT_EXECUTED: u16 = 503;
/// The media type of a problem document (RFC 9457). Its `effect` member can also state that a
/// request was not executed.
const PROBLEM: &str = "application/problem+json";
/// The maximum size in bytes of a problem document that is parsed. fjord's own documents are a few
/// hundred bytes long.
const DOCUMENT_BYTES_MAX: usize = 64 << 10;

/// Returns whether a streamed answer may start with this status and media type. A problem document
/// with a status of 500 or higher is not allowed, because its `effect` must be checked before it is
/// forwarded.
pub(super) fn is_valid_head(status: u16, content_type: &str) -> bool {
    status != NOT_EXECUTED && !is_failure_document(status, content_type)
}

/// Returns whether an answer may be forwarded. For a streamed answer, `body` is its last part after
/// `parts` others.
pub(super) fn is_valid_final(status: u16, content_type: &str, (body, parts): (&[u8], u32)) -> bool {
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
    fn a_worker_cannot_claim_that_a_request_was_not_executed() {
        let is_valid = |status, media_type, body: &str| {
            is_valid_final(status, media_type, (body.as_bytes(), 0))
        };
        assert!(is_valid(200, "application/json", "{}"));
        assert!(is_valid(504, PROBLEM, r#"{"effect":"unknown"}"#));
        assert!(is_valid(500, PROBLEM, "no JSON"));
        assert!(is_valid(400, PROBLEM, r#"{"effect":"not-executed"}"#), "a client error");
        assert!(!is_valid(503, "", ""));
        for media_type in [PROBLEM, "Application/Problem+JSON; charset=utf-8"] {
            assert!(!is_valid(504, media_type, r#"{"effect":"not-executed"}"#), "{media_type}");
            assert!(!is_valid_head(504, media_type), "{media_type}");
        }
        assert!(!is_valid(500, PROBLEM, &"x".repeat(DOCUMENT_BYTES_MAX + 1)));
        assert!(!is_valid_final(500, PROBLEM, (b"d\"}", 1)), "the start was not parsed");
        assert!(is_valid_head(200, PROBLEM) && is_valid_head(500, "text/csv"));
        assert!(!is_valid_head(503, "text/csv"));
    }
}
