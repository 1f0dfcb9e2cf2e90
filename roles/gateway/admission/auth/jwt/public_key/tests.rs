//! Tests with valid and invalid key sets.

use std::io::Write;

use serde_json::json;

use super::*;
use crate::config::auth::issuer::ALGORITHMS;

fn pem(algorithm: &'static rcgen::SignatureAlgorithm) -> rcgen::KeyPair {
    rcgen::KeyPair::generate_for(algorithm).unwrap()
}

fn p256() -> Map<String, Value> {
    let pair = pem(&rcgen::PKCS_ECDSA_P256_SHA256);
    let (x, y) = pair.public_key_raw()[1..].split_at(32);
    let jwk = json!({
        "kty": "EC", "crv": "P-256", "kid": "a",
        "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
    });
    jwk.as_object().cloned().unwrap()
}

fn with(changes: &Value) -> Value {
    let mut jwk = p256();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            jwk.remove(name);
        } else {
            jwk.insert(name.clone(), value.clone());
        }
    }
    jwk.into()
}

/// Returns all algorithms, which are allowed by default.
fn all() -> Vec<Algorithm> {
    ALGORITHMS.iter().map(|name| algorithm(name).unwrap()).collect()
}

fn jwks(keys: &[Value]) -> Result<Vec<PublicKey>, String> {
    from_jwks(&json!({ "keys": keys }).to_string(), KeyOrigin::Operator, &all())
}

#[test]
fn a_public_key_in_pem_is_used_with_its_own_algorithm() {
    for (kind, expected) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256),
        (&rcgen::PKCS_ECDSA_P384_SHA384, Algorithm::ES384),
        (&rcgen::PKCS_ED25519, Algorithm::EdDSA),
        (&rcgen::PKCS_RSA_SHA256, Algorithm::RS256),
    ] {
        let key = from_pem(&pem(kind).public_key_pem(), &all()).unwrap();
        assert_eq!((key.algorithm, key.id), (expected, None));
    }
}

#[test]
fn a_pem_that_is_not_a_single_public_key_is_rejected() {
    let pair = pem(&rcgen::PKCS_ECDSA_P256_SHA256);
    let public = pair.public_key_pem();
    let other_curve = pem(&rcgen::PKCS_ECDSA_P521_SHA512).public_key_pem();
    let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap().pem();
    let renamed = public.replace("PUBLIC KEY", "EC PUBLIC KEY");
    let cut: String = public.chars().take(90).collect();
    for bad in [
        &pair.serialize_pem(),
        &certificate,
        &other_curve,
        &renamed,
        &cut,
        &format!("{public}{public}"),
        "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----",
    ] {
        from_pem(bad, &all()).unwrap_err();
    }
    from_pem(&public, &[Algorithm::ES384, Algorithm::RS256]).unwrap_err();
}

#[test]
fn a_key_has_one_algorithm_and_only_an_allowed_one() {
    let rsa = |alg: Option<&str>| {
        let mut jwk = json!({"kty": "RSA", "kid": "r", "n": URL_SAFE_NO_PAD.encode([0xff; 256]), "e": "AQAB"});
        if let (Some(alg), Some(jwk)) = (alg, jwk.as_object_mut()) {
            jwk.insert("alg".to_owned(), alg.into());
        }
        jwk
    };
    let check = |jwk: Value, allowed: &[Algorithm], expected: Option<Algorithm>| {
        let keys = from_jwks(&json!({ "keys": [jwk] }).to_string(), KeyOrigin::Operator, allowed);
        let found = keys.ok().map(|keys| keys[0].algorithm);
        assert_eq!(found, expected, "{jwk} {allowed:?}");
    };
    check(rsa(None), &all(), Some(Algorithm::RS256));
    check(
        rsa(None),
        &[Algorithm::ES256, Algorithm::PS384, Algorithm::RS256],
        Some(Algorithm::PS384),
    );
    check(rsa(Some("PS256")), &all(), Some(Algorithm::PS256));
    check(rsa(Some("RS512")), &all(), Some(Algorithm::RS512));
    check(rsa(Some("PS256")), &[Algorithm::RS256], None);
    check(rsa(Some("HS256")), &all(), None);
    check(rsa(Some("ES256")), &all(), None);
    check(with(&json!({})), &[Algorithm::ES384, Algorithm::RS256], None);
    check(with(&json!({"alg": "ES384"})), &all(), None);
}

