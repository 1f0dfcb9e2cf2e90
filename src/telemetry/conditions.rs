//! Conditions that affect many requests, such as a database that does not answer. Their beginnings
//! and ends are logged; in between, affected requests are counted.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{counter, names};

/// The time without an affected request after which a condition is over.
const QUIET: Duration = Duration::from_secs(10);
/// The interval at which `watch` checks which conditions are over.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The maximum number of simultaneous conditions: enough for several per queue and database. Beyond
/// it, all new subjects of a kind share one condition.
const CONDITIONS_MAX: usize = 4096;

/// A kind of condition.
#[derive(Debug)]
pub struct Condition {
    /// The name in logs and in the metric.
    pub name: &'static str,
    /// Whether the end is reported with `resolve` or `resolve_if_quiet`. Otherwise, the condition
    /// ends when it no longer affects any request.
    pub has_reported_end: bool,
}

impl Condition {
    /// Creates a condition that ends when it no longer affects any request.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, has_reported_end: false }
    }
}

/// Messages from other processes that cannot be decoded.
pub const MALFORMED: Condition = Condition::new("messages violate the protocol");
/// Messages from this process that cannot be sent.
pub const UNSENT: Condition = Condition::new("messages cannot be sent");

#[derive(Clone, Copy, Debug)]
struct Occurrence {
    since: Instant,
    last: Instant,
    requests: u64,
    has_reported_end: bool,
}

/// The current conditions by name and subject: a queue, a database, or empty for the process.
type State = BTreeMap<(&'static str, String), Occurrence>;

static STATE: Mutex<State> = Mutex::new(BTreeMap::new());

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records that a condition of `subject` affects a request. Returns whether it has just begun and
/// must be logged; until it ends, further requests are only counted.
#[must_use]
pub fn raise(condition: &Condition, subject: &str) -> bool {
    let now = Instant::now();
    let mut state = state();
    let mut key = (condition.name, subject.to_owned());
    if state.len() >= CONDITIONS_MAX && !state.contains_key(&key) {
        key.1.clear();
    }
    let occurrence = state.entry(key).or_insert(Occurrence {
        since: now,
        last: now,
        requests: 0,
        has_reported_end: condition.has_reported_end,
    });
    occurrence.last = now;
    occurrence.requests = occurrence.requests.saturating_add(1);
    let is_first = occurrence.requests == 1;
    drop(state);
    if !is_first {
        let label = [(names::CONDITION, condition.name.to_owned())];
        counter(&names::LOG_REPEATS, &label).increment(1);
    }
    is_first
}

/// Ends a condition. Returns how many requests it affected.
#[must_use]
pub fn resolve(condition: &Condition, subject: &str) -> u64 {
    state()
        .remove(&(condition.name, subject.to_owned()))
        .map_or(0, |occurrence| occurrence.requests)
}

/// Ends a condition and logs its end if it has affected no request for 10 seconds. For callers that
/// only know that the condition may be over.
pub fn resolve_if_quiet(condition: &Condition, subject: &str) {
    let key = (condition.name, subject.to_owned());
    let over =
        state().extract_if(.., |each, occurrence| *each == key && is_quiet(occurrence)).next();
    if let Some(over) = over {
        log(over);
    }
}

/// Ends conditions that no longer affect any request, and logs their end. Never returns.
pub async fn watch() {
    loop {
        sleep(CHECK_INTERVAL).await;
        let is_over =
            |occurrence: &Occurrence| !occurrence.has_reported_end && is_quiet(occurrence);
        let over: Vec<_> = state().extract_if(.., |_, occurrence| is_over(occurrence)).collect();
        over.into_iter().for_each(log);
    }
}

fn is_quiet(occurrence: &Occurrence) -> bool {
    occurrence.last.elapsed() >= QUIET
}

fn log(((condition, subject), occurrence): ((&'static str, String), Occurrence)) {
    let seconds = occurrence.last.duration_since(occurrence.since).as_secs_f64();
    let requests = occurrence.requests;
    tracing::info!(condition, subject, requests, seconds, "a condition is over");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_first_request_affected_by_a_condition_is_logged() {
        const REPORTED: Condition =
            Condition { name: "with a reported end", has_reported_end: true };
        assert!(
            raise(&REPORTED, "a") && raise(&REPORTED, "b"),
            "each subject has its own condition"
        );
        assert!(!raise(&REPORTED, "a"));
        resolve_if_quiet(&REPORTED, "a");
        assert!(!raise(&REPORTED, "a"), "it affected a request a moment ago");
        tokio::time::advance(QUIET).await;
        resolve_if_quiet(&REPORTED, "a");
        assert!(raise(&REPORTED, "a"), "it had ended");
        assert_eq!(resolve(&REPORTED, "b"), 1);
        assert_eq!(resolve(&REPORTED, "b"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_condition_without_a_reported_end_ends_after_a_quiet_period() {
        const UNREPORTED: Condition = Condition::new("without a reported end");
        let watching = crate::lifecycle::Tasks::new().spawn(watch());
        assert!(raise(&UNREPORTED, ""));
        sleep(QUIET / 2).await;
        assert!(!raise(&UNREPORTED, ""));
        sleep(QUIET + 2 * CHECK_INTERVAL).await;
        assert!(raise(&UNREPORTED, ""));
        watching.abort();
    }
}
