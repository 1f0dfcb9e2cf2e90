//! Generates the `OpenAPI` 3.1 document for a set of endpoints.

use std::collections::{BTreeMap, HashMap};
use std::io;

use serde_json::{Map, Value as Json, json};

use super::auth::{Auth, AuthMethod};
use super::endpoint::{Endpoint, ResultKind, is_bodiless};
use super::route::{self, Segment};
use crate::problem::PROBLEM_JSON;

mod answers;
mod examples;
mod info;
mod parameters;
mod pattern;
mod responses;
mod schemas;
mod text_patterns;

pub use info::{ApiInfo, TITLE_DEFAULT, VERSION_DEFAULT};

/// Returns the indented document for `endpoints`. It contains nothing about any other endpoint.
#[must_use]
pub fn text(endpoints: &[&Endpoint], info: &ApiInfo) -> String {
    format!("{:#}\n", document(endpoints, info))
}

/// Writes the document for `endpoints` without indentation. Only one operation at a time is in memory.
///
/// # Errors
/// Returns the errors of `out`.
pub fn write(endpoints: &[&Endpoint], info: &ApiInfo, out: &mut dyn io::Write) -> io::Result<()> {
    let frame = frame(endpoints, info);
    let mut separator = '{';
    for (key, value) in frame.as_object().into_iter().flatten() {
        write!(out, "{separator}{}:", Json::from(key.as_str()))?;
        separator = ',';
        if key == "paths" {
            write_paths(endpoints, out)?;
        } else {
            write!(out, "{value}")?;
        }
    }
    out.write_all(b"}")
}

fn write_paths(endpoints: &[&Endpoint], out: &mut dyn io::Write) -> io::Result<()> {
    out.write_all(b"{")?;
    for (number, (path, methods)) in by_path(endpoints).into_iter().enumerate() {
        let separator = if number == 0 { "" } else { "," };
        write!(out, "{separator}{}:{{", Json::from(path))?;
        for (number, (method, endpoint)) in methods.into_iter().enumerate() {
            let separator = if number == 0 { "" } else { "," };
            write!(out, "{separator}\"{method}\":{}", operation(endpoint, path))?;
        }
        out.write_all(b"}")?;
    }
    out.write_all(b"}")
}

fn document(endpoints: &[&Endpoint], info: &ApiInfo) -> Json {
    let paths = by_path(endpoints).into_iter().map(|(path, methods)| {
        let methods = methods.into_iter();
        let operations =
            methods.map(|(method, endpoint)| (method, operation(endpoint, path))).collect();
        (path.to_owned(), Json::Object(operations))
    });
    let mut document = frame(endpoints, info);
    if let Some(document) = document.as_object_mut() {
        document.insert("paths".to_owned(), Json::Object(paths.collect()));
    }
    document
}

/// Returns the endpoints by path and then by method, with the method in lower case. `OpenAPI` treats paths that differ
/// only in parameter names as identical. Such paths therefore all use the parameter names of the first one.
fn by_path<'a>(endpoints: &[&'a Endpoint]) -> BTreeMap<&'a str, BTreeMap<String, &'a Endpoint>> {
    let mut first_paths: HashMap<String, &str> = HashMap::new();
    let mut paths: BTreeMap<&str, BTreeMap<String, &Endpoint>> = BTreeMap::new();
    for &endpoint in endpoints {
        let first = *first_paths.entry(without_names(&endpoint.path)).or_insert(&endpoint.path);
        let method = endpoint.method.as_str().to_ascii_lowercase();
        paths.entry(first).or_default().insert(method, endpoint);
    }
    paths
}

/// Returns the document without its paths.
fn frame(endpoints: &[&Endpoint], info: &ApiInfo) -> Json {
    let mut frame = json!({
        "openapi": "3.1.0",
        "paths": {},
        "components": {
            "schemas": { "Problem": problem_schema() },
            "responses": { "Problem": problem_response() },
            "securitySchemes": security_schemes(endpoints)
        }
    });
    if let Some(frame) = frame.as_object_mut() {
        info.add_to(frame, endpoints);
    }
    frame
}

/// Returns a path with each parameter replaced by `{}`.
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
    let parameters = parameters::parameters(endpoint, path);
    if !parameters.is_empty() {
        operation.insert("parameters".into(), parameters.into());
    }
    if endpoint.takes_body() {
        operation.insert("requestBody".into(), parameters::request_body(endpoint));
    }
    operation.insert("responses".into(), responses(endpoint));
    operation.insert("security".into(), security(&endpoint.auth));
    operation.into()
}

