//! Tests with valid requests, and with requests that violate each kind of rule.
//!
//! The file is longer than 400 lines, because the cases share the functions at its beginning.

use std::net::Ipv4Addr;

use http::{Method, Request, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::catalogue::ParameterValue;
use crate::catalogue::load::fixture::catalogue;
use crate::roles::gateway::admission::router::RouteLookup;
use crate::roles::gateway::admission::router::Router;

const ENDPOINTS: &str = r#"
    "get": {"route":"GET /e/{id}", KEYS, "parameters":{
        "id": {"in":"path","type":"int32","minimum":1},
        "page": {"in":"query","type":"int32","minimum":1,"maximum":100,"default":1},
        "name": {"in":"query","type":"string","minLength":2,"pattern":"^[a-z ü]*$"},
        "kind": {"in":"query","type":"string","enum":["a","b"]},
        "at": {"in":"query","type":"datetime"}, "bytes": {"in":"query","type":"binary"},
        "ratio": {"in":"query","type":"number"}, "filter": {"in":"query","type":"json"},
        "X-Trace": {"in":"header","type":"uuid","as":"trace"}}},
    "post": {"route":"POST /e", KEYS, "parameters":{
        "s": {"in":"body","type":"string","required":true,"maxLength":5},
        "i": {"in":"body","type":"int64"}, "n": {"in":"body","type":"number"},
        "d": {"in":"body","type":"decimal","minimum":-0.01,"maximum":99999999999999999.99},
        "b": {"in":"body","type":"boolean"}, "u": {"in":"body","type":"uuid"},
        "day": {"in":"body","type":"date"}, "at": {"in":"body","type":"datetime"},
        "bin": {"in":"body","type":"binary","maxLength":3}, "j": {"in":"body","type":"json","maxItems":2},
        "rows": {"in":"body","type":"table","maxItems":4,"columns":{
            "ueln":{"type":"string","required":true}, "w":{"type":"decimal","default":1.50}, "x":{"type":"json"}}}}},
    "claims": {"route":"GET /claims", KEYS, "parameters":{
        "org": {"in":"claim","type":"int32","required":true}, "tags": {"in":"claim","type":"json"}, "office.town": {"in":"claim","type":"string","as":"town"},
        "request_id": {"in":"context"}, "client_ip": {"in":"context"}, "idempotency_key": {"in":"context"}}}"#;

struct TestRequest<'a> {
    request: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: &'a [u8],
    claims: &'a str,
}

/// Routes and checks a request.
fn send(sent: &TestRequest<'_>) -> Result<String, Problem> {
    let router = Router::new(&catalogue(ENDPOINTS)).unwrap();
    send_to(&router, sent)
}

fn send_to(router: &Router, sent: &TestRequest<'_>) -> Result<String, Problem> {
    let (method, uri) = sent.request.split_once(' ').unwrap();
    let mut builder = Request::builder().method(method.parse::<Method>().unwrap()).uri(uri);
    for (name, value) in sent.headers {
        builder = builder.header(*name, *value);
    }
    let (parts, ()) = builder.body(()).unwrap().into_parts();
    let matched = match router.find(&parts.method, parts.uri.path()) {
        RouteLookup::Matched(matched) => matched,
        RouteLookup::Malformed(problem) => return Err(problem),
        other => panic!("{other:?}"),
    };
    let caller = Caller { claims: serde_json::from_str(sent.claims).unwrap(), ..Caller::default() };
    let context = ContextValues {
        request_id: "r-1",
        idempotency_key: None,
        principal: None,
        client_ip: Ipv4Addr::LOCALHOST.into(),
    };
    let body = Bytes::copy_from_slice(sent.body);
    let payload = check(&matched, &parts, &body, &caller, &context)?;
    // A worker must be able to read every payload that a gateway writes.
    let read = payload::read(&matched.endpoint, &payload);
    assert!(read.is_ok(), "{read:?}\n{payload:?}");
    Ok(String::from_utf8(payload.to_vec()).unwrap())
}

/// Returns the payload of a request, its violations as `place:name` or `place:pointer`, or the
/// status of a rejection without violations.
fn outcome(sent: Result<String, Problem>) -> String {
    match sent {
        Ok(payload) => payload,
        Err(problem) if problem.violations.is_empty() => problem.kind.status().as_str().to_owned(),
        Err(problem) => {
            assert_eq!(problem.kind.status(), StatusCode::BAD_REQUEST);
            let place = |violation: crate::problem::Violation| {
                let name = violation.parameter.or(violation.pointer).unwrap_or_default();
                format!("{}:{name}", violation.location)
            };
            problem.violations.into_iter().map(place).collect::<Vec<_>>().join(" ")
        }
    }
}

