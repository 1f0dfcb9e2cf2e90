//! Checks what a caller sent against the endpoint's parameters: all violations at once, in one 400.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use super::router::Matched;
use crate::catalogue::check::{self, Checked, Slot, json};
use crate::catalogue::findings::{Findings, Pointer, Spot};
use crate::catalogue::{Endpoint, Parameter, ParameterType, Place, payload};
use crate::problem::{Problem, ProblemKind};
use crate::roles::gateway::client::caller::Caller;

pub mod text;

/// What the gateway itself knows about a request, for parameters with `in: context`.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The request's id.
    pub request_id: &'a str,
    /// The client's key for one effect.
    pub idempotency_key: Option<&'a str>,
    /// Who calls.
    pub principal: Option<&'a str>,
    /// The client's address.
    pub client_ip: IpAddr,
}

/// Checks everything that was sent and writes the payload for a worker.
///
/// # Errors
/// 415 for a body that is no JSON, 403 when the caller's token lacks a claim, else 400 with every violation.
pub fn check(
    matched: &Matched,
    parts: &Parts,
    body: &Bytes,
    caller: &Caller,
    context: &Context<'_>,
) -> Result<Bytes, Problem> {
    let endpoint = &*matched.endpoint;
    if endpoint.takes_body() && !body.is_empty() {
        check_media_type(&parts.headers)?;
    }
    let mut findings = Findings::default();
    let mut slots = vec![Slot::Absent; endpoint.parameters.len()];
    check_path(matched, &mut slots, &mut findings);
    check_query(endpoint, parts.uri.query().unwrap_or_default(), &mut slots, &mut findings);
    check_headers(endpoint, &parts.headers, &mut slots, &mut findings);
    check_claims(endpoint, caller, &mut slots)?;
    check_context(endpoint, context, &mut slots, &mut findings);
    check_body(endpoint, body, &mut slots, &mut findings);
    check_required(endpoint, &slots, &mut findings)?;
    if !findings.is_empty() {
        return Err(Problem::invalid(findings.into_violations()));
    }
    Ok(payload::write(endpoint, &slots))
}

/// Parameters at one place, each with its slot.
fn at<'s, 'a>(
    endpoint: &'s Endpoint,
    place: Place,
    slots: &'s mut [Slot<'a>],
) -> impl Iterator<Item = (&'s Parameter, &'s mut Slot<'a>)> {
    endpoint.parameters.iter().zip(slots).filter(move |(parameter, _)| parameter.place == place)
}

fn check_path<'a>(matched: &'a Matched, slots: &mut [Slot<'a>], findings: &mut Findings) {
    for (index, text) in &matched.values {
        let parameter = matched.endpoint.parameters.get(*index);
        if let (Some(parameter), Some(slot)) = (parameter, slots.get_mut(*index)) {
            let text = Cow::Borrowed(&**text);
            *slot = check::from_text(parameter, text, Spot::Named(parameter), findings).into();
        }
    }
}

fn check_query<'a>(
    endpoint: &Endpoint,
    query: &'a str,
    slots: &mut [Slot<'a>],
    findings: &mut Findings,
) {
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if findings.is_full() {
            return;
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = match text::query_decode(name) {
            Ok(name) => name,
            Err(expected) => {
                findings.add_unknown(Place::Query, name, expected);
                continue;
            }
        };
        let found =
            at(endpoint, Place::Query, slots).find(|(parameter, _)| *parameter.name == *name);
        let Some((parameter, slot)) = found else {
            findings.add_unknown(Place::Query, &name, "unknown parameter");
            continue;
        };
        let named = Spot::Named(parameter);
        if !matches!(slot, Slot::Absent) {
            findings.add(named, json::TWICE);
            continue;
        }
        *slot = match text::query_decode(value) {
            Ok(value) => check::from_text(parameter, value, named, findings).into(),
            Err(expected) => {
                findings.add(named, expected);
                Slot::Refused
            }
        };
    }
}

fn check_headers<'a>(
    endpoint: &Endpoint,
    headers: &'a HeaderMap,
    slots: &mut [Slot<'a>],
    findings: &mut Findings,
) {
    for (parameter, slot) in at(endpoint, Place::Header, slots) {
        // The map's own lookup does not heed case.
        let mut values = headers.get_all(&*parameter.name).iter();
        let Some(value) = values.next() else { continue };
        let named = Spot::Named(parameter);
        if values.next().is_some() {
            findings.add(named, json::TWICE);
            *slot = Slot::Refused;
        } else if let Ok(value) = value.to_str() {
            *slot = check::from_text(parameter, Cow::Borrowed(value), named, findings).into();
        } else {
            findings.add(named, "expected visible ASCII characters");
            *slot = Slot::Refused;
        }
    }
}

