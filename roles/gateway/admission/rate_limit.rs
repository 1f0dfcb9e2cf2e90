//! Rate limits per caller and endpoint, and per client for failed authentications. They use the generic cell rate algorithm and
//! tables of bounded size.
//!
//! A caller's state is the instant at which its whole quota is available again. After that instant
//! the state can be dropped. (`governor` uses the same algorithm, but its keyed store is not
//! bounded.)
//!
//! The gateways of a fleet tell each other what callers have consumed (`exchange.rs`). Consumption at another gateway moves the
//! instant even beyond the whole quota, so that what a caller gets too much, before the gateways know of each other, is deducted
//! from what it gets later.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::watch;

use super::two_generation_cache::TwoGenerationCache;
use crate::catalogue::Endpoint;
use crate::catalogue::endpoint::RateLimit;
use crate::config::gateway::{RateLimitConfig, RateLimitScope};
use crate::problem::{Problem, ProblemKind};
use crate::roles::gateway::client::caller::Caller;
use crate::roles::gateway::client::network::ClientNetwork;

use consumed_quotas::{CallerKind, ConsumedQuotas, QuotaKey};

mod consumed_quotas;
pub mod exchange;

/// The maximum number of callers in each of the two generations of each table.
const CALLERS_MAX: usize = 32_768;

/// The window of the limit on failed authentications.
const FAILURES_WINDOW: Duration = Duration::from_mins(1);

/// The number of quotas that a caller can owe if the gateways count together: the most that it can consume at this many gateways
/// before they know of each other.
const QUOTAS_OWED_MAX: u32 = 64;
/// The longest time until a quota is available again: 64 windows of 24 h.
const DEBT_MAX: Duration = Duration::from_hours(24 * 64);

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The result of applying a rate limit to a request.
#[derive(Clone, Debug)]
pub enum RateDecision {
    /// The request is within the limit.
    Allowed {
        /// The rate limit headers of the response.
        headers: RateLimitHeaders,
    },
    /// The request exceeds the limit: 429.
    Limited {
        /// The problem in the response.
        problem: Problem,
        /// The rate limit headers of the response.
        headers: RateLimitHeaders,
    },
}

/// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10). Empty if there is no limit.
#[derive(Clone, Debug, Default)]
pub struct RateLimitHeaders(Option<(HeaderValue, HeaderValue)>);

impl RateLimitHeaders {
    fn new(limit: RateLimit, remaining: u128, reset: Duration) -> Self {
        let policy = format!("\"default\";q={};w={}", limit.requests, whole_seconds(limit.window));
        let state = format!("\"default\";r={remaining};t={}", whole_seconds(reset));
        // This never fails, because digits and fixed text form a valid header value.
        Self(HeaderValue::try_from(policy).ok().zip(HeaderValue::try_from(state).ok()))
    }

    /// Adds the headers to a response of any status.
    pub fn apply(&self, headers: &mut HeaderMap) {
        if let Some((policy, state)) = &self.0 {
            headers.insert(POLICY, policy.clone());
            headers.insert(LIMIT, state.clone());
        }
    }
}

/// Limits requests per caller and endpoint, and failed authentications per client.
#[derive(Debug)]
pub struct RateLimiter {
    /// Callers with a principal.
    named: Mutex<QuotaTable>,
    /// Callers without a principal, by network. They have a separate table so that many addresses cannot evict callers with a
    /// principal.
    addresses: Mutex<QuotaTable>,
    /// Clients with failed authentications, for all endpoints together.
    rejections: Mutex<QuotaTable>,
    hasher: RandomState,
    config: watch::Sender<RateLimitConfig>,
    /// Whether the gateways count together. Atomic, because it is read for every request.
    is_shared: AtomicBool,
    /// What callers have consumed since the last message to the other gateways.
    unreported: Mutex<UnreportedConsumption>,
}

#[derive(Debug, Default)]
struct UnreportedConsumption {
    quotas: ConsumedQuotas,
    /// The number of requests that `quotas` does not include, because there were too many callers.
    omitted: u64,
}

/// A map from a hash of endpoint and caller to the instant at which the whole quota is available again.
///
/// The hash is keyed with a secret of this process, so that a caller cannot construct a collision with another caller.
type QuotaTable = TwoGenerationCache<u64, Instant>;

impl RateLimiter {
    /// Creates a limiter whose quotas are all unused.
    #[must_use]
    pub fn new(config: RateLimitConfig) -> Self {
        Self::with_callers_max(config, CALLERS_MAX)
    }

    fn with_callers_max(config: RateLimitConfig, callers_max: usize) -> Self {
        Self {
            named: Mutex::new(TwoGenerationCache::new(callers_max)),
            addresses: Mutex::new(TwoGenerationCache::new(callers_max)),
            rejections: Mutex::new(TwoGenerationCache::new(callers_max)),
            hasher: RandomState::new(),
            is_shared: AtomicBool::new(config.scope == RateLimitScope::Fleet),
            config: watch::Sender::new(config),
            unreported: Mutex::default(),
        }
    }

