//! Generates the parts of a response that the catalogue determines: the headers, and the answers to conditional
//! requests.

use serde_json::{Map, Value as Json, json};

use crate::catalogue::endpoint::Endpoint;
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

/// Returns whether the answer depends on `Accept`, because the endpoint has representations other than JSON.
pub(super) fn is_negotiated(endpoint: &Endpoint) -> bool {
    !matches!(*endpoint.produces, [Representation::Json])
}

/// Returns the headers of a successful answer.
pub(super) fn headers(endpoint: &Endpoint) -> Map<String, Json> {
    let mut headers = Map::new();
    if endpoint.dry_run || endpoint.may_be_minimal() {
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

/// Returns whether the answers can have an `ETag`. If so, GET and HEAD requests can be conditional.
fn has_etag(endpoint: &Endpoint) -> bool {
    endpoint.method.is_safe() && (endpoint.cache.etag || endpoint.has_header(ResponseHeader::ETag))
}

/// Returns whether the answers can have `Last-Modified`. If so, GET and HEAD requests can be conditional.
fn has_date(endpoint: &Endpoint) -> bool {
    endpoint.method.is_safe() && endpoint.has_header(ResponseHeader::LastModified)
}

fn preference_applied(endpoint: &Endpoint) -> Json {
    let transaction: &[&str] = if endpoint.dry_run { &["tx=rollback", "tx=commit"] } else { &[] };
    let mut values: Vec<String> = transaction.iter().map(|one| (*one).to_owned()).collect();
    if endpoint.may_be_minimal() {
        values.extend(transaction.iter().map(|one| format!("{one}, return=minimal")));
        values.push("return=minimal".to_owned());
    }
    json!({
        "schema": { "type": "string", "enum": values },
        "description": "The preferences of the request that were honored (RFC 7240)." })
}

/// Adds the answer without content that `Prefer: return=minimal` requests.
pub(super) fn add_minimal(endpoint: &Endpoint, responses: &mut Map<String, Json>) {
    if endpoint.may_be_minimal() {
        responses.entry("204").or_insert_with(|| {
            json!({
                "description": "Done. There is no content, because `Prefer: return=minimal` requested that.",
                "headers": headers(endpoint) })
        });
    }
}

fn etag() -> Json {
    json!({ "schema": { "type": "string" }, "description": "Identifies this version of the answer (RFC 9110 §8.8.3)." })
}

/// Returns the headers of conditional requests (RFC 9110 §13.1).
pub(super) fn conditions(endpoint: &Endpoint) -> Vec<Json> {
    let unchanged = "If the answer is still the same, its status is 304 and it has no content.";
    let changed = "If the answer is no longer the same, the status is 412.";
    let tags = [("If-None-Match", unchanged), ("If-Match", changed)]
        .map(|(name, effect)| (name, format!("The `ETag` of an earlier answer. {effect}")));
    let dates = [("If-Modified-Since", unchanged), ("If-Unmodified-Since", changed)].map(
        |(name, effect)| (name, format!("The `Last-Modified` of an earlier answer. {effect}")),
    );
    let tags = tags.into_iter().filter(|_| has_etag(endpoint));
    let dates = dates.into_iter().filter(|_| has_date(endpoint));
    let header = |(name, description)| {
        json!({
            "name": name, "in": "header", "required": false,
            "schema": { "type": "string" }, "description": description })
    };
    tags.chain(dates).map(header).collect()
}

/// Adds the answers to conditional requests.
pub(super) fn add_conditional(endpoint: &Endpoint, responses: &mut Map<String, Json>) {
    if has_etag(endpoint) || has_date(endpoint) {
        let mut headers = headers(endpoint);
        headers.remove(ResponseHeader::ContentDisposition.as_str());
        let not_modified =
            json!({ "description": "The answer has not changed.", "headers": headers });
        responses.insert("304".to_owned(), not_modified);
        let problem = json!({ "$ref": "#/components/responses/Problem" });
        responses.insert("412".to_owned(), problem);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::load::fixture::catalogue;
    use crate::catalogue::openapi::{ApiInfo, document};

    /// Returns the names of the headers that a client can send to the only endpoint, and the endpoint's responses.
    fn described(endpoint: &str) -> (Vec<String>, Json) {
        let catalogue = catalogue(&format!(r#""a": {{{endpoint}, KEYS}}"#));
        let document = document(&[&*catalogue.endpoints()[0]], &ApiInfo::default());
        let operation = document["paths"]["/a"].as_object().unwrap().values().next().unwrap();
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let names = parameters.map(|one| one["name"].as_str().unwrap().to_owned());
        (names.collect(), operation["responses"].clone())
    }

    #[test]
    fn conditional_requests_are_described_for_every_validator() {
        let tags = ["If-None-Match", "If-Match"];
        let dates = ["If-Modified-Since", "If-Unmodified-Since"];
        let headers = r#""headers": {"Last-Modified": "at", "Content-Disposition": "name"}"#;
        for (endpoint, expected, validators) in [
            (r#""route":"GET /a","cache":{"etag":true}"#.to_owned(), &tags[..], &["ETag"][..]),
            (format!(r#""route":"GET /a","result":"row",{headers}"#), &dates, &["Last-Modified"]),
            (
                format!(r#""route":"GET /a","cache":{{"etag":true}},"result":"row",{headers}"#),
                &[tags, dates].concat(),
                &["ETag", "Last-Modified"],
            ),
        ] {
            let (names, responses) = described(&endpoint);
            assert_eq!(names, expected, "{endpoint}");
            let known: Vec<_> = responses["304"]["headers"].as_object().unwrap().keys().collect();
            assert_eq!(known, validators, "{endpoint}");
            assert!(responses["412"].is_object(), "{endpoint}");
        }
        let (names, responses) =
            described(&format!(r#""route":"PUT /a","result":"row",{headers}"#));
        assert!(!names.iter().any(|name| name.starts_with("If-")), "{names:?}");
        assert!(responses.get("304").is_none() && responses.get("412").is_none());
        let own = r#""parameters": {"if-match": {"in":"header","type":"string","as":"tag"}}"#;
        let (names, _) = described(&format!(r#""route":"GET /a","cache":{{"etag":true}},{own}"#));
        assert_eq!(names, ["if-match", "If-None-Match"], "no header is described twice");
    }

    #[test]
    fn a_minimal_answer_is_described_where_the_gateway_gives_one() {
        let own = r#""parameters": {"PREFER": {"in":"header","type":"string","as":"p"}}"#;
        for (endpoint, expected) in [
            (r#""route":"POST /a","result":"row""#.to_owned(), true),
            (r#""route":"POST /a","result":"none""#.to_owned(), true),
            (format!(r#""route":"POST /a","result":"row",{own}"#), false),
            (r#""route":"GET /a","result":"row""#.to_owned(), false),
        ] {
            let (names, responses) = described(&endpoint);
            assert_eq!(names.iter().any(|name| name == "Prefer"), expected, "{endpoint}");
            assert_eq!(responses.get("204").is_some(), expected, "{endpoint}");
            assert_eq!(responses.to_string().contains("return=minimal"), expected, "{endpoint}");
        }
    }
}
