//! Generates the parameters and request bodies of the `OpenAPI` document.

use serde_json::{Map, Value as Json, json};

use crate::catalogue::endpoint::Endpoint;
use crate::catalogue::parameter::{Parameter, ParameterSource, ParameterType};
use crate::catalogue::payload;
use crate::catalogue::route::{self, Segment};

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
            "schema": schema(parameter, false),
        });
        if let (Some(description), Some(written)) =
            (&parameter.description, written.as_object_mut())
        {
            written.insert("description".into(), description.as_str().into());
        }
        Some(written)
    });
    let own =
        [idempotency_key(endpoint), prefer(endpoint), super::responses::if_none_match(endpoint)];
    written.chain(own.into_iter().flatten()).collect()
}

/// Returns the header `Idempotency-Key` if the endpoint passes the key to the procedure.
fn idempotency_key(endpoint: &Endpoint) -> Option<Json> {
    let is_key =
        |p: &&Parameter| p.source == ParameterSource::Context && &*p.name == "idempotency_key";
    let parameter = endpoint.parameters.iter().find(is_key)?;
    Some(json!({
        "name": "Idempotency-Key", "in": "header", "required": parameter.required,
        "schema": { "type": "string" },
        "description": "Identifies the request: however often it is sent with the same key, it takes effect once." }))
}

/// Returns the header `Prefer` (RFC 7240), which requests a dry run or an answer without content, if the endpoint allows that.
fn prefer(endpoint: &Endpoint) -> Option<Json> {
    let (mut examples, mut description) = (Vec::new(), Vec::new());
    if endpoint.dry_run {
        examples.push("tx=rollback");
        description.push(
            "`tx=rollback` asks for a dry run: the procedure runs, everything that it did in the database is rolled \
             back, and the answer is the same as that of a real call. `tx=commit` is the default (RFC 7240).",
        );
    }
    let is_own = |p: &Parameter| {
        p.source == ParameterSource::Header && p.name.eq_ignore_ascii_case("prefer")
    };
    if super::responses::may_be_minimal(endpoint) && !endpoint.parameters.iter().any(is_own) {
        examples.push("return=minimal");
        description.push("`return=minimal` asks for an answer without content.");
    }
    (!examples.is_empty()).then(|| {
        json!({
            "name": "Prefer", "in": "header", "required": false,
            "schema": { "type": "string", "examples": examples },
            "description": description.join(" ") })
    })
}

/// Returns the request body of an operation.
pub(super) fn request_body(endpoint: &Endpoint) -> Json {
    let members: Vec<&Parameter> =
        endpoint.parameters.iter().filter(|p| p.source == ParameterSource::Body).collect();
    json!({
        "required": members.iter().any(|parameter| parameter.required),
        "content": { "application/json": { "schema": object(&members) } }
    })
}

/// Returns the JSON Schema of an object with these members.
fn object(members: &[&Parameter]) -> Json {
    let properties: Map<String, Json> = members
        .iter()
        .map(|parameter| (parameter.name.to_string(), schema(parameter, !parameter.required)))
        .collect();
    let required: Vec<&str> =
        members.iter().filter(|p| p.required).map(|parameter| &*parameter.name).collect();
    let mut object = json!({
        "type": "object", "properties": properties, "additionalProperties": false });
    if let Some(object) = object.as_object_mut().filter(|_| !required.is_empty()) {
        object.insert("required".into(), required.into());
    }
    object
}

/// Returns the JSON Schema of a parameter's values.
fn schema(parameter: &Parameter, nullable: bool) -> Json {
    let (kind, format) = match parameter.kind {
        ParameterType::Int32 => ("integer", Some("int32")),
        ParameterType::Int64 => ("integer", Some("int64")),
        ParameterType::Number => ("number", Some("double")),
        ParameterType::Decimal => ("number", Some("decimal")),
        ParameterType::Boolean => ("boolean", None),
        ParameterType::Uuid => ("string", Some("uuid")),
        ParameterType::Date => ("string", Some("date")),
        ParameterType::Time => ("string", Some("time-local")),
        ParameterType::Datetime => ("string", Some("date-time")),
        ParameterType::String | ParameterType::Binary => ("string", None),
        ParameterType::Json => ("", None),
        ParameterType::Table => ("array", None),
    };
    let mut schema = Map::new();
    let constraints = &parameter.constraints;
    let mut set = |key: &str, value: Option<Json>| {
        if let Some(value) = value {
            schema.insert(key.to_owned(), value);
        }
    };
    let kind_or_null = if nullable { json!([kind, "null"]) } else { json!(kind) };
    set("type", (!kind.is_empty()).then_some(kind_or_null));
    set("format", format.map(Json::from));
    set("contentEncoding", (parameter.kind == ParameterType::Binary).then(|| "base64".into()));
    set("description", parameter.description.as_deref().map(Json::from));
    set("default", parameter.default.as_ref().and_then(payload::to_json));
    set(
        "enum",
        constraints.allowed.as_ref().map(|allowed| {
            let mut values: Vec<Json> = allowed.iter().filter_map(payload::to_json).collect();
            values.extend(nullable.then_some(Json::Null));
            values.into()
        }),
    );
    set("pattern", constraints.pattern.as_ref().map(|pattern| pattern.as_str().into()));
    set(
        "minimum",
        constraints.minimum.as_ref().and_then(|bound| serde_json::from_str(&bound.0).ok()),
    );
    set(
        "maximum",
        constraints.maximum.as_ref().and_then(|bound| serde_json::from_str(&bound.0).ok()),
    );
    if parameter.kind == ParameterType::String {
        set("minLength", constraints.length_min.map(Json::from));
        set("maxLength", constraints.length_max.map(Json::from));
    }
    set("maxItems", constraints.items_max.map(Json::from));
    if parameter.kind == ParameterType::Table {
        let columns: Vec<&Parameter> = parameter.columns.iter().collect();
        set("items", Some(object(&columns)));
    }
    schema.into()
}