    /// Counts a request, unless it exceeds the caller's limit.
    #[must_use]
    pub fn admit(
        &self,
        endpoint: &Endpoint,
        caller: &Caller,
        network: ClientNetwork,
        now: Instant,
    ) -> RateDecision {
        let Some(limit) = endpoint.rate_limit else {
            return RateDecision::Allowed { headers: RateLimitHeaders::default() };
        };
        let id = endpoint.id.as_str();
        let (key, kind) = QuotaKey::new(id, caller.principal.as_deref(), network);
        let is_shared = self.is_shared.load(Ordering::Relaxed);
        let rule = QuotaRule { limit, owed_max: if is_shared { QUOTAS_OWED_MAX } else { 1 } };
        let decision = decide(self.table(kind), self.hasher.hash_one(key), rule, now);
        if is_shared && matches!(decision, RateDecision::Allowed { .. }) {
            let mut unreported = self.unreported.lock().unwrap_or_else(PoisonError::into_inner);
            if !unreported.quotas.add((key, kind), interval(limit)) {
                unreported.omitted += 1;
            }
        }
        decision
    }

    /// Returns what callers have consumed since the last call, and the number of requests that it does not include.
    fn take_consumed(&self) -> (ConsumedQuotas, u64) {
        let mut unreported = self.unreported.lock().unwrap_or_else(PoisonError::into_inner);
        let UnreportedConsumption { quotas, omitted } = std::mem::take(&mut *unreported);
        (quotas, omitted)
    }

    /// Counts what callers have consumed at another gateway.
    fn add_consumed_elsewhere(&self, consumed: &ConsumedQuotas, now: Instant) {
        for (key, kind, consumed) in consumed.iter() {
            let key = self.hasher.hash_one(key);
            let mut table = self.table(kind).lock().unwrap_or_else(PoisonError::into_inner);
            let full_at = table.take(&key).map_or(now, |full_at| full_at.max(now)) + consumed;
            table.insert(key, full_at.min(now + DEBT_MAX), |full_at| *full_at > now);
        }
    }

    /// Changes whether the gateways count together, and how often they tell each other.
    pub fn reconfigure(&self, config: RateLimitConfig) {
        self.is_shared.store(config.scope == RateLimitScope::Fleet, Ordering::Relaxed);
        if config.scope == RateLimitScope::Gateway {
            let _discarded = self.take_consumed();
        }
        self.config.send_replace(config);
    }

    fn config(&self) -> watch::Receiver<RateLimitConfig> {
        self.config.subscribe()
    }

    fn table(&self, kind: CallerKind) -> &Mutex<QuotaTable> {
        match kind {
            CallerKind::Principal => &self.named,
            CallerKind::Address => &self.addresses,
        }
    }

    /// Counts a failed authentication by a client.
    ///
    /// # Errors
    /// The time until the next failure is allowed, if the client has exceeded `per_minute`.
    pub fn admit_rejection(
        &self,
        network: ClientNetwork,
        per_minute: u32,
        now: Instant,
    ) -> Result<(), Duration> {
        let limit = RateLimit { requests: per_minute, window: FAILURES_WINDOW };
        let rule = QuotaRule { limit, owed_max: 1 };
        take_request(&self.rejections, self.hasher.hash_one(network), rule, now).map(drop)
    }
}

/// A limit, and how many whole quotas a caller can owe.
#[derive(Clone, Copy, Debug)]
struct QuotaRule {
    limit: RateLimit,
    owed_max: u32,
}

fn decide(table: &Mutex<QuotaTable>, key: u64, rule: QuotaRule, now: Instant) -> RateDecision {
    let limit = rule.limit;
    match take_request(table, key, rule, now) {
        Ok(quota) => RateDecision::Allowed {
            headers: RateLimitHeaders::new(limit, quota.remaining, quota.reset),
        },
        // `t` and `Retry-After` have the same value: the time until the next request is allowed, not until the whole quota is
        // available.
        Err(wait) => RateDecision::Limited {
            problem: Problem::new(ProblemKind::RateLimited).retry_after(wait),
            headers: RateLimitHeaders::new(limit, 0, wait),
        },
    }
}

/// The state of a quota after a request.
struct Quota {
    remaining: u128,
    /// The time until the whole quota is available again.
    reset: Duration,
}

/// Takes one request from a quota. If the quota is exhausted, returns the time until the next request is allowed.
fn take_request(
    table: &Mutex<QuotaTable>,
    key: u64,
    QuotaRule { limit, owed_max }: QuotaRule,
    now: Instant,
) -> Result<Quota, Duration> {
    let interval = interval(limit);
    let capacity = interval * limit.requests.max(1);

    let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
    // A reload may have shortened the window, so the debt is clamped to the current window.
    let debt = table
        .take(&key)
        .map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now))
        .min(capacity.saturating_mul(owed_max));
    let next_debt = debt + interval;
    let spare = capacity.checked_sub(next_debt);
    let kept = if spare.is_some() { next_debt } else { debt };
    table.insert(key, now + kept, |full_at| *full_at > now);
    drop(table);

    let spare = spare.ok_or_else(|| next_debt.saturating_sub(capacity))?;
    Ok(Quota { remaining: spare.as_nanos() / interval.as_nanos(), reset: next_debt })
}

/// Returns the time in which a quota is refilled by one request.
fn interval(limit: RateLimit) -> Duration {
    (limit.window / limit.requests.max(1)).max(Duration::from_nanos(1))
}

/// Returns a duration in whole seconds, rounded up so that a retry is not too early.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests;
