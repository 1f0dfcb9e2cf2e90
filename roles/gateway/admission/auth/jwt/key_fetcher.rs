//! Fetches the keys that an issuer publishes (JWKS, RFC 7517), and refreshes them.
//!
//! The most recently fetched keys stay in use while the issuer cannot be reached. A token that names an unknown key triggers a
//! fetch, so that a new key is accepted immediately. Tokens trigger at most one fetch per `keys_cooldown`, so that clients cannot
//! make the gateway flood the issuer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jsonwebtoken::Algorithm;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::public_key::{self, KeyOrigin, PublicKey};
use super::unique_json::UniqueObject;
use crate::admin::Readiness;
use crate::config::auth::issuer::is_url;
use crate::config::auth::{FetchConfig, KeyLocation};
use crate::jitter::jittered;
use crate::lifecycle::{Cancel, Tasks};
use crate::roles::gateway::admission::auth::unix_seconds;
use crate::telemetry::{chain, counter, gauge, names};
use crate::tls;

/// The timeout of a fetch. It covers both the discovery document and the keys.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of requests that wait for a fetch. Further requests with unknown keys are rejected immediately.
const WAITERS_MAX: usize = 64;
/// The pause after the first failed fetch. It doubles with each further failure, up to `RETRY_MAX`.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(1);
/// The component in `/readyz` that reports whether keys are available.
const READINESS_PART: &str = "issuer";
/// The path of the discovery document (`OpenID` Connect Discovery 1.0, §4).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Fetches and refreshes the keys of one issuer. A reload creates a new fetcher, which inherits the fetched keys if their
/// source is unchanged.
#[derive(Debug)]
pub(super) struct KeyFetcher {
    /// The name of the issuer in the configuration.
    name: Arc<str>,
    settings: FetchConfig,
    algorithms: Vec<Algorithm>,
    client: reqwest::Client,
    fetched: ArcSwapOption<FetchedKeys>,
    /// Notified when a fetch ends.
    ended: watch::Sender<()>,
    is_fetching: AtomicBool,
    /// Whether a fetch has ended, successfully or not.
    was_tried: AtomicBool,
    /// When a token last triggered a fetch.
    last_triggered: Mutex<Option<Instant>>,
    trigger: Notify,
    waiters: Semaphore,
}

/// The keys that an issuer published.
#[derive(Debug)]
pub(super) struct FetchedKeys {
    /// A number that changes whenever the published text changes.
    pub(super) version: u64,
    pub(super) keys: Arc<Vec<PublicKey>>,
    text: String,
    at: Instant,
}

impl KeyFetcher {
    pub(super) fn new(
        name: &Arc<str>,
        settings: &FetchConfig,
        algorithms: &[Algorithm],
    ) -> Result<Arc<Self>, String> {
        let tls = tls::client_config(&settings.tls).map_err(|error| error.to_string())?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(!settings.is_insecure)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(FETCH_TIMEOUT)
            .user_agent("fjord")
            .build()
            .map_err(|error| chain(&error))?;
        Ok(Arc::new(Self {
            name: Arc::clone(name),
            algorithms: algorithms.to_vec(),
            settings: settings.clone(),
            client,
            fetched: ArcSwapOption::empty(),
            ended: watch::Sender::new(()),
            is_fetching: AtomicBool::new(false),
            was_tried: AtomicBool::new(false),
            last_triggered: Mutex::default(),
            trigger: Notify::new(),
            waiters: Semaphore::new(WAITERS_MAX),
        }))
    }

    /// Takes over the keys that another fetcher has fetched from the same source.
    pub(super) fn inherit(&self, old: &Self) {
        if self.settings.from == old.settings.from && self.algorithms == old.algorithms {
            self.fetched.store(old.fetched.load_full());
        }
    }

    /// Returns the keys, or `None` if they are too old or have not been fetched yet.
    pub(super) fn fetched(&self) -> Option<Arc<FetchedKeys>> {
        self.fetched.load_full().filter(|keys| keys.at.elapsed() < self.settings.age_max)
    }

    /// Waits for a fetch of the keys, because a token could not be verified with the current keys. If no fetch is running,
    /// triggers one, unless a token has triggered one within the cooldown. Returns whether a fetch has ended.
    pub(super) async fn refresh_keys(&self) -> bool {
        let Ok(_permit) = self.waiters.try_acquire() else { return false };
        let mut ended = self.ended.subscribe();
        if !self.is_fetching.load(Ordering::Acquire) {
            if !self.try_start_cooldown() {
                return false;
            }
            self.trigger.notify_one();
        }
        matches!(timeout(FETCH_TIMEOUT, ended.changed()).await, Ok(Ok(())))
    }

