//! Promise: a non-public endpoint is called only with valid credentials and the required scopes.

use std::collections::BTreeMap;
use std::time::Duration;

use fjord::catalogue::{Auth, AuthMethod};
use fjord::config::AuthConfig;
use fjord::config::auth::CertificateConfig;
use fjord::problem::ProblemKind;
use fjord::roles::gateway::admission::auth::{AuthFailure, AuthRejection, Authenticator};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use crate::support::tokens::claims;

mod failed_attempts;
pub(crate) mod fixture;
mod forged_tokens;
mod key_fetching;
mod open_connections;
mod several_issuers;

use fixture::{
    IssuerFixture, api_key, bearer, config, endpoint, endpoint_with, file, headers, peer, required,
};

const HOUR: Duration = Duration::from_hours(1);
const READ: &str = "horses:read";
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

#[test]
fn exactly_one_credential_is_evaluated() {
    use AuthFailure::{Ambiguous, Malformed, NoCredentials, UnknownApiKey};
    const METHODS: [AuthMethod; 3] =
        [AuthMethod::Jwt, AuthMethod::ApiKey, AuthMethod::ClientCertificate];
    let fixture = IssuerFixture::new();
    let token = fixture.es.sign(&claims("anna", READ, HOUR)).unwrap();
    let good = format!("Bearer {token}");
    let good = good.as_str();
    let known = ["dns:clinic.example.com"];
    let check = |sent: &[(HeaderName, &str)],
                 names: &[&str],
                 expected: Result<&str, AuthFailure>| {
        let caller =
            fixture.authenticator.authenticate(&endpoint(&METHODS), &headers(sent), &peer(names));
        let got = caller.map(|c| c.principal.unwrap().to_string()).map_err(|r| r.failure);
        assert_eq!(got, expected.map(str::to_owned), "{sent:?} {names:?}");
    };
    check(&[(AUTHORIZATION, good)], &[], Ok("anna"));
    check(&[(AUTHORIZATION, &good.replace("Bearer ", "bEARER   "))], &[], Ok("anna"));
    check(&[(AUTHORIZATION, "ApiKey old-key")], &[], Ok("billing"));
    check(&[(AUTHORIZATION, "apikey new-key")], &[], Ok("billing"));
    check(&[(X_API_KEY, "new-key")], &[], Ok("billing"));
    check(&[], &known, Ok("clinic"));
    check(&[(AUTHORIZATION, "Basic YTpi")], &known, Ok("clinic"));
    check(&[(AUTHORIZATION, good)], &known, Ok("anna"));
    check(&[(X_API_KEY, "wrong")], &known, Err(UnknownApiKey));
    check(&[(AUTHORIZATION, "Bearer x")], &known, Err(Malformed));
    check(&[], &[], Err(NoCredentials));
    check(&[(AUTHORIZATION, "Basic YTpi")], &[], Err(NoCredentials));
    check(&[(AUTHORIZATION, good), (AUTHORIZATION, good)], &[], Err(Ambiguous));
    check(&[(AUTHORIZATION, good), (AUTHORIZATION, "Basic YTpi")], &[], Err(Ambiguous));
    check(&[(AUTHORIZATION, good), (X_API_KEY, "new-key")], &[], Err(Ambiguous));
    check(&[(X_API_KEY, "new-key"), (X_API_KEY, "new-key")], &[], Err(Ambiguous));
    for bad in
        ["Bearer", "Bearer ", "Bearer    ", "ApiKey", "Bearer \u{e9}", "Bearer a\tb", "Bearer a,b"]
    {
        check(&[(AUTHORIZATION, bad)], &[], Err(Malformed));
    }
    check(&[(X_API_KEY, "")], &[], Err(Malformed));
    check(&[(AUTHORIZATION, "Bearertoken")], &[], Err(NoCredentials));
    check(&[], &["dns:nobody.example.com"], Err(AuthFailure::UnknownCertificate));
}