fn get(uri: &str, headers: &[(&str, &str)]) -> String {
    let request = format!("GET {uri}");
    outcome(send(&TestRequest { request: &request, headers, body: b"", claims: "{}" }))
}

fn post(body: impl AsRef<[u8]>) -> String {
    let headers = [("content-type", "application/json")];
    outcome(send(&TestRequest {
        request: "POST /e",
        headers: &headers,
        body: body.as_ref(),
        claims: "{}",
    }))
}

/// Returns the outcome for a body with `s` and the members in `text`. `s` is removed from the
/// payload.
fn member(text: &str) -> String {
    let outcome = post(format!(r#"{{"s":"x",{text}}}"#));
    outcome.replace(r#"{"s":"x","#, "{")
}

#[test]
fn path_query_and_headers_become_the_payload() {
    let uuid = "6F9619FF-8B86-D011-B42D-00CF4FC964FF";
    let check = |uri: &str, headers: &[(&str, &str)], expected: &str| {
        assert_eq!(get(uri, headers), expected, "{uri}");
    };
    check("/e/7", &[], r#"{"id":7,"page":1}"#);
    check("/e/7?", &[], r#"{"id":7,"page":1}"#);
    check(
        "/e/7?page=2&name=a+b%20%C3%BC&&kind=b",
        &[],
        r#"{"id":7,"page":2,"name":"a b ü","kind":"b"}"#,
    );
    check("/e/7?p%61ge=3", &[], r#"{"id":7,"page":3}"#);
    check(
        "/e/7",
        &[("x-trace", uuid)],
        &format!(r#"{{"id":7,"page":1,"X-Trace":"{}"}}"#, uuid.to_lowercase()),
    );
}

#[test]
fn all_violations_of_a_request_are_reported_at_once() {
    let check = |uri: &str, headers: &[(&str, &str)], expected: &str| {
        assert_eq!(get(uri, headers), expected, "{uri}");
    };
    check(
        "/e/0?page=101&name=A&kind=c&other=1&page=2",
        &[("X-Trace", "no")],
        "path:id query:page query:name query:name query:kind query:other query:page header:X-Trace",
    );
    check("/e/x", &[], "path:id");
    check("/e/2147483648", &[], "path:id");
    check("/e/+1", &[], "path:id");
    check("/e/1.5", &[], "path:id");
    check("/e/7?page", &[], "query:page");
    check("/e/7?page=%3", &[], "query:page");
    check("/e/7?name=%00a", &[], "query:name");
    check("/e/7?name=%FFa", &[], "query:name");
    check("/e/7?%FF=1", &[], "query:%FF");
    check("/e/7?id=7", &[], "query:id");
    check("/e/7", &[("x-trace", "a"), ("x-trace", "b")], "header:X-Trace");
    let sent = TestRequest { request: "GET /e/7", headers: &[], body: b"{}", claims: "{}" };
    assert_eq!(outcome(send(&sent)), "body:");
}

/// Returns the details of the violations of a request.
fn details(uri: &str) -> Vec<String> {
    let request = format!("GET {uri}");
    let sent = TestRequest { request: &request, headers: &[], body: b"", claims: "{}" };
    let problem = send(&sent).unwrap_err();
    problem.violations.into_iter().map(|violation| violation.detail).collect()
}

#[test]
fn an_empty_value_is_refused_if_the_type_has_no_empty_value() {
    let check = |uri: &str, expected: &str| assert_eq!(get(uri, &[]), expected, "{uri}");
    check("/e/7?at=&ratio=&filter=&page=", "query:at query:ratio query:filter query:page");
    check("/e/7?bytes=", r#"{"id":7,"page":1,"bytes":""}"#);
    check("/e/7?kind=", "query:kind");
    assert_eq!(get("/e/7", &[("x-trace", "")]), "header:X-Trace");
    for query in ["ratio=", "ratio"] {
        assert_eq!(
            details(&format!("/e/7?{query}")),
            ["expected a number, not an empty value; leave the parameter out for NULL"]
        );
    }
    let default = details("/e/7?page=");
    assert!(default[0].ends_with("; leave the parameter out for its default"), "{default:?}");
    let router = Router::new(&catalogue(
        r#""on": {"route":"GET /on", KEYS, "parameters":{
            "flag": {"in":"query","type":"boolean","required":true},
            "empty": {"in":"query","type":"string"}}}"#,
    ));
    let router = router.unwrap();
    let send =
        |request| send_to(&router, &TestRequest { request, headers: &[], body: b"", claims: "{}" });
    let problem = send("GET /on?flag=").unwrap_err();
    assert_eq!(problem.violations[0].detail, "expected true or false, not an empty value");
    assert_eq!(send("GET /on?flag=true&empty=").unwrap(), r#"{"flag":true,"empty":""}"#);
}

#[test]
fn a_violation_names_the_likely_mistake() {
    for (value, expected) in [
        ("05", "expected a whole number without leading zeros"),
        ("-007", "expected a whole number without leading zeros"),
        ("%2B5", "expected a whole number without a plus sign"),
        ("+5", "expected a whole number without a plus sign or a space"),
        ("5.5", "expected a whole number without a fraction"),
        ("5e-1", "expected a whole number without a fraction"),
        ("5e30", "expected a whole number from -2147483648 to 2147483647"),
        ("5%20", "expected a whole number without spaces"),
        ("1,000", "expected a whole number without a comma"),
        ("five", "expected a whole number from -2147483648 to 2147483647"),
        ("2147483648", "expected a whole number from -2147483648 to 2147483647"),
    ] {
        assert_eq!(details(&format!("/e/7?page={value}")), [expected], "{value}");
    }
    assert_eq!(details("/e/7?ratio=00.5"), ["expected a number without leading zeros"]);
    assert_eq!(details("/e/7?ratio=x"), ["expected a number"]);
}

#[test]
fn a_plus_sign_that_was_not_encoded_is_named() {
    let hint = "a + in a query means a space: write %2B";
    for query in ["at=2024-02-29T12:00:00+02:00", "bytes=+/8=", "ratio=1e+3"] {
        let found = details(&format!("/e/7?{query}"));
        assert!(found.len() == 1 && found[0].ends_with(hint), "{query}: {found:?}");
    }
    for query in ["at=2024-02-29+12:00:00Z", "at=noon", "bytes=%20", "ratio=1+3"] {
        let found = details(&format!("/e/7?{query}"));
        assert!(found.len() == 1 && !found[0].contains("%2B"), "{query}: {found:?}");
    }
}

#[test]
fn a_member_that_occurs_twice_in_the_json_of_a_query_is_named() {
    assert_eq!(details("/e/7?filter=%7B%22a%22:1,%22a%22:2%7D"), ["/a: given more than once"]);
    assert_eq!(details("/e/7?filter=1&filter=2"), ["given more than once"]);
}

#[test]
fn bodies_are_exact() {
    let same = |text: &str| assert_eq!(member(text), format!("{{{text}}}"));
    same(r#""i":9223372036854775807"#);
    same(r#""i":-9223372036854775808"#);
    same(r#""i":null"#);
    same(r#""n":1.5"#);
    same(r#""d":12345678901234567.89"#);
    same(r#""d":-0.010"#);
    same(
        r#""b":true,"u":"6f9619ff-8b86-d011-b42d-00cf4fc964ff","day":"2024-02-29","at":"2024-02-29T12:00:00+01:00""#,
    );
    same(r#""bin":"AAEC""#);
    same(r#""j":{"a":[1.00,{"b":null}],"c":"\u00fc"}"#);
    same(r#""rows":[]"#);
    let check = |text: &str, expected: &str| assert_eq!(member(text), expected, "{text}");
    check(r#""n":1e2"#, r#"{"n":100.0}"#);
    check(r#""d":1e2"#, r#"{"d":100}"#);
    check(
        r#""rows":[{"ueln":"a"},{"w":2,"ueln":"b","x":[1]}]"#,
        r#"{"rows":[{"ueln":"a","w":1.50,"x":null},{"ueln":"b","w":2,"x":[1]}]}"#,
    );
    assert_eq!(post("{\"s\" : \"\\u00fc\\n\\ud83d\\ude00\" }\n"), "{\"s\":\"ü\\n😀\"}");
}

#[test]
fn a_violation_has_a_pointer() {
    let check = |text: &str, expected: &str| assert_eq!(member(text), expected, "{text}");
    check(r#""i":1.5"#, "body:/i");
    check(r#""i":1e30"#, "body:/i");
    check(r#""i":9223372036854775808"#, "body:/i");
    check(r#""i":"1""#, "body:/i");
    check(r#""n":1e400"#, "body:/n");
    check(r#""n":"NaN""#, "body:/n");
    check(r#""d":-0.0100000000000000000000000000000001"#, "body:/d");
    check(r#""d":99999999999999999.991"#, "body:/d");
    check(r#""d":123456789012345678901234567890123456789"#, "body:/d");
    check(r#""b":"true""#, "body:/b");
    check(r#""b":1"#, "body:/b");
    check(r#""u":"x","day":"2023-02-29","at":"2024-02-29""#, "body:/u body:/day body:/at");
    check(r#""bin":"AAECAw==""#, "body:/bin");
    check(r#""bin":"A""#, "body:/bin");
    check(r#""a/b~":1"#, "body:/a~1b~0");
    check(r#""s":"y""#, "body:/s");
    check(r#""\u0073":"y""#, "body:/s");
    check(r#""j":{"a":1,"b":[{"c":1,"\u0063":2}]}"#, "body:/j/b/0/c");
    check(r#""j":[1,2,3]"#, "body:/j");
    check(r#""j":["\ud800"]"#, "body:/j");
    check(r#""j":["\u0000"]"#, "body:/j/0");
    check(r#""j":{"\u0000":1}"#, "body:/j/\0");
    check(r#""j":[1e400]"#, "body:/j");
    check(
        r#""rows":[{"ueln":"a"},7,{"w":"x"},{"ueln":null,"y":1}]"#,
        "body:/rows/1 body:/rows/2/w body:/rows/2/ueln body:/rows/3/ueln body:/rows/3/y",
    );
    check(r#""rows":[{"ueln":"a","ueln":"b"}]"#, "body:/rows/0/ueln");
    check(
        r#""rows":[{"ueln":"1"},{"ueln":"1"},{"ueln":"1"},{"ueln":"1"},{"ueln":"1"}]"#,
        "body:/rows",
    );
    check(r#""rows":{}"#, "body:/rows");
}

#[test]
fn a_body_that_is_not_an_object_is_rejected() {
    let check = |body: &[u8], expected: &str| assert_eq!(post(body), expected, "{body:?}");
    check(b"", "body:/s");
    check(b"{}", "body:/s");
    check(br#"{"s":null}"#, "body:/s");
    check(br#"{"s":"123456"}"#, "body:/s");
    check(br#"{"s":"\u0000"}"#, "body:/s");
    check(br#"{"s":"\ud800"}"#, "body:/s");
    check(b"[]", "body: body:/s");
    check(b"nope", "body: body:/s");
    check(b"{\"s\":\"x\"", "body:");
    check(b"{\"s\":\"x\"} {}", "body:");
    check(b"{\"s\":\"x\",}", "body:");
    check(b"{\"s\":\"\xff\"}", "body: body:/s");
    check(b"\xef\xbb\xbf{\"s\":\"x\"}", "body: body:/s");
    check(b"{\"s\":\"a\nb\"}", "body: body:/s");
    check(b"{'s':1}", "body: body:/s");
    check(b"{\"s\":NaN}", "body: body:/s");
}

#[test]
fn json_may_be_64_levels_deep() {
    let nested =
        |levels: usize| member(&format!(r#""j":{}{}"#, "[".repeat(levels), "]".repeat(levels)));
    assert!(nested(63).starts_with("{\"j\":"));
    assert!(nested(64).starts_with("body:/j/0/0"));
    assert!(nested(60_000).starts_with("body:/j/0/0"));
    assert!(post("{\"s\":".repeat(60_000)).starts_with("body:"));
}

#[test]
fn a_body_must_be_json_in_utf_8() {
    let check = |headers: &[(&str, &str)], expected: &str| {
        let sent = TestRequest { request: "POST /e", headers, body: br#"{"s":"x"}"#, claims: "{}" };
        assert_eq!(outcome(send(&sent)), expected, "{headers:?}");
    };
    let good = r#"{"s":"x"}"#;
    check(&[("content-type", "application/json")], good);
    check(&[("content-type", "Application/JSON; charset=UTF-8")], good);
    check(&[("content-type", "application/vnd.horse+json;charset=\"utf-8\"")], good);
    // RFC 8259 §11 defines no `charset`, so it has no effect.
    for charset in ["utf8", "latin1", "\"\"", ""] {
        check(&[("content-type", &format!("application/json;charset={charset}"))], good);
    }
    check(&[("content-type", "application/json"), ("content-encoding", "identity")], good);
    check(&[], "415");
    check(&[("content-type", "text/json")], "415");
    check(&[("content-type", "application/+json")], "415");
    check(&[("content-type", "application/jsonx")], "415");
    check(&[("content-type", "application/json"), ("content-type", "text/plain")], "415");
    check(&[("content-type", "application/json"), ("content-encoding", "gzip")], "415");
}

#[test]
fn claims_and_context_come_from_the_gateway() {
    let check = |claims: &str, expected: &str| {
        let sent = TestRequest { request: "GET /claims", headers: &[], body: b"", claims };
        assert_eq!(outcome(send(&sent)), expected, "{claims}");
    };
    let context = r#""request_id":"r-1","client_ip":"127.0.0.1""#;
    check(r#"{"org":7}"#, &format!(r#"{{"org":7,{context}}}"#));
    check(r#"{"org":"7","tags":["a"]}"#, &format!(r#"{{"org":7,"tags":["a"],{context}}}"#));
    let town = r#"{"org":7,"office":{"town":"Lom"}}"#;
    check(town, &format!(r#"{{"org":7,"office.town":"Lom",{context}}}"#));
    check("{}", "403");
    check(r#"{"org":null}"#, "403");
    check(r#"{"org":"x"}"#, "403");
    check(r#"{"org":7.5}"#, "403");
}

#[test]
fn a_violation_never_contains_the_value() {
    let secret = "hunter2-hunter2";
    let bodies = [
        format!(r#"{{"s":"{secret}"}}"#),
        format!(r#"{{"s":"x","i":"{secret}","u":"{secret}","j":{{"a":"{secret}","a":1}}}}"#),
        format!(r#"{{"s":"x"}}{secret}"#),
        format!("\"{secret}\""),
    ];
    for body in bodies {
        let headers = [("content-type", "application/json")];
        let sent = TestRequest {
            request: "POST /e",
            headers: &headers,
            body: body.as_bytes(),
            claims: "{}",
        };
        let problem = send(&sent).unwrap_err();
        assert!(!String::from_utf8(problem.to_json("r")).unwrap().contains(secret), "{body}");
    }
    assert!(get(&format!("/e/{secret}?page={secret}&kind={secret}"), &[]).starts_with("path:id"));
}

#[test]
fn a_worker_checks_the_payload_again() {
    let catalogue = catalogue(ENDPOINTS);
    let endpoint = &catalogue.endpoints()[1];
    let check = |payload: &[u8], expected: Result<usize, usize>| {
        let read = payload::read(endpoint, payload).map(|v| v.len()).map_err(|v| v.len());
        assert_eq!(read, expected, "{payload:?}");
    };
    check(br#"{"s":"x","i":1}"#, Ok(2));
    check(br#"{"s":"123456","i":"1","z":1,"d":null}"#, Err(3));
    check(b"{}", Err(1));
    check(b"", Err(2));
    check(b"\xff", Err(2));
    check(br#"{"s":"x","s":"y"}"#, Err(1));
}

proptest! {
    #[test]
    fn any_body_is_checked_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..60), near in "[{}\\[\\]\",:sijrows0-9eE.+\\\\u-]{0,60}") {
        drop(post(body));
        drop(post(near));
    }

    #[test]
    fn any_query_is_checked_without_a_panic(query in "[a-z%0-9A-F&=+]{0,60}") {
        drop(get(&format!("/e/7?{query}"), &[]));
    }

    #[test]
    fn text_and_numbers_arrive_unchanged(text in "[^\0]{0,5}", int: i64, number in -1e300f64..1e300, json in "[^\0]{0,9}") {
        let sent = serde_json::json!({"s": text, "i": int, "n": number, "j": {"k": json}});
        let payload = post(sent.to_string());
        let catalogue = catalogue(ENDPOINTS);
        let values = payload::read(&catalogue.endpoints()[1], payload.as_bytes()).unwrap();
        prop_assert_eq!(&values[0].1, &ParameterValue::Text(text.into()));
        prop_assert_eq!(&values[1].1, &ParameterValue::Integer(int));
        prop_assert_eq!(&values[2].1, &ParameterValue::Number(number));
        prop_assert_eq!(&values[3].1, &ParameterValue::Json(sent["j"].to_string().into()));
    }
}
