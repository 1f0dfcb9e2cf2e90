//! Generates the parts of a response that the catalogue determines: its headers, and the answers to conditional requests.

use serde_json::{Map, Value as Json, json};

use crate::catalogue::endpoint::{Endpoint, ResultKind};
use crate::catalogue::representation::Representation;
use crate::catalogue::response_header::ResponseHeader;

/// Returns the content of a successful answer, by media type. `schema` describes the JSON.
pub(super) fn content(endpoint: &Endpoint, schema: &Json) -> Map<String, Json> {
    let described = |one: &Representation| match one {
        Representation::Json => json!({ "schema": schema }),
        Representation::Csv => json!({ "schema": { "type": "string" } }),
        // OpenAPI 3.1 cannot describe a sequence of JSON texts, and needs no schema for raw bytes.
        Representation::Ndjson | Representation::Raw(_) => json!({}),
    };
    endpoint.produces.iter().map(|one| (one.media_type().to_owned(), described(one))).collect()
}

/// Returns whether `Accept` can exclude every representation although it accepts JSON, or choose between several.
pub(super) fn is_negotiated(endpoint: &Endpoint) -> bool {
    !matches!(*endpoint.produces, [Representation::Json])
}

/// Returns the headers of a successful answer.
pub(super) fn headers(endpoint: &Endpoint) -> Map<String, Json> {
    let mut headers = Map::new();
    if endpoint.dry_run || may_be_minimal(endpoint) {
        headers.insert("Preference-Applied".into(), preference_applied(endpoint));
    }
    if endpoint.cache.etag {
        headers.insert("ETag".into(), etag());
    }
    if endpoint.cache.ttl.is_some() {
        let age = json!({ "schema": { "type": "integer", "minimum": 0 }, "description": "How many seconds ago a stored answer was received." });
        headers.insert("Age".into(), age);
    }
    for (header, _) in &endpoint.headers {
        let schema = match header {
            ResponseHeader::XTotalCount => json!({ "type": "integer", "minimum": 0 }),
            ResponseHeader::Location => json!({ "type": "string", "format": "uri-reference" }),
            _ => json!({ "type": "string" }),
        };
        let described = json!({ "schema": schema, "description": header.description() });
        headers.insert(header.as_str().into(), described);
    }
    headers
}

/// Returns whether the answers can have an `ETag`, so that GET and HEAD can be conditional.
fn has_etag(endpoint: &Endpoint) -> bool {
    let is_chosen = endpoint.headers.iter().any(|(header, _)| *header == ResponseHeader::ETag);
    endpoint.method.is_safe() && (endpoint.cache.etag || is_chosen)
}

fn preference_applied(endpoint: &Endpoint) -> Json {
    let transaction: &[&str] = if endpoint.dry_run { &["tx=rollback", "tx=commit"] } else { &[] };
    let mut values: Vec<String> = transaction.iter().map(|one| (*one).to_owned()).collect();
    if may_be_minimal(endpoint) {
        values.extend(transaction.iter().map(|one| format!("{one}, return=minimal")));
        values.push("return=minimal".to_owned());
    }
    json!({
        "schema": { "type": "string", "enum": values },
        "description": "The preferences of the request that were honored (RFC 7240)." })
}

/// Returns whether a client can ask for an answer without content.
pub(super) fn may_be_minimal(endpoint: &Endpoint) -> bool {
    !endpoint.method.is_safe() && endpoint.result != ResultKind::None
}

/// Adds the answer without content for which `Prefer: return=minimal` asks.
pub(super) fn add_minimal(endpoint: &Endpoint, responses: &mut Map<String, Json>) {
    if may_be_minimal(endpoint) {
        responses.entry("204").or_insert_with(|| {
            json!({
                "description": "Done, without content, because `Prefer: return=minimal` asked for that.",
                "headers": headers(endpoint) })
        });
    }
}

fn etag() -> Json {
    json!({ "schema": { "type": "string" }, "description": "Identifies this version of the answer (RFC 9110 §8.8.3)." })
}

/// Returns the header with which a client asks whether an answer has changed.
pub(super) fn if_none_match(endpoint: &Endpoint) -> Option<Json> {
    has_etag(endpoint).then(|| {
        json!({
            "name": "If-None-Match", "in": "header", "required": false,
            "schema": { "type": "string" },
            "description": "The `ETag` of an earlier answer. If the answer is still the same, its status is 304 and it has no content." })
    })
}

/// Adds the answers to conditional requests.
pub(super) fn add_conditional(endpoint: &Endpoint, responses: &mut Map<String, Json>) {
    if has_etag(endpoint) {
        let not_modified =
            json!({ "description": "The answer has not changed.", "headers": { "ETag": etag() } });
        responses.insert("304".to_owned(), not_modified);
        let problem = json!({ "$ref": "#/components/responses/Problem" });
        responses.insert("412".to_owned(), problem);
    }
}
