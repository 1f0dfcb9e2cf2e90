//! An authenticator for the tests' credentials, and builders of endpoints, headers and settings.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use fjord::catalogue::cors::CorsSettings;
use fjord::catalogue::{Auth, AuthMethod, Endpoint, EndpointDefaults, load};
use fjord::config::AuthConfig;
use fjord::config::auth::issuer::ALGORITHMS;
use fjord::config::auth::{ApiKeyConfig, CertificateConfig, IssuerConfig, KeySource};
use fjord::problem::ProblemKind;
use fjord::roles::gateway::admission::auth::{AuthFailure, AuthRejection, Authenticator};
use fjord::roles::gateway::client::{Caller, Peer};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use tempfile::NamedTempFile;

use super::READ;
use crate::support::tokens::{self, Signer, jwks};

/// An issuer's signing keys, and an authenticator that accepts its tokens.
pub(super) struct IssuerFixture {
    pub(super) es: Signer,
    pub(super) ed: Signer,
    pub(super) rs: Signer,
    pub(super) authenticator: Authenticator,
}

impl IssuerFixture {
    pub(super) fn new() -> Self {
        let (es, ed, rs) = (
            Signer::p256("es").unwrap(),
            Signer::ed25519("ed").unwrap(),
            Signer::rsa("rs").unwrap(),
        );
        let keys = jwks(&[&es, &ed, &rs]).unwrap();
        Self { es, ed, rs, authenticator: Authenticator::load(&config(&file(&keys))).unwrap() }
    }

    pub(super) fn with_token(&self, token: &str) -> Result<Caller, Box<AuthRejection>> {
        self.authenticator.authenticate(&endpoint(&[AuthMethod::Jwt]), &bearer(token), &peer(&[]))
    }

    #[track_caller]
    pub(super) fn assert_rejected(&self, token: &str, expected: AuthFailure) {
        let refusal = self.with_token(token).unwrap_err();
        assert_eq!(refusal.failure, expected, "{token}");
        assert_eq!(refusal.problem.kind, ProblemKind::Unauthenticated);
        assert_eq!(refusal.problem.detail, None);
        assert_eq!(refusal.challenge.unwrap(), r#"Bearer realm="fjord", error="invalid_token""#);
    }
}

pub(super) fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// Returns the SHA-256 hash of an API key, in the format of the configuration.
pub(crate) fn hash(key: &str) -> String {
    digest(&SHA256, key.as_bytes()).as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

pub(super) fn api_key(keys: &[&str], scopes: &[&str], expires_at: Option<i64>) -> ApiKeyConfig {
    ApiKeyConfig {
        sha256: keys.iter().map(|key| hash(key)).collect(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        expires_at,
        claims: BTreeMap::new(),
    }
}

pub(super) fn issuer_config(issuer: &str, keys: &NamedTempFile) -> IssuerConfig {
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

pub(super) fn config(keys: &NamedTempFile) -> AuthConfig {
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

/// Returns an endpoint that accepts the given methods and requires the scope `horses:read`.
pub(super) fn endpoint(methods: &[AuthMethod]) -> Endpoint {
    endpoint_with(required(methods, &[READ]))
}

pub(super) fn required(methods: &[AuthMethod], scopes: &[&str]) -> Auth {
    let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    Auth::Required { methods: methods.to_vec(), scopes, issuers: Vec::new() }
}

pub(super) fn endpoint_with(auth: Auth) -> Endpoint {
    let defaults = EndpointDefaults {
        auth: Some(auth),
        timeout: Duration::from_secs(1),
        attempts: 1,
        body_bytes_max: 0,
        body_bytes_ceiling: 1,
        cors: CorsSettings::default(),
    };
    let text = r#"{ "horse-get": { "route": "GET /v1/horses", "handler": "echo" } }"#;
    let catalogue = load::parse(&[("endpoints.json", text)], &defaults).expect("a valid endpoint");
    Endpoint::clone(&catalogue.endpoints()[0])
}

pub(super) fn peer(names: &[&str]) -> Peer {
    Peer {
        certificate_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Peer::new(Ipv4Addr::LOCALHOST.into(), true)
    }
}

pub(super) fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

pub(super) fn bearer(token: &str) -> HeaderMap {
    headers(&[(AUTHORIZATION, &format!("Bearer {token}"))])
}
