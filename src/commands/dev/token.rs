//! Throw-away tokens for the endpoints that require one. They are JWTs signed with a key that is
//! generated for each run.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::samples;
use crate::catalogue::{Auth, Catalogue, ParameterSource};
use crate::config::auth::IssuerConfig;

/// The principal in the tokens.
pub(super) const PRINCIPAL: &str = "developer";
/// The signature algorithm (RFC 8037).
pub(super) const ALGORITHM: &str = "EdDSA";
/// The id of the key.
const KEY_ID: &str = "fjord-dev";
/// The validity period of a token. A run that lasts longer must be restarted.
const LIFETIME: Duration = Duration::from_hours(24 * 7);

/// A key that exists only in memory.
pub(super) struct TokenSigner(Ed25519KeyPair);

impl TokenSigner {
    /// Generates a key.
    ///
    /// # Errors
    /// Returns a message if the cryptographic library cannot generate random numbers.
    pub(super) fn new() -> Result<Self, String> {
        let pair = Ed25519KeyPair::generate();
        pair.map(Self).map_err(|_| "cannot generate a key for tokens".to_owned())
    }

    /// Returns the public key as a JWK set.
    pub(super) fn jwks(&self) -> String {
        let public = URL_SAFE_NO_PAD.encode(self.0.public_key().as_ref());
        let key = json!({ "kty": "OKP", "crv": "Ed25519", "alg": ALGORITHM, "use": "sig", "kid": KEY_ID, "x": public });
        json!({ "keys": [key] }).to_string()
    }

    /// Returns a token that is issued by `issuer` and contains every scope and claim in the
    /// catalogue.
    pub(super) fn token(&self, issuer: &IssuerConfig, catalogue: &Catalogue) -> String {
        let header = json!({ "typ": "JWT", "alg": ALGORITHM, "kid": KEY_ID }).to_string();
        let claims = Value::Object(claims(issuer, catalogue)).to_string();
        let message =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.0.sign(message.as_bytes()).as_ref());
        format!("{message}.{signature}")
    }
}

fn claims(issuer: &IssuerConfig, catalogue: &Catalogue) -> Map<String, Value> {
    let mut claims = Map::new();
    let endpoints = || catalogue.endpoints().iter();
    for parameter in endpoints().flat_map(|endpoint| endpoint.parameters.iter()) {
        if parameter.source == ParameterSource::Claim
            && let Some(value) = samples::value(parameter)
        {
            claims.insert(parameter.name.to_string(), value);
        }
    }
    let scopes: BTreeSet<&str> = endpoints()
        .filter_map(|endpoint| match &endpoint.auth {
            Auth::Required { scopes, .. } => Some(scopes.iter().map(String::as_str)),
            Auth::Public => None,
        })
        .flatten()
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let standard = [
        ("iss", Value::from(issuer.issuer.as_str())),
        ("aud", issuer.audiences.first().map_or("fjord", String::as_str).into()),
        ("scope", scopes.into_iter().collect::<Vec<_>>().join(" ").into()),
        ("iat", now.into()),
        ("nbf", now.into()),
        ("exp", (now + LIFETIME.as_secs()).into()),
        ("sub", PRINCIPAL.into()),
        (&issuer.principal_claim, PRINCIPAL.into()),
    ];
    claims.extend(standard.into_iter().map(|(name, value)| (name.to_owned(), value)));
    claims
}
