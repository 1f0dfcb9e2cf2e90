//! The `OpenAPI` 3.1 document of endpoints.

use serde_json::{Map, Value as Json, json};

use super::auth::{Auth, AuthMethod};
use super::endpoint::{Endpoint, ResultKind};
use super::parameter::{Parameter, ParameterSource, ParameterType};
use super::payload;
use super::route::{self, Segment};
use crate::problem::PROBLEM_JSON;

/// Returns the document of these endpoints, indented. It contains nothing about any other endpoint.
#[must_use]
pub fn text(endpoints: &[&Endpoint]) -> String {
    format!("{:#}\n", document(endpoints))
}

fn document(endpoints: &[&Endpoint]) -> Json {
    let mut paths: Map<String, Json> = Map::new();
    // To OpenAPI, paths that differ only in the names of their parameters are one path. The names of the first one are used.
    let mut first_paths: std::collections::HashMap<String, String> =
        std::collections::HashMap::new();
    for endpoint in endpoints {
        let first = first_paths
            .entry(without_names(&endpoint.path))
            .or_insert_with(|| endpoint.path.to_string());
        let operation = operation(endpoint, first);
        let methods = paths.entry(first.clone()).or_insert_with(|| json!({}));
        if let Some(methods) = methods.as_object_mut() {
            methods.insert(endpoint.method.as_str().to_ascii_lowercase(), operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "fjord", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": {
            "schemas": { "Problem": problem_schema() },
            "responses": { "Problem": {
                "description": "An error (RFC 9457).",
                "content": { PROBLEM_JSON: { "schema": { "$ref": "#/components/schemas/Problem" } } } } },
            "securitySchemes": security_schemes(endpoints)
        }
    })
}

/// Returns a path with `{}` for each parameter.
fn without_names(path: &str) -> String {
    route::segments(path)
        .map(|segment| match segment {
            Segment::Literal(text) => text,
            Segment::Parameter(_) => "{}",
        })
        .fold(String::new(), |path, segment| path + "/" + segment)
}

fn operation(endpoint: &Endpoint, path: &str) -> Json {
    let mut operation = Map::new();
    operation.insert("operationId".into(), endpoint.id.as_str().into());
    if let Some(summary) = &endpoint.summary {
        operation.insert("summary".into(), summary.as_str().into());
    }
    if let Some(description) = &endpoint.description {
        operation.insert("description".into(), description.as_str().into());
    }
    if !endpoint.tags.is_empty() {
        operation.insert("tags".into(), endpoint.tags.clone().into());
    }
    if endpoint.deprecated {
        operation.insert("deprecated".into(), true.into());
    }
    let parameters = parameters(endpoint, path);
    if !parameters.is_empty() {
        operation.insert("parameters".into(), parameters.into());
    }
    if endpoint.takes_body() {
        operation.insert("requestBody".into(), request_body(endpoint));
    }
    operation.insert("responses".into(), responses(endpoint));
    operation.insert("security".into(), security(&endpoint.auth));
    operation.into()
}

fn parameters(endpoint: &Endpoint, path: &str) -> Vec<Json> {
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
    written.chain(idempotency_key(endpoint)).chain(prefer(endpoint)).collect()
}

/// Returns the header `Idempotency-Key`, if the key is a parameter of the procedure.
fn idempotency_key(endpoint: &Endpoint) -> Option<Json> {
    let is_key =
        |p: &&Parameter| p.source == ParameterSource::Context && &*p.name == "idempotency_key";
    let parameter = endpoint.parameters.iter().find(is_key)?;
    Some(json!({
        "name": "Idempotency-Key", "in": "header", "required": parameter.required,
        "schema": { "type": "string" },
        "description": "The same key means the same effect, however often the request is sent." }))
}

/// Returns the header that asks for a dry run, if the endpoint allows them.
fn prefer(endpoint: &Endpoint) -> Option<Json> {
    endpoint.dry_run.then(|| {
        json!({
            "name": "Prefer", "in": "header", "required": false,
            "schema": { "type": "string", "examples": ["tx=rollback"] },
            "description": "`tx=rollback` asks for a dry run: the procedure runs, everything that it did in the database is \
                rolled back, and the answer is the one that the call would have had. `tx=commit` is the default (RFC 7240)." })
    })
}