/// A claim that does not fit is not the request's fault: the token does not allow the call.
fn check_claims(
    endpoint: &Endpoint,
    caller: &Caller,
    slots: &mut [Slot<'_>],
) -> Result<(), Problem> {
    for (parameter, slot) in at(endpoint, Place::Claim, slots) {
        let mut findings = Findings::default();
        let named = Spot::Named(parameter);
        let checked = match caller.claim(&parameter.name) {
            None if !parameter.required => continue,
            None => None,
            // Claims of an API key are always text.
            Some(serde_json::Value::String(text)) if parameter.kind != ParameterType::Json => {
                check::from_text(parameter, Cow::Owned(text.clone()), named, &mut findings)
            }
            Some(claim) => serde_json::value::to_raw_value(claim).ok().and_then(|raw| {
                // The text is made here, so nothing can borrow from it.
                let value = check::from_raw(parameter, &raw, named, &mut findings)?.into_value();
                Some(own(value))
            }),
        };
        let Some(checked) = checked else {
            let detail = format!("The credentials have no usable claim {:?}.", parameter.name);
            return Err(Problem::with_detail(ProblemKind::Forbidden, detail));
        };
        *slot = Slot::Given(checked);
    }
    Ok(())
}

/// A value that borrows nothing. Claims are never tables.
fn own(value: crate::catalogue::Value) -> Checked<'static> {
    use crate::catalogue::Value;
    match value {
        Value::Boolean(value) => Checked::Boolean(value),
        Value::Integer(value) => Checked::Integer(value),
        Value::Number(value) => Checked::Number(value),
        Value::Decimal(text) => Checked::Decimal(text.into()),
        Value::Text(text) => Checked::Text(text.into()),
        Value::Binary(bytes) => Checked::Binary(bytes),
        Value::Json(text) => Checked::Json(text.into()),
        Value::Null | Value::Table(_) => Checked::Null,
    }
}

fn check_context<'a>(
    endpoint: &Endpoint,
    context: &Context<'a>,
    slots: &mut [Slot<'a>],
    findings: &mut Findings,
) {
    for (parameter, slot) in at(endpoint, Place::Context, slots) {
        let text = match &*parameter.name {
            "request_id" => Some(Cow::Borrowed(context.request_id)),
            "idempotency_key" => context.idempotency_key.map(Cow::Borrowed),
            "principal" => context.principal.map(Cow::Borrowed),
            "client_ip" => Some(Cow::Owned(context.client_ip.to_string())),
            _ => None,
        };
        if let Some(text) = text {
            *slot = check::from_text(parameter, text, Spot::Named(parameter), findings).into();
        }
    }
}

fn check_body<'a>(
    endpoint: &Endpoint,
    body: &'a Bytes,
    slots: &mut [Slot<'a>],
    findings: &mut Findings,
) {
    if body.is_empty() {
        return;
    }
    let root = Pointer::ROOT;
    if !endpoint.takes_body() {
        findings.add(Spot::At(&root), "expected no body");
        return;
    }
    match std::str::from_utf8(body) {
        Ok(text) => {
            json::object(text, &endpoint.parameters, Some(Place::Body), &root, (slots, findings));
        }
        Err(_) => findings.add(Spot::At(&root), json::NOT_UTF8),
    }
}

/// Reports each required parameter that is absent.
fn check_required(
    endpoint: &Endpoint,
    slots: &[Slot<'_>],
    findings: &mut Findings,
) -> Result<(), Problem> {
    for (parameter, slot) in endpoint.parameters.iter().zip(slots) {
        if !parameter.required || !matches!(slot, Slot::Absent) {
            continue;
        }
        match (parameter.place, &*parameter.name) {
            (Place::Body, name) => {
                findings.add(Spot::At(&Pointer::ROOT.key(name)), json::REQUIRED);
            }
            (Place::Context, "principal") => {
                let detail = "This endpoint needs a caller with a name.";
                return Err(Problem::with_detail(ProblemKind::Forbidden, detail));
            }
            (Place::Context, "idempotency_key") => {
                findings.add_missing_header("Idempotency-Key");
            }
            _ => findings.add(Spot::Named(parameter), json::REQUIRED),
        }
    }
    Ok(())
}

/// A body must be JSON in UTF-8, not encoded further.
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

fn is_json(value: &str) -> bool {
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_json = essence == "application/json"
        || essence
            .strip_prefix("application/")
            .and_then(|subtype| subtype.strip_suffix("+json"))
            .is_some_and(|name| !name.is_empty());
    is_json
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
                value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            // RFC 8259 defines no parameters; RFC 9110 lets recipients ignore others.
            _ => true,
        })
}

#[cfg(test)]
mod tests;
