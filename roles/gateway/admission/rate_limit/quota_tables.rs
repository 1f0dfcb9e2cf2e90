//! The quotas of callers, in tables of bounded size.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::catalogue::endpoint::RateLimit;
use crate::roles::gateway::admission::two_generation_cache::TwoGenerationCache;

use super::known_gateways::GATEWAYS_MAX;

/// The longest time until a quota is available again: the longest window (24 h) multiplied by the maximum number of
/// gateways.
const DEBT_MAX: Duration = Duration::from_hours(24 * GATEWAYS_MAX as u64);

/// Maps a hash of a limit and a caller to the instant at which the whole quota is available again.
///
/// The hash is keyed with a secret of this process, so that a caller cannot construct a collision with another caller.
type QuotaTable = TwoGenerationCache<u64, Instant>;

/// The quotas of one kind of caller. Each quota is in at most one of the tables.
#[derive(Debug)]
pub(super) struct QuotaTables {
    /// Quotas that were used at this gateway.
    here: QuotaTable,
    /// Quotas that were used only at other gateways. They have a table of their own, so that messages cannot evict a quota that
    /// was used here.
    elsewhere: QuotaTable,
}

/// A limit, and the maximum number of whole quotas that a caller can owe.
#[derive(Clone, Copy, Debug)]
pub(super) struct QuotaRule {
    pub(super) limit: RateLimit,
    pub(super) owed_max: u32,
}

/// The state of a quota after a request.
pub(super) struct Quota {
    pub(super) remaining: u128,
    /// The time until the whole quota is available again.
    pub(super) reset: Duration,
}

impl QuotaTables {
    /// Creates empty tables, each of which holds at most twice `callers_max` quotas.
    pub(super) fn new(callers_max: usize) -> Mutex<Self> {
        let [here, elsewhere] = [callers_max; 2].map(TwoGenerationCache::new);
        Mutex::new(Self { here, elsewhere })
    }

    /// Adds a caller's consumption at another gateway, given as the time that the quota needs to refill by the consumed
    /// amount.
    pub(super) fn add_consumed_elsewhere(&mut self, key: u64, consumed: Duration, now: Instant) {
        let add = |full_at: Instant| (full_at.max(now) + consumed).min(now + DEBT_MAX);
        if let Some(full_at) = self.here.get_mut(&key) {
            *full_at = add(*full_at);
        } else {
            let full_at = self.elsewhere.take(&key).unwrap_or(now);
            self.elsewhere.insert(key, add(full_at), |full_at| *full_at > now);
        }
    }

    fn take(&mut self, key: u64) -> Option<Instant> {
        self.here.take(&key).or_else(|| self.elsewhere.take(&key))
    }

    /// Returns the number of quotas in the larger table.
    #[cfg(test)]
    pub(super) fn len_max(&self) -> usize {
        self.here.len().max(self.elsewhere.len())
    }
}

/// Takes one request from a quota. If the quota is exhausted, returns the time until the next request is allowed.
pub(super) fn take_request(
    tables: &Mutex<QuotaTables>,
    key: u64,
    QuotaRule { limit, owed_max }: QuotaRule,
    now: Instant,
) -> Result<Quota, Duration> {
    let interval = interval(limit);
    let capacity = interval * limit.requests.max(1);

    let mut tables = tables.lock().unwrap_or_else(PoisonError::into_inner);
    // Messages from other gateways may claim more than a caller can have consumed.
    let debt = tables
        .take(key)
        .map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now))
        .min(capacity.saturating_mul(owed_max));
    let next_debt = debt + interval;
    let spare = capacity.checked_sub(next_debt);
    let kept = if spare.is_some() { next_debt } else { debt };
    tables.here.insert(key, now + kept, |full_at| *full_at > now);
    drop(tables);

    let spare = spare.ok_or_else(|| next_debt.saturating_sub(capacity))?;
    Ok(Quota { remaining: spare.as_nanos() / interval.as_nanos(), reset: next_debt })
}

/// Returns the time that a quota takes to refill by one request.
pub(super) fn interval(limit: RateLimit) -> Duration {
    (limit.window / limit.requests.max(1)).max(Duration::from_nanos(1))
}
