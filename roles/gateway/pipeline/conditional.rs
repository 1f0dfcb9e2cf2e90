//! Handles conditional requests (RFC 9110 §13): GET and HEAD with `If-Match` or `If-None-Match`.
//!
//! The gateway knows the current `ETag` only after the call. A condition on a request that changes something is therefore
//! left to the procedure, which receives the header as a parameter.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::catalogue::Endpoint;
use crate::problem::{Problem, ProblemKind};
use crate::roles::gateway::edge::compression::{self, accept_encoding::AcceptedCodings};
use crate::roles::gateway::response::entity_tag::{self, Comparison, Matched, TagKind, matching};
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
    // Preconditions do not matter if the status would not be 2xx without them (RFC 9110 §13.2.1).
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
    // A condition on a validator that the response lacks is ignored. For example, the response to HEAD has no computed
    // tag if the answer is larger than a message. The conditions are evaluated in the order of RFC 9110 §13.2.2. A
    // condition on a tag replaces a condition on a date, even if the condition on the tag is ignored.
    let is_met = if headers.contains_key(header::IF_MATCH) {
        tags.is_empty() || matching(headers, header::IF_MATCH, &tags, Comparison::Strong).is_some()
    } else {
        is_modified_since(headers, header::IF_UNMODIFIED_SINCE, &response) != Some(true)
    };
    if !is_met {
        return Err(Problem::new(ProblemKind::PreconditionFailed));
    }
    if headers.contains_key(header::IF_NONE_MATCH) {
        let tag = match matching(headers, header::IF_NONE_MATCH, &tags, Comparison::Weak) {
            // Without a tag, the condition is ignored.
            Some(Matched::Any) if tags.is_empty() => return Ok(response),
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

/// Returns whether the response was modified after the date in a header, or `None` if one of the dates is absent or
/// invalid.
fn is_modified_since(headers: &HeaderMap, name: HeaderName, response: &Response) -> Option<bool> {
    let date = |value: &HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok();
    let since = date(headers.get(name)?)?;
    Some(date(response.headers().get(header::LAST_MODIFIED)?)? > since)
}

/// Returns the tags of the representations that the client accepts: the one without a coding, and the one with its
/// preferred coding. The size of the compressed body determines which of them would be sent, but both are current.
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
    use crate::catalogue::load::fixture::catalogue;

    #[test]
    fn a_condition_on_a_tag_replaces_the_one_on_a_date() {
        let catalogue = catalogue(r#""dated": {"route":"GET /dated", KEYS}"#);
        let evaluated = |names: &[HeaderName]| {
            let mut request = http::Request::new(()).into_parts().0;
            for name in names {
                let is_date =
                    [header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE].contains(name);
                let value = if is_date { "Sun, 06 Nov 1994 08:49:37 GMT" } else { "\"7\"" };
                request.headers.insert(name, HeaderValue::from_static(value));
            }
            let mut response = Response::default();
            let date = if names.contains(&header::IF_MODIFIED_SINCE) {
                "Sun, 06 Nov 1994 08:49:37 GMT"
            } else {
                "Mon, 07 Nov 1994 08:49:37 GMT"
            };
            response.headers_mut().insert(header::LAST_MODIFIED, HeaderValue::from_static(date));
            evaluate(&request, &catalogue.endpoints()[0], response)
                .map_or_else(|problem| problem.kind.definition().status, |it| it.status())
                .as_u16()
        };
        // The response has no tag, so the conditions on tags are ignored (RFC 9110 §13.1.3, §13.1.4).
        assert_eq!(evaluated(&[header::IF_MODIFIED_SINCE]), 304);
        assert_eq!(evaluated(&[header::IF_MODIFIED_SINCE, header::IF_NONE_MATCH]), 200);
        assert_eq!(evaluated(&[header::IF_UNMODIFIED_SINCE]), 412);
        assert_eq!(evaluated(&[header::IF_UNMODIFIED_SINCE, header::IF_MATCH]), 200);
    }
}
