//! Checks a request against the parameters of its endpoint, and reports all violations in one 400.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use super::router::MatchedRoute;
use crate::catalogue::validate::{self, json};
use crate::catalogue::violations::{
    GIVEN_TWICE, JsonPointer, Location, NOT_UTF8, REQUIRED, Violations,
};
use crate::catalogue::{
    Endpoint, Parameter, ParameterSource, ParameterType, ReceivedValue, payload, uri,
};
use crate::problem::{Problem, ProblemKind};
use crate::roles::gateway::client::caller::Caller;

/// The values of parameters with `in: context`, which the gateway provides.
#[derive(Clone, Copy, Debug)]
pub struct ContextValues<'a> {
    /// The id of the request.
    pub request_id: &'a str,
    /// The client's `Idempotency-Key`.
    pub idempotency_key: Option<&'a str>,
    /// The name of the caller.
    pub principal: Option<&'a str>,
    /// The client's address.
    pub client_ip: IpAddr,
}

/// Checks all parameters, and returns the payload for a worker.
///
/// # Errors
/// 415 for a body that is not JSON, 403 if the caller lacks a required claim or principal, otherwise 400 with all violations.
pub fn check(
    matched: &MatchedRoute,
    parts: &Parts,
    body: &Bytes,
    caller: &Caller,
    context: &ContextValues<'_>,
) -> Result<Bytes, Problem> {
    let endpoint = &*matched.endpoint;
    if endpoint.takes_body() && !body.is_empty() {
        check_media_type(&parts.headers)?;
    }
    let mut violations = Violations::default();
    let mut values = vec![ReceivedValue::Absent; endpoint.parameters.len()];
    check_path(matched, &mut values, &mut violations);
    check_query(endpoint, parts.uri.query().unwrap_or_default(), &mut values, &mut violations);
    check_headers(endpoint, &parts.headers, &mut values, &mut violations);
    check_claims(endpoint, caller, &mut values)?;
    check_context(endpoint, context, &mut values, &mut violations);
    check_body(endpoint, body, &mut values, &mut violations);
    check_required(endpoint, &values, &mut violations)?;
    if !violations.is_empty() {
        return Err(Problem::invalid(violations.into_vec()));
    }
    Ok(payload::write(endpoint, &values))
}

/// Returns the parameters of one source, each with its value.
fn from_source<'s, 'a>(
    endpoint: &'s Endpoint,
    source: ParameterSource,
    values: &'s mut [ReceivedValue<'a>],
) -> impl Iterator<Item = (&'s Parameter, &'s mut ReceivedValue<'a>)> {
    endpoint.parameters.iter().zip(values).filter(move |(parameter, _)| parameter.source == source)
}

fn check_path<'a>(
    matched: &'a MatchedRoute,
    values: &mut [ReceivedValue<'a>],
    violations: &mut Violations,
) {
    for (index, text) in &matched.values {
        let parameter = matched.endpoint.parameters.get(*index);
        if let (Some(parameter), Some(received)) = (parameter, values.get_mut(*index)) {
            let text = Cow::Borrowed(&**text);
            let location = Location::Parameter(parameter);
            *received = validate::from_text(parameter, text, location, violations).into();
        }
    }
}

fn check_query<'a>(
    endpoint: &Endpoint,
    query: &'a str,
    values: &mut [ReceivedValue<'a>],
    violations: &mut Violations,
) {
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if violations.is_full() {
            return;
        }
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let name = match uri::decode_query(name) {
            Ok(name) => name,
            Err(expected) => {
                violations.add_unknown(ParameterSource::Query, name, expected);
                continue;
            }
        };
        let declared = from_source(endpoint, ParameterSource::Query, values)
            .find(|(parameter, _)| *parameter.name == *name);
        let Some((parameter, received)) = declared else {
            violations.add_unknown(ParameterSource::Query, &name, "unknown parameter");
            continue;
        };
        let location = Location::Parameter(parameter);
        if !matches!(received, ReceivedValue::Absent) {
            violations.add(location, GIVEN_TWICE);
            continue;
        }
        *received = match uri::decode_query(text) {
            Ok(text) => validate::from_text(parameter, text, location, violations).into(),
            Err(expected) => {
                violations.add(location, expected);
                ReceivedValue::Invalid
            }
        };
    }
}

fn check_headers<'a>(
    endpoint: &Endpoint,
    headers: &'a HeaderMap,
    values: &mut [ReceivedValue<'a>],
    violations: &mut Violations,
) {
    for (parameter, received) in from_source(endpoint, ParameterSource::Header, values) {
        // `HeaderMap` ignores the case of names.
        let mut fields = headers.get_all(&*parameter.name).iter();
        let Some(field) = fields.next() else { continue };
        let location = Location::Parameter(parameter);
        if fields.next().is_some() {
            violations.add(location, GIVEN_TWICE);
            *received = ReceivedValue::Invalid;
        } else if let Ok(text) = field.to_str() {
            let text = Cow::Borrowed(text);
            *received = validate::from_text(parameter, text, location, violations).into();
        } else {
            violations.add(location, "expected visible ASCII characters");
            *received = ReceivedValue::Invalid;
        }
    }
}