    fn try_start_cooldown(&self) -> bool {
        let mut last_triggered = self.last_triggered.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last_triggered.is_none_or(|at| at.elapsed() >= self.settings.cooldown);
        if may {
            *last_triggered = Some(Instant::now());
        }
        may
    }

    fn pause(&self, failures: u32) -> Duration {
        let pause = match failures.checked_sub(1) {
            None => self.settings.refresh,
            Some(before) => RETRY_MIN.saturating_mul(1 << before.min(16)).min(RETRY_MAX),
        };
        // Random, so that the gateways of a fleet do not fetch at the same time.
        jittered(pause, 0.8..=1.0)
    }

    async fn fetch(&self) -> bool {
        self.is_fetching.store(true, Ordering::Release);
        let read = timeout(FETCH_TIMEOUT, self.read()).await;
        let read = read.unwrap_or_else(|_| Err(format!("no answer within {FETCH_TIMEOUT:?}")));
        let result = read.and_then(|text| self.store_keys(text));
        self.is_fetching.store(false, Ordering::Release);
        self.was_tried.store(true, Ordering::Release);
        self.ended.send_replace(());
        self.count(if result.is_ok() { "ok" } else { "failed" }, 1);
        if let Err(error) = &result {
            let issuer = &*self.name;
            tracing::warn!(
                issuer,
                error,
                "cannot fetch the keys of an issuer; the previous keys stay in use"
            );
        }
        result.is_ok()
    }

    async fn read(&self) -> Result<String, String> {
        match &self.settings.from {
            KeyLocation::Url(url) => self.get(url).await,
            KeyLocation::Discovery { issuer } => {
                let url = format!("{}{DISCOVERY}", issuer.strip_suffix('/').unwrap_or(issuer));
                let document = self.get(&url).await.map_err(|error| format!("{url}: {error}"))?;
                let keys = jwks_url(&document, issuer, self.settings.is_insecure)
                    .map_err(|error| format!("{url}: {error}"))?;
                self.get(&keys).await.map_err(|error| format!("{keys}: {error}"))
            }
        }
    }

    async fn get(&self, url: &str) -> Result<String, String> {
        let response = self.client.get(url).send().await;
        let mut response = response.map_err(|error| chain(&error.without_url()))?;
        if response.status() != http::StatusCode::OK {
            return Err(format!("expected status 200, got {}", response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|e| chain(&e.without_url()))? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > public_key::TEXT_BYTES_MAX {
                return Err(format!("larger than {} bytes", public_key::TEXT_BYTES_MAX));
            }
        }
        String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())
    }

    /// Replaces the keys with those in the published text. If the text is invalid, the current keys are kept.
    fn store_keys(&self, text: String) -> Result<(), String> {
        let before = self.fetched.load_full();
        let at = Instant::now();
        let now = match before {
            Some(before) if before.text == text => {
                FetchedKeys { version: before.version, keys: Arc::clone(&before.keys), text, at }
            }
            before => {
                let keys =
                    Arc::new(public_key::from_jwks(&text, KeyOrigin::Issuer, &self.algorithms)?);
                let version = before.map_or(1, |before| before.version + 1);
                tracing::info!(
                    issuer = &*self.name,
                    keys = keys.len(),
                    "fetched the keys of an issuer"
                );
                FetchedKeys { version, keys, text, at }
            }
        };
        self.fetched.store(Some(Arc::new(now)));
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
        gauge(&names::AUTH_KEYS_FETCHED, &[self.label()]).set(unix_seconds() as f64);
        Ok(())
    }

    fn label(&self) -> (&'static str, String) {
        (names::ISSUER, self.name.to_string())
    }

    fn count(&self, result: &'static str, fetches: u64) {
        let labels = [self.label(), (names::RESULT, result.to_owned())];
        counter(&names::AUTH_KEY_FETCHES, &labels).increment(fetches);
    }
}

/// Returns the URL of the keys that a discovery document names.
fn jwks_url(document: &str, issuer: &str, is_insecure: bool) -> Result<String, String> {
    let UniqueObject(document) =
        serde_json::from_str(document).map_err(|_| "not a discovery document".to_owned())?;
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    // OpenID Connect Discovery 1.0, §4.3: without this check, a party that controls one URL on a host could impersonate
    // another issuer on the same host.
    if text("issuer") != Some(issuer) {
        return Err("the document names another issuer".to_owned());
    }
    let url = text("jwks_uri").filter(|url| is_url(url, is_insecure));
    url.map(ToOwned::to_owned).ok_or_else(|| "expected an https:// URL as \"jwks_uri\"".to_owned())
}

