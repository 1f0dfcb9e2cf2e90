//! Access tokens from Microsoft Entra ID. Only one token is fetched at a time. A token is used
//! until shortly before it expires.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::token_source;
use crate::config::Secret;
use crate::config::procedures::TokenSource;
use crate::lifecycle::Tasks;

/// A token is replaced this long before it expires. While the source fails or does not answer, the
/// old token stays in use until it expires, and a new one is requested every `RETRY`.
const RENEW_BEFORE: Duration = Duration::from_mins(5);
const RETRY: Duration = Duration::from_secs(30);
/// The minimum remaining lifetime of a token that is used for a login. The login may take this
/// long.
const LEFT_MIN: Duration = Duration::from_secs(10);
/// The maximum length of a token.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The access tokens of a database's logins.
#[derive(Debug)]
pub(super) struct AccessTokens {
    source: TokenSource,
    state: Mutex<State>,
    /// Held while a token is fetched, so that logins without a token wait for it.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<AccessToken>,
    /// The number of tokens that have been requested from the source.
    fetches: u64,
    /// The reason why the last fetch failed, if it did.
    failure: Option<TokenError>,
}

/// A token that has not expired.
#[derive(Clone, Debug)]
struct AccessToken {
    text: Secret,
    expires: SystemTime,
    renews: SystemTime,
}

/// The reason why there is no token. The text contains no part of a token.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum TokenError {
    /// The source failed.
    #[error("cannot get an access token: {0}")]
    Source(String),
    /// The source returned something that is not a token.
    #[error("the access token is not valid: expected a JWT with exp, or JSON with access_token")]
    Invalid,
    /// The token has expired or is about to.
    #[error("the access token has expired")]
    Expired,
}

impl AccessTokens {
    pub(super) fn new(source: TokenSource) -> Self {
        Self { source, state: Mutex::default(), fetching: tokio::sync::Mutex::default() }
    }

    /// Returns a token that has not expired. If the token is about to expire, it is replaced in the
    /// background. Waits only if there is no token. Logins that wait share one fetch, even if the
    /// fetch fails. This method is cancel safe.
    pub(super) async fn current(self: &Arc<Self>) -> Result<Secret, TokenError> {
        let before = {
            let mut state = self.state();
            let now = SystemTime::now();
            if let Some(token) = state.usable(now) {
                if token.renews <= now {
                    token.renews = now + RETRY;
                    self.start_renewal();
                }
                return Ok(token.text.clone());
            }
            state.fetches
        };
        let _guard = self.fetching.lock().await;
        {
            let mut state = self.state();
            if let Some(token) = state.usable(SystemTime::now()) {
                return Ok(token.text.clone());
            }
            if let Some(failure) = state.failure.clone().filter(|_| state.fetches != before) {
                return Err(failure);
            }
        }
        self.fetch().await
    }

    /// Discards a token that the server refused.
    pub(super) fn discard(&self, refused: &Secret) {
        self.state().current.take_if(|one| one.text.expose() == refused.expose());
    }

    fn start_renewal(self: &Arc<Self>) {
        let tokens = Arc::clone(self);
        let _detached = Tasks::new().spawn_background(async move {
            let _guard = tokens.fetching.lock().await;
            if let Err(error) = tokens.fetch().await {
                tracing::warn!(%error, "cannot renew the access token: the old one stays in use");
            }
        });
    }

    /// Fetches a token. The caller holds `fetching`.
    async fn fetch(&self) -> Result<Secret, TokenError> {
        let fetched = token_source::fetch(&self.source).await.map_err(TokenError::Source);
        let fetched = fetched.and_then(|bytes| AccessToken::parse(&bytes, SystemTime::now()));
        let mut state = self.state();
        state.fetches += 1;
        state.failure = fetched.as_ref().err().cloned();
        let token = fetched?;
        let text = token.text.clone();
        state.current = Some(token);
        Ok(text)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns the token if a login has enough time to end before the token expires.
    fn usable(&mut self, now: SystemTime) -> Option<&mut AccessToken> {
        self.current.as_mut().filter(|one| one.expires > now + LEFT_MIN)
    }
}

/// The JSON of the metadata service (`access_token`) or of the Azure CLI (`accessToken`).
#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(alias = "accessToken")]
    access_token: String,
}

/// The only claim of a token that is needed here. The server verifies the token.
#[derive(Deserialize)]
struct Expiry {
    exp: u64,
}

