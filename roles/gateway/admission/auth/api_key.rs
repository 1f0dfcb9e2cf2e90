//! API keys. Only their SHA-256 hashes are stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use serde_json::Value;

use super::rejection::{AuthFailure, CredentialError, PresentedCredential};
use crate::catalogue::AuthMethod;
use crate::config::auth::ApiKeyConfig;
use crate::roles::gateway::client::caller::Caller;
use crate::roles::gateway::client::caller::PRINCIPAL_BYTES_MAX;
use crate::roles::gateway::client::caller::is_principal;

/// The maximum number of labels. It is limited because each received key is compared with every stored key.
const LABELS_MAX: usize = 1_000;
/// The maximum number of keys for one label: the current one and its successor.
const KEYS_OF_LABEL_MAX: usize = 2;
/// The maximum length of a received key, in bytes.
const KEY_BYTES_MAX: usize = 512;

type Digest = [u8; SHA256_OUTPUT_LEN];

#[derive(Debug)]
pub(super) struct ApiKeys(Vec<StoredApiKey>);

#[derive(Debug)]
struct StoredApiKey {
    digest: Digest,
    expires_at: Option<i64>,
    caller: Arc<Caller>,
}

impl ApiKeys {
    pub(super) fn load(config: &BTreeMap<String, ApiKeyConfig>) -> Result<Self, Vec<String>> {
        let mut errors = Vec::new();
        if config.len() > LABELS_MAX {
            errors.push(format!("auth.api_keys: expected at most {LABELS_MAX} labels"));
        }
        let mut keys: Vec<StoredApiKey> = Vec::new();
        for (label, written) in config {
            let place = format!("auth.api_keys.{label}");
            if !is_principal(label) {
                errors.push(format!(
                    "{place}: expected a label of 1 to {PRINCIPAL_BYTES_MAX} bytes of text without control, invisible \
                     or bidi characters"
                ));
            }
            if !(1..=KEYS_OF_LABEL_MAX).contains(&written.sha256.len()) {
                errors.push(format!(
                    "{place}.sha256: expected one hash, or two while a key is being replaced"
                ));
            }
            let caller = Arc::new(caller(label, written));
            for text in &written.sha256 {
                match from_hex(text) {
                    None => errors.push(format!(
                        "{place}.sha256: expected 64 hexadecimal digits for each hash"
                    )),
                    Some(digest) if keys.iter().any(|key| key.digest == digest) => {
                        errors.push(format!("{place}.sha256: the same hash occurs twice"));
                    }
                    Some(digest) => keys.push(StoredApiKey {
                        digest,
                        expires_at: written.expires_at,
                        caller: Arc::clone(&caller),
                    }),
                }
            }
        }
        if errors.is_empty() { Ok(Self(keys)) } else { Err(errors) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the caller to which a key belongs. The key is compared with every stored key in constant time.
    pub(super) fn find(&self, key: &str, now: i64) -> Result<Caller, CredentialError> {
        let rejected = |failure| (failure, PresentedCredential::new(AuthMethod::ApiKey));
        if key.len() > KEY_BYTES_MAX {
            return Err(rejected(AuthFailure::Malformed));
        }
        let sent = digest(&SHA256, key.as_bytes());
        let mut found = None;
        for stored in &self.0 {
            if verify_slices_are_equal(&stored.digest, sent.as_ref()).is_ok() {
                found = Some(stored);
            }
        }
        let stored = found.ok_or_else(|| rejected(AuthFailure::UnknownApiKey))?;
        match stored.expires_at {
            Some(end) if now >= end => {
                let (failure, presented) = rejected(AuthFailure::Expired);
                Err((failure, presented.with_key(stored.caller.principal.as_deref())))
            }
            _ => Ok(Caller::clone(&stored.caller)),
        }
    }
}

fn caller(label: &str, written: &ApiKeyConfig) -> Caller {
    let mut claims: serde_json::Map<String, Value> =
        written.claims.iter().map(|(name, text)| (name.clone(), text.as_str().into())).collect();
    claims.entry("sub").or_insert_with(|| label.into());
    Caller { principal: Some(label.into()), scopes: written.scopes.clone(), claims, issuer: None }
}

fn from_hex(text: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    if text.len() != 2 * digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return None };
        let value = char::from(*high).to_digit(16)? * 16 + char::from(*low).to_digit(16)?;
        *byte = u8::try_from(value).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    /// The output of `printf %s old-key | sha256sum`.
    const OLD_KEY_HASH: &str = "762c08fc17a1cc5f00d248f8b50f2f2f4d17ff2934ac31e64deacb3f5bb3f2ec";

    fn hash(key: &str) -> String {
        digest(&SHA256, key.as_bytes()).as_ref().iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02X}").unwrap();
            text
        })
    }

    fn config(hashes: &[&str], expires_at: Option<i64>) -> BTreeMap<String, ApiKeyConfig> {
        let key = ApiKeyConfig {
            sha256: hashes.iter().map(|hash| (*hash).to_owned()).collect(),
            scopes: vec!["horses:read".to_owned()],
            expires_at,
            claims: BTreeMap::from([("stable".to_owned(), "s7".to_owned())]),
        };
        BTreeMap::from([("billing".to_owned(), key)])
    }

    fn find(keys: &ApiKeys, key: &str, now: i64) -> Result<String, AuthFailure> {
        let found = keys.find(key, now).map(|caller| caller.principal.unwrap().to_string());
        found.map_err(|(failure, presented)| {
            let is_known = failure == AuthFailure::Expired;
            assert_eq!(presented.key.as_deref(), is_known.then_some("billing"));
            failure
        })
    }

    #[test]
    fn both_keys_of_a_label_are_accepted_and_others_are_not() {
        let keys = ApiKeys::load(&config(&[OLD_KEY_HASH, &hash("new-key")], None)).unwrap();
        assert_eq!(find(&keys, "old-key", 0), Ok("billing".to_owned()));
        assert_eq!(find(&keys, "new-key", 0), Ok("billing".to_owned()));
        for key in ["", "old-ke", "old-key ", "OLD-KEY", OLD_KEY_HASH] {
            assert_eq!(find(&keys, key, 0), Err(AuthFailure::UnknownApiKey), "{key}");
        }
        assert_eq!(find(&keys, &"x".repeat(513), 0), Err(AuthFailure::Malformed));
    }

    #[test]
    fn a_key_is_rejected_from_its_expiry_second_on() {
        let keys = ApiKeys::load(&config(&[OLD_KEY_HASH], Some(1_000))).unwrap();
        assert_eq!(find(&keys, "old-key", 999), Ok("billing".to_owned()));
        assert_eq!(find(&keys, "old-key", 1_000), Err(AuthFailure::Expired));
    }

    #[test]
    fn a_key_has_its_scopes_and_claims() {
        let keys = ApiKeys::load(&config(&[OLD_KEY_HASH], None)).unwrap();
        let caller = keys.find("old-key", 0).unwrap();
        assert_eq!(caller.scopes, ["horses:read"]);
        assert_eq!(caller.claim("stable"), Some(&"s7".into()));
        assert_eq!(caller.claim("sub"), Some(&"billing".into()));
    }

    #[test]
    fn errors_contain_the_config_key_and_not_the_hash() {
        let check = |hashes: &[&str], expected: &str| {
            let errors = ApiKeys::load(&config(hashes, None)).unwrap_err().join("\n");
            assert!(errors.starts_with("auth.api_keys.billing.sha256: "), "{errors}");
            assert!(errors.contains(expected), "{errors}");
            assert!(!errors.contains("762c"), "{errors}");
        };
        let non_ascii = "é".repeat(32);
        check(&[], "one hash");
        check(&[&hash("a"), &hash("b"), &hash("c")], "one hash");
        check(&[OLD_KEY_HASH, OLD_KEY_HASH], "twice");
        check(&["762c"], "64 hexadecimal digits");
        check(&[&non_ascii], "64 hexadecimal digits");
    }
}
