//! Reads the public keys that verify tokens: a JWKS (RFC 7517), or one PEM-encoded key.
//!
//! A key has one algorithm: the one that its JWKS names, or else the first configured algorithm that fits its type.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde_json::{Map, Value};

use super::unique_json::UniqueObject;

/// The maximum size of a key set, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 1 << 20;
/// The maximum number of keys in a key set.
const KEYS_MAX: usize = 100;
/// The minimum length of an RSA modulus, in bytes (2048 bits).
const RSA_BYTES_MIN: usize = 256;
/// The maximum length of an RSA modulus, in bytes (8192 bits). A longer key cannot verify any
/// token.
const RSA_BYTES_MAX: usize = 1024;

/// The maximum public exponent of an RSA key. A key with a larger one cannot verify any token.
const RSA_EXPONENT_MAX: u64 = (1 << 33) - 1;

/// The error for a key set that contains a secret key. The whole set is rejected.
const SECRET: &str = "expected a public key, found a secret key";

/// The party that maintains a key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyOrigin {
    /// The operator: an unusable key is an error.
    Operator,
    /// The issuer: an unusable key is skipped (RFC 7517 §5), because an error would prevent the use of new keys.
    Issuer,
}

/// A key that verifies tokens. Its algorithm never depends on a token.
#[derive(Clone, Debug)]
pub(super) struct PublicKey {
    /// The id by which tokens refer to the key.
    pub(super) id: Option<String>,
    /// The only algorithm that the key is used with.
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// Reads a file with keys.
pub(super) fn load(path: &Path, allowed: &[Algorithm]) -> Result<Vec<PublicKey>, String> {
    let text = read(path).map_err(|e| format!("cannot be read: {e}"))?;
    // Windows editors write a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if text.trim_start().starts_with('{') {
        from_jwks(text, KeyOrigin::Operator, allowed)
    } else if text.contains("-----BEGIN ") {
        from_pem(text, allowed).map(|key| vec![key])
    } else {
        Err("expected a JWKS (JSON) or a public key in PEM".to_owned())
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let bytes = File::open(path)?.take(TEXT_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    if bytes > TEXT_BYTES_MAX {
        return Err(std::io::Error::other(format!("larger than {TEXT_BYTES_MAX} bytes")));
    }
    Ok(text)
}

pub(super) fn from_jwks(
    text: &str,
    origin: KeyOrigin,
    allowed: &[Algorithm],
) -> Result<Vec<PublicKey>, String> {
    let UniqueObject(set) =
        serde_json::from_str(text).map_err(|e| format!("not a JWKS: {}", error_position(&e)))?;
    let Some(Value::Array(entries)) = set.get("keys") else {
        return Err("not a JWKS: expected an array \"keys\"".to_owned());
    };
    if entries.len() > KEYS_MAX {
        return Err(format!("expected at most {KEYS_MAX} keys"));
    }
    let mut keys: Vec<PublicKey> = Vec::new();
    let mut skipped = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        let with_index = |error: &str| format!("keys[{number}]: {error}");
        if entry.as_object().is_some_and(is_secret) {
            return Err(with_index(SECRET));
        }
        match from_entry(entry, &keys, allowed) {
            Ok(key) => keys.extend(key),
            Err(error) if origin == KeyOrigin::Issuer => skipped.push(with_index(&error)),
            Err(error) => return Err(with_index(&error)),
        }
    }
    if keys.len() > 1 && keys.iter().any(|key| key.id.is_none()) {
        let error = "expected a \"kid\" in every key, because there are several keys".to_owned();
        if origin == KeyOrigin::Operator {
            return Err(error);
        }
        keys.retain(|key| key.id.is_some());
        skipped.push(error);
    }
    for error in skipped {
        tracing::warn!(error, "skipping a key of the issuer");
    }
    if keys.is_empty() {
        return Err(format!("no key for {}", names(allowed)));
    }
    Ok(keys)
}

fn from_entry(
    entry: &Value,
    before: &[PublicKey],
    allowed: &[Algorithm],
) -> Result<Option<PublicKey>, String> {
    let entry = entry.as_object().ok_or("expected an object")?;
    let key = from_jwk(entry, allowed)?;
    let is_double = key
        .as_ref()
        .is_some_and(|key| key.id.is_some() && before.iter().any(|other| other.id == key.id));
    if is_double { Err("another key has the same \"kid\"".to_owned()) } else { Ok(key) }
}

fn is_secret(jwk: &Map<String, Value>) -> bool {
    jwk.get("kty").is_some_and(|kind| kind == "oct")
        || jwk.contains_key("d")
        || jwk.contains_key("k")
}

/// Describes the position of a JSON error without quoting the text, which could contain a key.
fn error_position(error: &serde_json::Error) -> String {
    format!("broken or ambiguous JSON at line {}, column {}", error.line(), error.column())
}

/// Parses a key. Returns `None` if the key is for another use, of an unknown type, or for an algorithm that is not allowed. RFC
/// 7517 §5 recommends ignoring such keys.
fn from_jwk(jwk: &Map<String, Value>, allowed: &[Algorithm]) -> Result<Option<PublicKey>, String> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let needed = |name: &str| text(name).ok_or_else(|| format!("expected a string {name:?}"));
    if !is_for_signatures(jwk) {
        return Ok(None);
    }
    let fitting: &[Algorithm] = match (text("kty"), text("crv")) {
        (Some("RSA"), _) => &RSA,
        (Some("EC"), Some("P-256")) => &[Algorithm::ES256],
        (Some("EC"), Some("P-384")) => &[Algorithm::ES384],
        (Some("OKP"), Some("Ed25519")) => &[Algorithm::EdDSA],
        _ => return Ok(None),
    };
    let is_named =
        |algorithm: &Algorithm| !jwk.contains_key("alg") || text("alg") == Some(name(*algorithm));
    let mut usable = allowed.iter().filter(|each| fitting.contains(each));
    let Some(algorithm) = usable.find(|each| is_named(each)).copied() else { return Ok(None) };
    let key = match algorithm.family() {
        AlgorithmFamily::Rsa => rsa(needed("n")?, needed("e")?)?,
        AlgorithmFamily::Ec => ec(needed("x")?, needed("y")?, algorithm)?,
        AlgorithmFamily::Ed => checked(DecodingKey::from_ed_der(&bytes(needed("x")?)?), algorithm)?,
        AlgorithmFamily::Hmac => return Err(SECRET.to_owned()),
    };
    let id = match jwk.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(_) => return Err("expected a string \"kid\"".to_owned()),
    };
    Ok(Some(PublicKey { id, algorithm, key }))
}

