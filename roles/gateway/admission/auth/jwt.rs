//! Verifies JWT bearer tokens (RFC 7519, RFC 8725) with the keys of their issuers, and caches the
//! results.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::rejection::{AuthFailure, CredentialError, PresentedCredential};
use super::unix_seconds;
use crate::admin::Readiness;
use crate::catalogue::AuthMethod;
use crate::config::auth::IssuerConfig;
use crate::config::auth::issuer::errors;
use crate::lifecycle::{Cancel, Tasks};
use crate::roles::gateway::admission::two_generation_cache::TwoGenerationCache;
use crate::roles::gateway::client::caller::Caller;

mod issuer;
mod key_fetcher;
mod public_key;
mod unique_json;
mod unverified_token;
mod verification;

use issuer::Issuer;
use key_fetcher::KeyFetcher;
use unverified_token::{TOKEN_BYTES_MAX, UnverifiedToken};

/// The maximum number of verified tokens in each of the two generations of the cache.
const CACHED_MAX: usize = 2_048;

/// Verifies the tokens of all configured issuers.
#[derive(Debug)]
pub(super) struct JwtVerifier {
    issuers: Vec<Issuer>,
    /// The index of each issuer, by the `iss` claim of its tokens.
    by_url: HashMap<String, usize>,
    /// Verified tokens, by their SHA-256 hash. Invalid tokens are not cached, and a reload starts
    /// with an empty cache. A lookup takes a seventh of the time of a verification (for ES256, 22
    /// µs instead of 154 µs in an unoptimized build).
    cache: Mutex<TwoGenerationCache<TokenDigest, CachedToken>>,
    /// Cancelled when another verifier has replaced this one. This verifier then stops fetching keys.
    is_superseded: Cancel,
}

type TokenDigest = [u8; SHA256_OUTPUT_LEN];

#[derive(Debug)]
struct CachedToken {
    /// The index of the token's issuer.
    issuer: usize,
    expires_at: i64,
    /// The version of the key set that verified the token. Another version might not contain the token's key.
    keys_version: u64,
    caller: Arc<Caller>,
}

