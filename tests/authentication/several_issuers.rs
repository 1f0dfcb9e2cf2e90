//! Several issuers on one gateway. An issuer's tokens can name only that issuer's principals.

use std::collections::BTreeMap;

use fjord::catalogue::Endpoint;
use fjord::catalogue::{Auth, AuthMethod};
use fjord::config::AuthConfig;
use fjord::config::auth::IssuerConfig;
use fjord::config::auth::issuer::ALGORITHMS;
use fjord::roles::gateway::admission::auth::{AuthFailure, Authenticator};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::fixture::{bearer, endpoint_with, file, issuer_config, peer};
use super::{HOUR, READ};
use crate::support::tokens::{Signer, claims_of, jwks};

const STAFF: &str = "https://login.example.com/";
const PARTNER: &str = "https://partner.example/";

/// An authenticator that accepts two issuers whose keys have the same id.
struct TwoIssuers {
    staff: Signer,
    partner: Signer,
    authenticator: Authenticator,
}

impl TwoIssuers {
    fn new() -> Self {
        Self::with(Signer::p256("key").unwrap(), Signer::rsa("key").unwrap(), |_| {})
    }

    /// Creates an authenticator with these keys. `change` edits the partner's configuration.
    fn with(staff: Signer, partner: Signer, change: impl Fn(&mut IssuerConfig)) -> Self {
        let files = [&staff, &partner].map(|signer| file(&jwks(&[signer]).unwrap()));
        let mut staff_config = issuer_config(STAFF, &files[0]);
        staff_config.principal_prefix = "staff:".to_owned();
        let mut partner_config = issuer_config(PARTNER, &files[1]);
        partner_config.principal_prefix = "partner:".to_owned();
        partner_config.audiences = vec!["fjord-partner".to_owned(), "fjord-test".to_owned()];
        change(&mut partner_config);
        let issuers = BTreeMap::from([
            ("staff".to_owned(), staff_config),
            ("partner".to_owned(), partner_config),
        ]);
        let authenticator = AuthConfig { issuers, ..AuthConfig::default() };
        Self { staff, partner, authenticator: Authenticator::load(&authenticator).unwrap() }
    }

    fn authenticate(&self, endpoint: &Endpoint, token: &str) -> Result<String, AuthFailure> {
        let caller = self.authenticator.authenticate(endpoint, &bearer(token), &peer(&[]));
        caller.map(|c| c.principal.unwrap().to_string()).map_err(|refusal| refusal.failure)
    }

    /// Authenticates a token from the partner with changed claims.
    fn authenticate_partner(&self, changes: &Value) -> Result<String, AuthFailure> {
        let mut claims = partner_claims("anna");
        for (name, value) in changes.as_object().unwrap() {
            claims.as_object_mut().unwrap().insert(name.clone(), value.clone());
        }
        self.authenticate(&accepting(&[]), &self.partner.sign(&claims).unwrap())
    }
}

fn partner_claims(subject: &str) -> Value {
    let mut claims = claims_of(PARTNER, subject, READ, HOUR);
    claims["aud"] = "fjord-partner".into();
    claims
}

fn staff_claims(subject: &str) -> Value {
    claims_of(STAFF, subject, READ, HOUR)
}

/// Returns an endpoint that accepts tokens from the given issuers, or from all issuers if the list
/// is empty.
fn accepting(issuers: &[&str]) -> Endpoint {
    endpoint_with(Auth::Required {
        methods: vec![AuthMethod::Jwt],
        scopes: vec![READ.to_owned()],
        issuers: issuers.iter().map(|name| (*name).to_owned()).collect(),
    })
}

#[test]
fn each_issuer_has_its_own_principals() {
    let gateway = TwoIssuers::new();
    let all = accepting(&[]);
    let staff = gateway.staff.sign(&staff_claims("anna")).unwrap();
    assert_eq!(gateway.authenticate(&all, &staff).as_deref(), Ok("staff:anna"));
    assert_eq!(gateway.authenticate_partner(&json!({})).as_deref(), Ok("partner:anna"));
    for subject in ["staff:anna", ":anna", "anna"] {
        let principal = gateway.authenticate_partner(&json!({ "sub": subject })).unwrap();
        assert_eq!(principal, format!("partner:{subject}"));
    }
    assert_eq!(
        gateway.authenticate_partner(&json!({ "sub": " staff:anna" })),
        Err(AuthFailure::BadClaims)
    );
    let long = "x".repeat(250);
    assert_eq!(gateway.authenticate_partner(&json!({ "sub": long })), Err(AuthFailure::BadClaims));
}

