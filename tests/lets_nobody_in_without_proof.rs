//! Promise: nobody calls an endpoint that is not public without proof of who they are and of what they may do.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fjord::catalogue::endpoint::{
    Auth, AuthMethod, Execution, OnDisconnect, ResultKind, StatusMap,
};
use fjord::catalogue::{Endpoint, EndpointId, QueueName};
use fjord::config::AuthConfig;
use fjord::config::auth::issuer::ALGORITHMS;
use fjord::config::auth::{ApiKeyConfig, CertificateConfig, IssuerConfig, KeySource};
use fjord::problem::ProblemKind;
use fjord::roles::gateway::admission::auth::{AuthFailure, AuthRefusal, Authenticator};
use fjord::roles::gateway::client::{Caller, Peer};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::tokens::{self, Signer, claims, jwks};

const HOUR: Duration = Duration::from_hours(1);
const READ: &str = "horses:read";
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

mod failures;
mod forged_tokens;
mod issuer;
mod open_connections;
mod several_issuers;

/// The keys of an issuer, and a gateway that believes it.
struct Register {
    es: Signer,
    ed: Signer,
    rs: Signer,
    authenticator: Authenticator,
}

impl Register {
    fn new() -> Self {
        let (es, ed, rs) = (
            Signer::p256("es").unwrap(),
            Signer::ed25519("ed").unwrap(),
            Signer::rsa("rs").unwrap(),
        );
        let keys = jwks(&[&es, &ed, &rs]).unwrap();
        Self { es, ed, rs, authenticator: Authenticator::load(&config(&file(&keys))).unwrap() }
    }

    fn with_token(&self, token: &str) -> Result<Caller, Box<AuthRefusal>> {
        self.authenticator.authenticate(&endpoint(&[AuthMethod::Jwt]), &bearer(token), &peer(&[]))
    }

