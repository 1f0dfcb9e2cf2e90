//! Tests the rules for `examples`.

use crate::catalogue::load::fixture::{catalogue, defaults};
use crate::catalogue::load::parse;

/// An endpoint with a parameter of each source.
const ENDPOINT: &str = r#""route":"POST /v1/{id}/moves","procedure":"a.b","auth":{"methods":["jwt"]},"result":"row",
    "status":{"return":{"0":201}},"returns":{"n":{"type":"int64"},"at":{"type":"datetime"}},"parameters":{
      "id":{"in":"path","type":"int32"},"limit":{"in":"query","type":"int32","maximum":9},
      "X-Device":{"in":"header","as":"device","type":"uuid"},"rows":{"in":"body","type":"table","columns":{"n":{"type":"int32"}}},
      "office":{"in":"claim","type":"string","maxLength":3},
      "idempotency_key":{"in":"context","required":true},"principal":{"in":"context"}}"#;

/// Returns the errors of an endpoint with these examples, without the names of the file and the endpoint.
fn errors_of(endpoint: &str, examples: &str) -> Vec<String> {
    let text = format!(r#"{{"e":{{{endpoint},"examples":{examples}}}}}"#);
    let errors = parse(&[("a.json", &text)], &defaults()).err().unwrap_or_default();
    assert!(errors.iter().all(|one| one.file == "a.json" && one.endpoint.as_deref() == Some("e")));
    errors.into_iter().map(|one| format!("{}: {}", one.key, one.expected)).collect()
}

/// Returns the only error of an example with these keys.
fn error(keys: &str) -> String {
    let mut found = errors_of(ENDPOINT, &format!(r#"{{"one":{{{keys}}}}}"#));
    assert_eq!(found.len(), 1, "{keys}: {found:#?}");
    found.remove(0)
}

#[test]
fn a_complete_example_is_read() {
    let text = r#""e": {"route":"POST /v1/{id}", KEYS, "result":"value","status":{"return":{"0":201}},"parameters":{
        "id":{"in":"path","type":"int32"},"n":{"in":"body","type":"decimal"}},"examples":{
        "first":{"summary":"The first","parameters":{"id":7,"n":1.50},"headers":{"Prefer":"return=minimal"},
          "answer":{"status":201,"headers":{"Location":{"$any":"string"}},"body":null}},
        "second":{"parameters":{"id":8}}}}"#;
    let catalogue = catalogue(text);
    let [first, second] = &*catalogue.endpoints()[0].examples else { panic!("two examples") };
    assert_eq!((&*first.name, first.summary.as_deref()), ("first", Some("The first")));
    assert_eq!(first.parameter("n").unwrap().to_string(), "1.50");
    let answer = first.answer.as_ref().unwrap();
    assert_eq!((answer.status, answer.body.as_ref().unwrap().to_string()), (201, "null".into()));
    assert!(second.answer.is_none(), "it has not been recorded yet");
    assert!(second.caller.principal.is_none(), "the endpoint is public");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table with a row for each error")]
fn every_error_in_a_request_is_reported() {
    let key = r#""headers":{"Idempotency-Key":"k"}"#;
    for (keys, expected) in [
        (
            format!(r#"{key},"parameters":{{"id":1,"limt":3}}"#),
            "examples.one.parameters.limt: the endpoint has no such parameter: did you mean limit?",
        ),
        (
            format!(r#"{key},"parameters":{{"id":1,"limit":10}}"#),
            "examples.one.parameters.limit: expected at most 9; expected a value that the endpoint accepts, or \"problem\": \"invalid-request\"",
        ),
        (
            format!(r#"{key},"parameters":{{"id":1,"limit":[1]}}"#),
            "examples.one.parameters.limit: expected a string, a number or a boolean",
        ),
        (
            format!(r#"{key},"parameters":{{"id":"x"}}"#),
            "examples.one.parameters.id: expected a whole number",
        ),
        (key.to_owned(), "examples.one.parameters.id: required"),
        (
            format!(r#"{key},"parameters":{{"id":1,"rows":[{{"n":1}},{{"n":"x"}}]}}"#),
            "examples.one.parameters.rows: /1/n: expected a whole number",
        ),
        (
            format!(r#"{key},"parameters":{{"id":1,"X-Device":"7"}}"#),
            "examples.one.parameters.X-Device: expected a UUID",
        ),
        (
            format!(r#"{key},"parameters":{{"id":1,"office":"a"}}"#),
            "examples.one.parameters.office: the value comes from the caller's credentials",
        ),
        (
            format!(r#"{key},"parameters":{{"id":1,"idempotency_key":"a"}}"#),
            "examples.one.parameters.idempotency_key: must be the header `Idempotency-Key` in `headers`",
        ),
        (r#""parameters":{"id":1}"#.to_owned(), "examples.one.headers.Idempotency-Key: required"),
        (
            r#""parameters":{"id":1},"headers":{"Idempotency-Key":"k","authorization":"x"}"#
                .to_owned(),
            "examples.one.headers.authorization: expected another header",
        ),
        (
            r#""parameters":{"id":1},"headers":{"Idempotency-Key":"k","x-device":"x"}"#.to_owned(),
            "examples.one.headers.x-device: this header is a parameter",
        ),
        (
            r#""parameters":{"id":1},"headers":{"Idempotency-Key":"k","A b":"x"}"#.to_owned(),
            "examples.one.headers.A b: expected a valid header name and value",
        ),
        (
            format!(r#"{key},"parameters":{{"id":1}},"caller":{{"claims":{{"office":"long"}}}}"#),
            "examples.one.caller.claims.office: expected at most 3 characters",
        ),
        (
            format!(r#"{key},"parameters":{{"id":1}},"caller":{{"claims":{{"role":"x"}}}}"#),
            "examples.one.caller.claims.role: expected the name of a parameter with `in: claim`",
        ),
        (
            format!(r#"{key},"parameters":{{"id":1}},"caller":{{"principal":" a"}}"#),
            "examples.one.caller.principal: expected 1 to 256 bytes",
        ),
        (
            format!(r#"{key},"parameters":{{"id":1}},"anser":{{}}"#),
            "examples.one.anser: is not a key: did you mean answer?",
        ),
        (
            format!(r#"{key},"paramters":{{"id":1}}"#),
            "examples.one.paramters: is not a key: did you mean parameters?",
        ),
        (
            r#""parameters":{"id":1},"heders":{"Idempotency-Key":"k"}"#.to_owned(),
            "examples.one.heders: is not a key: did you mean headers?",
        ),
        (
            format!(r#"{key},"parameters":{{"id":1}},"answer":{{"status":201,"bdy":1}}"#),
            "examples.one.answer.bdy: is not a key: did you mean body?",
        ),
    ] {
        let found = error(&keys);
        assert!(found.starts_with(expected), "{found}\ninstead of\n{expected}");
    }
}

#[test]
fn an_answer_must_be_one_that_the_endpoint_can_give() {
    for (answer, expected) in [
        ("{}", ".status: missing: expected 200, 201 or a `problem`"),
        (
            r#"{"status":202}"#,
            ".status: 202 cannot be the answer to this request: expected 200, 201 or",
        ),
        (r#"{"status":204}"#, ".status: 204 cannot be"),
        (r#"{"status":404}"#, ".status: expected `problem` with the status 404"),
        (r#"{"status":200,"problem":"no-row"}"#, ".status: expected 404 with this problem"),
        (r#"{"problem":"busy"}"#, ".problem: expected refused or one of invalid-request, no-row"),
        (r#"{"problem":"refused"}"#, ".status: missing"),
        (r#"{"problem":"refused","status":503}"#, ".status: expected a status from 400 to 599"),
        (r#"{"problem":"refused","status":409}"#, ".problem: expected \"conflict\""),
        (r#"{"problem":"not-acceptable"}"#, ".problem: expected another problem"),
        (
            r#"{"status":201,"headers":{"Location":1}}"#,
            ".headers.Location: expected a string or a matcher",
        ),
        (
            r#"{"status":201,"headers":{"Location":{"$any":"url"}}}"#,
            ".headers.Location: $any: expected one of string",
        ),
        (
            r#"{"status":201,"body":{"n":{"$any":"guid"},"at":1}}"#,
            ".body: /n: $any: expected one of string",
        ),
        (
            r#"{"status":201,"body":{"n":"1","at":{"$any":"datetime"}}}"#,
            ".body: /n: `returns` says int64, found a string",
        ),
        (r#"{"status":201,"body":{"n":1}}"#, ".body: /at: missing, although `returns` declares it"),
        (
            r#"{"problem":"no-row","body":"x"}"#,
            ".body: expected an object with members of the problem",
        ),
    ] {
        let keys = format!(
            r#""headers":{{"Idempotency-Key":"k"}},"parameters":{{"id":1}},"answer":{answer}"#
        );
        let found = error(&keys);
        let expected = format!("examples.one.answer{expected}");
        assert!(found.starts_with(&expected), "{found}\ninstead of\n{expected}");
    }
}

#[test]
fn a_refused_request_is_allowed_if_its_refusal_is_expected() {
    let invalid = r#"{"one":{"parameters":{"id":"x","limit":10,"rows":[{"m":1}]},"answer":{"problem":"invalid-request",
        "body":{"errors":{"$any":"json"}}}}}"#;
    assert_eq!(errors_of(ENDPOINT, invalid), [""; 0]);
    let minimal = r#"{"one":{"parameters":{"id":1},"headers":{"Prefer":"return=minimal","Idempotency-Key":"k"},"answer":{"status":201}}}"#;
    assert_eq!(errors_of(ENDPOINT, minimal), [""; 0]);
}

#[test]
fn a_header_that_cannot_be_sent_is_an_error() {
    for answer in [r#","answer":{"problem":"invalid-request"}"#, ""] {
        let found = errors_of(
            ENDPOINT,
            &format!(
                r#"{{"one":{{"parameters":{{"id":1,"X-Device":"a\nb"}},"headers":{{"Idempotency-Key":"k"}}{answer}}}}}"#
            ),
        );
        let expected = "examples.one.parameters.X-Device: cannot be sent in a header: expected";
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
    }
}

#[test]
fn conditions_and_media_types_allow_further_answers() {
    let get = r#""route":"GET /a","procedure":"a.b","auth":"public","cache":{"etag":true},"produces":["application/json","text/csv"]"#;
    for good in [
        r#"{"one":{"headers":{"If-None-Match":"\"x\""},"answer":{"status":304}}}"#,
        r#"{"one":{"headers":{"Accept":"text/csv"},"answer":{"status":200,"body":"a\r\n"}}}"#,
        r#"{"one":{"headers":{"Accept":"image/png"},"answer":{"problem":"not-acceptable"}}}"#,
    ] {
        assert_eq!(errors_of(get, good), [""; 0], "{good}");
    }
    for (bad, expected) in [
        (r#"{"one":{"answer":{"status":304}}}"#, "304 cannot be the answer"),
        (
            r#"{"one":{"headers":{"Accept":"text/csv"},"answer":{"status":200,"body":[]}}}"#,
            "expected the text of the text/csv",
        ),
        (
            r#"{"one":{"headers":{"If-None-Match":"*"},"answer":{"status":304,"body":1}}}"#,
            "expected none, because the answer has no content",
        ),
        (
            r#"{"one":{"caller":{"principal":"anna"}}}"#,
            "expected none, because the endpoint is public",
        ),
    ] {
        let found = errors_of(get, bad);
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
    }
}

#[test]
fn names_are_unique_and_sizes_are_limited() {
    let one = |name: &str| {
        format!(r#""{name}":{{"parameters":{{"id":1}},"headers":{{"Idempotency-Key":"k"}}}}"#)
    };
    let large = format!(r#"{{"one":{{"summary":"{}"}}}}"#, "x".repeat(65 * 1024));
    let many: Vec<String> = (0..65).map(|number| one(&number.to_string())).collect();
    let part = format!(r#"{{"summary":"{}"}}"#, "x".repeat(60 * 1024));
    let parts: Vec<String> = (0..5).map(|number| format!("\"{number}\":{part}")).collect();
    for (examples, expected) in [
        (
            format!("{{{},{}}}", one("a"), one("a")),
            "examples: expected an object of examples by name: `a` is given more than once",
        ),
        ("[]".to_owned(), "examples: expected an object of examples by name"),
        (format!("{{{}}}", one("a/b")), "examples.a/b: expected a name of 1 to 64 characters"),
        (format!("{{{}}}", one("")), "examples.: expected a name"),
        (large, "examples.one: expected at most 64 KiB"),
        (format!("{{{}}}", many.join(",")), "examples: expected at most 64"),
        (format!("{{{}}}", parts.join(",")), "examples: expected at most 256 KiB"),
    ] {
        let found = errors_of(ENDPOINT, &examples);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
    }
}
