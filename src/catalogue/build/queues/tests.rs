//! Tests for `queue` and `queues`, with every kind of error.

use crate::catalogue::endpoint_queues::{EndpointQueues, QUEUES_MAX};
use crate::catalogue::load::fixture::defaults;
use crate::catalogue::load::parse;

fn endpoint(keys: &str) -> Result<EndpointQueues, Vec<String>> {
    let text = format!(r#"{{"e": {{"route":"GET /e","auth":"public",{keys}}}}}"#);
    match parse(&[("a.json", &text)], &defaults()) {
        Ok(catalogue) => Ok(catalogue.endpoints()[0].queues.clone()),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
    }
}

/// Checks the queues. Each is described as `name procedure weight`.
fn check(keys: &str, expected: &[&str]) {
    let queues = endpoint(keys).unwrap();
    let text = |queue: &crate::catalogue::EndpointQueue| {
        let procedure = queue.procedure.as_ref().map_or("-", |procedure| procedure.as_str());
        format!("{} {procedure} {}", queue.name, queue.weight)
    };
    assert_eq!(queues.iter().map(text).collect::<Vec<_>>(), expected, "{keys}");
}

/// Checks that an endpoint has exactly one error, whose text contains `words`.
fn check_error(keys: &str, words: &str) {
    let errors = endpoint(keys).unwrap_err();
    assert_eq!(errors.len(), 1, "{keys}\n{errors:#?}");
    assert!(errors[0].starts_with("a.json: endpoint \"e\": "), "{}", errors[0]);
    assert!(errors[0].contains(words), "{keys}\n{}", errors[0]);
}

#[test]
fn a_queue_has_a_weight_and_a_procedure() {
    check(r#""procedure":"a.b""#, &["e a.b 1"]);
    check(r#""procedure":"a.b","queue":"q""#, &["q a.b 1"]);
    check(r#""handler":"echo","queues":{"q":0,"r":2}"#, &["q - 0", "r - 2"]);
    check(
        r#""procedure":"a.b","queues":{"e":95,"z":0,"e-v2":{"weight":5,"procedure":"a.c"}}"#,
        &["e a.b 95", "z a.b 0", "e-v2 a.c 5"],
    );
    check(
        r#""queues":{"e":{"weight":1,"procedure":"a.b"},"f":{"procedure":"a.c","weight":1000000}}"#,
        &["e a.b 1", "f a.c 1000000"],
    );
    check(r#""procedure":"a.b","queues":{"only":7}"#, &["only a.b 7"]);
}

#[test]
fn errors_in_queues_name_their_keys() {
    let with = |queues: &str| format!(r#""procedure":"a.b","queues":{queues}"#);
    check_error(r#""procedure":"a.b","queue":"q","queues":{"q":1}"#, "queues: expected either");
    check_error(&with("{}"), "queues: expected 1 to 16 queues");
    let many: Vec<String> = (0..=QUEUES_MAX).map(|number| format!(r#""q{number}":1"#)).collect();
    check_error(&with(&format!("{{{}}}", many.join(","))), "queues: expected 1 to 16 queues");
    for not_an_object in ["[]", "5", "\"q\"", "[{\"q\":1}]"] {
        check_error(
            &with(not_an_object),
            "queues: expected an object with a weight for each queue",
        );
    }
    check_error(&with(r#"{"q":0,"r":{"weight":0}}"#), "queues: expected at least one weight above");
    check_error(&with(r#"{"q":1,"q":2}"#), "queues.q: given more than once");
    check_error(&with(r#"{"a.b":1}"#), "queues.a.b: expected 1 to 64 letters");
    for weight in ["-1", "1.5", "1e2", "\"5\"", "true", "null", "[1]", "4294967296"] {
        let expected = "queues.q: invalid ";
        check_error(&with(&format!(r#"{{"q":{weight}}}"#)), expected);
        let errors = endpoint(&with(&format!(r#"{{"q":{weight}}}"#))).unwrap_err();
        assert!(
            errors[0].ends_with("expected a whole number from 0 to 1000000 as the weight"),
            "{errors:?}"
        );
    }
    check_error(
        &with(r#"{"q":1000001}"#),
        "queues.q: expected a weight from 0 to 1000000, got 1000001",
    );
    check_error(&with(r#"{"q":{"weight":-1}}"#), "queues.q.weight: invalid value: integer `-1`");
    check_error(&with(r#"{"q":{"procedure":"a.c"}}"#), "queues.q.weight: missing");
    check_error(
        &with(r#"{"q":{"wieght":1,"weight":1}}"#),
        "queues.q.wieght: is not a key: did you mean weight?",
    );
    check_error(
        &with(r#"{"q":{"weight":1,"procedure":"c"}}"#),
        "queues.q.procedure: expected schema",
    );
    check_error(r#""queues":{"q":1}"#, "procedure: missing");
    check_error(r#""queues":{"q":{"weight":1,"procedure":"a.b"},"r":1}"#, "procedure: missing");
    let errors =
        endpoint(&with(r#"{"q":-1,"r":"x","s":{"weight":1,"procedure":"x"}}"#)).unwrap_err();
    assert_eq!(errors.len(), 3, "all errors at once: {errors:#?}");
}
