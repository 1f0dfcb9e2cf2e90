//! Keys that an issuer publishes (JWKS, RFC 7517): they are found by its URL, fetched, kept, and fetched again.
//!
//! What was fetched last counts until something better comes: an issuer that is away for an hour locks nobody out. A
//! token that names an unknown key makes us look again, so that a new key counts at once; at most once in
//! `keys_cooldown`, so that nobody can make us flood the issuer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jsonwebtoken::Algorithm;
use rand::RngExt;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::keys::{self, PublicKey, Whose};
use super::strict::UniqueObject;
use crate::admin::Readiness;
use crate::config::auth::issuer::is_url;
use crate::config::auth::{FetchConfig, KeyLocation};
use crate::lifecycle::{Cancel, Tasks};
use crate::roles::gateway::admission::auth::unix_seconds;
use crate::telemetry::{chain, counter, gauge, names};
use crate::tls;

/// Longest fetch, of the discovery document and the keys together.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests that may wait for a fetch: all others with unknown keys are refused at once.
const LOOKING_MAX: usize = 64;
/// Bounds of the pause after a fetch that failed; doubling in between.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(1);
/// The part of `/readyz` that says whether there are keys.
const PART: &str = "issuer";
/// Where an issuer says where its keys are (`OpenID` Connect Discovery 1.0, §4).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// An issuer's keys, and what keeps them fresh. A reload makes another one, with new files, which takes over what was
/// fetched.
#[derive(Debug)]
pub(super) struct KeyFetcher {
    /// The issuer's name in the configuration.
    name: Arc<str>,
    settings: FetchConfig,
    algorithms: Vec<Algorithm>,
    client: reqwest::Client,
    fetched: ArcSwapOption<Fetched>,
    /// Changes with each fetch that has ended.
    ended: watch::Sender<()>,
    is_fetching: AtomicBool,
    /// Whether a fetch has ended, well or not.
    was_tried: AtomicBool,
    /// When a token last made us look again.
    asked: Mutex<Option<Instant>>,
    ask: Notify,
    looking: Semaphore,
}

