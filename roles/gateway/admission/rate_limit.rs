//! Rate limits per caller and endpoint, and per client for failed authentications. They use the generic cell rate algorithm and
//! tables of bounded size.
//!
//! A caller's state is the instant at which its whole quota is available again. After that instant
//! the state can be dropped. (`governor` uses the same algorithm, but its keyed store is not
//! bounded.)
//!
//! The gateways of a fleet report the consumption of their callers to each other (`exchange.rs`). Until they have
//! exchanged these reports, a caller can exceed the shared limit. The excess is deducted later: after a report, the
//! instant can be further away than the time that a whole quota takes to refill. The debt of a caller is limited to one
//! quota for each gateway that has sent messages recently (`known_gateways.rs`). A caller cannot consume more than that
//! before these gateways learn of each other's consumption.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::{Notify, watch};

use crate::catalogue::Endpoint;
use crate::catalogue::endpoint::RateLimit;
use crate::config::gateway::{RateLimitConfig, RateLimitScope};
use crate::problem::{Problem, ProblemKind};
use crate::roles::gateway::client::caller::Caller;
use crate::roles::gateway::client::network::ClientNetwork;

use consumed_quotas::{CallerKind, ConsumedQuotas, QuotaKey};
use known_gateways::KnownGateways;
use quota_tables::{QuotaRule, QuotaTables, interval, take_request};

mod consumed_quotas;
pub mod exchange;
mod known_gateways;
mod quota_tables;

/// The maximum number of quotas in each of the two generations of each table.
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
    named: Mutex<QuotaTables>,
    /// Callers without a principal, by network. They have a separate table so that many addresses cannot evict callers with a
    /// principal.
    addresses: Mutex<QuotaTables>,
    /// Clients with failed authentications, for all endpoints together.
    rejections: Mutex<QuotaTables>,
    hasher: RandomState,
    config: watch::Sender<RateLimitConfig>,
    /// Whether all gateways enforce one shared limit. Atomic, because it is read for every request.
    is_shared: AtomicBool,
    known_gateways: Mutex<KnownGateways>,
    /// The number of `known_gateways`. Atomic, because it is read for every request.
    gateways: AtomicU32,
    /// The consumption that has not been reported to the other gateways yet.
    pending: Mutex<PendingConsumption>,
    /// Notified when so many quotas are pending that the next message should be sent early.
    many_are_pending: Notify,
}

#[derive(Debug, Default)]
struct PendingConsumption {
    quotas: ConsumedQuotas,
    /// The number of requests that `quotas` does not include because there were too many callers.
    omitted: u64,
}

impl RateLimiter {
    /// Creates a limiter whose quotas are all unused.
    #[must_use]
    pub fn new(config: RateLimitConfig) -> Self {
        Self::with_callers_max(config, CALLERS_MAX)
    }

    fn with_callers_max(config: RateLimitConfig, callers_max: usize) -> Self {
        Self {
            named: QuotaTables::new(callers_max),
            addresses: QuotaTables::new(callers_max),
            rejections: QuotaTables::new(callers_max),
            hasher: RandomState::new(),
            is_shared: AtomicBool::new(config.scope == RateLimitScope::Fleet),
            config: watch::Sender::new(config),
            known_gateways: Mutex::default(),
            gateways: AtomicU32::new(1),
            pending: Mutex::default(),
            many_are_pending: Notify::new(),
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
        let principal = caller.principal.as_deref();
        let tables = self.tables(CallerKind::new(principal));
        if !self.is_shared.load(Ordering::Relaxed) {
            // The key for all gateways is a cryptographic hash, which takes longer to compute.
            let key = self.hasher.hash_one((id, limit, principal.ok_or(network)));
            return decide(tables, key, QuotaRule { limit, owed_max: 1 }, now);
        }
        let (key, kind) = QuotaKey::new((id, limit), principal, network);
        let rule = QuotaRule { limit, owed_max: self.gateways.load(Ordering::Relaxed) };
        let decision = decide(tables, self.hasher.hash_one(key), rule, now);
        if matches!(decision, RateDecision::Allowed { .. }) {
            self.add_pending((key, kind), interval(limit));
        }
        decision
    }

    /// Adds consumption that must be reported to the other gateways.
    fn add_pending(&self, quota: (QuotaKey, CallerKind), consumed: Duration) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if !pending.quotas.add(quota, consumed) {
            pending.omitted += 1;
        }
        if pending.quotas.is_half_full() {
            self.many_are_pending.notify_one();
        }
    }

    /// Returns the consumption since the last call, and the number of requests that it does not include.
    fn take_consumed(&self) -> (ConsumedQuotas, u64) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let PendingConsumption { quotas, omitted } = std::mem::take(&mut *pending);
        (quotas, omitted)
    }

    /// Counts the consumption that another gateway has reported. `gateway` is the id of that gateway.
    fn add_consumed_elsewhere(&self, gateway: &str, consumed: &ConsumedQuotas, now: Instant) {
        self.known_gateways().record(gateway, now);
        self.count_gateways(now);
        for (key, kind, consumed) in consumed.iter() {
            let key = self.hasher.hash_one(key);
            let mut tables = self.tables(kind).lock().unwrap_or_else(PoisonError::into_inner);
            tables.add_consumed_elsewhere(key, consumed, now);
        }
    }

    /// Updates the number of gateways, which changes when a new gateway sends a message or a known one has sent none
    /// for too long.
    fn count_gateways(&self, now: Instant) {
        let gateways = u32::try_from(self.known_gateways().count(now)).unwrap_or(u32::MAX);
        self.gateways.store(gateways, Ordering::Relaxed);
    }

    fn known_gateways(&self) -> MutexGuard<'_, KnownGateways> {
        self.known_gateways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whether the gateways enforce shared limits, and how often they exchange messages.
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

    fn tables(&self, kind: CallerKind) -> &Mutex<QuotaTables> {
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

fn decide(tables: &Mutex<QuotaTables>, key: u64, rule: QuotaRule, now: Instant) -> RateDecision {
    let limit = rule.limit;
    match take_request(tables, key, rule, now) {
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

/// Returns a duration in whole seconds, rounded up so that a retry is not too early.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests;
