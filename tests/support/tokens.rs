//! Signing keys and tokens, generated on demand and never stored.

use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};
use rcgen::KeyPair;
use serde_json::{Value, json};

/// The issuer of every valid token.
pub(crate) const ISSUER: &str = "https://login.example.com/";
/// The audience of every valid token.
pub(crate) const AUDIENCE: &str = "fjord";

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A key pair that signs tokens.
pub(crate) struct Signer {
    key_id: String,
    algorithm: Algorithm,
    pair: KeyPair,
    key: EncodingKey,
}

impl Signer {
    /// Generates a P-256 key for ES256.
    pub(crate) fn p256(key_id: &str) -> Result<Self> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let key = EncodingKey::from_ec_der(pair.serialized_der());
        Ok(Self { key_id: key_id.to_owned(), algorithm: Algorithm::ES256, pair, key })
    }

    /// Generates a P-384 key for ES384.
    pub(crate) fn p384(key_id: &str) -> Result<Self> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?;
        let key = EncodingKey::from_ec_der(pair.serialized_der());
        Ok(Self { key_id: key_id.to_owned(), algorithm: Algorithm::ES384, pair, key })
    }

    /// Generates an Ed25519 key for `EdDSA`.
    pub(crate) fn ed25519(key_id: &str) -> Result<Self> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        let key = EncodingKey::from_ed_der(pair.serialized_der());
        Ok(Self { key_id: key_id.to_owned(), algorithm: Algorithm::EdDSA, pair, key })
    }

    /// Generates an RSA key of 2048 bits for RS256.
    pub(crate) fn rsa(key_id: &str) -> Result<Self> {
        Self::rsa_for(key_id, Algorithm::RS256)
    }

    /// Generates an RSA key of 2048 bits for one of the RSA algorithms.
    pub(crate) fn rsa_for(key_id: &str, algorithm: Algorithm) -> Result<Self> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256)?;
        let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes())?;
        Ok(Self { key_id: key_id.to_owned(), algorithm, pair, key })
    }

    /// Returns the public key in PEM.
    pub(crate) fn public_pem(&self) -> String {
        self.pair.public_key_pem()
    }

    /// Returns the public key as an entry of a JWK set.
    pub(crate) fn jwk(&self) -> Result<Value> {
        let raw = self.pair.public_key_raw();
        let public = match self.algorithm.family() {
            AlgorithmFamily::Ec => DecodingKey::from_ec_der(raw),
            AlgorithmFamily::Ed => DecodingKey::from_ed_der(raw),
            _ => DecodingKey::from_rsa_der(raw),
        };
        let mut jwk = serde_json::to_value(Jwk::from_decoding_key(&public, Some(self.algorithm))?)?;
        if let Some(members) = jwk.as_object_mut() {
            members.insert("kid".to_owned(), self.key_id.as_str().into());
            members.insert("use".to_owned(), "sig".into());
        }
        Ok(jwk)
    }

    /// Returns the header of a valid token.
    pub(crate) fn header(&self) -> Value {
        json!({"typ": "JWT", "alg": format!("{:?}", self.algorithm), "kid": self.key_id})
    }

    /// Signs a token with the given claims.
    pub(crate) fn sign(&self, claims: &Value) -> Result<String> {
        self.sign_text(&self.header().to_string(), &claims.to_string())
    }

    /// Signs a token with exactly the given header and claims, whether or not they are valid.
    pub(crate) fn sign_text(&self, header: &str, claims: &str) -> Result<String> {
        let message = unsigned(header, claims);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm)?;
        Ok(format!("{message}.{signature}"))
    }
}

/// Returns the public keys of several signers as a JWK set.
pub(crate) fn jwks(signers: &[&Signer]) -> Result<String> {
    let keys = signers.iter().map(|signer| signer.jwk()).collect::<Result<Vec<Value>>>()?;
    Ok(json!({ "keys": keys }).to_string())
}

/// Returns the claims of a valid token that expires after `lifetime`. `scope` is space-separated.
pub(crate) fn claims(subject: &str, scope: &str, lifetime: Duration) -> Value {
    claims_of(ISSUER, subject, scope, lifetime)
}

/// Returns the claims of a token from another issuer.
pub(crate) fn claims_of(issuer: &str, subject: &str, scope: &str, lifetime: Duration) -> Value {
    let now = now();
    json!({
        "iss": issuer, "aud": AUDIENCE, "sub": subject, "scope": scope,
        "iat": now, "nbf": now, "exp": now + lifetime.as_secs(),
    })
}

/// Returns the first two parts of a token.
pub(crate) fn unsigned(header: &str, claims: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

/// Returns the seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