    #[track_caller]
    fn refuses(&self, token: &str, expected: AuthFailure) {
        let refusal = self.with_token(token).unwrap_err();
        assert_eq!(refusal.failure, expected, "{token}");
        assert_eq!(refusal.problem.kind, ProblemKind::Unauthenticated);
        assert_eq!(refusal.problem.detail, None);
        assert_eq!(refusal.challenge.unwrap(), r#"Bearer realm="fjord", error="invalid_token""#);
    }
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

pub(crate) fn hash(key: &str) -> String {
    digest(&SHA256, key.as_bytes()).as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn api_key(keys: &[&str], scopes: &[&str], expires_at: Option<i64>) -> ApiKeyConfig {
    ApiKeyConfig {
        sha256: keys.iter().map(|key| hash(key)).collect(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        expires_at,
        claims: BTreeMap::new(),
    }
}

fn issuer_config(issuer: &str, keys: &NamedTempFile) -> IssuerConfig {
    IssuerConfig {
        issuer: issuer.to_owned(),
        keys: KeySource::File(keys.path().to_owned()),
        audiences: vec![tokens::AUDIENCE.to_owned()],
        algorithms: ALGORITHMS.map(str::to_owned).to_vec(),
        leeway: Duration::from_secs(30),
        principal_claim: "sub".to_owned(),
        principal_prefix: String::new(),
    }
}

fn config(keys: &NamedTempFile) -> AuthConfig {
    let certificate = |principal: &str, scopes: &[&str]| CertificateConfig {
        principal: principal.to_owned(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
    };
    AuthConfig {
        issuers: BTreeMap::from([("main".to_owned(), issuer_config(tokens::ISSUER, keys))]),
        api_keys: BTreeMap::from([
            ("billing".to_owned(), api_key(&["old-key", "new-key"], &[READ], None)),
            ("guest".to_owned(), api_key(&["guest-key"], &[], None)),
            ("former".to_owned(), api_key(&["former-key"], &[READ], Some(1_000_000_000))),
        ]),
        certificates: BTreeMap::from([
            ("dns:clinic.example.com".to_owned(), certificate("clinic", &[READ])),
            ("dns:guest.example.com".to_owned(), certificate("guest", &[])),
        ]),
    }
}

/// An endpoint that accepts these methods and needs the scope `horses:read`.
fn endpoint(methods: &[AuthMethod]) -> Endpoint {
    endpoint_with(required(methods, &[READ]))
}

fn required(methods: &[AuthMethod], scopes: &[&str]) -> Auth {
    let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    Auth::Required { methods: methods.to_vec(), scopes, issuers: Vec::new() }
}

fn endpoint_with(auth: Auth) -> Endpoint {
    Endpoint {
        id: EndpointId::new("horse-get").unwrap(),
        method: Method::GET,
        path: "/v1/horses".into(),
        summary: None,
        description: None,
        tags: Vec::new(),
        deprecated: false,
        queue: QueueName::new("horse-get").unwrap(),
        handler: "echo".into(),
        procedure: None,
        parameters: Arc::new([]),
        result: ResultKind::Rows,
        outputs: Vec::new(),
        status: StatusMap::default(),
        execution: Execution::AtLeastOnce,
        transaction: false,
        dry_run: false,
        timeout: Duration::from_secs(1),
        session: Duration::from_secs(1),
        attempts: 1,
        on_disconnect: OnDisconnect::Finish,
        auth,
        body_bytes_max: 0,
        rate_limit: None,
        cache_control: None,
        cors: None,
    }
}

fn peer(names: &[&str]) -> Peer {
    Peer {
        certificate_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Peer::new(Ipv4Addr::LOCALHOST.into(), true)
    }
}

fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

fn bearer(token: &str) -> HeaderMap {
    headers(&[(AUTHORIZATION, &format!("Bearer {token}"))])
}

#[test]
fn one_credential_decides_alone() {
    use AuthFailure::{Ambiguous, Malformed, NoCredentials, UnknownApiKey};
    const METHODS: [AuthMethod; 3] =
        [AuthMethod::Jwt, AuthMethod::ApiKey, AuthMethod::ClientCertificate];
    let register = Register::new();
    let token = register.es.sign(&claims("anna", READ, HOUR)).unwrap();
    let good = format!("Bearer {token}");
    let good = good.as_str();
    let known = ["dns:clinic.example.com"];
    let check = |sent: &[(HeaderName, &str)],
                 names: &[&str],
                 expected: Result<&str, AuthFailure>| {
        let caller =
            register.authenticator.authenticate(&endpoint(&METHODS), &headers(sent), &peer(names));
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

/// Whether each caller (row) gets into each endpoint (column), as `.` in, `1` 401, `3` 403.
#[test]
fn the_matrix_of_callers_and_endpoints_holds() {
    let register = Register::new();
    let with_scope = register.ed.sign(&claims("anna", READ, HOUR)).unwrap();
    let without_scope = register.ed.sign(&claims("anna", "horses:reader horses", HOUR)).unwrap();
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
                match register.authenticator.authenticate(endpoint, &sent, &peer(names)) {
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
fn every_scope_is_needed_and_to_the_letter() {
    let register = Register::new();
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
        let token = register.es.sign(&claims("anna", scope, HOUR)).unwrap();
        let caller = register.authenticator.authenticate(&both, &bearer(&token), &peer(&[]));
        assert_eq!(caller.is_ok(), opens, "{scope}");
    }
}

fn refused(refusal: &AuthRefusal) -> char {
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
    let register = Register::new();
    let methods = [AuthMethod::Jwt, AuthMethod::ApiKey, AuthMethod::ClientCertificate];
    let refusal = register
        .authenticator
        .authenticate(&endpoint(&methods), &HeaderMap::new(), &peer(&[]))
        .unwrap_err();
    assert_eq!(
        refusal.challenge.unwrap(),
        r#"Bearer realm="fjord", ApiKey realm="fjord", ClientCertificate realm="fjord""#
    );
}

#[test]
fn a_configuration_is_refused_with_all_its_errors() {
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
    let told = r#"Bearer realm="fjord""#.to_owned();
    assert_eq!(refused(&nothing, &bearer("a.b.c")), (AuthFailure::NotConfigured, told));
    assert!(nothing.endpoint_error(&endpoint(&METHODS)).unwrap().contains("horse-get"));
    assert!(nothing.endpoint_error(&endpoint(&[])).is_some());
    assert!(nothing.endpoint_error(&endpoint_with(Auth::Public)).is_none());

    let keys = load(BTreeMap::from([("billing".to_owned(), api_key(&["k"], &[READ], None))]));
    let told = r#"ApiKey realm="fjord""#.to_owned();
    assert_eq!(refused(&keys, &bearer("a.b.c")), (AuthFailure::NoCredentials, told));
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
fn no_bytes_in_the_headers_open_or_panic() {
    let register = Register::new();
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
        let refusal = register.authenticator.authenticate(&all, &map, &peer(&["nobody"]));
        prop_assert_eq!(refusal.unwrap_err().problem.kind, ProblemKind::Unauthenticated);
    });
}
