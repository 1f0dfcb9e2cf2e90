//! Validates an endpoint's `cors`.

use http::Method;

use super::response::ResponseRules;
use crate::catalogue::cors::{CorsSettings, MAX_AGE_DEFAULT, UsedHeaders};
use crate::catalogue::defaults::EndpointDefaults;
use crate::catalogue::definition::CorsDefinition;
use crate::catalogue::definition::json::ObjectOnly;
use crate::catalogue::error::EndpointErrors;
use crate::catalogue::response_header::ResponseHeader;
use crate::units::{DURATION_EXPECTED, parse_duration};

/// Returns the CORS settings of an endpoint. An endpoint without `cors` gets the default from the configuration.
pub(super) fn settings(
    definition: Option<ObjectOnly<CorsDefinition>>,
    defaults: &EndpointDefaults,
    errors: &mut EndpointErrors<'_>,
) -> CorsSettings {
    let Some(ObjectOnly(definition)) = definition else { return defaults.cors.clone() };
    if definition.origins.is_none() {
        errors.add_missing("cors.origins", "expected the origins; an empty list allows none");
    }
    let max_age = definition.max_age.as_deref().map(parse_duration);
    if max_age == Some(None) {
        errors.add("cors.max_age", format!("expected {DURATION_EXPECTED}"));
    }
    let settings = CorsSettings {
        origins: definition.origins.unwrap_or_default(),
        headers: definition.headers,
        exposed_headers: definition.exposed_headers,
        credentials: definition.credentials,
        max_age: max_age.flatten().unwrap_or(MAX_AGE_DEFAULT),
    };
    for (key, expected) in settings.errors() {
        errors.add(format!("cors.{key}"), expected);
    }
    settings
}

/// Returns the headers that an endpoint uses because of its keys, other than `parameters` and `auth`.
pub(super) fn used_headers(
    method: &Method,
    dry_run: bool,
    response: &ResponseRules,
) -> UsedHeaders {
    let ResponseRules { headers, cache, .. } = response;
    let mut used = UsedHeaders::default();
    // `Prefer` can contain `tx` for a dry run, and `return=minimal` for a method that changes something.
    if dry_run || !method.is_safe() {
        used.request.push("prefer");
        used.response.push("preference-applied");
    }
    let has = |header| headers.iter().any(|(declared, _)| *declared == header);
    if cache.etag || has(ResponseHeader::ETag) {
        used.request.extend(["if-match", "if-none-match"]);
    }
    if cache.etag && !has(ResponseHeader::ETag) {
        used.response.push("etag");
    }
    if cache.ttl.is_some() {
        used.response.push("age");
    }
    if has(ResponseHeader::LastModified) {
        used.request.extend(["if-modified-since", "if-unmodified-since"]);
    }
    used.response.extend(headers.iter().map(|(header, _)| header.lower_case()));
    used
}
