//! Forged tokens are rejected, and unusual but valid tokens are accepted.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fjord::catalogue::AuthMethod;
use fjord::roles::gateway::admission::auth::{AuthFailure, Authenticator};
use serde_json::{Value, json};

use super::fixture::{IssuerFixture, bearer, config, endpoint, file, peer};
use super::{HOUR, READ};
use crate::support::tokens::{self, Signer, claims, jwks, now, unsigned};

/// Returns valid claims with changes applied. `null` removes a claim.
fn claims_but(changes: &Value) -> Value {
    let mut claims = claims("anna", READ, HOUR);
    let members = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    claims
}

#[test]
fn a_valid_token_of_each_algorithm_is_accepted_every_time() {
    let fixture = IssuerFixture::new();
    for signer in [&fixture.es, &fixture.ed, &fixture.rs] {
        let token = signer.sign(&claims("anna", "a horses:read b", HOUR)).unwrap();
        for _ in 0..3 {
            let caller = fixture.with_token(&token).unwrap();
            assert_eq!(caller.principal.as_deref(), Some("anna"));
            assert_eq!(caller.scopes, ["a", READ, "b"]);
            assert_eq!(caller.claim("aud"), Some(&tokens::AUDIENCE.into()));
        }
    }
}

#[test]
fn unusual_but_valid_claims_are_accepted() {
    let fixture = IssuerFixture::new();
    for changes in [
        json!({"aud": ["other", tokens::AUDIENCE]}),
        json!({"exp": now() - 20}),
        json!({"nbf": now() + 20}),
        json!({"nbf": 0}),
        json!({"exp": 4_000_000_000.5_f64}),
        json!({"scope": null, "scp": READ}),
        json!({"scope": null, "scp": ["a", READ]}),
        json!({"scope": null, "scopes": [READ, 1]}),
    ] {
        let token = fixture.es.sign(&claims_but(&changes)).unwrap();
        fixture.with_token(&token).unwrap_or_else(|refusal| panic!("{changes}: {refusal:?}"));
    }
    for kind in ["at+jwt", "jwt", "application/at+JWT"] {
        let header = json!({"typ": kind, "alg": "ES256", "kid": "es"}).to_string();
        let claims = claims("anna", READ, HOUR).to_string();
        fixture.with_token(&fixture.es.sign_text(&header, &claims).unwrap()).unwrap();
    }
}

#[test]
fn a_token_with_bad_claims_is_rejected() {
    use AuthFailure::{BadClaims, Expired, NotYetValid, WrongAudience, WrongIssuer};
    let fixture = IssuerFixture::new();
    for (changes, expected) in [
        (json!({"exp": now() - 40}), Expired),
        (json!({"exp": 0}), Expired),
        (json!({"nbf": now() + 40}), NotYetValid),
        (json!({"aud": "other"}), WrongAudience),
        (json!({"aud": []}), WrongAudience),
        (json!({"aud": "fjord2"}), WrongAudience),
        (json!({"iss": "https://login.example.com"}), WrongIssuer),
        (json!({"iss": [tokens::ISSUER]}), BadClaims),
        (json!({"exp": "4000000000"}), BadClaims),
        (json!({"exp": -1}), BadClaims),
        (json!({"exp": 1e300}), BadClaims),
        (json!({"exp": u64::MAX}), BadClaims),
        (json!({"nbf": true}), BadClaims),
        (json!({"aud": 1}), BadClaims),
        (json!({"iss": 1}), BadClaims),
        (json!({"sub": 1}), BadClaims),
        (json!({"sub": ""}), BadClaims),
        (json!({"sub": "anna\r\nNats-Expected-Stream: x"}), BadClaims),
        (json!({"sub": "anna\u{0}"}), BadClaims),
        (json!({"sub": "x".repeat(257)}), BadClaims),
    ] {
        fixture.assert_rejected(&fixture.es.sign(&claims_but(&changes)).unwrap(), expected);
    }
    for claim in ["exp", "aud", "iss", "sub"] {
        let token = fixture.es.sign(&claims_but(&json!({ claim: null }))).unwrap();
        fixture.assert_rejected(&token, BadClaims);
    }
}