/// The matrix has a row for each caller and a column for each endpoint. `.` means accepted, `1`
/// means a 401, and `3` means a 403.
#[test]
fn callers_are_accepted_according_to_the_matrix_of_endpoints() {
    let fixture = IssuerFixture::new();
    let with_scope = fixture.ed.sign(&claims("anna", READ, HOUR)).unwrap();
    let without_scope = fixture.ed.sign(&claims("anna", "horses:reader horses", HOUR)).unwrap();
    let endpoints = [
        endpoint_with(Auth::Public),
        endpoint_with(required(&[], &[])),
        endpoint_with(required(&[AuthMethod::Jwt], &[])),
        endpoint(&[AuthMethod::Jwt]),
        endpoint(&[AuthMethod::ApiKey]),
        endpoint(&[AuthMethod::ClientCertificate]),
        endpoint(&[AuthMethod::Jwt, AuthMethod::ApiKey, AuthMethod::ClientCertificate]),
    ];
    let key = |key: &str| headers(&[(X_API_KEY, key)]);
    let nothing = HeaderMap::new;
    for (who, sent, names, expected) in [
        ("nobody", nothing(), &[][..], ".111111"),
        ("token", bearer(&with_scope), &[], ".1..11."),
        ("token without scope", bearer(&without_scope), &[], ".1.3113"),
        ("bad token", bearer("x.y.z"), &[], ".111111"),
        ("key", key("old-key"), &[], ".111.1."),
        ("key without scope", key("guest-key"), &[], ".111313"),
        ("key past its end", key("former-key"), &[], ".111111"),
        ("wrong key", key("wrong"), &[], ".111111"),
        ("certificate", nothing(), &["dns:clinic.example.com"], ".1111.."),
        ("certificate without scope", nothing(), &["dns:guest.example.com"], ".111133"),
        ("unknown certificate", nothing(), &["dns:x.example.com"], ".111111"),
        ("bad token and certificate", bearer("x.y.z"), &["dns:clinic.example.com"], ".1111.1"),
    ] {
        let got: String = endpoints
            .iter()
            .map(|endpoint| {
                match fixture.authenticator.authenticate(endpoint, &sent, &peer(names)) {
                    Ok(caller) => {
                        assert_eq!(caller.principal.is_none(), endpoint.auth == Auth::Public);
                        '.'
                    }
                    Err(refusal) => refused(&refusal),
                }
            })
            .collect();
        assert_eq!(got, expected, "{who}");
    }
}

#[test]
fn every_scope_is_required_literally() {
    let fixture = IssuerFixture::new();
    let both = endpoint_with(required(&[AuthMethod::Jwt], &["horses:read", "owners:read"]));
    for (scope, opens) in [
        ("owners:read horses:read", true),
        ("x horses:read owners:read y", true),
        ("horses:read", false),
        ("owners:read", false),
        ("horses:read owners", false),
        ("horses:read Owners:read", false),
        ("horses:read,owners:read", false),
        ("*", false),
        ("", false),
    ] {
        let token = fixture.es.sign(&claims("anna", scope, HOUR)).unwrap();
        let caller = fixture.authenticator.authenticate(&both, &bearer(&token), &peer(&[]));
        assert_eq!(caller.is_ok(), opens, "{scope}");
    }
}

fn refused(refusal: &AuthRejection) -> char {
    assert_eq!((&refusal.problem.detail, refusal.problem.violations.len()), (&None, 0));
    match refusal.problem.kind {
        ProblemKind::Unauthenticated => {
            assert!(refusal.challenge.is_some());
            '1'
        }
        ProblemKind::Forbidden => {
            let challenge = refusal.challenge.as_ref().map_or("", |value| value.to_str().unwrap());
            assert!(!challenge.contains("scope=") && !challenge.contains(READ), "{challenge}");
            '3'
        }
        other => panic!("neither 401 nor 403: {other:?}"),
    }
}

#[test]
fn the_challenge_names_every_accepted_method() {
    let fixture = IssuerFixture::new();
    let methods = [AuthMethod::Jwt, AuthMethod::ApiKey, AuthMethod::ClientCertificate];
    let refusal = fixture
        .authenticator
        .authenticate(&endpoint(&methods), &HeaderMap::new(), &peer(&[]))
        .unwrap_err();
    assert_eq!(
        refusal.challenge.unwrap(),
        r#"Bearer realm="fjord", ApiKey realm="fjord", ClientCertificate realm="fjord""#
    );
}