#[test]
fn keys_for_other_uses_are_skipped() {
    for other in [
        json!({"use": "enc"}),
        json!({"key_ops": ["encrypt"]}),
        json!({"key_ops": "verify"}),
        json!({"alg": "ES384"}),
        json!({"alg": 1}),
        json!({"crv": "P-521"}),
        json!({"kty": "FUTURE"}),
        json!({"kty": null}),
    ] {
        let keys = jwks(&[with(&other), with(&json!({"kid": "b"}))]).unwrap();
        assert_eq!(keys.len(), 1, "{other}");
        assert_eq!(keys[0].id.as_deref(), Some("b"));
        assert!(jwks(&[with(&other)]).unwrap_err().starts_with("no key for"), "{other}");
    }
    for own in [json!({"use": "sig"}), json!({"key_ops": ["verify"]}), json!({"alg": "ES256"})] {
        assert_eq!(jwks(&[with(&own)]).unwrap().len(), 1, "{own}");
    }
}

#[test]
fn the_error_for_an_invalid_key_names_its_index_and_does_not_quote_it() {
    let check = |changes: Value, expected: &str| {
        let error = jwks(&[p256().into(), with(&changes)]).unwrap_err();
        assert!(error.contains(expected), "{changes}: {error}");
    };
    check(json!({"kid": "b", "d": "c2VjcmV0"}), "keys[1]: expected a public key");
    check(json!({"kid": "b", "kty": "oct", "k": "c2VjcmV0"}), "keys[1]: expected a public key");
    check(json!({"kid": "b", "x": "AAAA"}), "keys[1]: not a key for");
    check(json!({"kid": "b", "x": "="}), "keys[1]: expected base64url");
    check(json!({"kid": "b", "y": null}), "keys[1]: expected a string \"y\"");
    check(json!({"kid": 7}), "keys[1]: expected a string \"kid\"");
    check(json!({"kid": "a"}), "keys[1]: another key");
    check(json!({"kid": null}), "expected a \"kid\" in every key");
    let rsa = |n: &[u8], e: &str| {
        let jwk = json!({"kty": "RSA", "kid": "r", "n": URL_SAFE_NO_PAD.encode(n), "e": e});
        jwks(&[jwk]).map(|keys| keys.len())
    };
    assert_eq!(rsa(&[0xff; 256], "AQAB"), Ok(1));
    assert_eq!(rsa(&[0xff; 1024], "AQAB"), Ok(1));
    assert_eq!(rsa(&[0xff; 256], "AAAAAAAAAAAAAQAB"), Ok(1), "leading zeros are allowed");
    let padded = [vec![0; 128], vec![0xff; 128]].concat();
    for n in [&[0xff; 255][..], &[0xff; 1025], &padded] {
        assert!(rsa(n, "AQAB").unwrap_err().contains("2048 to 8192 bits"));
    }
    let even = [vec![0xff; 255], vec![0]].concat();
    assert!(rsa(&even, "AQAB").unwrap_err().contains("odd \"n\""));
    for e in ["", "AA", "AQ", "Ag", "AgAAAAE", "AQAAAAAAAAAB"] {
        assert!(rsa(&[0xff; 256], e).unwrap_err().contains("odd \"e\""), "{e}");
    }
}

#[test]
fn a_file_without_keys_is_rejected() {
    let check = |text: &[u8], expected: &str| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        let error = load(file.path(), &all()).unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    };
    check(b"", "expected a JWKS");
    check(b"s3cret", "expected a JWKS");
    check(b"{\"s3cret\"", "not a JWKS: broken or ambiguous JSON at line 1");
    check(b"{\"keys\":[],\"keys\":[]}", "not a JWKS: broken or ambiguous");
    check(b"{\"keys\":{}}", "expected an array");
    check(b"{\"keys\":[1]}", "keys[0]: expected an object");
    check(b"{\"keys\":[]}", "no key for");
    check(b"\xff\xfe", "cannot be read");
    check(&vec![b' '; 1 << 20 | 1], "larger than");
    assert!(
        load(Path::new("/nonexistent/keys.json"), &all()).unwrap_err().contains("cannot be read")
    );
}

#[test]
fn an_invalid_key_from_an_issuer_is_skipped_but_a_secret_key_is_an_error() {
    let good = with(&json!({}));
    let odd = [
        json!("text"),
        with(&json!({"kid": 7})),
        with(&json!({"x": "AA"})),
        with(&json!({"kid": null})),
        good.clone(),
    ];
    for odd in odd {
        let set = json!({ "keys": [good, odd] }).to_string();
        let keys = from_jwks(&set, KeyOrigin::Issuer, &all()).unwrap();
        assert_eq!(keys.len(), 1, "{odd}");
        assert!(
            from_jwks(&set, KeyOrigin::Operator, &all()).is_err(),
            "in the operator's file, it is an error: {odd}"
        );
    }
    let secret = json!({ "keys": [good, with(&json!({"d": "AA"}))] }).to_string();
    assert!(from_jwks(&secret, KeyOrigin::Issuer, &all()).is_err());
    let nothing = json!({ "keys": [with(&json!({"x": "AA"}))] }).to_string();
    assert!(from_jwks(&nothing, KeyOrigin::Issuer, &all()).is_err());
}