/// Starts a task for each fetcher. Each task runs until `stop` or `is_superseded` is cancelled.
pub(super) fn start_fetching(
    fetchers: &Arc<[Arc<KeyFetcher>]>,
    has_others: bool,
    readiness: &Readiness,
    tasks: &Tasks,
    (stop, is_superseded): &(Cancel, Cancel),
) {
    readiness.set(READINESS_PART, readiness_state(fetchers, has_others));
    for fetcher in fetchers.iter() {
        // The counters start at zero, so that an alert notices the first failure.
        fetcher.count("ok", 0);
        fetcher.count("failed", 0);
        let (all, fetcher) = (Arc::clone(fetchers), Arc::clone(fetcher));
        let (readiness, stop, is_superseded) =
            (readiness.clone(), stop.clone(), is_superseded.clone());
        let following = async move {
            let mut failures = 0_u32;
            loop {
                let is_ok = fetcher.fetch().await;
                failures = if is_ok { 0 } else { failures.saturating_add(1) };
                let keys = fetcher.fetched().map(|_| ());
                readiness.note(note_name(&fetcher), keys.is_none().then(|| NO_KEYS.to_owned()));
                readiness.set(READINESS_PART, readiness_state(&all, has_others));
                tokio::select! {
                    () = tokio::time::sleep(fetcher.pause(failures)) => {}
                    () = fetcher.trigger.notified() => {}
                }
            }
        };
        let _detached = tasks.spawn_background(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = is_superseded.cancelled() => {}
                () = following => {}
            }
        });
    }
}

/// The reason in `/readyz` for an issuer without keys.
const NO_KEYS: &str = "the issuer's keys were never fetched, or not recently enough";

fn note_name(fetcher: &KeyFetcher) -> String {
    format!("issuer {}", fetcher.name)
}

/// Removes the notes about issuers whose keys are no longer fetched.
pub(super) fn forget<'a>(
    fetchers: impl Iterator<Item = &'a Arc<KeyFetcher>>,
    readiness: &Readiness,
) {
    fetchers.for_each(|fetcher| readiness.note(note_name(fetcher), None));
}

/// Returns whether tokens can be verified. The gateway is not ready until the first fetch from every issuer has ended. After
/// that it is ready if any issuer has keys, so an unreachable issuer affects only its own callers.
fn readiness_state(fetchers: &[Arc<KeyFetcher>], has_others: bool) -> Result<(), String> {
    let has_keys = |fetcher: &Arc<KeyFetcher>| fetcher.fetched().is_some();
    let is_untried = |fetcher: &&Arc<KeyFetcher>| {
        !has_keys(fetcher) && !fetcher.was_tried.load(Ordering::Acquire)
    };
    if let Some(untried) = fetchers.iter().find(is_untried) {
        return Err(format!("the keys of issuer {} have not been fetched yet", untried.name));
    }
    if fetchers.is_empty() || has_others || fetchers.iter().any(has_keys) {
        return Ok(());
    }
    Err(NO_KEYS.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discovery_document_is_accepted_for_its_own_issuer_only() {
        let check = |document: &str, is_insecure, expected: Option<&str>| {
            let found = jwks_url(document, "https://a/", is_insecure);
            assert_eq!(found.ok().as_deref(), expected, "{document}");
        };
        check(r#"{"issuer":"https://a/","jwks_uri":"https://k/x"}"#, false, Some("https://k/x"));
        check(r#"{"issuer":"https://a/","jwks_uri":"http://k/x"}"#, true, Some("http://k/x"));
        for bad in [
            r#"{"issuer":"https://a","jwks_uri":"https://k/x"}"#,
            r#"{"issuer":"https://a/","issuer":"https://b/","jwks_uri":"https://k/x"}"#,
            r#"{"issuer":["https://a/"],"jwks_uri":"https://k/x"}"#,
            r#"{"issuer":"https://a/","jwks_uri":"http://k/x"}"#,
            r#"{"issuer":"https://a/","jwks_uri":"https://u:p@k/x"}"#,
            r#"{"issuer":"https://a/","jwks_uri":"file:///etc/passwd"}"#,
            r#"{"issuer":"https://a/"}"#,
            "<html>",
        ] {
            check(bad, false, None);
        }
    }
}