fn request_body(endpoint: &Endpoint) -> Json {
    let members: Vec<&Parameter> =
        endpoint.parameters.iter().filter(|p| p.source == ParameterSource::Body).collect();
    json!({
        "required": members.iter().any(|parameter| parameter.required),
        "content": { "application/json": { "schema": object(&members) } }
    })
}

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

fn responses(endpoint: &Endpoint) -> Json {
    let any_object = json!({ "type": "object" });
    let rows = json!({ "type": "array", "items": any_object });
    let schema = match endpoint.result {
        ResultKind::Rows => Some(rows),
        ResultKind::Row => Some(any_object),
        ResultKind::Value | ResultKind::Json => Some(json!({})),
        ResultKind::Sets => Some(json!({ "type": "array", "items": rows })),
        ResultKind::Full => Some(json!({
            "type": "object",
            "properties": {
                "sets": { "type": "array", "items": rows },
                "outputs": { "type": "object" },
                "return": { "type": "integer", "format": "int32" } },
            "required": ["sets", "outputs", "return"] })),
        ResultKind::None => None,
    };
    let mut responses = Map::new();
    let success = |schema: Option<&Json>| {
        let mut success = match schema {
            Some(schema) => json!({
                "description": "The procedure's answer.",
                "content": { "application/json": { "schema": schema } } }),
            None => json!({ "description": "Done." }),
        };
        if let Some(success) = success.as_object_mut().filter(|_| endpoint.dry_run) {
            success.insert("headers".into(), preference_applied());
        }
        success
    };
    let status = if schema.is_some() { "200" } else { "204" };
    responses.insert(status.to_owned(), success(schema.as_ref()));
    for status in endpoint.status.returns.values().filter(|status| **status < 300) {
        responses.insert(status.to_string(), success(schema.as_ref()));
    }
    let mut problems: Vec<u16> = vec![400, 500, 502, 503, 504];
    if endpoint.auth != Auth::Public {
        problems.extend([401, 403]);
    }
    if endpoint.result == ResultKind::Row {
        problems.push(404);
    }
    if endpoint.takes_body() {
        problems.extend([413, 415]);
    }
    if endpoint.rate_limit.is_some() {
        problems.push(429);
    }
    let mapped = endpoint.status.returns.values().chain(endpoint.status.errors.values());
    problems.extend(mapped.filter(|status| **status >= 300));
    for status in problems {
        responses.insert(status.to_string(), json!({ "$ref": "#/components/responses/Problem" }));
    }
    responses.insert("default".into(), json!({ "$ref": "#/components/responses/Problem" }));
    responses.into()
}

fn preference_applied() -> Json {
    json!({ "Preference-Applied": {
        "schema": { "type": "string", "enum": ["tx=rollback", "tx=commit"] },
        "description": "Whether the transaction was rolled back or committed, if `Prefer` asked for one of the two." } })
}

fn security(auth: &Auth) -> Json {
    let Auth::Required { methods, scopes, issuers } = auth else {
        return json!([]);
    };
    let mut schemes: Vec<String> = Vec::new();
    for method in methods {
        match method {
            AuthMethod::Jwt if issuers.is_empty() => schemes.push("jwt".to_owned()),
            AuthMethod::Jwt => schemes.extend(issuers.iter().map(|name| issuer_scheme(name))),
            AuthMethod::ApiKey => schemes.push("apiKey".to_owned()),
            AuthMethod::ClientCertificate => schemes.push("certificate".to_owned()),
        }
    }
    schemes.iter().map(|scheme| json!({ scheme: scopes })).collect()
}

/// Returns the name of the security scheme for the tokens of one issuer.
fn issuer_scheme(name: &str) -> String {
    format!("jwt-{name}")
}

