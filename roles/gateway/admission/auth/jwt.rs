//! JWT bearer tokens (RFC 7519, RFC 8725): a token's issuer is found first, then its key among that issuer's.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::refusal::{AuthFailure, Presented, Refused};
use super::unix_seconds;
use crate::admin::Readiness;
use crate::catalogue::AuthMethod;
use crate::config::auth::IssuerConfig;
use crate::config::auth::issuer::errors;
use crate::lifecycle::{Cancel, Tasks};
use crate::roles::gateway::admission::generations::Generations;
use crate::roles::gateway::client::caller::Caller;

mod fetch;
mod issuer;
mod keys;
mod strict;
mod token;

use fetch::KeyFetcher;
use issuer::Issuer;
use token::{TOKEN_BYTES_MAX, Token};

/// Tokens that are remembered in each of two generations.
const REMEMBERED_MAX: usize = 2_048;

/// Checks tokens of every issuer that is believed.
#[derive(Debug)]
pub(super) struct JwtVerifier {
    issuers: Vec<Issuer>,
    /// Where each stands among them, by what its tokens name in `iss`.
    by_url: HashMap<String, usize>,
    /// Tokens that were good: SHA-256 → end, the keys' number and caller. Garbage never gets in, and a reload starts
    /// anew.
    /// A look here takes a seventh of the time of a check (22 of 154 µs for ES256, not optimised).
    remembered: Mutex<Generations<TokenDigest, Remembered>>,
    /// Given when another verifier is in use: nobody fetches keys for this one any more.
    is_superseded: Cancel,
}

type TokenDigest = [u8; SHA256_OUTPUT_LEN];

#[derive(Debug)]
struct Remembered {
    /// The issuer's place.
    issuer: usize,
    end: i64,
    /// Of the keys that it was checked with: others may not have that key any more.
    keys: u64,
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
            remembered: Mutex::new(Generations::new(REMEMBERED_MAX)),
            is_superseded: Cancel::new(),
        })
    }

    /// Whether no issuer is configured.
    pub(super) fn is_empty(&self) -> bool {
        self.issuers.is_empty()
    }

    /// Whether an issuer of this name is configured.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.named(name).is_some()
    }

    /// Whose token this is. `accepted` names the issuers that will do; nobody: every one.
    pub(super) fn verify(&self, text: &str, accepted: &[String]) -> Result<Caller, Refused> {
        let unread = |failure| (failure, Presented::of(AuthMethod::Jwt));
        if text.len() > TOKEN_BYTES_MAX {
            return Err(unread(AuthFailure::Malformed));
        }
        let now = unix_seconds();
        let mut key = TokenDigest::default();
        key.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        if let Some((at, caller)) = self.recall(&key, now)
            && self.issuers.get(at).is_some_and(|issuer| accepts(accepted, &issuer.name))
        {
            return Ok(Caller::clone(&caller));
        }
        let token = Token::read(text).map_err(unread)?;
        let presented = Presented::of(AuthMethod::Jwt).with_key(token.key_id());
        let (at, issuer) = match self.issuer_of(&token) {
            Ok(found) => found,
            Err(failure) => return Err((failure, presented)),
        };
        let presented = Presented { issuer: Some(Arc::clone(&issuer.name)), ..presented };
        if !accepts(accepted, &issuer.name) {
            return Err((AuthFailure::WrongIssuer, presented));
        }
        let checked = issuer.check(text, token).map_err(|failure| (failure, presented))?;
        let caller = Arc::new(checked.caller);
        let (end, keys) = (checked.end, checked.keys);
        self.remember(key, Remembered { issuer: at, end, keys, caller: Arc::clone(&caller) }, now);
        Ok(Arc::unwrap_or_clone(caller))
    }

    /// Keeps fetching keys, where they are fetched, until `stop` or until another verifier supersedes this one. What the
    /// one from before has fetched goes on to count.
    pub(super) fn follow(
        &self,
        old: Option<&Self>,
        readiness: &Readiness,
        tasks: &Tasks,
        stop: &Cancel,
    ) {
        if let Some(old) = old {
            old.is_superseded.cancel();
            fetch::forget(old.fetchers(), readiness);
            for fetcher in self.fetchers() {
                old.fetchers().for_each(|before| fetcher.inherit(before));
            }
        }
        let fetchers: Arc<[_]> = self.fetchers().cloned().collect();
        // With keys in a file somebody gets in, whoever else is away.
        let has_others = fetchers.len() < self.issuers.len();
        fetch::follow(
            &fetchers,
            has_others,
            readiness,
            tasks,
            &(stop.clone(), self.is_superseded.clone()),
        );
    }

    /// Looks for the key of a token that was refused because its key is not known. Whether it is worth to try it again.
    pub(super) async fn look_again(&self, issuer: &str) -> bool {
        let Some(fetcher) = self.named(issuer).and_then(Issuer::fetcher) else { return false };
        tokio::select! {
            () = self.is_superseded.cancelled() => false,
            found = fetcher.look_again() => found,
        }
    }

    fn fetchers(&self) -> impl Iterator<Item = &Arc<KeyFetcher>> {
        self.issuers.iter().filter_map(Issuer::fetcher)
    }

    fn named(&self, name: &str) -> Option<&Issuer> {
        self.issuers.iter().find(|issuer| *issuer.name == *name)
    }

    /// The issuer that a token names. No key is looked at before it is known.
    fn issuer_of(&self, token: &Token) -> Result<(usize, &Issuer), AuthFailure> {
        let at = *self.by_url.get(token.issuer()?).ok_or(AuthFailure::WrongIssuer)?;
        Ok((at, self.issuers.get(at).ok_or(AuthFailure::WrongIssuer)?))
    }

    fn recall(&self, token: &TokenDigest, now: i64) -> Option<(usize, Arc<Caller>)> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let found = remembered.take(token).filter(|found| now <= found.end)?;
        let keys = self.issuers.get(found.issuer)?.keys_number().ok()?;
        if found.keys != keys {
            return None;
        }
        let recalled = (found.issuer, Arc::clone(&found.caller));
        remembered.put(*token, found, |other| now <= other.end);
        Some(recalled)
    }

    fn remember(&self, token: TokenDigest, kept: Remembered, now: i64) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.put(token, kept, |other| now <= other.end);
    }
}

/// Whether tokens of an issuer will do.
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
    fn a_token_is_not_remembered_beyond_its_end() {
        let verifier = verifier();
        let (token, caller) = ([7; SHA256_OUTPUT_LEN], Arc::new(Caller::default()));
        let remember = |keys| {
            let caller = Arc::clone(&caller);
            verifier.remember(token, Remembered { issuer: 0, end: 100, keys, caller }, 0);
        };
        remember(0);
        assert!(verifier.recall(&token, 99).is_some());
        assert!(verifier.recall(&token, 100).is_some());
        assert!(verifier.recall(&token, 101).is_none());
        assert!(verifier.recall(&token, 99).is_none());
        assert!(verifier.recall(&[8; SHA256_OUTPUT_LEN], 99).is_none());
        remember(2);
        assert!(verifier.recall(&token, 99).is_none(), "other keys");
    }
}
