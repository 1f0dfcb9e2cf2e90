//! Rate limits per caller and endpoint, and per client for failed authentications. They use the generic cell rate algorithm and
//! tables of bounded size.
//!
//! A caller's state is the instant at which its whole quota is available again. After that instant
//! the state can be dropped. (`governor` uses the same algorithm, but its keyed store is not
//! bounded.)

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::two_generation_cache::TwoGenerationCache;
use crate::catalogue::Endpoint;
use crate::catalogue::endpoint::RateLimit;
use crate::problem::{Problem, ProblemKind};
use crate::roles::gateway::client::caller::Caller;
use crate::roles::gateway::client::network::ClientNetwork;

/// The maximum number of callers in each of the two generations of each table.
const CALLERS_MAX: usize = 32_768;

/// The window of the limit on failed authentications.
const FAILURES_WINDOW: Duration = Duration::from_mins(1);

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
}

/// A map from a hash of endpoint and caller to the instant at which the whole quota is available again.
///
/// The hash is keyed with a secret of this process, so that a caller cannot construct a collision with another caller.
type QuotaTable = TwoGenerationCache<u64, Instant>;

impl Default for RateLimiter {
    fn default() -> Self {
        Self::new()
    }
}

impl RateLimiter {
    /// Creates a limiter whose quotas are all unused.
    #[must_use]
    pub fn new() -> Self {
        Self::with_callers_max(CALLERS_MAX)
    }

    fn with_callers_max(callers_max: usize) -> Self {
        Self {
            named: Mutex::new(TwoGenerationCache::new(callers_max)),
            addresses: Mutex::new(TwoGenerationCache::new(callers_max)),
            rejections: Mutex::new(TwoGenerationCache::new(callers_max)),
            hasher: RandomState::new(),
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
        match &caller.principal {
            Some(principal) => {
                decide(&self.named, self.hasher.hash_one((id, principal)), limit, now)
            }
            None => decide(&self.addresses, self.hasher.hash_one((id, network)), limit, now),
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
        take_request(&self.rejections, self.hasher.hash_one(network), limit, now).map(drop)
    }
}

fn decide(table: &Mutex<QuotaTable>, key: u64, limit: RateLimit, now: Instant) -> RateDecision {
    match take_request(table, key, limit, now) {
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
    limit: RateLimit,
    now: Instant,
) -> Result<Quota, Duration> {
    let requests = limit.requests.max(1);
    let interval = (limit.window / requests).max(Duration::from_nanos(1));
    let capacity = interval * requests;

    let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
    // A reload may have shortened the window, so the debt is clamped to the current window.
    let debt = table
        .take(&key)
        .map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now))
        .min(capacity);
    let next_debt = debt + interval;
    let spare = capacity.checked_sub(next_debt);
    let kept = if spare.is_some() { next_debt } else { debt };
    table.insert(key, now + kept, |full_at| *full_at > now);
    drop(table);

    let spare = spare.ok_or_else(|| next_debt.saturating_sub(capacity))?;
    Ok(Quota { remaining: spare.as_nanos() / interval.as_nanos(), reset: next_debt })
}

/// Returns a duration in whole seconds, rounded up so that a retry is not too early.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests;