/// Checks the parameters with `in: claim`. A missing or invalid claim results in 403, not 400: the request is valid, but its
/// credentials do not permit the call.
fn check_claims(
    endpoint: &Endpoint,
    caller: &Caller,
    values: &mut [ReceivedValue<'_>],
) -> Result<(), Problem> {
    for (parameter, received) in from_source(endpoint, ParameterSource::Claim, values) {
        let mut violations = Violations::default();
        let location = Location::Parameter(parameter);
        let value = match caller.claim(&parameter.name) {
            None if !parameter.required => continue,
            None => None,
            // An API key's claims are always strings.
            Some(serde_json::Value::String(text)) if parameter.kind != ParameterType::Json => {
                validate::from_text(parameter, Cow::Owned(text.clone()), location, &mut violations)
            }
            Some(claim) => serde_json::value::to_raw_value(claim).ok().and_then(|raw| {
                // `raw` is a local variable, so the value must not borrow from it.
                let value = validate::from_json(parameter, &raw, location, &mut violations)?;
                Some(value.into_owned())
            }),
        };
        let Some(value) = value else {
            let detail = format!("The credentials have no usable claim {:?}.", parameter.name);
            return Err(Problem::with_detail(ProblemKind::Forbidden, detail));
        };
        *received = ReceivedValue::Valid(value);
    }
    Ok(())
}

fn check_context<'a>(
    endpoint: &Endpoint,
    context: &ContextValues<'a>,
    values: &mut [ReceivedValue<'a>],
    violations: &mut Violations,
) {
    for (parameter, received) in from_source(endpoint, ParameterSource::Context, values) {
        let text = match &*parameter.name {
            "request_id" => Some(Cow::Borrowed(context.request_id)),
            "idempotency_key" => context.idempotency_key.map(Cow::Borrowed),
            "principal" => context.principal.map(Cow::Borrowed),
            "client_ip" => Some(Cow::Owned(context.client_ip.to_string())),
            _ => None,
        };
        if let Some(text) = text {
            let location = Location::Parameter(parameter);
            *received = validate::from_text(parameter, text, location, violations).into();
        }
    }
}

fn check_body<'a>(
    endpoint: &Endpoint,
    body: &'a Bytes,
    values: &mut [ReceivedValue<'a>],
    violations: &mut Violations,
) {
    if body.is_empty() {
        return;
    }
    let root = JsonPointer::ROOT;
    if !endpoint.takes_body() {
        violations.add(Location::Json(&root), "expected no body");
        return;
    }
    match std::str::from_utf8(body) {
        Ok(text) => {
            let source = Some(ParameterSource::Body);
            json::read_object(text, &endpoint.parameters, source, &root, (values, violations));
        }
        Err(_) => violations.add(Location::Json(&root), NOT_UTF8),
    }
}

fn check_required(
    endpoint: &Endpoint,
    values: &[ReceivedValue<'_>],
    violations: &mut Violations,
) -> Result<(), Problem> {
    for (parameter, value) in endpoint.parameters.iter().zip(values) {
        if !parameter.required || !matches!(value, ReceivedValue::Absent) {
            continue;
        }
        match (parameter.source, &*parameter.name) {
            (ParameterSource::Body, name) => {
                violations.add(Location::Json(&JsonPointer::ROOT.key(name)), REQUIRED);
            }
            (ParameterSource::Context, "principal") => {
                let detail = "This endpoint requires an authenticated caller.";
                return Err(Problem::with_detail(ProblemKind::Forbidden, detail));
            }
            (ParameterSource::Context, "idempotency_key") => {
                violations.add_missing_header("Idempotency-Key");
            }
            _ => violations.add(Location::Parameter(parameter), REQUIRED),
        }
    }
    Ok(())
}

/// Checks that a body is JSON in UTF-8, without a content coding.
fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let unsupported = |detail: &str| {
        Err(Problem::with_detail(ProblemKind::UnsupportedMediaType, detail.to_owned()))
    };
    let plain = |encoding: &HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return unsupported("Expected a body without Content-Encoding.");
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    match (types.next().and_then(|value| value.to_str().ok()), types.next()) {
        (Some(value), None) if is_json(value) => Ok(()),
        _ => unsupported("Expected Content-Type: application/json."),
    }
}

/// Returns whether a media type is JSON. Its parameters are ignored: RFC 8259 §11 defines none, so `charset` has no effect, and
/// the text must be UTF-8 (§8.1).
fn is_json(value: &str) -> bool {
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json"
        || essence
            .strip_prefix("application/")
            .and_then(|subtype| subtype.strip_suffix("+json"))
            .is_some_and(|name| !name.is_empty())
}

#[cfg(test)]
mod tests;
