//! Each caller's own rate at an endpoint, and each client's of refusals: the generic cell rate algorithm over bounded tables.
//!
//! A caller's state is a single instant, the one at which its whole quota is back; once it has passed, the
//! caller is as good as unknown and can be forgotten. (`governor` counts the same way, but its keyed
//! store has no bound of its own.)

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::generations::Generations;
use crate::catalogue::Endpoint;
use crate::catalogue::endpoint::RateLimit;
use crate::problem::{Problem, ProblemKind};
use crate::roles::gateway::client::caller::Caller;
use crate::roles::gateway::client::network::ClientNetwork;

/// Callers that are remembered in each of the two generations of each of the tables.
const CALLERS_MAX: usize = 32_768;

/// In which so many refusals of one client are allowed.
const REFUSALS_WINDOW: Duration = Duration::from_mins(1);

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// What a caller's rate says about a request.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Within the rate.
    Allowed {
        /// What the answer tells of the rate.
        headers: RateHeaders,
    },
    /// Over it: 429.
    Limited {
        /// What the caller is told.
        problem: Problem,
        /// What the answer tells of the rate.
        headers: RateHeaders,
    },
}

/// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10); none where no rate is set.
#[derive(Clone, Debug, Default)]
pub struct RateHeaders(Option<(HeaderValue, HeaderValue)>);

impl RateHeaders {
    fn new(limit: RateLimit, remaining: u128, reset: Duration) -> Self {
        let policy = format!("\"default\";q={};w={}", limit.requests, whole_seconds(limit.window));
        let state = format!("\"default\";r={remaining};t={}", whole_seconds(reset));
        // Digits and fixed text are always a header value.
        Self(HeaderValue::try_from(policy).ok().zip(HeaderValue::try_from(state).ok()))
    }

    /// Sets them on an answer, whatever its status.
    pub fn apply(&self, headers: &mut HeaderMap) {
        if let Some((policy, state)) = &self.0 {
            headers.insert(POLICY, policy.clone());
            headers.insert(LIMIT, state.clone());
        }
    }
}

/// Counts every caller's requests to every endpoint with a rate, and every client's that are refused.
#[derive(Debug)]
pub struct RateLimiter {
    /// Callers with a principal.
    named: Mutex<Table>,
    /// Callers known by their address only. Apart, so that a flood of addresses cannot make us forget the others.
    addresses: Mutex<Table>,
    /// Clients whose requests are refused, whatever the endpoint.
    refused: Mutex<Table>,
    hasher: RandomState,
}

/// A hash of endpoint and caller → when the whole quota is back.
///
/// The hash is keyed with a secret of this process: nobody can choose to share somebody else's entry.
type Table = Generations<u64, Instant>;

impl Default for RateLimiter {
    fn default() -> Self {
        Self::new()
    }
}

impl RateLimiter {
    /// A limiter that has not seen anybody.
    #[must_use]
    pub fn new() -> Self {
        Self::with_callers_max(CALLERS_MAX)
    }

    fn with_callers_max(callers_max: usize) -> Self {
        Self {
            named: Mutex::new(Generations::new(callers_max)),
            addresses: Mutex::new(Generations::new(callers_max)),
            refused: Mutex::new(Generations::new(callers_max)),
            hasher: RandomState::new(),
        }
    }

    /// Counts a request, unless it is over the caller's rate.
    #[must_use]
    pub fn admit(
        &self,
        endpoint: &Endpoint,
        caller: &Caller,
        network: ClientNetwork,
        now: Instant,
    ) -> Verdict {
        let Some(limit) = endpoint.rate_limit else {
            return Verdict::Allowed { headers: RateHeaders::default() };
        };
        let id = endpoint.id.as_str();
        match &caller.principal {
            Some(principal) => {
                count(&self.named, self.hasher.hash_one((id, principal)), limit, now)
            }
            None => count(&self.addresses, self.hasher.hash_one((id, network)), limit, now),
        }
    }

    /// Counts a request of a client that is refused.
    ///
    /// # Errors
    /// How long to wait, where more than `per_minute` of them were.
    pub fn admit_refusal(
        &self,
        network: ClientNetwork,
        per_minute: u32,
        now: Instant,
    ) -> Result<(), Duration> {
        let limit = RateLimit { requests: per_minute, window: REFUSALS_WINDOW };
        take(&self.refused, self.hasher.hash_one(network), limit, now).map(drop)
    }
}

fn count(table: &Mutex<Table>, key: u64, limit: RateLimit, now: Instant) -> Verdict {
    match take(table, key, limit, now) {
        Ok(quota) => {
            Verdict::Allowed { headers: RateHeaders::new(limit, quota.remaining, quota.reset) }
        }
        // `t` and `Retry-After` say the same: when the next request will pass, not when all of them will.
        Err(wait) => Verdict::Limited {
            problem: Problem::new(ProblemKind::RateLimited).retry_after(wait),
            headers: RateHeaders::new(limit, 0, wait),
        },
    }
}

/// What is left of a quota.
struct Quota {
    remaining: u128,
    /// Until all of it is back.
    reset: Duration,
}

/// Takes one request out of a quota; over it, says how long until the next one passes.
fn take(table: &Mutex<Table>, key: u64, limit: RateLimit, now: Instant) -> Result<Quota, Duration> {
    let requests = limit.requests.max(1);
    let interval = (limit.window / requests).max(Duration::from_nanos(1));
    let capacity = interval * requests;

    let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
    // A reload may have shortened the window: nobody waits longer than the one that holds now.
    let debt = table
        .take(&key)
        .map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now))
        .min(capacity);
    let next_debt = debt + interval;
    let spare = capacity.checked_sub(next_debt);
    let kept = if spare.is_some() { next_debt } else { debt };
    table.put(key, now + kept, |full_at| *full_at > now);
    drop(table);

    let spare = spare.ok_or_else(|| next_debt.saturating_sub(capacity))?;
    Ok(Quota { remaining: spare.as_nanos() / interval.as_nanos(), reset: next_debt })
}

/// A duration in seconds, rounded up: who comes back then must not be early.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests;
