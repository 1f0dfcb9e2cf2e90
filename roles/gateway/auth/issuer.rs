//! An issuer that publishes its keys at a URL (JWKS, RFC 7517): they are fetched, kept, and fetched again.
//!
//! What was fetched last counts until something better comes: an issuer that is away for an hour locks nobody out. A
//! token that names an unknown key makes us look again, so that a new key counts at once; at most once in
//! `keys_cooldown`, so that nobody can make us flood the issuer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rand::RngExt;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::keys::{self, PublicKey, Whose};
use crate::admin::Readiness;
use crate::config::auth::KeysUrl;
use crate::lifecycle::{Cancel, Tasks};
use crate::telemetry::{chain, counter, gauge, names};
use crate::tls;

/// Longest fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests that may wait for a fetch: all others with unknown keys are refused at once.
const LOOKING_MAX: usize = 64;
/// Bounds of the pause after a fetch that failed; doubling in between.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(1);
/// The part of `/readyz` that says whether there are keys.
const PART: &str = "issuer";

/// An issuer's keys, and what keeps them fresh. A reload makes another one, with new files, which takes over what was
/// fetched.
#[derive(Debug)]
pub(super) struct Issuer {
    settings: KeysUrl,
    client: reqwest::Client,
    fetched: ArcSwapOption<Fetched>,
    /// Changes with each fetch that has ended.
    ended: watch::Sender<()>,
    is_fetching: AtomicBool,
    /// When a token last made us look again.
    asked: Mutex<Option<Instant>>,
    ask: Arc<Notify>,
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

impl Issuer {
    pub(super) fn new(settings: &KeysUrl) -> Result<Arc<Self>, String> {
        let tls = tls::client_config(&settings.tls).map_err(|error| error.to_string())?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(FETCH_TIMEOUT)
            .user_agent("fjord")
            .build()
            .map_err(|error| chain(&error))?;
        Ok(Arc::new(Self {
            settings: settings.clone(),
            client,
            fetched: ArcSwapOption::empty(),
            ended: watch::Sender::new(()),
            is_fetching: AtomicBool::new(false),
            asked: Mutex::default(),
            ask: Arc::default(),
            looking: Semaphore::new(LOOKING_MAX),
        }))
    }

    /// Takes over what another one has fetched from the same place.
    pub(super) fn inherit(&self, old: &Self) {
        if self.settings.url == old.settings.url {
            self.fetched.store(old.fetched.load_full());
        }
    }

    /// The keys, unless there were none yet or they are too old to be believed.
    pub(super) fn fetched(&self) -> Option<Arc<Fetched>> {
        self.fetched.load_full().filter(|keys| keys.at.elapsed() < self.settings.age_max)
    }

    /// Fetches now and then until `stop`, or until nobody has this issuer any more.
    pub(super) fn follow(self: &Arc<Self>, readiness: Readiness, tasks: &Tasks, stop: Cancel) {
        let (weak, ask) = (Arc::downgrade(self), Arc::clone(&self.ask));
        readiness.set(PART, self.state());
        // At zero from the start, so that an alert sees the first failure.
        count("ok", 0);
        count("failed", 0);
        let _detached = tasks.spawn_background(async move {
            let mut failures = 0_u32;
            while let Some(issuer) = weak.upgrade() {
                let fetched = tokio::select! {
                    fetched = issuer.fetch() => fetched,
                    () = stop.cancelled() => return,
                };
                failures = if fetched { 0 } else { failures.saturating_add(1) };
                let pause = issuer.pause(failures);
                // Where nobody else has it, another one has taken its place while it fetched, and its word counts.
                if Arc::strong_count(&issuer) == 1 {
                    return;
                }
                readiness.set(PART, issuer.state());
                drop(issuer);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                    () = ask.notified() => {}
                }
            }
        });
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

    fn state(&self) -> Result<(), String> {
        match self.fetched() {
            Some(_) => Ok(()),
            None => {
                Err("the issuer's keys could not be fetched yet, or not for too long".to_owned())
            }
        }
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
        let result = match self.read().await {
            Ok(text) => self.take(text),
            Err(error) => Err(error),
        };
        self.is_fetching.store(false, Ordering::Release);
        self.ended.send_replace(());
        let word = if result.is_ok() { "ok" } else { "failed" };
        count(word, 1);
        if let Err(error) = &result {
            let url = &self.settings.url;
            tracing::warn!(
                url,
                error,
                "the issuer's keys cannot be fetched, those from before count"
            );
        }
        result.is_ok()
    }

    async fn read(&self) -> Result<String, String> {
        let response = self.client.get(&self.settings.url).send().await;
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
                let keys = Arc::new(keys::from_jwks(&text, Whose::Issuers)?);
                let number = before.map_or(1, |before| before.number + 1);
                tracing::info!(
                    url = self.settings.url,
                    keys = keys.len(),
                    "took the issuer's keys"
                );
                Fetched { number, keys, text, at }
            }
        };
        self.fetched.store(Some(Arc::new(now)));
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970: exact for ages")]
        gauge(&names::AUTH_KEYS_FETCHED, &[]).set(super::unix_seconds() as f64);
        Ok(())
    }
}

/// Its follower sleeps for long: it has to notice that it follows nobody.
impl Drop for Issuer {
    fn drop(&mut self) {
        self.ask.notify_one();
    }
}

fn count(result: &'static str, fetches: u64) {
    counter(&names::AUTH_KEY_FETCHES, &[(names::RESULT, result.to_owned())]).increment(fetches);
}

/// There is no issuer any more whose keys are fetched.
pub(super) fn needs_none(readiness: &Readiness) {
    readiness.set(PART, Ok(()));
}