fn security_schemes(endpoints: &[&Endpoint]) -> Json {
    let mut schemes = json!({
        "jwt": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
        "apiKey": { "type": "apiKey", "in": "header", "name": "X-API-Key" },
        "certificate": { "type": "mutualTLS" } });
    let issuers = endpoints.iter().filter_map(|endpoint| match &endpoint.auth {
        Auth::Required { issuers, .. } => Some(issuers),
        Auth::Public => None,
    });
    for name in issuers.flatten() {
        if let Some(schemes) = schemes.as_object_mut() {
            let scheme = json!({
                "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                "description": format!("A token of the issuer {name}.") });
            schemes.insert(issuer_scheme(name), scheme);
        }
    }
    schemes
}

fn problem_schema() -> Json {
    json!({
        "type": "object",
        "description": "An error (RFC 9457).",
        "properties": {
            "type": { "type": "string", "format": "uri", "description": "The kind of problem; stable." },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string" },
            "instance": { "type": "string", "format": "uri" },
            "request_id": { "type": "string" },
            "effect": {
                "type": "string", "enum": ["not-executed", "executed", "unknown"],
                "description": "What the client may conclude about the procedure." },
            "errors": {
                "type": "array", "description": "Every violation of an invalid request.",
                "items": {
                    "type": "object",
                    "properties": {
                        "in": { "type": "string" },
                        "parameter": { "type": "string" },
                        "pointer": { "type": "string", "description": "A JSON Pointer into the body." },
                        "detail": { "type": "string" } },
                    "required": ["in", "detail"] } }
        },
        "required": ["type", "title", "status", "instance", "request_id", "effect"]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::load::fixture::catalogue;

    const ENDPOINTS: &str = r#"
        "get": {"route":"GET /e/{id}","procedure":"a.b","auth":{"methods":["jwt"],"scopes":["r"],"issuers":["staff"]},"result":"row",
                "summary":"One","tags":["e"],"deprecated":true,"parameters":{
                    "id":{"in":"path","type":"int32","minimum":1},
                    "kind":{"in":"query","type":"string","enum":["a","b"],"default":"a","description":"Which"},
                    "org":{"in":"claim","type":"int32"}}},
        "put": {"route":"PUT /e/{key}", KEYS, "result":"none","status":{"error":{"50001":422}},"transaction":true,"dry_run":true,"parameters":{
                    "key":{"in":"path","type":"uuid"}, "idempotency_key":{"in":"context","required":true},
                    "d":{"in":"body","type":"decimal","required":true},
                    "t":{"in":"body","type":"table","maxItems":2,"columns":{"c":{"type":"date","required":true}}}}}"#;

    #[test]
    fn endpoints_become_operations() {
        let catalogue = catalogue(ENDPOINTS);
        let all: Vec<&Endpoint> = catalogue.endpoints().iter().map(|each| &**each).collect();
        let document = document(&all);
        assert_eq!(document["paths"].as_object().unwrap().len(), 1, "one path for both names");
        let get = &document["paths"]["/e/{id}"]["get"];
        assert_eq!(get["operationId"], "get");
        assert_eq!(get["deprecated"], true);
        assert_eq!(document["components"]["securitySchemes"]["jwt-staff"]["scheme"], "bearer");
        assert_eq!(get["security"], json!([{ "jwt-staff": ["r"] }]));
        assert_eq!(
            get["parameters"],
            json!([
            { "name": "id", "in": "path", "required": true,
              "schema": { "type": "integer", "format": "int32", "minimum": 1 } },
            { "name": "kind", "in": "query", "required": false, "description": "Which",
              "schema": { "type": "string", "default": "a", "description": "Which", "enum": ["a", "b"] } }])
        );
        assert!(get["responses"]["404"].is_object() && get["responses"]["401"].is_object());
        assert!(get.get("requestBody").is_none());
        let put = &document["paths"]["/e/{id}"]["put"];
        assert_eq!(put["parameters"][0]["name"], "id");
        assert_eq!(put["parameters"][1]["name"], "Idempotency-Key");
        assert_eq!(put["parameters"][2]["name"], "Prefer");
        let applied = &put["responses"]["204"]["headers"]["Preference-Applied"]["schema"]["enum"];
        assert_eq!(*applied, json!(["tx=rollback", "tx=commit"]));
        assert!(get["responses"]["200"].get("headers").is_none(), "the endpoint has no dry run");
        assert_eq!(put["security"], json!([]));
        assert!(put["responses"]["204"].is_object() && put["responses"]["422"].is_object());
        let body = &put["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["required"], json!(["d"]));
        assert_eq!(body["additionalProperties"], false);
        assert_eq!(body["properties"]["t"]["type"], json!(["array", "null"]));
        assert_eq!(body["properties"]["t"]["items"]["required"], json!(["c"]));
    }
}