#[test]
fn a_token_with_a_wrong_header_is_rejected() {
    use AuthFailure::{BadSignature, Malformed, UnknownKey, WrongAlgorithm};
    let fixture = IssuerFixture::new();
    let good = claims("anna", READ, HOUR).to_string();
    let check = |header: Value, expected: AuthFailure| {
        let token = fixture.es.sign_text(&header.to_string(), &good).unwrap();
        fixture.assert_rejected(&token, expected);
    };
    check(json!({"alg": "ES256"}), UnknownKey);
    check(json!({"alg": "ES256", "kid": "nobody"}), UnknownKey);
    check(json!({"alg": "ES256", "kid": "../../../etc/passwd"}), UnknownKey);
    check(json!({"alg": "ES256", "kid": 1}), Malformed);
    check(json!({"alg": "ES256", "kid": null}), Malformed);
    check(json!({"alg": "EdDSA", "kid": "ed"}), BadSignature);
    check(json!({"alg": "RS256", "kid": "rs"}), BadSignature);
    for algorithm in
        ["none", "None", "NONE", "", "HS256", "HS512", "ES384", "RS256", "PS256", "es256"]
    {
        check(json!({"alg": algorithm, "kid": "es"}), WrongAlgorithm);
    }
    check(json!({"kid": "es"}), WrongAlgorithm);
    check(json!({"alg": ["ES256"], "kid": "es"}), WrongAlgorithm);
    check(json!({"alg": "ES256", "kid": "es", "crit": ["b64"], "b64": false}), Malformed);
    check(json!({"alg": "ES256", "kid": "es", "typ": "logout+jwt"}), Malformed);
    check(json!({"alg": "ES256", "kid": "es", "typ": 1}), Malformed);
    check(json!(["ES256", "es"]), Malformed);
}

#[test]
fn a_key_in_the_token_itself_is_ignored() {
    let fixture = IssuerFixture::new();
    let stranger = Signer::p256("es").unwrap();
    let good = claims("anna", READ, HOUR).to_string();
    for extra in [
        json!({}),
        json!({"jwk": stranger.jwk().unwrap()}),
        json!({"jku": "https://stranger.example.com/keys"}),
        json!({"x5u": "https://stranger.example.com/keys"}),
        json!({"x5c": ["AAAA"]}),
    ] {
        let mut header = stranger.header();
        header.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let token = stranger.sign_text(&header.to_string(), &good).unwrap();
        fixture.assert_rejected(&token, AuthFailure::BadSignature);
    }
}

#[test]
fn unsigned_and_hmac_tokens_are_rejected() {
    let fixture = IssuerFixture::new();
    let good = claims("anna", READ, HOUR).to_string();
    for signer in [&fixture.es, &fixture.ed, &fixture.rs] {
        // Algorithm confusion: the attacker uses the public key as an HMAC secret.
        let kid = signer.header()["kid"].clone();
        let message = unsigned(&json!({"alg": "HS256", "kid": kid}).to_string(), &good);
        let pem = signer.public_pem();
        for secret in [pem.as_bytes(), pem.trim_end().as_bytes(), b""] {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
            let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
            fixture.assert_rejected(&format!("{message}.{tag}"), AuthFailure::WrongAlgorithm);
        }
        let unsigned_token = unsigned(&json!({"alg": "none", "kid": kid}).to_string(), &good);
        fixture.assert_rejected(&format!("{unsigned_token}."), AuthFailure::WrongAlgorithm);
        let stripped = unsigned(&signer.header().to_string(), &good);
        fixture.assert_rejected(&format!("{stripped}."), AuthFailure::BadSignature);
        fixture.assert_rejected(&stripped, AuthFailure::Malformed);
        let zeros = URL_SAFE_NO_PAD.encode([0; 64]);
        fixture.assert_rejected(&format!("{stripped}.{zeros}"), AuthFailure::BadSignature);
    }
}

#[test]
fn a_modified_token_is_rejected() {
    let fixture = IssuerFixture::new();
    let token = fixture.es.sign(&claims("anna", READ, HOUR)).unwrap();
    fixture.with_token(&token).unwrap();
    let mut cut = token.clone();
    while cut.pop().is_some() {
        assert!(fixture.with_token(&cut).is_err(), "{cut}");
    }
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let touched = String::from_utf8(bytes).unwrap();
        assert!(fixture.with_token(&touched).is_err(), "modified at {at}");
    }
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        panic!("three parts")
    };
    for bad in [
        format!("{token}="),
        format!("{token}."),
        format!(".{token}"),
        format!("{header}.{payload}.{signature}.{signature}"),
        format!("{header}={payload}.{signature}"),
        format!("{header}.{payload}.{signature},Bearer {token}"),
        format!("{header} .{payload}.{signature}"),
        format!("{token} {token}"),
        "..".to_owned(),
        "a".repeat(64 * 1024),
    ] {
        fixture.assert_rejected(&bad, AuthFailure::Malformed);
    }
    let other = fixture.es.sign(&claims("bert", READ, HOUR)).unwrap();
    let other_payload = other.split('.').nth(1).unwrap();
    let exchanged = format!("{header}.{other_payload}.{signature}");
    fixture.assert_rejected(&exchanged, AuthFailure::BadSignature);
    fixture.assert_rejected(&format!("{header}..{signature}"), AuthFailure::Malformed);
}