fn is_for_signatures(jwk: &Map<String, Value>) -> bool {
    let used = jwk.get("use").is_none_or(|used| used == "sig");
    let verifies = jwk.get("key_ops").is_none_or(|operations| {
        operations.as_array().is_some_and(|all| all.iter().any(|operation| operation == "verify"))
    });
    used && verifies
}

/// The algorithms of RSA keys.
const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// Returns the name of an algorithm in the header of a token.
pub(super) fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RS256 => "RS256",
        Algorithm::RS384 => "RS384",
        Algorithm::RS512 => "RS512",
        Algorithm::PS256 => "PS256",
        Algorithm::PS384 => "PS384",
        Algorithm::PS512 => "PS512",
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
        Algorithm::EdDSA => "EdDSA",
        // The other algorithms are not supported: no key uses them, and no token may name them.
        _ => "",
    }
}

/// Returns the algorithm with the given name, unless it uses a shared secret.
pub(super) fn algorithm(text: &str) -> Option<Algorithm> {
    let others = [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];
    RSA.into_iter().chain(others).find(|each| name(*each) == text)
}

fn names(algorithms: &[Algorithm]) -> String {
    let names: Vec<&str> = algorithms.iter().map(|each| name(*each)).collect();
    names.join(", ")
}

fn bytes(text: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| "expected base64url without padding".to_owned())
}

