//! One issuer of tokens: its keys, and what is asked of a token that it has signed.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::fetch::KeyFetcher;
use super::keys::{self, PublicKey};
use super::token::Token;
use crate::config::auth::{IssuerConfig, KeySource};
use crate::roles::gateway::admission::auth::refusal::AuthFailure;
use crate::roles::gateway::client::caller::Caller;
use crate::roles::gateway::client::caller::claim;
use crate::roles::gateway::client::caller::is_principal;

/// Claims that a token must have. The library checks most of them only where they are. `nbf` counts where it
/// is: many issuers leave it out.
const REQUIRED_CLAIMS: [&str; 4] = ["exp", "aud", "iss", "sub"];

/// An issuer, and its keys as they are at the moment.
#[derive(Debug)]
pub(super) struct Issuer {
    /// Its name in the configuration.
    pub(super) name: Arc<str>,
    config: IssuerConfig,
    algorithms: Vec<Algorithm>,
    keys: Source,
    leeway: i64,
}

/// Where the keys come from.
#[derive(Debug)]
enum Source {
    File(Arc<Indexed>),
    Fetched {
        fetcher: Arc<KeyFetcher>,
        /// The keys that were fetched last, ready for use.
        indexed: ArcSwapOption<Indexed>,
    },
}

/// Keys with the number of the text that they stood in.
#[derive(Debug)]
pub(super) struct Indexed {
    number: u64,
    keys: Keys,
}

#[derive(Debug)]
enum Keys {
    /// A single key without an id: whatever id a token names, this key must have signed it.
    Single(Box<Key>),
    /// Keys by id: a token must name one.
    ById(HashMap<String, Key>),
}

#[derive(Debug)]
struct Key {
    public: DecodingKey,
    /// What is asked of a token that this key signed; allows the key's own algorithm and no other.
    validation: Validation,
    algorithm: &'static str,
}

/// A token that was checked.
#[derive(Debug)]
pub(super) struct Checked {
    /// Until when it is good, in seconds since 1970.
    pub(super) end: i64,
    /// Of the keys that it was checked with.
    pub(super) keys: u64,
    pub(super) caller: Caller,
}

impl Issuer {
    pub(super) fn load(name: &str, config: &IssuerConfig) -> Result<Self, String> {
        let algorithms =
            config.algorithms.iter().filter_map(|name| keys::algorithm(name)).collect();
        let mut issuer = Self {
            name: name.into(),
            config: config.clone(),
            algorithms,
            keys: Source::File(Arc::new(Indexed { number: 0, keys: Keys::ById(HashMap::new()) })),
            leeway: i64::try_from(config.leeway.as_secs()).unwrap_or_default(),
        };
        issuer.keys = match &config.keys {
            KeySource::File(file) => {
                let keys = keys::load(file, &issuer.algorithms).map_err(|error| {
                    format!("auth.jwt.{name}.keys: {}: {error}", file.display())
                })?;
                Source::File(Arc::new(Indexed { number: 0, keys: issuer.index(&keys) }))
            }
            KeySource::Fetched(settings) => Source::Fetched {
                fetcher: KeyFetcher::new(&issuer.name, settings, &issuer.algorithms)
                    .map_err(|error| format!("auth.jwt.{name}.keys_url_ca: {error}"))?,
                indexed: ArcSwapOption::empty(),
            },
        };
        Ok(issuer)
    }

    /// What its tokens name in `iss`.
    pub(super) fn url(&self) -> &str {
        &self.config.issuer
    }

    /// Who fetches its keys, where they are fetched.
    pub(super) fn fetcher(&self) -> Option<&Arc<KeyFetcher>> {
        match &self.keys {
            Source::File(_) => None,
            Source::Fetched { fetcher, .. } => Some(fetcher),
        }
    }

    /// The number of the keys that count now.
    pub(super) fn keys_number(&self) -> Result<u64, AuthFailure> {
        match &self.keys {
            Source::File(keys) => Ok(keys.number),
            Source::Fetched { fetcher, .. } => {
                fetcher.fetched().map(|fetched| fetched.number).ok_or(AuthFailure::NoKeys)
            }
        }
    }

