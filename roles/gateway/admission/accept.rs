//! The `Accept` header (RFC 9110 §12.5.1).

use http::{HeaderMap, header};

use crate::quality_value;

/// Returns whether the client accepts `application/json`. A client that sends no `Accept` accepts everything.
#[must_use]
pub fn allows_json(headers: &HeaderMap) -> bool {
    let mut best: Option<(u8, bool)> = None;
    for value in headers.get_all(header::ACCEPT) {
        // A value with non-ASCII bytes must not cause a rejection.
        let Ok(text) = value.to_str() else { return true };
        for range in text.split(',').filter(|range| !range.trim().is_empty()) {
            let mut parts = range.split(';').map(str::trim);
            let Some(rank) = parts.next().and_then(rank) else {
                best.get_or_insert((0, false));
                continue;
            };
            let is_allowed = quality_value::from_parameters(parts) != Some(0);
            // The most specific range decides.
            if best.is_none_or(|(before, _)| rank > before) {
                best = Some((rank, is_allowed));
            }
        }
    }
    best.is_none_or(|(_, allowed)| allowed)
}

/// Returns the specificity of a range that covers JSON, and `None` for other ranges.
fn rank(range: &str) -> Option<u8> {
    match range.to_ascii_lowercase().as_str() {
        "application/json" => Some(3),
        "application/*" => Some(2),
        "*/*" => Some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_range_decides() {
        let check = |accept: &[&str], expected: bool| {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(header::ACCEPT, value.parse().unwrap());
            }
            assert_eq!(allows_json(&headers), expected, "{accept:?}");
        };
        check(&[], true);
        check(&[""], true);
        check(&["application/json"], true);
        check(&["Application/JSON; q=0.1"], true);
        check(&["*/*"], true);
        check(&["application/*;q=0.5"], true);
        check(&["text/html"], false);
        check(&["text/html, */*;q=0.1"], true);
        check(&["text/html", "application/json"], true);
        check(&["application/json;q=0"], false);
        check(&["*/*, application/json;q=0"], false);
        check(&["*/*;q=0, application/json"], true);
        check(&["application/problem+json"], false);
    }
}