fn rsa(modulus: &str, exponent: &str) -> Result<DecodingKey, String> {
    let (modulus, exponent) = (bytes(modulus)?, bytes(exponent)?);
    let significant = modulus.iter().skip_while(|byte| **byte == 0).count();
    if significant < RSA_BYTES_MIN {
        let bits = significant * 8;
        return Err(format!("the RSA key is too short: expected 2048 to 8192 bits, found {bits}"));
    }
    if significant > RSA_BYTES_MAX {
        return Err("the RSA key is too long: expected 2048 to 8192 bits".to_owned());
    }
    if modulus.last().is_none_or(|byte| byte % 2 == 0) {
        return Err("expected an odd \"n\"".to_owned());
    }
    let exponent_value = exponent.iter().try_fold(0_u64, |value, byte| {
        (value <= RSA_EXPONENT_MAX).then_some(value << 8 | u64::from(*byte))
    });
    if !exponent_value
        .is_some_and(|value| (3..=RSA_EXPONENT_MAX).contains(&value) && value % 2 == 1)
    {
        return Err("expected an odd \"e\" from 3 to 2^33 - 1".to_owned());
    }
    Ok(DecodingKey::from_rsa_raw_components(&modulus, &exponent))
}

fn ec(x: &str, y: &str, algorithm: Algorithm) -> Result<DecodingKey, String> {
    // The uncompressed form of a point (SEC 1 §2.3.3).
    let point = [&[4], bytes(x)?.as_slice(), bytes(y)?.as_slice()].concat();
    checked(DecodingKey::from_ec_der(&point), algorithm)
}

/// Validates a key when it is loaded. Otherwise, a point that is not on its curve, or a key that is too short, would
/// only be noticed when every token fails to verify.
fn checked(key: DecodingKey, algorithm: Algorithm) -> Result<DecodingKey, String> {
    let bytes = key.try_get_as_bytes().map_err(|e| e.to_string())?;
    let parsed = match algorithm.family() {
        AlgorithmFamily::Rsa => ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, bytes),
        AlgorithmFamily::Ec if algorithm == Algorithm::ES384 => {
            ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, bytes)
        }
        AlgorithmFamily::Ec => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes),
        AlgorithmFamily::Ed => ParsedPublicKey::new(&ED25519, bytes),
        AlgorithmFamily::Hmac => return Err(SECRET.to_owned()),
    };
    match parsed {
        Ok(_) => Ok(key),
        Err(_) => Err(format!("not a key for {} (RSA: 2048 to 8192 bits)", name(algorithm))),
    }
}

fn from_pem(text: &str, allowed: &[Algorithm]) -> Result<PublicKey, String> {
    if text.matches("-----BEGIN ").count() != 1 {
        return Err("expected one key in PEM; use a JWKS for several keys".to_owned());
    }
    if !text.contains("PUBLIC KEY-----") {
        // `jsonwebtoken` would also accept a private key, and the first bit string in a certificate.
        return Err("expected \"BEGIN PUBLIC KEY\"".to_owned());
    }
    let pem = text.as_bytes();
    let key = DecodingKey::from_ed_pem(pem)
        .or_else(|_| DecodingKey::from_ec_pem(pem))
        .or_else(|_| DecodingKey::from_rsa_pem(pem))
        .map_err(|e| format!("not a public key in PEM: {e}"))?;
    let mut usable = allowed.iter().filter(|each| each.family() == key.family());
    let found = usable.find_map(|each| Some((*each, checked(key.clone(), *each).ok()?)));
    let (algorithm, key) = found
        .ok_or_else(|| format!("not a key for {} (RSA: 2048 to 8192 bits)", names(allowed)))?;
    Ok(PublicKey { id: None, algorithm, key })
}

#[cfg(test)]
mod tests;