#[test]
fn no_issuer_can_issue_tokens_for_another() {
    use AuthFailure::{BadClaims, BadSignature, Malformed, UnknownKey, WrongAlgorithm};
    use AuthFailure::{WrongAudience, WrongIssuer};
    // Both signers have the same algorithm and key id, so that only the keys differ.
    let gateway =
        TwoIssuers::with(Signer::p256("key").unwrap(), Signer::p256("key").unwrap(), |_| {});
    // A token is signed by one issuer and names the other.
    let stolen = gateway.partner.sign(&staff_claims("anna")).unwrap();
    assert_eq!(gateway.authenticate(&accepting(&[]), &stolen), Err(BadSignature));
    for (changes, expected) in [
        (json!({ "iss": STAFF, "aud": "fjord" }), BadSignature),
        (json!({ "iss": [STAFF, PARTNER] }), BadClaims),
        (json!({ "iss": [PARTNER] }), BadClaims),
        (json!({ "iss": { "a": PARTNER } }), BadClaims),
        (json!({ "iss": null }), BadClaims),
        (json!({ "iss": "" }), WrongIssuer),
        (json!({ "iss": "https://partner.example" }), WrongIssuer),
        (json!({ "iss": "https://PARTNER.example/" }), WrongIssuer),
        (json!({ "iss": "partner" }), WrongIssuer),
        (json!({ "aud": "fjord" }), WrongAudience),
        (json!({ "aud": [] }), WrongAudience),
    ] {
        assert_eq!(gateway.authenticate_partner(&changes), Err(expected), "{changes}");
    }
    let mut claims = partner_claims("anna");
    claims.as_object_mut().unwrap().remove("iss");
    let nameless = gateway.partner.sign(&claims).unwrap();
    assert_eq!(gateway.authenticate(&accepting(&[]), &nameless), Err(BadClaims));
    // A token has two `iss` members. Some parsers use the first one, others use the last one.
    let twice =
        partner_claims("anna").to_string().replacen('{', &format!(r#"{{"iss":"{STAFF}","#), 1);
    let header = gateway.partner.header().to_string();
    let twice = gateway.partner.sign_text(&header, &twice).unwrap();
    assert_eq!(gateway.authenticate(&accepting(&[]), &twice), Err(Malformed));
    // A key id is looked up only among the keys of the issuer that the token names.
    let gateway = TwoIssuers::with(Signer::p256("s").unwrap(), Signer::rsa("p").unwrap(), |_| {});
    let stolen = gateway.partner.sign(&staff_claims("anna")).unwrap();
    assert_eq!(gateway.authenticate(&accepting(&[]), &stolen), Err(UnknownKey));
    let header = json!({"typ": "JWT", "alg": "RS256", "kid": "s"}).to_string();
    let stolen = gateway.partner.sign_text(&header, &staff_claims("anna").to_string()).unwrap();
    assert_eq!(gateway.authenticate(&accepting(&[]), &stolen), Err(WrongAlgorithm));
    let header = json!({"typ": "JWT", "alg": "ES256", "kid": "s"}).to_string();
    let stolen = gateway.partner.sign_text(&header, &staff_claims("anna").to_string()).unwrap();
    assert_eq!(gateway.authenticate(&accepting(&[]), &stolen), Err(BadSignature));
}

#[test]
fn an_endpoint_accepts_only_the_issuers_that_it_names() {
    let gateway = TwoIssuers::new();
    let staff = gateway.staff.sign(&staff_claims("anna")).unwrap();
    let partner = gateway.partner.sign(&partner_claims("anna")).unwrap();
    // The second pass uses cached tokens.
    for _ in 0..2 {
        for (issuers, staff_gets_in, partner_gets_in) in [
            (&[][..], true, true),
            (&["staff"], true, false),
            (&["partner"], false, true),
            (&["partner", "staff"], true, true),
        ] {
            let endpoint = accepting(issuers);
            let refused = Err(AuthFailure::WrongIssuer);
            let expected =
                if staff_gets_in { Ok("staff:anna".to_owned()) } else { refused.clone() };
            assert_eq!(gateway.authenticate(&endpoint, &staff), expected, "{issuers:?}");
            let expected = if partner_gets_in { Ok("partner:anna".to_owned()) } else { refused };
            assert_eq!(gateway.authenticate(&endpoint, &partner), expected, "{issuers:?}");
        }
    }
    assert_eq!(gateway.authenticator.endpoint_error(&accepting(&["staff"])), None);
    let (key, error) =
        gateway.authenticator.endpoint_error(&accepting(&["staff", "staf"])).unwrap();
    assert_eq!(key, "auth.issuers");
    assert!(error.contains("no [auth.jwt.staf]"), "{error}");
}

#[test]
fn every_algorithm_accepts_only_its_own_key() {
    let rsa = [
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
    ];
    let mut signers: Vec<Signer> =
        rsa.into_iter().map(|algorithm| Signer::rsa_for("key", algorithm).unwrap()).collect();
    signers.extend(
        [Signer::p256("key"), Signer::p384("key"), Signer::ed25519("key")].map(Result::unwrap),
    );
    for signer in signers {
        let gateway = TwoIssuers::with(Signer::p256("s").unwrap(), signer, |_| {});
        let own = gateway.partner.header()["alg"].as_str().unwrap().to_owned();
        assert_eq!(
            gateway.authenticate_partner(&json!({})).as_deref(),
            Ok("partner:anna"),
            "{own}"
        );
        for other in ALGORITHMS.into_iter().chain(["HS256", "none", "ES512"]).filter(|a| *a != own)
        {
            let header = json!({"alg": other, "kid": "key"}).to_string();
            let claims = partner_claims("anna").to_string();
            let token = gateway.partner.sign_text(&header, &claims).unwrap();
            let got = gateway.authenticate(&accepting(&[]), &token);
            assert_eq!(got, Err(AuthFailure::WrongAlgorithm), "{own} {other}");
        }
    }
}

#[test]
fn a_key_for_an_algorithm_that_is_not_allowed_is_an_error() {
    let signer = Signer::rsa_for("key", Algorithm::PS256).unwrap();
    let keys = file(&jwks(&[&signer]).unwrap());
    let mut config = issuer_config(PARTNER, &keys);
    config.algorithms = vec!["RS256".to_owned(), "ES256".to_owned()];
    let issuers = BTreeMap::from([("partner".to_owned(), config)]);
    let errors = Authenticator::load(&AuthConfig { issuers, ..AuthConfig::default() });
    let errors = errors.unwrap_err().join("\n");
    assert!(errors.contains("no key for RS256, ES256"), "{errors}");
}
