//! Generates the parameters and request bodies of the `OpenAPI` document.

use serde_json::{Map, Value as Json, json};

use super::{examples, schemas};
use crate::catalogue::endpoint::Endpoint;
use crate::catalogue::parameter::{Parameter, ParameterSource, ParameterType};
use crate::catalogue::route::{self, Segment};

/// The form of `Idempotency-Key`: bare, or a quoted string as in the IETF draft.
const IDEMPOTENCY_KEY: &str = r#"^(?:[!#-\[\]-~]{1,128}|"[!#-\[\]-~]{1,128}")$"#;

/// The form of `Prefer`: preferences separated by commas, each with an optional value (RFC 7240). Unknown preferences
/// are ignored.
const PREFER: &str = r#"^(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:=(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|"[ !#-\[\]-~]*"))?(?:, ?[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:=(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|"[ !#-\[\]-~]*"))?)*)?$"#;

/// Returns the parameters of an operation. Path parameters take their names from `path`.
pub(super) fn parameters(endpoint: &Endpoint, path: &str) -> Vec<Json> {
    let order = route::path_order(&endpoint.path, &endpoint.parameters);
    let names: Vec<&str> = route::segments(path)
        .filter_map(|segment| match segment {
            Segment::Parameter(name) => Some(name),
            Segment::Literal(_) => None,
        })
        .collect();
    let written = endpoint.parameters.iter().enumerate().filter_map(|(index, parameter)| {
        if !matches!(
            parameter.source,
            ParameterSource::Path | ParameterSource::Query | ParameterSource::Header
        ) {
            return None;
        }
        let renamed = order.iter().position(|at| *at == index).and_then(|at| names.get(at));
        let mut written = json!({
            "name": renamed.copied().unwrap_or(&parameter.name),
            "in": parameter.source.as_str(),
            "required": parameter.required,
        });
        let mut set = |key: &str, value: Json| {
            if let Some(written) = written.as_object_mut() {
                written.insert(key.to_owned(), value);
            }
        };
        let schema = schemas::value(parameter, false);
        if let Some(description) = schema.get("description") {
            set("description", description.clone());
        }
        let examples = examples::of_parameter(endpoint, parameter);
        if parameter.kind == ParameterType::Json {
            // The value is JSON text, which `schema` alone cannot express.
            let content = with_examples(json!({ "schema": schema }), examples);
            set("content", json!({ "application/json": content }));
        } else {
            set("schema", schema);
            written = with_examples(written, examples);
        }
        Some(written)
    });
    let own = [idempotency_key(endpoint), prefer(endpoint)].into_iter().flatten();
    let own = own.chain(super::responses::conditions(endpoint)).filter(|header| {
        let name = header.get("name").and_then(Json::as_str);
        name.is_some_and(|name| !endpoint.takes_header(name))
    });
    written.chain(own).collect()
}

/// Adds examples to a parameter or to a media type, if there are any.
fn with_examples(mut described: Json, examples: Map<String, Json>) -> Json {
    if let Some(described) = described.as_object_mut().filter(|_| !examples.is_empty()) {
        described.insert("examples".to_owned(), examples.into());
    }
    described
}

/// Returns the header `Idempotency-Key` if the endpoint passes the key to the procedure.
fn idempotency_key(endpoint: &Endpoint) -> Option<Json> {
    let is_key =
        |p: &&Parameter| p.source == ParameterSource::Context && &*p.name == "idempotency_key";
    let parameter = endpoint.parameters.iter().find(is_key)?;
    let described = json!({
        "name": "Idempotency-Key", "in": "header", "required": parameter.required,
        "schema": { "type": "string", "pattern": IDEMPOTENCY_KEY },
        "description": "Identifies the request: however often it is sent with the same key, it takes effect once. The key \
                        consists of 1 to 128 visible ASCII characters except `\"` and `\\`, bare or in quotes." });
    Some(with_examples(described, examples::of_header(endpoint, "idempotency-key")))
}

/// Returns the header `Prefer` (RFC 7240), which requests a dry run or an answer without content, if the endpoint allows
/// either.
fn prefer(endpoint: &Endpoint) -> Option<Json> {
    let (mut examples, mut description) = (Vec::new(), Vec::new());
    if endpoint.dry_run {
        examples.push("tx=rollback");
        description.push(
            "`tx=rollback` asks for a dry run: the procedure runs, everything that it did in the database is rolled \
             back, and the answer is the same as that of a real call. `tx=commit` is the default (RFC 7240).",
        );
    }
    if endpoint.may_be_minimal() {
        examples.push("return=minimal");
        description.push("`return=minimal` asks for an answer without content.");
    }
    (!examples.is_empty()).then(|| {
        json!({
            "name": "Prefer", "in": "header", "required": false,
            "schema": { "type": "string", "pattern": PREFER, "examples": examples },
            "description": description.join(" ") })
    })
}

/// Returns the request body of an operation.
pub(super) fn request_body(endpoint: &Endpoint) -> Json {
    let members: Vec<&Parameter> =
        endpoint.parameters.iter().filter(|p| p.source == ParameterSource::Body).collect();
    let content =
        with_examples(json!({ "schema": schemas::object(&members) }), examples::of_body(endpoint));
    json!({
        "required": members.iter().any(|parameter| parameter.required),
        "content": { "application/json": content }
    })
}
