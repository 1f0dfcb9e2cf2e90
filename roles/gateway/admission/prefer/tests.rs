//! Tests with all forms of the `Prefer` header and with answers to dry runs.

use std::sync::Arc;

use bytes::Bytes;

use proptest::prelude::*;
use proptest::string::string_regex;

use super::*;
use crate::catalogue::load::fixture::catalogue;
use crate::catalogue::openapi;
use crate::outcome::Outcome;
use crate::problem::ProblemKind;

/// Returns one endpoint that supports dry runs and one that does not.
fn endpoints() -> [Arc<Endpoint>; 2] {
    let catalogue = catalogue(
        r#""try": {"route":"POST /try", KEYS, "transaction": true, "dry_run": true},
           "real": {"route":"POST /real", KEYS, "transaction": true}"#,
    );
    ["try", "real"].map(|id| {
        let mut endpoints = catalogue.endpoints().iter();
        Arc::clone(endpoints.find(|endpoint| endpoint.id.as_str() == id).unwrap())
    })
}

fn asked(values: &[&str], endpoint: &Endpoint) -> Result<Option<TransactionEnd>, String> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(PREFER, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let honored = honored(&headers, endpoint).map_err(|violation| violation.detail)?;
    Ok(honored.transaction_end)
}

#[test]
fn return_minimal_is_honored_only_for_changes() {
    let catalogue = catalogue(
        r#""post": {"route":"POST /e", KEYS}, "get": {"route":"GET /e", KEYS},
           "own": {"route":"PUT /e", KEYS, "parameters": {"Prefer": {"in":"header","type":"string","as":"p"}}}"#,
    );
    let is_minimal = |id: &str, value: &'static str| {
        let mut endpoints = catalogue.endpoints().iter();
        let endpoint = endpoints.find(|endpoint| endpoint.id.as_str() == id).unwrap();
        let headers = HeaderMap::from_iter([(PREFER, HeaderValue::from_static(value))]);
        honored(&headers, endpoint).map(|honored| honored.is_minimal).map_err(|it| it.detail)
    };
    for (id, value, expected) in [
        ("post", "return=minimal", true),
        ("post", "Return=\"minimal\", handling=strict", true),
        ("post", "return=representation", false),
        ("post", "return=minimal, return=representation", false),
        ("post", "return=none", false),
        ("get", "return=minimal", false),
        ("own", "return=minimal", false),
    ] {
        assert_eq!(is_minimal(id, value), Ok(expected), "{id}: {value}");
    }
    for (id, value) in
        [("get", "return=minimal, handling=strict"), ("post", "return=none, handling=strict")]
    {
        assert!(is_minimal(id, value).unwrap_err().starts_with("handling=strict"), "{id}: {value}");
    }
}

#[test]
fn every_spelling_of_the_tx_preference_is_recognized() {
    let [dry, _] = endpoints();
    for values in [
        &["tx=rollback"][..],
        &["TX=rollback"],
        &["tx=\"rollback\""],
        &["tx=\"roll\\back\""],
        &["tx = rollback"],
        &["\ttx=rollback ;a=b; c ; d=\"e,f;\\\"\";"],
        &["return=minimal, tx=rollback"],
        &[", ,tx=rollback,,"],
        &["foo=\"tx=commit, \", tx=rollback"],
        &["respond-async", "wait=10, tx=rollback"],
        &["tx=rollback, tx=rollback"],
        &["handling=lenient, tx=rollback, handling=strict, x"],
        &["handling=strict, tx=rollback"],
    ] {
        assert_eq!(asked(values, &dry), Ok(Some(TransactionEnd::Rollback)), "{values:?}");
    }
    for values in [&["tx=commit"][..], &["Handling=strict", "Tx=commit"]] {
        assert_eq!(asked(values, &dry), Ok(Some(TransactionEnd::Commit)), "{values:?}");
    }
    for values in [&[][..], &[""], &["return=minimal"], &["txx=commit"], &["tenant=laundry"]] {
        assert_eq!(asked(values, &dry), Ok(None), "{values:?}");
    }
}