#[test]
fn an_invalid_configuration_is_rejected_with_all_errors() {
    let keys = file("{\"keys\":[]}");
    let mut config = config(&keys);
    if let Some(issuer) = config.issuers.get_mut("main") {
        issuer.audiences = Vec::new();
    }
    config.api_keys.insert("bad\n".to_owned(), api_key(&[], &[], None));
    config.certificates.insert(
        "dns:x".to_owned(),
        CertificateConfig { principal: String::new(), scopes: Vec::new() },
    );
    let errors = Authenticator::load(&config).unwrap_err();
    for expected in [
        "auth.jwt.main.audiences",
        "auth.jwt.main.keys",
        keys.path().to_str().unwrap(),
        "auth.api_keys.bad",
        "auth.certificates.\"dns:x\".principal",
    ] {
        assert!(errors.iter().any(|m| m.contains(expected)), "{expected}: {errors:?}");
    }
}

#[test]
fn only_configured_methods_count() {
    const METHODS: [AuthMethod; 3] =
        [AuthMethod::Jwt, AuthMethod::ApiKey, AuthMethod::ClientCertificate];
    let load =
        |api_keys| Authenticator::load(&AuthConfig { api_keys, ..AuthConfig::default() }).unwrap();
    let refused = |authenticator: &Authenticator, sent: &HeaderMap| {
        let refusal = authenticator
            .authenticate(&endpoint(&METHODS), sent, &peer(&["dns:clinic.example.com"]))
            .unwrap_err();
        (refusal.failure, refusal.challenge.unwrap().to_str().unwrap().to_owned())
    };

    let nothing = load(BTreeMap::new());
    let refusal = r#"Bearer realm="fjord""#.to_owned();
    assert_eq!(refused(&nothing, &bearer("a.b.c")), (AuthFailure::NotConfigured, refusal));
    assert_eq!(nothing.endpoint_error(&endpoint(&METHODS)).unwrap().0, "auth");
    assert!(nothing.endpoint_error(&endpoint(&[])).is_some());
    assert!(nothing.endpoint_error(&endpoint_with(Auth::Public)).is_none());

    let keys = load(BTreeMap::from([("billing".to_owned(), api_key(&["k"], &[READ], None))]));
    let refusal = r#"ApiKey realm="fjord""#.to_owned();
    assert_eq!(refused(&keys, &bearer("a.b.c")), (AuthFailure::NoCredentials, refusal));
    assert!(keys.endpoint_error(&endpoint(&METHODS)).is_none());
    assert!(keys.endpoint_error(&endpoint(&[AuthMethod::Jwt])).is_some());
}

fn header_bytes() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        &b"Bearer "[..],
        b"ApiKey ",
        b".",
        b"eyJhbGciOiJFUzI1NiIsImtpZCI6ImVzIn0",
        b"eyJhbGciOiJub25lIn0",
        b"e30",
        b"\xc3\xa9",
    ]);
    let piece = prop_oneof![
        word.prop_map(<[u8]>::to_vec),
        prop::collection::vec(prop_oneof![Just(b'\t'), 0x20..=0x7e_u8, 0x80..=0xff_u8], 0..40),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

#[test]
fn arbitrary_header_bytes_neither_authenticate_nor_panic() {
    let fixture = IssuerFixture::new();
    let all = endpoint(&[AuthMethod::Jwt, AuthMethod::ApiKey, AuthMethod::ClientCertificate]);
    let sent =
        (prop::collection::vec(header_bytes(), 0..3), prop::collection::vec(header_bytes(), 0..3));
    proptest!(ProptestConfig::with_cases(2_000), |((authorization, keys) in sent)| {
        let mut map = HeaderMap::new();
        for (name, values) in [(AUTHORIZATION, authorization), (X_API_KEY, keys)] {
            for value in values {
                map.append(&name, HeaderValue::from_bytes(&value).unwrap());
            }
        }
        let refusal = fixture.authenticator.authenticate(&all, &map, &peer(&["nobody"]));
        prop_assert_eq!(refusal.unwrap_err().problem.kind, ProblemKind::Unauthenticated);
    });
}