fn responses(endpoint: &Endpoint) -> Json {
    let schema = answers::schema(endpoint);
    let mut responses = Map::new();
    let success = |schema: Option<&Json>| {
        let mut success = match schema {
            Some(schema) => json!({
                "description": "The procedure's answer.",
                "content": responses::content(endpoint, schema) }),
            None => json!({ "description": "Done." }),
        };
        let headers = responses::headers(endpoint);
        if let Some(success) = success.as_object_mut().filter(|_| !headers.is_empty()) {
            success.insert("headers".into(), headers.into());
        }
        success
    };
    let status = if schema.is_some() { "200" } else { "204" };
    responses.insert(status.to_owned(), success(schema.as_ref()));
    for status in endpoint.status.returns.values().filter(|status| **status < 400) {
        let schema = schema.as_ref().filter(|_| !is_bodiless(*status));
        responses.insert(status.to_string(), success(schema));
    }
    responses::add_minimal(endpoint, &mut responses);
    responses::add_conditional(endpoint, &mut responses);
    let mut problems: Vec<u16> = vec![400, 500, 502, 503, 504];
    if endpoint.auth != Auth::Public {
        problems.extend([401, 403]);
    }
    if matches!(endpoint.result, ResultKind::Row | ResultKind::Value) {
        problems.push(404);
    }
    if responses::is_negotiated(endpoint) {
        problems.push(406);
    }
    if endpoint.takes_body() {
        problems.extend([413, 415]);
    }
    if endpoint.rate_limit.is_some() || endpoint.in_flight_per_caller_max.is_some() {
        problems.push(429);
    }
    let mapped = endpoint.status.returns.values().chain(endpoint.status.errors.values());
    problems.extend(mapped.filter(|status| **status >= 400));
    for status in problems {
        responses.insert(status.to_string(), json!({ "$ref": "#/components/responses/Problem" }));
    }
    responses.insert("default".into(), json!({ "$ref": "#/components/responses/Problem" }));
    examples::add_answers(endpoint, &mut responses);
    responses.into()
}

fn problem_response() -> Json {
    json!({
        "description": "An error (RFC 9457).",
        "content": { PROBLEM_JSON: { "schema": { "$ref": "#/components/schemas/Problem" } } } })
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

/// Returns the name of the security scheme for tokens from one issuer.
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
                "description": format!("A token from the issuer {name}.") });
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
                "description": "What the client can conclude about the execution of the procedure." },
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
    fn a_written_document_equals_the_one_in_memory() {
        let catalogue = catalogue(ENDPOINTS);
        let all: Vec<&Endpoint> = catalogue.endpoints().iter().map(|each| &**each).collect();
        let info = ApiInfo { servers: vec!["/".to_owned()], ..ApiInfo::default() };
        for endpoints in [&all[..], &all[..1], &[]] {
            let mut text = Vec::new();
            write(endpoints, &info, &mut text).unwrap();
            assert_eq!(String::from_utf8(text).unwrap(), document(endpoints, &info).to_string());
        }
    }

    #[test]
    fn endpoints_become_operations() {
        let catalogue = catalogue(ENDPOINTS);
        let all: Vec<&Endpoint> = catalogue.endpoints().iter().map(|each| &**each).collect();
        let document = document(&all, &ApiInfo::default());
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
              "schema": { "type": "integer", "format": "int32", "minimum": 1, "maximum": i32::MAX } },
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
        let minimal =
            ["tx=rollback, return=minimal", "tx=commit, return=minimal", "return=minimal"];
        assert_eq!(*applied, json!([&["tx=rollback", "tx=commit"][..], &minimal].concat()));
        assert!(get["responses"]["200"].get("headers").is_none(), "the endpoint has no dry run");
        assert_eq!(put["security"], json!([]));
        assert!(put["responses"]["204"].is_object() && put["responses"]["422"].is_object());
        let body = &put["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["required"], json!(["d"]));
        assert_eq!(body["additionalProperties"], false);
        assert_eq!(body["properties"]["t"]["type"], json!(["array", "null"]));
        assert_eq!(body["properties"]["t"]["items"]["required"], json!(["c"]));
    }

    #[test]
    fn statuses_below_400_are_not_problems_and_some_have_no_body() {
        let catalogue = catalogue(
            r#""a": {"route":"GET /a", KEYS, "result":"value", "status":{"return":{"1":303,"2":205,"3":304,"4":410}}}"#,
        );
        let responses = responses(&catalogue.endpoints()[0]);
        for (status, has_body) in [("200", true), ("303", true), ("205", false), ("304", false)] {
            let media_types = responses[status]["content"].as_object();
            let keys =
                media_types.map(|types| types.keys().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(keys, has_body.then(|| vec!["application/json"]), "{status}");
        }
        for status in ["404", "410", "default"] {
            assert_eq!(responses[status]["$ref"], "#/components/responses/Problem", "{status}");
        }
    }

    #[test]
    fn rules_that_a_schema_cannot_express_are_in_the_description() {
        let catalogue = catalogue(
            r#""a": {"route":"POST /a/{id}", KEYS, "parameters":{
                "id":{"in":"path","type":"string"},
                "doc":{"in":"query","type":"json","maxLength":9,"description":"A document"},
                "word":{"in":"body","type":"string","pattern":"^\\w+$"},
                "any":{"in":"body","type":"json","required":true},
                "price":{"in":"body","type":"decimal"}}}"#,
        );
        let endpoint = &catalogue.endpoints()[0];
        let operation = operation(endpoint, &endpoint.path);
        let id = &operation["parameters"][0]["schema"];
        assert_eq!(id["minLength"], 1);
        assert_eq!(id["pattern"], r"^(?!\.{1,2}$)[^\u0000-\u001F/\\\u007F-\u009F]+$");
        let doc = &operation["parameters"][1];
        assert!(doc.get("schema").is_none(), "the value is the text of JSON");
        let text = "A document. The text of the JSON has at most 9 characters.";
        assert_eq!(doc["content"]["application/json"]["schema"]["description"], text);
        let body = &operation["requestBody"]["content"]["application/json"]["schema"]["properties"];
        assert!(body["word"].get("pattern").is_none());
        let word = body["word"]["description"].as_str().unwrap();
        assert!(word.contains(r"`^\w+$`"), "{word}");
        assert_eq!(body["any"]["type"], json!(["object", "array", "string", "number", "boolean"]));
        assert_eq!(body["price"]["description"], "At most 38 digits.");
    }
}
