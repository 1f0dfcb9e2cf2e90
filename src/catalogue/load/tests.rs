//! Tests the loading of catalogues, with every kind of error.
//!
//! The file is longer than 400 lines, because the cases share the functions at its beginning.

use std::fmt::Write as _;
use std::time::Duration;

use super::fixture::defaults;
use super::*;
use crate::catalogue::{Auth, Execution, ParameterValue};

mod misspelt_keys;

/// Returns the formatted errors in a one-file catalogue.
fn errors(text: &str) -> Vec<String> {
    match parse(&[("a.json", text)], &defaults()) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// Checks that an endpoint has exactly one error, whose text contains `words`.
fn check(endpoint: &str, words: &str) {
    let found = errors(&format!("{{\"e\": {endpoint}}}"));
    assert_eq!(found.len(), 1, "{endpoint}\n{found:#?}");
    assert!(found[0].contains(words), "{endpoint}\n{}", found[0]);
    assert!(found[0].starts_with("a.json: endpoint \"e\": ") && !found[0].contains('\n'));
}

/// Returns an endpoint with the required keys and with `keys`.
fn with(keys: &str) -> String {
    format!(r#"{{"route":"POST /e","procedure":"a.b","auth":"public",{keys}}}"#)
}

/// Returns an endpoint with a body parameter `p` that has `keys`.
fn with_parameter(keys: &str) -> String {
    with(&format!(r#""parameters":{{"p":{{"in":"body",{keys}}}}}"#))
}

#[test]
fn examples_can_be_removed() {
    let text = format!(
        r#"{{"e": {}, "f": {}}}"#,
        with(r#""examples":{"one":{}}"#),
        with("\"result\":\"none\"").replace("/e", "/f")
    );
    let mut catalogue = parse(&[("a.json", &text)], &defaults()).unwrap();
    let id = catalogue.endpoints()[0].id.clone();
    assert_eq!(catalogue.get(&id).unwrap().examples.len(), 1);
    catalogue.remove_examples();
    assert!(catalogue.endpoints()[0].examples.is_empty());
    for endpoint in catalogue.endpoints() {
        assert!(Arc::ptr_eq(endpoint, catalogue.get(&endpoint.id).unwrap()));
    }
}

#[test]
fn errors_in_cors_name_their_keys() {
    let cors = |keys: &str| with(&format!(r#""cors": {{{keys}}}"#));
    check(&cors(""), "cors.origins: missing: expected the origins");
    check(
        &cors(r#""origins":["*"],"credentials":true"#),
        "cors.credentials: expected a list of origins",
    );
    check(&cors(r#""origins":["https://a.example/"]"#), "cors.origins: \"https://a.example/\"");
    check(&cors(r#""origins":[],"max_age":"10""#), "cors.max_age: expected a whole number");
    check(&cors(r#""origins":[],"methods":["GET"]"#), "cors.methods: is not a key");
    check(&cors(r#""origin":[]"#), "cors.origin: is not a key: did you mean origins?");
}

#[test]
fn errors_in_headers_name_the_header() {
    check(
        &with(r#""headers":{"Location":"a b"}"#),
        "headers.Location: expected the name of an OUTPUT",
    );
    check(
        &with(r#""headers":{"Set-Cookie":"a"}"#),
        "headers.Set-Cookie: is not a key: expected one of `Location`, `Link`",
    );
    check(
        &with(r#""headers":{"location":"a"}"#),
        "headers.location: is not a key: did you mean Location?",
    );
    check(&with(r#""headers":{"Location":"a","Location":"b"}"#), "duplicate field `Location`");
}

#[test]
fn errors_in_produces_give_the_reason() {
    let produces =
        |result: &str, list: &str| with(&format!(r#""result":"{result}","produces":{list}"#));
    check(
        &produces("row", r#""text/csv""#),
        "produces: \"text/csv\": expected only application/json, because",
    );
    check(
        &produces("rows", r#"["application/json","text/html"]"#),
        "expected application/json, text/csv or application/x-ndjson",
    );
    check(&produces("rows", r#"["text/csv","Text/CSV"]"#), "\"Text/CSV\" is given more than once");
    check(&produces("rows", "[]"), "produces: expected at least one media type");
    check(
        &produces("rows", "7"),
        "produces: invalid type: integer `7`, expected a media type or a list",
    );
    check(&produces("value", r#""image/*""#), "expected a media type without wildcards");
    check(&produces("value", r#""multipart/mixed""#), "expected another media type");
    check(
        &produces("value", r#"["image/png","image/gif"]"#),
        "expected at most one media type besides",
    );
    let outputs = with(r#""result":"value","produces":"image/png","outputs":["a"]"#);
    check(&outputs, "outputs: expected none, because a value that is sent unchanged");
}

#[test]
fn errors_in_cache_give_the_reason() {
    let get = |keys: &str| with(keys).replace("POST", "GET");
    check(&with(r#""cache":{"etag":true}"#), "cache: expected only with GET and HEAD, because");
    check(&get(r#""cache":{"etags":true}"#), "cache.etags: is not a key: did you mean etag?");
    let both = get(r#""cache":{"etag":true},"cache_control":"No-Store""#);
    check(&both, "cache_control: expected no `no-store` together with `cache.etag`, because");
    check(&get(r#""cache":{"ttl":"0s"}"#), "cache.ttl: expected a whole number");
    check(
        &get(r#""cache":{"shared":true}"#),
        "cache.shared: expected only together with `coalesce` or `ttl`",
    );
    let once = get(r#""cache":{"ttl":"5s"},"execution":"at-most-once""#);
    check(&once, "cache.ttl: expected only with the execution at-least-once, because");
    let id = get(r#""cache":{"coalesce":true},"parameters":{"request_id":{"in":"context"}}"#);
    check(
        &id,
        "parameters.request_id: expected no such parameter, because every request has a different id",
    );
    let own = get(
        r#""cache":{"coalesce":true,"shared":true},"parameters":{"principal":{"in":"context"}}"#,
    );
    check(&own, "parameters.principal: expected no such parameter together with `cache.shared`");
    check(
        &get(r#""cache":{"coalesce":true}"#).replace("GET", "HEAD"),
        "cache.coalesce: expected only with GET, because",
    );
}

#[test]
fn clients_may_store_an_answer_with_an_etag() {
    let control = |auth: &str, keys: &str| {
        let text = format!(r#"{{"e":{{"route":"GET /e","procedure":"a.b","auth":{auth}{keys}}}}}"#);
        let catalogue = parse(&[("a.json", &text)], &defaults()).unwrap();
        catalogue.endpoints()[0].cache_control.clone()
    };
    let etag = r#","cache":{"etag":true}"#;
    assert_eq!(control("\"public\"", ""), None);
    assert_eq!(control("\"public\"", etag).as_deref(), Some("no-cache"));
    assert_eq!(control("{}", etag).as_deref(), Some("private, no-cache"));
}

#[test]
fn the_example_in_the_documentation_loads() {
    let text = r#"{ "horse-get": {
        "route": "GET /v1/horses/{ueln}",
        "summary": "One horse by its Universal Equine Life Number",
        "procedure": "registry.horse_get",
        "parameters": {
          "ueln":   { "in": "path",  "type": "string", "pattern": "^[A-Z0-9]{15}$" },
          "detail": { "in": "query", "type": "string", "enum": ["summary", "full"], "default": "summary" } },
        "result": "row", "auth": {"scopes": ["horses:read"]},
        "timeout": "2s" } }"#;
    let catalogue = parse(&[("a.json", text)], &defaults()).unwrap();
    let horse = catalogue.get(&EndpointId::new("horse-get").unwrap()).unwrap();
    assert_eq!(horse.queues.first().name.as_str(), "horse-get");
    assert_eq!(&*horse.handler, "procedure");
    assert_eq!(horse.timeout, Duration::from_secs(2));
    assert_eq!(horse.session, Duration::from_secs(2));
    assert_eq!(horse.attempts, 3);
    assert_eq!(horse.execution, Execution::AtLeastOnce);
    assert!(horse.parameters[0].required);
    assert_eq!(horse.parameters[1].default, Some(ParameterValue::Text("summary".into())));
    let Auth::Required { methods, scopes, .. } = &horse.auth else { panic!("not public") };
    assert_eq!((methods.len(), scopes.len()), (3, 1));
}

#[test]
fn all_errors_are_reported_at_once() {
    let text = r#"{
        "one": {"route": "FETCH /x", "procedure": 7, "unknown": 1, "result": "rowz", "auth": "public",
                "parameters": {"a": {"in": "qury", "type": "string"}, "b": {"in": "query", "type": "strin", "x": 1},
                               "t": {"in": "body", "type": "table", "columns": {"c": {"type": "foo"}}}}},
        "two": {"route": "POST /b/{id}", "procedure": "a.b", "timeout": "2", "attempts": 0},
        "bad id!": {"route": "GET /c", "procedure": "a.b", "auth": "public"}
    }"#;
    let found = errors(text);
    for words in [
        "endpoint \"one\": route: ",
        "one\": procedure: invalid type",
        "one\": unknown: is not a key",
        "one\": result: \"rowz\": did you mean row?",
        "parameters.a.in: \"qury\": did you mean query?",
        "parameters.b.type: \"strin\": did you mean string?",
        "parameters.b.x: is not a key",
        "parameters.t.columns.c.type: \"foo\": expected one of",
        "two\": route: {id} is not among",
        "two\": timeout: ",
        "two\": attempts: ",
        "two\": auth: missing",
        "\"bad id!\": id: expected",
    ] {
        assert!(found.iter().any(|line| line.contains(words)), "{words}\n{found:#?}");
    }
}

#[test]
fn a_catalogue_may_name_its_schema() {
    let endpoint = with("");
    let endpoint = endpoint.replace(",}", "}");
    let text = format!(r#"{{"$schema": "../catalogue.schema.json", "e": {endpoint}}}"#);
    assert_eq!(parse(&[("a.json", &text)], &defaults()).unwrap().endpoints().len(), 1);
    let found = errors(r#"{"$schema": {}}"#);
    assert!(found.len() == 1 && found[0].contains("JSON Schema as a string"), "{found:#?}");
}

#[test]
fn a_byte_order_mark_is_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let text = "\u{feff}{\"e\": {\"route\":\"GET /e\",\"procedure\":\"a.b\",\"auth\":\"public\"}}";
    fs::write(directory.path().join("a.json"), text).unwrap();
    assert_eq!(load(directory.path(), &defaults()).unwrap().endpoints().len(), 1);
}

#[test]
fn a_file_that_is_not_a_catalogue_is_an_error() {
    let check = |text: &str, words: &str| {
        let found = errors(text);
        assert!(found.len() == 1 && found[0].contains(words), "{text}\n{found:#?}");
    };
    check("", "line 1 column 0");
    check("[]", "expected a JSON object of endpoints");
    check("{\"a\": }", "line 1 column 7");
    check("{\"a\": {\"route\": \"GET /x\"}} trailing", "trailing characters");
    check(r#"{"e": []}"#, "endpoint \"e\": invalid type");
}

#[test]
fn ids_and_routes_are_unique_across_files() {
    let one = r#"{"e": {"route":"GET /e/{a}","procedure":"a.b","auth":"public",
                        "parameters":{"a":{"in":"path","type":"string"}}}}"#;
    let found = parse(&[("a.json", one), ("b.json", one)], &defaults()).unwrap_err();
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(
        lines[0].starts_with("b.json: endpoint \"e\": this id is used by an endpoint in a.json")
    );
    assert!(
        lines[1].contains("route: overlaps with GET /e/{a} of endpoint \"e\" (a.json)"),
        "{lines:#?}"
    );
    let twice = r#"{"e": {"route":"GET /e","procedure":"a.b","auth":"public"}, "e": {"route":"GET /f","procedure":"a.b","auth":"public"}}"#;
    assert!(errors(twice)[0].contains("this id is used"));
}

#[test]
fn a_missing_key_is_reported_for_each_file_with_the_endpoint() {
    let files = [("a.json", r#"{"e": {"route": 5}}"#), ("b.json", r#"{"e": {}}"#)];
    let found = parse(&files, &defaults()).unwrap_err();
    let routes = found.iter().filter(|error| error.key == "route");
    let files: Vec<_> = routes.map(|error| error.file.as_str()).collect();
    assert_eq!(files, ["a.json", "b.json"], "{found:?}");
}

#[test]
fn endpoint_keys_are_validated() {
    check(r#"{"route":"POST /e","auth":"public"}"#, "procedure: missing");
    check(&with(r#""route":"GET /f""#), "route: given more than once");
    check(r#"{"route":"GET /docs","procedure":"a.b","auth":"public"}"#, "route: ");
    check(
        r#"{"route":"POST /e","procedure":"b","auth":"public"}"#,
        "procedure: expected schema.procedure",
    );
    check(r#"{"route":"POST /e","procedure":"a.b; DROP","auth":"public"}"#, "procedure: ");
    check(r#"{"route":"POST /e","procedure":"a.b"}"#, "auth: missing");
    check(r#"{"route":"POST /e","procedure":"a.b","auth":"none"}"#, "auth: ");
    check(r#"{"route":"POST /e","procedure":"a.b","auth":{"methods":[]}}"#, "auth.methods: ");
    check(
        r#"{"route":"POST /e","procedure":"a.b","auth":{"methods":["password"]}}"#,
        "auth: \"password\": expected one of",
    );
    check(r#"{"route":"POST /e","procedure":"a.b","auth":{"scopes":["a b"]}}"#, "auth.scopes: ");
    check(&with(r#""queue":"a.b""#), "queue: ");
    check(&with(r#""handler":"""#), "handler: ");
    check(&with(r#""transaction":"yes""#), "transaction: invalid type");
    check(
        r#"{"route":"POST /e","handler":"echo","auth":"public","transaction":true}"#,
        "transaction: expected only with the handler `procedure`",
    );
    check(&with(r#""dry_run":true"#), "dry_run: expected only together with \"transaction\": true");
    check(
        r#"{"route":"GET /e","procedure":"a.b","auth":"public","transaction":true,"dry_run":true}"#,
        "dry_run: expected only with POST, PUT, PATCH and DELETE",
    );
    check(
        &with(
            r#""transaction":true,"dry_run":true,"parameters":{"prefer":{"in":"header","type":"string"}}"#,
        ),
        "parameters.prefer: expected another header",
    );
    check(&with(r#""timeout":"2""#), "timeout: ");
    check(&with(r#""timeout":"0s""#), "timeout: ");
    check(&with(r#""session":"1s""#), "session: expected at least");
    check(&with(r#""attempts":21"#), "attempts: ");
    check(&with(r#""max_body":"1MB""#), "max_body: ");
    check(&with(r#""max_body":-1"#), "max_body: ");
    let share = "max_body: expected at most half of gateway.http.buffered_bytes_per_client_max (1048576 bytes)";
    check(&with(r#""max_body":"1025KiB""#), share);
    check(&with(r#""rate_limit":{"requests":0,"window":"1m"}"#), "rate_limit.requests: ");
    check(&with(r#""max_in_flight":0"#), "max_in_flight: expected 1 to ");
    check(&with(r#""max_in_flight":"2""#), "max_in_flight: invalid type");
    check(&with(r#""rate_limit":[1,"1m"]"#), "rate_limit: invalid type");
    check(&with(r#""rate_limit":{"requests":1}"#), "rate_limit: missing field `window`");
    check(&with(r#""rate_limit":{"requests":1,"window":"1"}"#), "rate_limit.window: ");
    check(&with(r#""cache_control":"max-age=1""#), "cache_control: expected only with GET");
    check(&with(r#""outputs":["a"]"#), "outputs: expected only with");
    check(&with(r#""result":"row","outputs":["a","@A"]"#), "outputs: \"A\" is given more");
    check(&with(r#""result":"row","outputs":["a b"]"#), "outputs: ");
    check(&with(r#""status":{"return":{"1":199}}"#), "status.return.1: ");
    check(&with(r#""status":{"return":{"x":404}}"#), "status.return.x: ");
    check(&with(r#""status":{"error":{"50001":200}}"#), "status.error.50001: ");
    check(&with(r#""status":{"error":{"50001":503}}"#), "status.error.50001: ");
    check(&with(r#""status":{"error":{"1":404,"1":409}}"#), "status: `1` is given more than once");
}

#[test]
fn a_procedure_is_called_in_a_transaction_only_if_the_catalogue_requires_it() {
    let cases = [
        ("", (false, false)),
        (r#","transaction":false"#, (false, false)),
        (r#","transaction":true"#, (true, false)),
        (r#","transaction":true,"dry_run":true"#, (true, true)),
    ];
    for (key, expected) in cases {
        let endpoint = with(&format!(r#""tags":[]{key}"#));
        let text = format!("{{\"e\": {endpoint}}}");
        let catalogue = parse(&[("a.json", &text)], &defaults()).unwrap();
        let endpoint = &catalogue.endpoints()[0];
        assert_eq!((endpoint.transaction, endpoint.dry_run), expected, "{key}");
    }
}

#[test]
fn parameters_are_validated() {
    check(&with(r#""parameters":{"p":{"in":"query"}}"#), "parameters.p.type: missing");
    check(&with(r#""parameters":{"p":["query","string"]}"#), "parameters.p: invalid type");
    check(&with(r#""parameters":[]"#), "parameters: invalid type");
    check(&with(r#""parameters":{"p":{"type":"string"}}"#), "parameters.p.in: missing");
    check(
        &with(r#""parameters":{"p":{"in":"path","type":"string"}}"#),
        "parameters.p.in: the route has no {p}",
    );
    check(
        &with(
            r#""parameters":{"p":{"in":"query","type":"string"},"p":{"in":"query","type":"string"}}"#,
        ),
        "parameters.p: given more than once",
    );
    check(
        &with(
            r#""parameters":{"p":{"in":"query","type":"string"},"q":{"in":"query","type":"string","as":"P"}}"#,
        ),
        "parameters.q.as: the same argument",
    );
    check(
        &with(
            r#""parameters":{"X-A":{"in":"header","type":"string","as":"a"},"x-a":{"in":"header","type":"string","as":"b"}}"#,
        ),
        "parameters.x-a: another",
    );
    check(
        &with(r#""parameters":{"Authorization":{"in":"header","type":"string"}}"#),
        "cannot be a parameter",
    );
    check(&with(r#""parameters":{"X-A":{"in":"header","type":"string"}}"#), "parameters.X-A.as: ");
    check(&with(r#""parameters":{"host":{"in":"context"}}"#), "expected one of request_id");
    check(
        &with(
            r#""parameters":{"p":{"in":"query","type":"table","columns":{"a":{"type":"string"}}}}"#,
        ),
        "expected a table only with `in: body`",
    );
    check(
        r#"{"route":"GET /e","procedure":"a.b","auth":"public","parameters":{"p":{"in":"body","type":"string"}}}"#,
        "no body parameter",
    );
    check(
        r#"{"route":"GET /{p}/{p}","procedure":"a.b","auth":"public","parameters":{"p":{"in":"path","type":"string"}}}"#,
        "{p} is given more than once",
    );
    check(
        r#"{"route":"GET /{p}","procedure":"a.b","auth":"public","parameters":{"p":{"in":"path","type":"string","required":false}}}"#,
        "always required",
    );
}

#[test]
fn constraints_must_apply_to_their_type() {
    check(
        &with_parameter(r#""type":"string","minimum":1"#),
        "parameters.p.minimum: expected only with",
    );
    check(&with_parameter(r#""type":"int32","pattern":"a""#), "parameters.p.pattern: ");
    check(&with_parameter(r#""type":"int32","maxLength":1"#), "parameters.p.maxLength: ");
    check(&with_parameter(r#""type":"string","maxItems":1"#), "parameters.p.maxItems: ");
    check(
        &with_parameter(r#""type":"string","pattern":"(""#),
        "parameters.p.pattern: expected a regular expression",
    );
    check(&with_parameter(r#""type":"int32","minimum":3,"maximum":2"#), "parameters.p.minimum: ");
    check(
        &with_parameter(r#""type":"string","minLength":3,"maxLength":2"#),
        "parameters.p.minLength: ",
    );
    check(&with_parameter(r#""type":"string","minLength":-3"#), "parameters.p.minLength: ");
    check(&with_parameter(r#""type":"int32","minimum":0.5"#), "parameters.p.minimum: ");
    check(&with_parameter(r#""type":"int32","maximum":3000000000"#), "parameters.p.maximum: ");
    check(&with_parameter(r#""type":"decimal","minimum":"1""#), "parameters.p.minimum: ");
    check(
        &with_parameter(r#""type":"int32","default":"1""#),
        "parameters.p.default: \"1\": expected a whole",
    );
    check(
        &with_parameter(r#""type":"int32","maximum":5,"default":6"#),
        "parameters.p.default: 6: expected at most 5",
    );
    check(
        &with_parameter(r#""type":"int32","required":true,"default":6"#),
        "parameters.p.default: expected none",
    );
    check(
        &with_parameter(r#""type":"string","enum":["a"],"default":"b""#),
        "parameters.p.default: \"b\": expected one of a",
    );
    check(
        &with_parameter(r#""type":"string","enum":[]"#),
        "parameters.p.enum: expected at least one",
    );
    check(
        &with_parameter(r#""type":"string","enum":["a","a"]"#),
        "parameters.p.enum: \"a\" is given",
    );
    check(
        &with_parameter(r#""type":"string","enum":["a",1]"#),
        "parameters.p.enum: 1: expected text",
    );
    check(&with_parameter(r#""type":"boolean","enum":[true]"#), "parameters.p.enum: ");
    check(&with_parameter(r#""type":"date","default":"2023-02-29""#), "parameters.p.default: ");
}

#[test]
fn values_of_the_session_context_are_validated() {
    let session = |rest: &str| {
        format!(
            r#"{{"route":"POST /a","procedure":"a.b","auth":"public","parameters":{{
            "p":{{"type":"string","in":"claim","sessionContext":true}},{rest}}}}}"#
        )
    };
    let other = |rest: &str| session(&format!(r#""q":{{"type":"string",{rest}}}"#));
    check(
        &other(r#""in":"query","sessionContext":true"#),
        "parameters.q.sessionContext: expected only",
    );
    for reserved in ["request_id", "Principal"] {
        let text = format!(r#""in":"claim","sessionContext":true,"as":"{reserved}""#);
        check(&other(&text), "parameters.q.as: expected another name");
    }
    // SQL Server's limit for a key is 128 bytes of UTF-16.
    let named = |name: &str| format!(r#""in":"claim","sessionContext":true,"as":"{name}""#);
    check(&other(&named(&"ü".repeat(65))), "parameters.q.as: expected at most 64 characters");
    let longest = format!("{{\"e\": {}}}", other(&named(&"ü".repeat(64))));
    assert!(errors(&longest).is_empty());
    check(
        &session(r#""q":{"type":"binary","in":"claim","sessionContext":true}"#),
        "parameters.q.type: expected a type other",
    );
    let many: Vec<String> = (0..64)
        .map(|n| format!(r#""q{n}":{{"type":"string","in":"claim","sessionContext":true}}"#))
        .collect();
    check(&session(&many.join(",")), "parameters: expected at most 64");
    check(
        &session(
            r#""q":{"type":"table","in":"body","columns":{"c":{"type":"string","sessionContext":true}}}"#,
        ),
        "parameters.q.columns.c.sessionContext: expected none",
    );
}

#[test]
fn tables_are_validated() {
    check(&with_parameter(r#""type":"table""#), "parameters.p.columns: missing");
    check(&with_parameter(r#""type":"table","columns":{}"#), "parameters.p.columns: missing");
    check(
        &with_parameter(r#""type":"string","columns":{"a":{"type":"string"}}"#),
        "parameters.p.columns: expected only",
    );
    check(&with_parameter(r#""type":"string","tableType":"a.b""#), "parameters.p.tableType: ");
    check(
        &with_parameter(r#""type":"table","tableType":"a","columns":{"a":{"type":"string"}}"#),
        "parameters.p.tableType: ",
    );
    check(
        &with_parameter(r#""type":"table","columns":{"a":{"type":"string","in":"body"}}"#),
        "parameters.p.columns.a.in: ",
    );
    check(
        &with_parameter(
            r#""type":"table","columns":{"a":{"type":"table","columns":{"b":{"type":"string"}}}}"#,
        ),
        "expected a table only with `in: body`",
    );
    check(
        &with_parameter(
            r#""type":"table","columns":{"a":{"type":"string"},"b":{"type":"string","as":"A"}}"#,
        ),
        "parameters.p.columns.b.as: ",
    );
}

#[test]
fn loading_is_not_quadratic() {
    let mut text = String::from("{");
    for n in 0..10_000 {
        let comma = if n > 0 { "," } else { "" };
        let keys =
            r#""procedure":"a.b","auth":"public","parameters":{"id":{"in":"path","type":"int64"}}"#;
        write!(text, r#"{comma}"e{n}":{{"route":"GET /v1/things-{n}/{{id}}",{keys}}}"#).unwrap();
    }
    text.push('}');
    let start = std::time::Instant::now();
    assert_eq!(parse(&[("a.json", &text)], &defaults()).unwrap().endpoints().len(), 10_000);
    // If every endpoint were compared with every other one, this would take far longer.
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn files_are_read_in_the_order_of_their_names() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint =
        |route: &str| format!(r#"{{"route":"{route}","procedure":"a.b","auth":"public"}}"#);
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    assert!(
        load(directory.path(), &defaults()).unwrap_err()[0]
            .expected
            .contains("at least one *.json file")
    );
    write("b.json", &format!("{{\"second\": {}}}", endpoint("GET /b")));
    write("a.json", &format!("{{\"first\": {}}}", endpoint("GET /a")));
    write("notes.txt", "not read");
    write(".hidden.json", "not read");
    let catalogue = load(directory.path(), &defaults()).unwrap();
    let ids: Vec<&str> = catalogue.endpoints().iter().map(|e| e.id.as_str()).collect();
    assert_eq!(ids, ["first", "second"]);
    fs::write(directory.path().join("c.json"), b"{\"\xff\": 1}").unwrap();
    assert!(
        load(directory.path(), &defaults()).unwrap_err()[0]
            .to_string()
            .ends_with("c.json: expected UTF-8")
    );
    assert!(load(Path::new("/nowhere"), &defaults()).is_err());
}