impl JwtVerifier {
    pub(super) fn load(config: &BTreeMap<String, IssuerConfig>) -> Result<Self, Vec<String>> {
        let mut errors: Vec<String> = errors(config)
            .into_iter()
            .map(|(name, key, expected)| {
                let dot = if key.is_empty() { "" } else { "." };
                format!("auth.jwt.{name}{dot}{key}: {expected}")
            })
            .collect();
        let mut issuers = Vec::with_capacity(config.len());
        for (name, issuer) in config {
            match Issuer::load(name, issuer) {
                Ok(issuer) => issuers.push(issuer),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let by_url = issuers.iter().enumerate().map(|(at, issuer)| (issuer.url().to_owned(), at));
        Ok(Self {
            by_url: by_url.collect(),
            issuers,
            cache: Mutex::new(TwoGenerationCache::new(CACHED_MAX)),
            is_superseded: Cancel::new(),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.issuers.is_empty()
    }

    /// Returns whether an issuer of this name is configured.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.named(name).is_some()
    }

    /// Verifies a token and returns its caller. `accepted` contains the names of the accepted issuers. If it is empty,
    /// all issuers are accepted.
    pub(super) fn verify(
        &self,
        text: &str,
        accepted: &[String],
    ) -> Result<Caller, CredentialError> {
        let malformed = |failure| (failure, PresentedCredential::new(AuthMethod::Jwt));
        if text.len() > TOKEN_BYTES_MAX {
            return Err(malformed(AuthFailure::Malformed));
        }
        let now = unix_seconds();
        let mut key = TokenDigest::default();
        key.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        if let Some((at, caller)) = self.cached(&key, now)
            && self.issuers.get(at).is_some_and(|issuer| accepts(accepted, &issuer.name))
        {
            return Ok(Caller::clone(&caller));
        }
        let token = UnverifiedToken::read(text).map_err(malformed)?;
        let presented = PresentedCredential::new(AuthMethod::Jwt).with_key(token.key_id());
        let (at, issuer) = match self.issuer_of(&token) {
            Ok(found) => found,
            Err(failure) => return Err((failure, presented)),
        };
        let presented = PresentedCredential { issuer: Some(Arc::clone(&issuer.name)), ..presented };
        if !accepts(accepted, &issuer.name) {
            return Err((AuthFailure::WrongIssuer, presented));
        }
        let verified = issuer.verify(text, token).map_err(|failure| (failure, presented))?;
        let caller = Arc::new(verified.caller);
        let token = CachedToken {
            issuer: at,
            expires_at: verified.expires_at,
            keys_version: verified.keys_version,
            caller: Arc::clone(&caller),
        };
        self.cache_token(key, token, now);
        Ok(Arc::unwrap_or_clone(caller))
    }

    /// Starts tasks that fetch the keys of issuers that publish them. The tasks end when `stop` is cancelled or another
    /// verifier supersedes this one. Keys that `old` has fetched stay valid.
    pub(super) fn start_fetching(
        &self,
        old: Option<&Self>,
        readiness: &Readiness,
        tasks: &Tasks,
        stop: &Cancel,
    ) {
        if let Some(old) = old {
            old.is_superseded.cancel();
            key_fetcher::forget(old.fetchers(), readiness);
            for fetcher in self.fetchers() {
                old.fetchers().for_each(|before| fetcher.inherit(before));
            }
        }
        let fetchers: Arc<[_]> = self.fetchers().cloned().collect();
        // An issuer whose keys are in a file works even if no other issuer is reachable.
        let has_others = fetchers.len() < self.issuers.len();
        key_fetcher::start_fetching(
            &fetchers,
            has_others,
            readiness,
            tasks,
            &(stop.clone(), self.is_superseded.clone()),
        );
    }

    /// Fetches an issuer's keys because a token could not be verified with the current keys. Returns whether the token should
    /// be verified again.
    pub(super) async fn refresh_keys(&self, issuer: &str) -> bool {
        let Some(fetcher) = self.named(issuer).and_then(Issuer::fetcher) else { return false };
        tokio::select! {
            () = self.is_superseded.cancelled() => false,
            found = fetcher.refresh_keys() => found,
        }
    }

    fn fetchers(&self) -> impl Iterator<Item = &Arc<KeyFetcher>> {
        self.issuers.iter().filter_map(Issuer::fetcher)
    }

    fn named(&self, name: &str) -> Option<&Issuer> {
        self.issuers.iter().find(|issuer| *issuer.name == *name)
    }

    /// Returns the issuer that a token names, with its index. No key is tried unless the issuer is known.
    fn issuer_of(&self, token: &UnverifiedToken) -> Result<(usize, &Issuer), AuthFailure> {
        let at = *self.by_url.get(token.issuer()?).ok_or(AuthFailure::WrongIssuer)?;
        Ok((at, self.issuers.get(at).ok_or(AuthFailure::WrongIssuer)?))
    }

    fn cached(&self, token: &TokenDigest, now: i64) -> Option<(usize, Arc<Caller>)> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let found = cache.take(token).filter(|found| now <= found.expires_at)?;
        let version = self.issuers.get(found.issuer)?.keys_version().ok()?;
        if found.keys_version != version {
            return None;
        }
        let cached = (found.issuer, Arc::clone(&found.caller));
        cache.insert(*token, found, |other| now <= other.expires_at);
        Some(cached)
    }

    fn cache_token(&self, token: TokenDigest, kept: CachedToken, now: i64) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(token, kept, |other| now <= other.expires_at);
    }
}

fn accepts(accepted: &[String], name: &str) -> bool {
    accepted.is_empty() || accepted.iter().any(|each| each == name)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;
    use crate::config::auth::KeySource;
    use crate::config::auth::issuer::ALGORITHMS;

    fn verifier() -> JwtVerifier {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        file.write_all(pair.public_key_pem().as_bytes()).unwrap();
        let issuer = IssuerConfig {
            issuer: "i".to_owned(),
            keys: KeySource::File(file.path().to_owned()),
            audiences: vec!["a".to_owned()],
            algorithms: ALGORITHMS.map(str::to_owned).to_vec(),
            leeway: Duration::from_mins(1),
            principal_claim: "sub".to_owned(),
            principal_prefix: String::new(),
        };
        JwtVerifier::load(&BTreeMap::from([("main".to_owned(), issuer)])).unwrap()
    }

    #[test]
    fn a_token_is_not_cached_beyond_its_expiry() {
        let verifier = verifier();
        let (token, caller) = ([7; SHA256_OUTPUT_LEN], Arc::new(Caller::default()));
        let cache = |keys_version| {
            let caller = Arc::clone(&caller);
            verifier.cache_token(
                token,
                CachedToken { issuer: 0, expires_at: 100, keys_version, caller },
                0,
            );
        };
        cache(0);
        assert!(verifier.cached(&token, 99).is_some());
        assert!(verifier.cached(&token, 100).is_some());
        assert!(verifier.cached(&token, 101).is_none());
        assert!(verifier.cached(&token, 99).is_none());
        assert!(verifier.cached(&[8; SHA256_OUTPUT_LEN], 99).is_none());
        cache(2);
        assert!(verifier.cached(&token, 99).is_none(), "other keys");
    }
}
