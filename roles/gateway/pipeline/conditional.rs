//! Conditional requests (RFC 9110 §13): the answer to GET and HEAD with `If-Match` or `If-None-Match`.
//!
//! The gateway knows the current `ETag` only after the call. A condition on a request that changes something is therefore
//! left to the procedure, which receives the header as a parameter.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::catalogue::Endpoint;
use crate::problem::{Problem, ProblemKind};
use crate::roles::gateway::edge::compression::{self, accept_encoding::AcceptedCodings};
use crate::roles::gateway::response::entity_tag::{self, TagKind};
use crate::roles::gateway::response::{Response, ResponseBody};

/// Sets the `ETag` that the endpoint declares, and evaluates the preconditions of the request.
///
/// # Errors
/// `PreconditionFailed` if `If-Match` does not match.
pub(super) fn evaluate(
    request: &Parts,
    endpoint: &Endpoint,
    mut response: Response,
) -> Result<Response, Problem> {
    // Preconditions do not matter if the status is not 2xx without them (RFC 9110 §13.2.1).
    if !request.method.is_safe() || !response.status().is_success() {
        return Ok(response);
    }
    if endpoint.cache.etag {
        entity_tag::set_computed(&mut response);
    }
    let headers = &request.headers;
    let conditions = [
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
    ];
    if !conditions.iter().any(|name| headers.contains_key(name)) {
        return Ok(response);
    }
    let codings = request.extensions.get::<AcceptedCodings>().copied();
    let tags = possible_tags(&response, codings);
    // A condition on a validator that the response lacks is ignored. HEAD, for example, has no computed tag if the answer is
    // larger than a message. The order of the conditions is that of RFC 9110 §13.2.2.
    let has_condition = |name| headers.contains_key(name) && !tags.is_empty();
    let is_met = if has_condition(header::IF_MATCH) {
        matching(headers, header::IF_MATCH, &tags, Comparison::Strong).is_some()
    } else {
        is_modified_since(headers, header::IF_UNMODIFIED_SINCE, &response) != Some(true)
    };
    if !is_met {
        return Err(Problem::new(ProblemKind::PreconditionFailed));
    }
    if has_condition(header::IF_NONE_MATCH) {
        let tag = match matching(headers, header::IF_NONE_MATCH, &tags, Comparison::Weak) {
            Some(Matched::Any) => tags.first().cloned(),
            Some(Matched::Tag(tag)) => Some(tag.clone()),
            None => return Ok(response),
        };
        return Ok(not_modified(response, tag, codings));
    }
    if is_modified_since(headers, header::IF_MODIFIED_SINCE, &response) == Some(false) {
        let tag = tags.first().cloned();
        return Ok(not_modified(response, tag, codings));
    }
    Ok(response)
}

/// Returns whether the response was modified after the date in a header; `None` if one of the dates is absent or invalid.
fn is_modified_since(headers: &HeaderMap, name: HeaderName, response: &Response) -> Option<bool> {
    let date = |value: &HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok();
    let since = date(headers.get(name)?)?;
    Some(date(response.headers().get(header::LAST_MODIFIED)?)? > since)
}

/// Returns the tags of the representations that the client accepts: without a coding, and with its preferred one. Which
/// of them would be sent depends on the size of the compressed body, and either is current.
fn possible_tags(response: &Response, codings: Option<AcceptedCodings>) -> Vec<HeaderValue> {
    let Some(tag) = response.headers().get(header::ETAG) else { return Vec::new() };
    let mut tags = vec![tag.clone()];
    if entity_tag::kind(response) == TagKind::Computed
        && let Some(coding) = codings.and_then(|codings| codings.coding)
    {
        tags.extend(entity_tag::of_encoded(tag, coding.name()));
    }
    tags
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// Weak tags never match.
    Strong,
    /// `W/` is ignored.
    Weak,
}

enum Matched<'a> {
    /// `*` matches whatever is current.
    Any,
    Tag(&'a HeaderValue),
}

/// Returns the first match between the tags in a header and the current tags (RFC 9110 §8.8.3.2).
fn matching<'a>(
    headers: &HeaderMap,
    name: HeaderName,
    current: &'a [HeaderValue],
    comparison: Comparison,
) -> Option<Matched<'a>> {
    for value in headers.get_all(name) {
        let Ok(text) = value.to_str() else { continue };
        if text.trim() == "*" {
            return Some(Matched::Any);
        }
        let mut rest = text;
        while let Some((tag, is_weak)) = next_tag(&mut rest) {
            if is_weak && comparison == Comparison::Strong {
                continue;
            }
            let is_same = |known: &&HeaderValue| match known.to_str().unwrap_or_default() {
                weak if weak.starts_with("W/") => {
                    comparison == Comparison::Weak && weak.strip_prefix("W/") == Some(tag)
                }
                strong => strong == tag,
            };
            if let Some(found) = current.iter().find(is_same) {
                return Some(Matched::Tag(found));
            }
        }
    }
    None
}

/// Reads the next tag of a list. Returns it with its quotes but without `W/`, and whether it is weak. The rest of a
/// malformed list matches nothing.
fn next_tag<'a>(rest: &mut &'a str) -> Option<(&'a str, bool)> {
    let text = rest.trim_start_matches([' ', '\t', ',']);
    let strong = text.strip_prefix("W/").unwrap_or(text);
    let length = strong.strip_prefix('"')?.find('"')? + 2;
    let (tag, after) = strong.split_at_checked(length)?;
    *rest = after;
    Some((tag, strong.len() < text.len()))
}

/// Returns the 304 for a response: without content, and with the headers that a cache updates (RFC 9110 §15.4.5).
fn not_modified(
    response: Response,
    tag: Option<HeaderValue>,
    codings: Option<AcceptedCodings>,
) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.status = StatusCode::NOT_MODIFIED;
    if codings.is_some() && compression::is_compressible(&parts.headers) {
        parts.headers.append(header::VARY, compression::VARY_ENCODING);
    }
    if let Some(tag) = tag {
        parts.headers.insert(header::ETAG, tag);
    }
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_DISPOSITION] {
        parts.headers.remove(name);
    }
    Response::from_parts(parts, ResponseBody::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_match(list: &[&str], current: &'static str, comparison: Comparison) -> bool {
        let mut headers = HeaderMap::new();
        for value in list {
            headers.append(header::IF_MATCH, value.parse().unwrap());
        }
        let current = [HeaderValue::from_static(current)];
        matching(&headers, header::IF_MATCH, &current, comparison).is_some()
    }

    #[test]
    fn tags_are_compared_as_rfc_9110_says() {
        // Section 8.8.3.2: the two tags, the strong and the weak comparison.
        for (one, other, strong, weak) in [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "W/\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ] {
            assert_eq!(is_match(&[one], other, Comparison::Strong), strong, "{one} {other}");
            assert_eq!(is_match(&[one], other, Comparison::Weak), weak, "{one} {other}");
        }
    }

    #[test]
    fn lists_of_tags_are_read() {
        for list in [
            &["\"a\", \"1\""][..],
            &["\"a\",W/\"1\" , \"b\""],
            &[" , \"a,b\",\t\"1\""],
            &["\"a\"", "\"1\""],
            &["*"],
            &[" * "],
        ] {
            assert!(is_match(list, "\"1\"", Comparison::Weak), "{list:?}");
        }
        for list in [&[""][..], &["1"], &["\"1"], &["\"a\" 1, \"1\""], &["\"a\", *"], &["w/\"1\""]]
        {
            assert!(!is_match(list, "\"1\"", Comparison::Weak), "{list:?}");
        }
    }
}