impl AccessToken {
    /// Parses a token, bare or in JSON.
    fn parse(bytes: &[u8], now: SystemTime) -> Result<Self, TokenError> {
        let text = std::str::from_utf8(bytes).map_err(|_| TokenError::Invalid)?.trim();
        let answer: TokenAnswer;
        let token = if text.starts_with('{') {
            answer = serde_json::from_str(text).map_err(|_| TokenError::Invalid)?;
            answer.access_token.as_str()
        } else {
            text
        };
        let is_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '=');
        if token.len() > TOKEN_BYTES_MAX || !token.chars().all(is_token) {
            return Err(TokenError::Invalid);
        }
        let claims = token.split('.').nth(1).ok_or(TokenError::Invalid)?;
        let claims = claims.trim_end_matches('=');
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| TokenError::Invalid)?;
        let Expiry { exp } = serde_json::from_slice(&claims).map_err(|_| TokenError::Invalid)?;
        let expires =
            UNIX_EPOCH.checked_add(Duration::from_secs(exp)).ok_or(TokenError::Invalid)?;
        let left = expires.duration_since(now).map_err(|_| TokenError::Expired)?;
        if left <= LEFT_MIN {
            return Err(TokenError::Expired);
        }
        // A token with a short lifetime is replaced after half of it.
        let renews = expires - RENEW_BEFORE.min(left / 2);
        Ok(Self { text: Secret::new(token.to_owned()), expires, renews })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    fn parse(text: &str) -> Result<AccessToken, TokenError> {
        AccessToken::parse(text.as_bytes(), UNIX_EPOCH + Duration::from_secs(1000))
    }

    #[test]
    fn a_token_is_renewed_five_minutes_or_half_its_time_before_it_expires() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        for (exp, renews) in [(4600, 4300), (1100, 1050), (1600, 1300), (1601, 1301)] {
            let token = parse(&jwt(&format!("{{\"exp\":{exp}}}"))).unwrap();
            assert_eq!((token.expires, token.renews), (at(exp), at(renews)));
        }
    }

    #[tokio::test]
    async fn logins_at_the_same_time_share_one_token() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3600;
        let token = jwt(&format!("{{\"exp\":{exp}}}"));
        let script = format!("echo run >> {}; echo {token}", log.display());
        let command = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
        let tokens = Arc::new(AccessTokens::new(TokenSource::Command(command)));
        let shared = futures_util::future::join_all((0..8).map(|_| tokens.current())).await;
        assert!(shared.into_iter().all(|one| one.unwrap().expose() == token));
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "run\n");
        // A refused token is not used again, and the refusal of another token has no effect.
        tokens.discard(&Secret::new("other".to_owned()));
        tokens.current().await.unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "run\n");
        tokens.discard(&Secret::new(token));
        tokens.current().await.unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "run\nrun\n");
    }

    /// Returns access tokens that a program prints. The current one is due to be replaced.
    fn with_due_token(program: &str) -> Arc<AccessTokens> {
        let command = ["/bin/sh", "-c", program].map(str::to_owned).to_vec();
        let tokens = AccessTokens::new(TokenSource::Command(command));
        let now = SystemTime::now();
        let (expires, renews) = (now + Duration::from_mins(10), now - Duration::from_secs(1));
        let text = Secret::new("old".to_owned());
        tokens.state().current = Some(AccessToken { text, expires, renews });
        Arc::new(tokens)
    }

    #[tokio::test]
    async fn the_old_token_is_used_while_the_source_hangs() {
        let tokens = with_due_token("exec sleep 60");
        let current = tokio::time::timeout(Duration::from_secs(5), tokens.current()).await;
        assert_eq!(current.unwrap().unwrap().expose(), "old");
        // No second renewal is started within 30 s.
        let renews = tokens.state().current.as_ref().unwrap().renews;
        assert!(renews > SystemTime::now() + Duration::from_secs(20));
    }

    #[tokio::test]
    async fn a_token_that_is_due_is_replaced_in_the_background() {
        let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3600;
        let new = jwt(&format!("{{\"exp\":{exp}}}"));
        let tokens = with_due_token(&format!("echo {new}"));
        assert_eq!(tokens.current().await.unwrap().expose(), "old");
        let replaced = async {
            while tokens.current().await.unwrap().expose() != new {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), replaced).await.unwrap();
    }

    #[test]
    fn only_tokens_that_have_not_expired_are_accepted() {
        let valid = jwt("{\"exp\":4600,\"sub\":\"x\"}");
        for text in [
            valid.clone(),
            format!("{valid}\n"),
            format!("{{\"access_token\":\"{valid}\",\"expires_on\":\"4600\"}}"),
            format!("{{\"accessToken\":\"{valid}\"}}"),
        ] {
            assert_eq!(parse(&text).unwrap().text.expose(), valid);
        }
        for exp in [0, 999, 1000, 1010] {
            let text = jwt(&format!("{{\"exp\":{exp}}}"));
            assert!(matches!(parse(&text), Err(TokenError::Expired)), "{exp}");
        }
        for invalid in [
            String::new(),
            "token".to_owned(),
            jwt("{}"),
            jwt("{\"exp\":\"4600\"}"),
            jwt("{\"exp\":-1}"),
            jwt(&format!("{{\"exp\":{}}}", u64::MAX)),
            format!("{valid} {valid}"),
            format!("{{\"token\":\"{valid}\"}}"),
            format!("{{\"access_token\":\"{valid}"),
            format!("{valid}{}", "x".repeat(TOKEN_BYTES_MAX)),
        ] {
            assert!(matches!(parse(&invalid), Err(TokenError::Invalid)), "{invalid:.80}");
        }
        assert!(matches!(AccessToken::parse(&[0xff], UNIX_EPOCH), Err(TokenError::Invalid)));
    }
}