/// What an issuer published.
#[derive(Debug)]
pub(super) struct Fetched {
    /// Another number for every other text.
    pub(super) number: u64,
    /// Its keys.
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
            asked: Mutex::default(),
            ask: Notify::new(),
            looking: Semaphore::new(LOOKING_MAX),
        }))
    }

    /// Takes over what another one has fetched from the same place.
    pub(super) fn inherit(&self, old: &Self) {
        if self.settings.from == old.settings.from && self.algorithms == old.algorithms {
            self.fetched.store(old.fetched.load_full());
        }
    }

    /// The keys, unless there were none yet or they are too old to be believed.
    pub(super) fn fetched(&self) -> Option<Arc<Fetched>> {
        self.fetched.load_full().filter(|keys| keys.at.elapsed() < self.settings.age_max)
    }

    /// Looks again for a key that is not known, unless that was done of late. Whether there was another fetch.
    pub(super) async fn look_again(&self) -> bool {
        let Ok(_place) = self.looking.try_acquire() else { return false };
        let mut ended = self.ended.subscribe();
        if !self.is_fetching.load(Ordering::Acquire) {
            if !self.may_ask() {
                return false;
            }
            self.ask.notify_one();
        }
        matches!(timeout(FETCH_TIMEOUT, ended.changed()).await, Ok(Ok(())))
    }

    fn may_ask(&self) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let may = asked.is_none_or(|at| at.elapsed() >= self.settings.cooldown);
        if may {
            *asked = Some(Instant::now());
        }
        may
    }

    fn pause(&self, failures: u32) -> Duration {
        let pause = match failures.checked_sub(1) {
            None => self.settings.refresh,
            Some(before) => RETRY_MIN.saturating_mul(1 << before.min(16)).min(RETRY_MAX),
        };
        // Many gateways must not ask in step.
        pause.mul_f64(rand::rng().random_range(0.8..=1.0))
    }

    async fn fetch(&self) -> bool {
        self.is_fetching.store(true, Ordering::Release);
        let read = timeout(FETCH_TIMEOUT, self.read()).await;
        let read = read.unwrap_or_else(|_| Err(format!("no answer within {FETCH_TIMEOUT:?}")));
        let result = read.and_then(|text| self.take(text));
        self.is_fetching.store(false, Ordering::Release);
        self.was_tried.store(true, Ordering::Release);
        self.ended.send_replace(());
        self.count(if result.is_ok() { "ok" } else { "failed" }, 1);
        if let Err(error) = &result {
            let issuer = &*self.name;
            tracing::warn!(
                issuer,
                error,
                "the issuer's keys cannot be fetched, those from before count"
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
                let keys = keys_at(&document, issuer, self.settings.is_insecure)
                    .map_err(|error| format!("{url}: {error}"))?;
                self.get(&keys).await.map_err(|error| format!("{keys}: {error}"))
            }
        }
    }

    async fn get(&self, url: &str) -> Result<String, String> {
        let response = self.client.get(url).send().await;
        let mut response = response.map_err(|error| chain(&error.without_url()))?;
        if response.status() != http::StatusCode::OK {
            return Err(format!("answered {}", response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|e| chain(&e.without_url()))? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > keys::TEXT_BYTES_MAX {
                return Err(format!("larger than {} bytes", keys::TEXT_BYTES_MAX));
            }
        }
        String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())
    }

    /// Takes what was published; what cannot be used changes nothing.
    fn take(&self, text: String) -> Result<(), String> {
        let before = self.fetched.load_full();
        let at = Instant::now();
        let now = match before {
            Some(before) if before.text == text => {
                Fetched { number: before.number, keys: Arc::clone(&before.keys), text, at }
            }
            before => {
                let keys = Arc::new(keys::from_jwks(&text, Whose::Issuers, &self.algorithms)?);
                let number = before.map_or(1, |before| before.number + 1);
                tracing::info!(issuer = &*self.name, keys = keys.len(), "took the issuer's keys");
                Fetched { number, keys, text, at }
            }
        };
        self.fetched.store(Some(Arc::new(now)));
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970: exact for ages")]
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

/// Where the keys of an issuer are, by its discovery document.
fn keys_at(document: &str, issuer: &str, is_insecure: bool) -> Result<String, String> {
    let UniqueObject(document) =
        serde_json::from_str(document).map_err(|_| "not a discovery document".to_owned())?;
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    // §4.3: without this, whoever can write at one URL of a host could speak for another issuer of it.
    if text("issuer") != Some(issuer) {
        return Err("the document is of another issuer".to_owned());
    }
    let url = text("jwks_uri").filter(|url| is_url(url, is_insecure));
    url.map(ToOwned::to_owned).ok_or_else(|| "expected an https:// URL as \"jwks_uri\"".to_owned())
}

/// Keeps fetching the keys of issuers until one of the signs is given.
pub(super) fn follow(
    fetchers: &Arc<[Arc<KeyFetcher>]>,
    has_others: bool,
    readiness: &Readiness,
    tasks: &Tasks,
    (stop, is_superseded): &(Cancel, Cancel),
) {
    readiness.set(PART, state(fetchers, has_others));
    for fetcher in fetchers.iter() {
        // At zero from the start, so that an alert sees the first failure.
        fetcher.count("ok", 0);
        fetcher.count("failed", 0);
        let (all, fetcher) = (Arc::clone(fetchers), Arc::clone(fetcher));
        let (readiness, stop, is_superseded) =
            (readiness.clone(), stop.clone(), is_superseded.clone());
        let following = async move {
            let mut failures = 0_u32;
            loop {
                let is_taken = fetcher.fetch().await;
                failures = if is_taken { 0 } else { failures.saturating_add(1) };
                let keys = fetcher.fetched().map(|_| ());
                readiness.note(note(&fetcher), keys.is_none().then(|| NO_KEYS.to_owned()));
                readiness.set(PART, state(&all, has_others));
                tokio::select! {
                    () = tokio::time::sleep(fetcher.pause(failures)) => {}
                    () = fetcher.ask.notified() => {}
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

/// What is noted of an issuer whose keys are not there.
const NO_KEYS: &str = "its keys could not be fetched yet, or not for too long";

fn note(fetcher: &KeyFetcher) -> String {
    format!("issuer {}", fetcher.name)
}

/// Takes back what was noted of issuers that are followed no more.
pub(super) fn forget<'a>(
    fetchers: impl Iterator<Item = &'a Arc<KeyFetcher>>,
    readiness: &Readiness,
) {
    fetchers.for_each(|fetcher| readiness.note(note(fetcher), None));
}

/// Whether tokens can be checked. Each issuer is tried first; after that, one that is away keeps its own callers out and
/// nobody else's.
fn state(fetchers: &[Arc<KeyFetcher>], has_others: bool) -> Result<(), String> {
    let has_keys = |fetcher: &Arc<KeyFetcher>| fetcher.fetched().is_some();
    let is_untried = |fetcher: &&Arc<KeyFetcher>| {
        !has_keys(fetcher) && !fetcher.was_tried.load(Ordering::Acquire)
    };
    if let Some(untried) = fetchers.iter().find(is_untried) {
        return Err(format!("the keys of the issuer {} were not fetched yet", untried.name));
    }
    if fetchers.is_empty() || has_others || fetchers.iter().any(has_keys) {
        return Ok(());
    }
    Err("the issuer's keys could not be fetched yet, or not for too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discovery_document_speaks_for_its_own_issuer_only() {
        let check = |document: &str, is_insecure, expected: Option<&str>| {
            let found = keys_at(document, "https://a/", is_insecure);
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
