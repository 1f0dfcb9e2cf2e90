//! Validates the keys that describe an endpoint's responses.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method};

use super::{Route, produces};
use crate::catalogue::auth::Auth;
use crate::catalogue::cache::CacheRules;
use crate::catalogue::definition::EndpointDefinition;
use crate::catalogue::definition::json::ObjectOnly;
use crate::catalogue::definition::response::{
    CacheDefinition, HeadersDefinition, ProducesDefinition,
};
use crate::catalogue::endpoint::{Execution, ResultKind};
use crate::catalogue::error::EndpointErrors;
use crate::catalogue::names::is_parameter_name;
use crate::catalogue::parameter::{Parameter, ParameterSource};
use crate::catalogue::representation::Representation;
use crate::catalogue::response_header::ResponseHeader;
use crate::units::{DURATION_EXPECTED, parse_duration};

/// The bounds of `cache.ttl`. The minimum is one second, because `Age` counts whole seconds.
const TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

/// The rules for the responses of an endpoint.
pub(super) struct ResponseRules {
    pub(super) produces: Vec<Representation>,
    pub(super) headers: Vec<(ResponseHeader, Arc<str>)>,
    pub(super) cache: CacheRules,
    pub(super) cache_control: Option<String>,
}

/// The route, the callers and the execution of an endpoint.
type EndpointFacts<'a> = (Option<&'a Route>, Option<&'a Auth>, Execution);

/// The keys of a definition that describe the responses.
pub(super) struct ResponseKeys {
    result: ResultKind,
    produces: Option<ProducesDefinition>,
    headers: ObjectOnly<HeadersDefinition>,
    cache: Option<ObjectOnly<CacheDefinition>>,
    cache_control: Option<String>,
}

impl ResponseKeys {
    /// Takes the keys out of a definition.
    pub(super) fn take(definition: &mut EndpointDefinition) -> Self {
        Self {
            result: definition.result.unwrap_or(ResultKind::Rows),
            produces: definition.produces.take(),
            headers: mem::take(&mut definition.headers),
            cache: definition.cache.take(),
            cache_control: definition.cache_control.take(),
        }
    }

    /// Validates the keys.
    pub(super) fn validate(
        self,
        (route, auth, execution): EndpointFacts<'_>,
        (parameters, outputs): (&[Parameter], &[String]),
        errors: &mut EndpointErrors<'_>,
    ) -> ResponseRules {
        let cache = cache(self.cache, route, errors);
        check_reuse(cache, execution, (route, parameters), errors);
        ResponseRules {
            produces: produces::representations(self.produces, self.result, outputs, errors),
            headers: headers(self.headers, errors),
            cache,
            cache_control: cache_control(self.cache_control, (cache, auth), route, errors),
        }
    }
}

/// Validates `headers`. Whether the procedure has the OUTPUT parameters is checked when a worker starts to serve the queue.
fn headers(
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
fn cache(
    definition: Option<ObjectOnly<CacheDefinition>>,
    route: Option<&Route>,
    errors: &mut EndpointErrors<'_>,
) -> CacheRules {
    let Some(ObjectOnly(definition)) = definition else { return CacheRules::default() };
    if route.is_some_and(|(method, _)| !method.is_safe()) {
        let expected = "expected only with GET and HEAD, because only the answers of these methods can be reused";
        errors.add("cache", expected);
    }
    let ttl = definition.ttl.as_deref().map(parse_duration);
    let ttl = ttl.map(|ttl| ttl.filter(|ttl| TTL.contains(ttl)));
    if ttl == Some(None) {
        errors.add("cache.ttl", format!("expected {DURATION_EXPECTED}, from 1s to 24h"));
    }
    let rules = CacheRules {
        etag: definition.etag,
        coalesce: definition.coalesce,
        ttl: ttl.flatten(),
        is_shared: definition.shared,
    };
    if definition.shared && !definition.coalesce && definition.ttl.is_none() {
        errors.add("cache.shared", "expected only together with `coalesce` or `ttl`");
    }
    rules
}

/// If the endpoint reuses answers, checks that one request may get the answer to another request's call.
fn check_reuse(
    cache: CacheRules,
    execution: Execution,
    (route, parameters): (Option<&Route>, &[Parameter]),
    errors: &mut EndpointErrors<'_>,
) {
    if !cache.reuses_answers() {
        return;
    }
    let key = if cache.coalesce { "cache.coalesce" } else { "cache.ttl" };
    if route.is_some_and(|(method, _)| *method == Method::HEAD) {
        errors
            .add(key, "expected only with GET, because an answer to HEAD has no content to reuse");
    }
    if execution == Execution::AtMostOnce {
        let expected = "expected only with the execution at-least-once, because an at-most-once request must not get the \
                        answer of another request's call";
        errors.add(key, expected);
    }
    for parameter in parameters.iter().filter(|one| one.source == ParameterSource::Context) {
        let expected = match &*parameter.name {
            "request_id" => {
                "expected no such parameter, because every request has a different id, so no answer could be reused"
            }
            "principal" if cache.is_shared => {
                "expected no such parameter together with `cache.shared`, because the answers then depend on the caller"
            }
            _ => continue,
        };
        errors.add(format!("parameters.{}", parameter.name), expected);
    }
}

/// Validates `cache_control`. If the endpoint has `cache.etag`, the default lets clients store the answer. A client
/// that stores nothing could not ask whether the answer has changed.
fn cache_control(
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