#[test]
fn a_preference_that_might_not_be_honored_is_rejected() {
    let [dry, real] = endpoints();
    for (values, expected) in [
        (&["tx"][..], "tx: expected commit or rollback"),
        (&["tx="], "tx: expected commit or rollback"),
        (&["tx=Rollback"], "tx: expected commit or rollback"),
        (&["tx=rolback"], "tx: expected commit or rollback"),
        (&["tx=roll back"], "tx: expected commit or rollback"),
        (&["tx=commit, tx=rollback"], "tx: expected commit or rollback, not both"),
        (&["tx=rollback", "tx=commit"], "tx: expected commit or rollback, not both"),
        (
            &["handling=strict, respond-async, tx=rollback"],
            "handling=strict: expected no preference other",
        ),
        (&["return=minimal; TX=rollback"], "tx: expected a comma"),
        (&["tx%3Drollback"], LOOKS_LIKE_ROLLBACK),
        (&["rollback"], LOOKS_LIKE_ROLLBACK),
        (&["dry-run"], LOOKS_LIKE_ROLLBACK),
        (&["return=minimal, X-Dry-Run=1"], LOOKS_LIKE_ROLLBACK),
        (&["txx=Rollback"], LOOKS_LIKE_ROLLBACK),
        (&["isDryRun"], LOOKS_LIKE_ROLLBACK),
        (&["mode=dry"], LOOKS_LIKE_ROLLBACK),
        (&["transaction=roll-back"], LOOKS_LIKE_ROLLBACK),
        (&["return=minimal; dryrun"], LOOKS_LIKE_ROLLBACK),
        (&["return=minimal; end=rollback"], LOOKS_LIKE_ROLLBACK),
        (&["tx=\"rollback"], MALFORMED),
        (&["tx=\"rollback\\"], MALFORMED),
        (&["tx=rollback tx=commit"], MALFORMED),
        (&["=rollback"], MALFORMED),
        (&["tx==rollback"], "tx: expected commit or rollback"),
        (&["a; =b"], MALFORMED),
        (&["{\"tx\": \"rollback\"}"], MALFORMED),
        (&["tx=rollback\u{e9}"], MALFORMED),
    ] {
        for endpoint in [&dry, &real] {
            let refused = asked(values, endpoint).unwrap_err();
            assert!(refused.starts_with(expected), "{values:?}: {refused}");
        }
    }
    let refused = asked(&["tx=rollback"], &real).unwrap_err();
    assert!(
        refused.starts_with("tx=rollback: this endpoint does not permit dry runs"),
        "{refused}"
    );
    for values in [&["tx=commit"][..], &["handling=strict"], &["return=minimal"]] {
        assert_eq!(asked(values, &real), Ok(None), "{values:?}");
    }
}

#[test]
fn an_unconfirmed_dry_run_is_an_error() {
    let [dry, _] = endpoints();
    let answer = |status, is_rolled_back| Final {
        is_rolled_back,
        ..Final::whole(status, "application/json", Bytes::new(), Outcome::Ok)
    };
    let applied_header = |end, status, is_rolled_back| {
        let applied = applied(Some(end), &answer(status, is_rolled_back), &dry);
        applied.map(|end| Some(header_value(end, false)?.to_str().unwrap().to_owned()))
    };
    let some = |text: &str| Ok(Some(text.to_owned()));
    for status in [200, 204, 404, 422, 500] {
        assert_eq!(
            applied_header(TransactionEnd::Rollback, status, true),
            some("tx=rollback"),
            "{status}"
        );
    }
    for status in [200, 204, 304, 400, 409] {
        let problem = applied_header(TransactionEnd::Rollback, status, false).unwrap_err();
        assert_eq!(problem.kind, ProblemKind::BadAnswerOutcomeUnknown, "{status}");
    }
    assert_eq!(applied_header(TransactionEnd::Rollback, 504, false), Ok(None));
    assert_eq!(applied_header(TransactionEnd::Commit, 200, false), some("tx=commit"));
    assert_eq!(applied_header(TransactionEnd::Commit, 409, false), Ok(None));
}

/// Returns the pattern of `Prefer` in the `OpenAPI` document.
fn documented_pattern() -> String {
    let [endpoint, _] = endpoints();
    let document = openapi::text(&[&endpoint], &openapi::ApiInfo::default());
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    let parameters = document["paths"]["/try"]["post"]["parameters"].as_array().unwrap();
    let prefer = parameters.iter().find(|parameter| parameter["name"] == "Prefer").unwrap();
    prefer["schema"]["pattern"].as_str().unwrap().to_owned()
}

#[test]
fn the_documented_pattern_describes_the_form_of_the_header() {
    let pattern = regex::Regex::new(&documented_pattern()).unwrap();
    let [endpoint, _] = endpoints();
    for (value, is_valid) in [
        ("", true),
        ("tx=rollback", true),
        ("return=minimal, tx=commit,handling=strict", true),
        ("wait=\"10 s, at most\"", true),
        ("tx=rollback b", false),
        ("tx=\"commit", false),
        ("(a)", false),
        ("a=\"ü\"", false),
    ] {
        assert_eq!(pattern.is_match(value), is_valid, "{value}");
        assert_eq!(asked(&[value], &endpoint).is_ok(), is_valid, "{value}");
    }
}

proptest! {
    #[test]
    fn the_gateway_can_read_whatever_matches_the_documented_pattern(value in string_regex(documented_pattern().trim_matches(['^', '$'])).unwrap()) {
        let [endpoint, _] = endpoints();
        let refused = asked(&[value.as_str()], &endpoint).err();
        prop_assert!(refused.as_deref() != Some(MALFORMED), "{}", value);
    }
}
