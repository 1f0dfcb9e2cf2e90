//! Verifies a token's signature and claims with the keys of its issuer.

use std::collections::HashMap;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, Validation};
use serde::de::IgnoredAny;

use super::public_key::{self, PublicKey};
use super::unverified_token::UnverifiedToken;
use crate::config::auth::IssuerConfig;
use crate::roles::gateway::admission::auth::rejection::AuthFailure;

/// The claims that a token must have. By default, `jsonwebtoken` requires only `exp`. `nbf` is validated if present, but not
/// required, because many issuers omit it.
const REQUIRED_CLAIMS: [&str; 4] = ["exp", "aud", "iss", "sub"];

/// The keys of an issuer, each with the validation rules for the tokens that it signs.
#[derive(Debug)]
pub(super) enum VerificationKeys {
    /// A single key without an id. It verifies all tokens, regardless of the id that they name.
    Single(Box<VerificationKey>),
    /// Keys by id. A token must name one of them.
    ById(HashMap<String, VerificationKey>),
}

#[derive(Debug)]
pub(super) struct VerificationKey {
    public: DecodingKey,
    /// The validation rules, which allow only the key's own algorithm.
    validation: Validation,
    algorithm: &'static str,
}

impl VerificationKeys {
    pub(super) fn new(keys: &[PublicKey], config: &IssuerConfig) -> Self {
        let mut by_id = HashMap::new();
        for PublicKey { id, algorithm, key } in keys {
            let mut validation = Validation::new(*algorithm);
            validation.set_required_spec_claims(&REQUIRED_CLAIMS);
            validation.set_audience(&config.audiences);
            validation.set_issuer(&[&config.issuer]);
            validation.leeway = config.leeway.as_secs();
            validation.validate_nbf = true;
            let algorithm = public_key::name(*algorithm);
            let key = VerificationKey { public: key.clone(), validation, algorithm };
            match id {
                Some(id) => by_id.insert(id.clone(), key),
                None => return Self::Single(Box::new(key)),
            };
        }
        Self::ById(by_id)
    }

    /// Verifies the header, signature, times, issuer and audience of a token. `token` is the parsed `text`.
    pub(super) fn verify(&self, text: &str, token: &UnverifiedToken) -> Result<(), AuthFailure> {
        let key = self.key(token)?;
        jsonwebtoken::decode::<IgnoredAny>(text, &key.public, &key.validation)
            .map(drop)
            .map_err(|error| failure(&error))
    }

    /// Returns the key that must have signed a token.
    ///
    /// The key is selected only by the key id in the header. Keys and key URLs in the header (`jwk`, `jku`, `x5c`, `x5u`) are
    /// ignored.
    fn key(&self, token: &UnverifiedToken) -> Result<&VerificationKey, AuthFailure> {
        token.check_header()?;
        let key = match (self, token.key_id()) {
            (Self::Single(key), _) => key,
            (Self::ById(keys), Some(id)) => keys.get(id).ok_or(AuthFailure::UnknownKey)?,
            (Self::ById(_), None) => return Err(AuthFailure::UnknownKey),
        };
        if token.algorithm() != Some(key.algorithm) {
            return Err(AuthFailure::WrongAlgorithm);
        }
        Ok(key)
    }
}

fn failure(error: &jsonwebtoken::errors::Error) -> AuthFailure {
    match error.kind() {
        ErrorKind::InvalidSignature => AuthFailure::BadSignature,
        ErrorKind::ExpiredSignature => AuthFailure::Expired,
        ErrorKind::ImmatureSignature => AuthFailure::NotYetValid,
        ErrorKind::InvalidIssuer => AuthFailure::WrongIssuer,
        ErrorKind::InvalidAudience => AuthFailure::WrongAudience,
        ErrorKind::InvalidAlgorithm => AuthFailure::WrongAlgorithm,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => {
            AuthFailure::BadClaims
        }
        _ => AuthFailure::Malformed,
    }
}
