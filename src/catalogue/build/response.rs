//! Validates the keys that describe an endpoint's responses.

use std::sync::Arc;

use http::HeaderValue;

use super::Route;
use crate::catalogue::auth::Auth;
use crate::catalogue::cache::CacheRules;
use crate::catalogue::definition::json::ObjectOnly;
use crate::catalogue::definition::response::{CacheDefinition, HeadersDefinition};
use crate::catalogue::error::EndpointErrors;
use crate::catalogue::names::is_parameter_name;
use crate::catalogue::response_header::ResponseHeader;

/// Validates `headers`. Whether the procedure has the OUTPUT parameters is checked when a worker starts to serve the queue.
pub(super) fn headers(
    ObjectOnly(definition): ObjectOnly<HeadersDefinition>,
    errors: &mut EndpointErrors<'_>,
) -> Vec<(ResponseHeader, Arc<str>)> {
    let written = [
        (ResponseHeader::Location, definition.location),
        (ResponseHeader::Link, definition.link),
        (ResponseHeader::ETag, definition.etag),
        (ResponseHeader::ContentDisposition, definition.content_disposition),
        (ResponseHeader::LastModified, definition.last_modified),
        (ResponseHeader::XTotalCount, definition.total_count),
    ];
    let mut headers = Vec::new();
    for (header, name) in written {
        let Some(name) = name else { continue };
        let name = name.strip_prefix('@').unwrap_or(&name);
        if is_parameter_name(name) {
            headers.push((header, name.into()));
        } else {
            let key = format!("headers.{}", header.as_str());
            errors.add(key, "expected the name of an OUTPUT parameter of the procedure");
        }
    }
    headers
}

/// Validates `cache`.
pub(super) fn cache(
    definition: Option<ObjectOnly<CacheDefinition>>,
    route: Option<&Route>,
    errors: &mut EndpointErrors<'_>,
) -> CacheRules {
    let Some(ObjectOnly(definition)) = definition else { return CacheRules::default() };
    if route.is_some_and(|(method, _)| !method.is_safe()) {
        let expected = "expected only with GET and HEAD, because only the answers of these methods can be reused";
        errors.add("cache", expected);
    }
    CacheRules { etag: definition.etag }
}

/// Validates `cache_control`. An endpoint with an `ETag` has a default that lets clients store the answer: a client that
/// stores nothing cannot ask whether it has changed.
pub(super) fn cache_control(
    written: Option<String>,
    (cache, auth): (CacheRules, Option<&Auth>),
    route: Option<&Route>,
    errors: &mut EndpointErrors<'_>,
) -> Option<String> {
    let Some(text) = written else {
        let default = match auth {
            Some(Auth::Public) => "no-cache",
            _ => "private, no-cache",
        };
        return cache.etag.then(|| default.to_owned());
    };
    if route.is_some_and(|(method, _)| !method.is_safe()) {
        errors.add("cache_control", "expected only with GET and HEAD");
    }
    if text.is_empty() || HeaderValue::from_str(&text).is_err() {
        errors.add("cache_control", "expected a header value, e.g. \"max-age=60\"");
    }
    let forbids_storing = text.split(',').any(|one| one.trim().eq_ignore_ascii_case("no-store"));
    if cache.etag && forbids_storing {
        let expected = "expected no `no-store` together with `cache.etag`, because a client that stores nothing has no \
                        `ETag` to send, e.g. \"no-cache\"";
        errors.add("cache_control", expected);
    }
    Some(text)
}
