//! The `Accept` header (RFC 9110 §12.5.1).

use http::{HeaderMap, HeaderValue, header};

use crate::catalogue::Representation;
use crate::quality_value;

/// `Vary` for an endpoint with several representations.
pub const VARY_ACCEPT: HeaderValue = HeaderValue::from_static("Accept");

/// Returns the representation that the client prefers, or the first of several that it prefers
/// equally. Returns `None` if the client accepts none. A client that sends no `Accept` accepts
/// everything.
#[must_use]
pub fn choose<'a>(
    headers: &HeaderMap,
    offered: &'a [Representation],
) -> Option<&'a Representation> {
    let mut best: Option<(&Representation, u16)> = None;
    for one in offered {
        let weight = weight(headers, one.media_type());
        if weight > best.map_or(0, |(_, best)| best) {
            best = Some((one, weight));
        }
    }
    best.map(|(one, _)| one)
}

/// Returns the weight of a media type, in thousandths. It is the weight of the most specific range
/// that covers the media type.
fn weight(headers: &HeaderMap, media_type: &str) -> u16 {
    let mut best: Option<(u8, u16)> = None;
    for value in headers.get_all(header::ACCEPT) {
        // A value with non-ASCII bytes must not cause a rejection.
        let Ok(text) = value.to_str() else { return 1000 };
        for range in text.split(',').filter(|range| !range.trim().is_empty()) {
            let mut parts = range.split(';').map(str::trim);
            let Some(rank) = parts.next().and_then(|range| rank(range, media_type)) else {
                best.get_or_insert((0, 0));
                continue;
            };
            // An invalid weight must not cause a rejection either.
            let weight = quality_value::from_parameters(parts).unwrap_or(1000);
            if best.is_none_or(|(before, _)| rank > before) {
                best = Some((rank, weight));
            }
        }
    }
    best.map_or(1000, |(_, weight)| weight)
}

/// Returns the specificity of a range that covers a media type, and `None` for other ranges.
fn rank(range: &str, media_type: &str) -> Option<u8> {
    if range == "*/*" {
        return Some(1);
    }
    if range.eq_ignore_ascii_case(media_type) {
        return Some(3);
    }
    let (kind, _) = media_type.split_once('/')?;
    range.strip_suffix("/*").filter(|range| range.eq_ignore_ascii_case(kind)).map(|_| 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(accept: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(header::ACCEPT, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_most_specific_range_decides() {
        let check = |accept: &[&str], expected: bool| {
            let chosen = choose(&accepted(accept), &[Representation::Json]);
            assert_eq!(chosen.is_some(), expected, "{accept:?}");
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

    #[test]
    fn the_client_chooses_and_the_endpoint_breaks_ties() {
        let image = Representation::Raw("image/png".into());
        let offered = [Representation::Json, Representation::Csv, Representation::Ndjson];
        for (accept, expected) in [
            ("", Some("application/json")),
            ("*/*", Some("application/json")),
            ("text/csv", Some("text/csv")),
            ("Text/CSV; charset=utf-8", Some("text/csv")),
            ("text/*", Some("text/csv")),
            ("application/json;q=0.5, text/csv", Some("text/csv")),
            ("application/json;q=0.5, text/csv;q=0.5", Some("application/json")),
            ("application/x-ndjson, */*;q=0.1", Some("application/x-ndjson")),
            ("application/json;q=0, */*", Some("text/csv")),
            ("image/png", None),
            ("text/csv;q=0", None),
        ] {
            let chosen = choose(&accepted(&[accept]), &offered);
            assert_eq!(chosen.map(Representation::media_type), expected, "{accept}");
        }
        let browser = "image/avif,image/webp,image/png,*/*;q=0.8";
        assert!(choose(&accepted(&[browser]), std::slice::from_ref(&image)).is_some());
        assert!(choose(&accepted(&["application/json"]), &[image]).is_none());
    }
}