#[test]
fn a_token_with_duplicate_members_or_trailing_text_is_rejected() {
    let fixture = IssuerFixture::new();
    let header = fixture.es.header().to_string();
    let good = claims("anna", READ, HOUR).to_string();
    let twice = |text: &str, member: &str| text.replacen('{', &format!("{{{member},"), 1);
    let check = |header: &str, claims: &str| {
        let token = fixture.es.sign_text(header, claims).unwrap();
        fixture.assert_rejected(&token, AuthFailure::Malformed);
    };
    check(&header, &twice(&good, r#""sub":"bert""#));
    check(&header, &twice(&good, r#""\u0073ub":"bert""#));
    check(&header, &twice(&good, r#""exp":4000000000"#));
    check(&header, &twice(&good, r#""org":{"id":1,"id":2}"#));
    check(&twice(&header, r#""kid":"ed""#), &good);
    check(&twice(&header, r#""alg":"none""#), &good);
    check(&header, "[]");
    check(&header, "not JSON");
    check(&header, &format!("{good} trailing"));
    check(&header, &"[".repeat(4_000));
    let large = claims_but(&json!({"padding": "x".repeat(64 * 1024)}));
    check(&header, &large.to_string());
}

#[test]
fn a_rotated_key_is_accepted_until_it_is_removed() {
    let (old, new) = (Signer::p256("2024").unwrap(), Signer::p256("2025").unwrap());
    let load =
        |signers: &[&Signer]| Authenticator::load(&config(&file(&jwks(signers).unwrap()))).unwrap();
    let endpoint = endpoint(&[AuthMethod::Jwt]);
    let check = |authenticator: &Authenticator, signer: &Signer| {
        let token = signer.sign(&claims("anna", READ, HOUR)).unwrap();
        authenticator.authenticate(&endpoint, &bearer(&token), &peer(&[])).map_err(|r| r.failure)
    };
    let both = load(&[&old, &new]);
    assert!(check(&both, &old).is_ok() && check(&both, &new).is_ok());
    let after = load(&[&new]);
    assert_eq!(check(&after, &old).unwrap_err(), AuthFailure::UnknownKey);
    assert!(check(&after, &new).is_ok());
    // The id of a known key does not make another key valid.
    let renamed = Signer::p256("2025").unwrap();
    assert_eq!(check(&after, &renamed).unwrap_err(), AuthFailure::BadSignature);
}

#[test]
fn a_single_pem_key_needs_no_id_and_has_one_algorithm() {
    for signer in [Signer::p256("k"), Signer::ed25519("k"), Signer::rsa("k")] {
        let signer = signer.unwrap();
        let authenticator = Authenticator::load(&config(&file(&signer.public_pem()))).unwrap();
        let good = claims("anna", READ, HOUR).to_string();
        let check = |header: Value| {
            let token = signer.sign_text(&header.to_string(), &good).unwrap();
            let endpoint = endpoint(&[AuthMethod::Jwt]);
            authenticator
                .authenticate(&endpoint, &bearer(&token), &peer(&[]))
                .map_err(|r| r.failure)
        };
        let algorithm = signer.header()["alg"].clone();
        assert!(check(json!({"alg": algorithm})).is_ok());
        assert!(check(json!({"alg": algorithm, "kid": "any"})).is_ok());
        assert_eq!(check(json!({"alg": "HS256"})).unwrap_err(), AuthFailure::WrongAlgorithm);
    }
}

#[test]
fn the_principal_is_the_configured_claim() {
    let signer = Signer::p256("k").unwrap();
    let keys = file(&signer.public_pem());
    let mut config = config(&keys);
    if let Some(issuer) = config.issuers.get_mut("main") {
        issuer.principal_claim = "app.id".to_owned();
    }
    let authenticator = Authenticator::load(&config).unwrap();
    let check = |changes: Value, expected: Result<&str, AuthFailure>| {
        let token = signer.sign(&claims_but(&changes)).unwrap();
        let caller =
            authenticator.authenticate(&endpoint(&[AuthMethod::Jwt]), &bearer(&token), &peer(&[]));
        let got = caller.map(|c| c.principal.unwrap().to_string()).map_err(|r| r.failure);
        assert_eq!(got, expected.map(str::to_owned), "{changes}");
    };
    check(json!({"app": {"id": "ferry"}}), Ok("ferry"));
    check(json!({"app": {"id": 7}}), Err(AuthFailure::BadClaims));
    check(json!({"app": "ferry"}), Err(AuthFailure::BadClaims));
    check(json!({}), Err(AuthFailure::BadClaims));
    check(json!({"app": {"id": "ferry"}, "sub": null}), Err(AuthFailure::BadClaims));
}
