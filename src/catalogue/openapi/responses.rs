//! Generates what the catalogue says about responses: their headers, and the answers to conditional requests.

use serde_json::{Map, Value as Json, json};

use crate::catalogue::endpoint::Endpoint;

/// Returns the headers of a successful answer.
pub(super) fn headers(endpoint: &Endpoint) -> Map<String, Json> {
    let mut headers = Map::new();
    if endpoint.dry_run {
        headers.insert("Preference-Applied".into(), preference_applied());
    }
    if endpoint.cache.etag {
        headers.insert("ETag".into(), etag());
    }
    headers
}

fn preference_applied() -> Json {
    json!({
        "schema": { "type": "string", "enum": ["tx=rollback", "tx=commit"] },
        "description": "Whether the transaction was rolled back or committed, if `Prefer` asked for one of the two." })
}

fn etag() -> Json {
    json!({ "schema": { "type": "string" }, "description": "Identifies this version of the answer (RFC 9110 §8.8.3)." })
}

/// Returns the header with which a client asks whether an answer has changed.
pub(super) fn if_none_match(endpoint: &Endpoint) -> Option<Json> {
    endpoint.cache.etag.then(|| {
        json!({
            "name": "If-None-Match", "in": "header", "required": false,
            "schema": { "type": "string" },
            "description": "The `ETag` of an earlier answer. If the answer is still the same, its status is 304 and it has no content." })
    })
}

/// Adds the answers to conditional requests.
pub(super) fn add_conditional(endpoint: &Endpoint, responses: &mut Map<String, Json>) {
    if endpoint.cache.etag {
        let not_modified =
            json!({ "description": "The answer has not changed.", "headers": { "ETag": etag() } });
        responses.insert("304".to_owned(), not_modified);
        let problem = json!({ "$ref": "#/components/responses/Problem" });
        responses.insert("412".to_owned(), problem);
    }
}
