//! Verifies the tokens of one issuer, and derives the caller from a token's claims.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::key_fetcher::KeyFetcher;
use super::public_key;
use super::unverified_token::UnverifiedToken;
use super::verification::VerificationKeys;
use crate::config::auth::{IssuerConfig, KeySource};
use crate::roles::gateway::admission::auth::rejection::AuthFailure;
use crate::roles::gateway::client::caller::Caller;
use crate::roles::gateway::client::caller::claim;
use crate::roles::gateway::client::caller::is_principal;

/// An issuer with its current keys.
#[derive(Debug)]
pub(super) struct Issuer {
    /// The name in the configuration.
    pub(super) name: Arc<str>,
    config: IssuerConfig,
    algorithms: Vec<Algorithm>,
    keys: IssuerKeys,
    leeway: i64,
}

/// The keys of an issuer, by their source.
#[derive(Debug)]
enum IssuerKeys {
    File(Arc<VersionedKeys>),
    Fetched {
        fetcher: Arc<KeyFetcher>,
        /// The most recently fetched keys, prepared for verification.
        prepared: ArcSwapOption<VersionedKeys>,
    },
}

/// Keys with the version of the document that contained them.
#[derive(Debug)]
pub(super) struct VersionedKeys {
    version: u64,
    keys: VerificationKeys,
}

/// A verified token.
#[derive(Debug)]
pub(super) struct VerifiedToken {
    /// The time at which the token expires, in seconds since 1970, including the leeway.
    pub(super) expires_at: i64,
    /// The version of the keys that verified the token.
    pub(super) keys_version: u64,
    pub(super) caller: Caller,
}

impl Issuer {
    pub(super) fn load(name: &str, config: &IssuerConfig) -> Result<Self, String> {
        let mut issuer = Self {
            name: name.into(),
            config: config.clone(),
            algorithms: config
                .algorithms
                .iter()
                .filter_map(|name| public_key::algorithm(name))
                .collect(),
            keys: IssuerKeys::File(Arc::new(VersionedKeys {
                version: 0,
                keys: VerificationKeys::ById(HashMap::new()),
            })),
            leeway: i64::try_from(config.leeway.as_secs()).unwrap_or_default(),
        };
        issuer.keys = match &config.keys {
            KeySource::File(file) => {
                let keys = public_key::load(file, &issuer.algorithms).map_err(|error| {
                    format!("auth.jwt.{name}.keys: {}: {error}", file.display())
                })?;
                let keys = VerificationKeys::new(&keys, config);
                IssuerKeys::File(Arc::new(VersionedKeys { version: 0, keys }))
            }
            KeySource::Fetched(settings) => IssuerKeys::Fetched {
                fetcher: KeyFetcher::new(&issuer.name, settings, &issuer.algorithms)
                    .map_err(|error| format!("auth.jwt.{name}.keys_url_ca: {error}"))?,
                prepared: ArcSwapOption::empty(),
            },
        };
        Ok(issuer)
    }

    /// Returns the `iss` claim of the issuer's tokens.
    pub(super) fn url(&self) -> &str {
        &self.config.issuer
    }

    /// Returns the fetcher of the issuer's keys, if the issuer publishes them.
    pub(super) fn fetcher(&self) -> Option<&Arc<KeyFetcher>> {
        match &self.keys {
            IssuerKeys::File(_) => None,
            IssuerKeys::Fetched { fetcher, .. } => Some(fetcher),
        }
    }

    /// Returns the version of the issuer's current keys.
    pub(super) fn keys_version(&self) -> Result<u64, AuthFailure> {
        match &self.keys {
            IssuerKeys::File(keys) => Ok(keys.version),
            IssuerKeys::Fetched { fetcher, .. } => {
                fetcher.fetched().map(|fetched| fetched.version).ok_or(AuthFailure::NoKeys)
            }
        }
    }

    /// Verifies a token that names this issuer, and returns its caller. `token` is the parsed `text`.
    pub(super) fn verify(
        &self,
        text: &str,
        token: UnverifiedToken,
    ) -> Result<VerifiedToken, AuthFailure> {
        let keys = self.current_keys()?;
        keys.keys.verify(text, &token)?;
        let claims = token.claims;
        let name = claim(&claims, &self.config.principal_claim)
            .and_then(Value::as_str)
            .filter(|name| is_principal(name))
            .ok_or(AuthFailure::BadClaims)?;
        let principal = format!("{}{name}", self.config.principal_prefix);
        if !is_principal(&principal) {
            return Err(AuthFailure::BadClaims);
        }
        let expires_at = claims.get("exp").and_then(whole_seconds).ok_or(AuthFailure::BadClaims)?;
        let caller = Caller {
            principal: Some(principal.into()),
            scopes: scopes(&claims),
            claims,
            issuer: Some(Arc::clone(&self.name)),
        };
        let expires_at = expires_at.saturating_add(self.leeway);
        Ok(VerifiedToken { expires_at, keys_version: keys.version, caller })
    }

    fn current_keys(&self) -> Result<Arc<VersionedKeys>, AuthFailure> {
        let (fetcher, prepared) = match &self.keys {
            IssuerKeys::File(keys) => return Ok(Arc::clone(keys)),
            IssuerKeys::Fetched { fetcher, prepared } => (fetcher, prepared),
        };
        let latest = fetcher.fetched().ok_or(AuthFailure::NoKeys)?;
        let current = prepared.load_full().filter(|keys| keys.version == latest.version);
        Ok(current.unwrap_or_else(|| {
            let keys = VerificationKeys::new(&latest.keys, &self.config);
            let keys = Arc::new(VersionedKeys { version: latest.version, keys });
            prepared.store(Some(Arc::clone(&keys)));
            keys
        }))
    }
}

/// Returns a `NumericDate` (RFC 7519 §2) in whole seconds.
fn whole_seconds(date: &Value) -> Option<i64> {
    let text = date.as_number()?.to_string();
    let whole = text.split('.').next().unwrap_or_default();
    whole.parse().ok()
}

/// Returns the scopes in the claims `scope` (RFC 8693), `scp` and `scopes`. Each claim is an array or a space-separated string.
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
    fn scopes_are_read_from_all_common_claims() {
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