    /// Checks a token that says it is from this issuer. `token` is what `text` says.
    pub(super) fn check(&self, text: &str, token: Token) -> Result<Checked, AuthFailure> {
        let keys = self.current()?;
        let key = keys.keys.of(&token)?;
        jsonwebtoken::decode::<IgnoredAny>(text, &key.public, &key.validation)
            .map_err(|error| failure(&error))?;
        let claims = token.claims;
        let name = claim(&claims, &self.config.principal_claim)
            .and_then(Value::as_str)
            .filter(|name| is_principal(name))
            .ok_or(AuthFailure::BadClaims)?;
        let principal = format!("{}{name}", self.config.principal_prefix);
        if !is_principal(&principal) {
            return Err(AuthFailure::BadClaims);
        }
        let end = claims.get("exp").and_then(whole_seconds).ok_or(AuthFailure::BadClaims)?;
        let caller = Caller {
            principal: Some(principal.into()),
            scopes: scopes(&claims),
            claims,
            issuer: Some(Arc::clone(&self.name)),
        };
        Ok(Checked { end: end.saturating_add(self.leeway), keys: keys.number, caller })
    }

    fn current(&self) -> Result<Arc<Indexed>, AuthFailure> {
        let (fetcher, indexed) = match &self.keys {
            Source::File(keys) => return Ok(Arc::clone(keys)),
            Source::Fetched { fetcher, indexed } => (fetcher, indexed),
        };
        let latest = fetcher.fetched().ok_or(AuthFailure::NoKeys)?;
        let ready = indexed.load_full().filter(|ready| ready.number == latest.number);
        Ok(ready.unwrap_or_else(|| {
            let ready = Arc::new(Indexed { number: latest.number, keys: self.index(&latest.keys) });
            indexed.store(Some(Arc::clone(&ready)));
            ready
        }))
    }

    fn index(&self, keys: &[PublicKey]) -> Keys {
        let mut by_id = HashMap::new();
        for PublicKey { id, algorithm, key } in keys {
            let mut validation = Validation::new(*algorithm);
            validation.set_required_spec_claims(&REQUIRED_CLAIMS);
            validation.set_audience(&self.config.audiences);
            validation.set_issuer(&[&self.config.issuer]);
            validation.leeway = self.config.leeway.as_secs();
            validation.validate_nbf = true;
            let key = Key { public: key.clone(), validation, algorithm: keys::name(*algorithm) };
            match id {
                Some(id) => by_id.insert(id.clone(), key),
                None => return Keys::Single(Box::new(key)),
            };
        }
        Keys::ById(by_id)
    }
}

impl Keys {
    /// The key that must have signed the token.
    ///
    /// Of the header, only the key's id is believed. Keys in it or addresses of keys (`jwk`, `jku`, `x5c`,
    /// `x5u`) are never looked at.
    fn of(&self, token: &Token) -> Result<&Key, AuthFailure> {
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

/// A `NumericDate` (RFC 7519 §2) without its fraction.
fn whole_seconds(date: &Value) -> Option<i64> {
    let text = date.as_number()?.to_string();
    let whole = text.split('.').next().unwrap_or_default();
    whole.parse().ok()
}

/// Scopes of a token: `scope` (RFC 8693), or `scp` or `scopes`, each a list or a text with blanks.
fn scopes(claims: &Map<String, Value>) -> Vec<String> {
    let mut scopes = Vec::new();
    for name in ["scope", "scp", "scopes"] {
        match claims.get(name) {
            Some(Value::String(text)) => scopes.extend(text.split(' ').map(str::to_owned)),
            Some(Value::Array(list)) => {
                scopes.extend(list.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            _ => {}
        }
    }
    scopes.retain(|scope| !scope.is_empty());
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_words_however_they_are_written() {
        let check = |claims: Value, expected: &[&str]| {
            assert_eq!(scopes(claims.as_object().unwrap()), expected, "{claims}");
        };
        check(serde_json::json!({}), &[]);
        check(serde_json::json!({"scope": " a  b "}), &["a", "b"]);
        check(
            serde_json::json!({"scope": "a", "scp": ["b", "", 1], "scopes": ["c d"]}),
            &["a", "b", "c d"],
        );
        check(serde_json::json!({"scope": {"a": true}, "scp": 1, "scopes": null}), &[]);
    }
}
