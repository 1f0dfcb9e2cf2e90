//! Conditions that affect many requests, such as a database that does not respond. The start and
//! end of a condition are logged. In between, affected requests are only counted.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{counter, names};

/// A condition is over once it has affected no requests for this long.
const QUIET: Duration = Duration::from_secs(10);
/// The interval at which `watch` checks which conditions are over.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The maximum number of simultaneous conditions. This is enough for several conditions per queue
/// and database. Beyond this number, all new subjects of a kind share one condition.
const CONDITIONS_MAX: usize = 4096;

/// A kind of condition.
#[derive(Debug)]
pub struct ConditionKind {
    /// The name in logs and in the metric.
    pub name: &'static str,
    /// Whether callers report the end with `resolve` or `resolve_if_quiet`. Otherwise, the
    /// condition ends when it no longer affects any request.
    pub is_ended_by_caller: bool,
}

impl ConditionKind {
    /// Creates a condition that ends when it no longer affects any request.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, is_ended_by_caller: false }
    }
}

/// Messages from other processes cannot be decoded.
pub const MALFORMED: ConditionKind = ConditionKind::new("messages violate the protocol");
/// Messages from this process cannot be sent.
pub const UNSENT: ConditionKind = ConditionKind::new("messages cannot be sent");

#[derive(Clone, Copy, Debug)]
struct ActiveCondition {
    since: Instant,
    last: Instant,
    requests: u64,
    is_ended_by_caller: bool,
}

/// The current conditions, keyed by name and subject. The subject is a queue or a database, or
/// empty for the whole process.
type State = BTreeMap<(&'static str, String), ActiveCondition>;

static STATE: Mutex<State> = Mutex::new(BTreeMap::new());

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records that a condition of `subject` affects a request. Returns true if the condition has just
/// begun and must be logged. Until it ends, further requests are only counted.
#[must_use]
pub fn raise(condition: &ConditionKind, subject: &str) -> bool {
    let now = Instant::now();
    let mut state = state();
    let mut key = (condition.name, subject.to_owned());
    if state.len() >= CONDITIONS_MAX && !state.contains_key(&key) {
        key.1.clear();
    }
    let active = state.entry(key).or_insert(ActiveCondition {
        since: now,
        last: now,
        requests: 0,
        is_ended_by_caller: condition.is_ended_by_caller,
    });
    active.last = now;
    active.requests = active.requests.saturating_add(1);
    let is_first = active.requests == 1;
    drop(state);
    if !is_first {
        let label = [(names::CONDITION, condition.name.to_owned())];
        counter(&names::LOG_LINES_SUPPRESSED, &label).increment(1);
    }
    is_first
}

/// Ends a condition. Returns the number of requests that it affected.
#[must_use]
pub fn resolve(condition: &ConditionKind, subject: &str) -> u64 {
    state().remove(&(condition.name, subject.to_owned())).map_or(0, |active| active.requests)
}

/// Ends a condition and logs the end, if it has affected no request for 10 seconds. Intended for
/// callers that only know that the condition may be over.
pub fn resolve_if_quiet(condition: &ConditionKind, subject: &str) {
    let key = (condition.name, subject.to_owned());
    let over = state().extract_if(.., |each, active| *each == key && is_quiet(active)).next();
    if let Some(over) = over {
        log(over);
    }
}

/// Ends conditions that no longer affect any request and logs their end. Never returns.
pub async fn watch() {
    loop {
        sleep(CHECK_INTERVAL).await;
        let is_over = |active: &ActiveCondition| !active.is_ended_by_caller && is_quiet(active);
        let over: Vec<_> = state().extract_if(.., |_, active| is_over(active)).collect();
        over.into_iter().for_each(log);
    }
}

fn is_quiet(active: &ActiveCondition) -> bool {
    active.last.elapsed() >= QUIET
}

fn log(((condition, subject), active): ((&'static str, String), ActiveCondition)) {
    let seconds = active.last.duration_since(active.since).as_secs_f64();
    let requests = active.requests;
    tracing::info!(condition, subject, requests, seconds, "a condition is over");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_first_request_affected_by_a_condition_is_logged() {
        const REPORTED: ConditionKind =
            ConditionKind { name: "with a reported end", is_ended_by_caller: true };
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
        const UNREPORTED: ConditionKind = ConditionKind::new("without a reported end");
        let watching = crate::lifecycle::Tasks::new().spawn(watch());
        assert!(raise(&UNREPORTED, ""));
        sleep(QUIET / 2).await;
        assert!(!raise(&UNREPORTED, ""));
        sleep(QUIET + 2 * CHECK_INTERVAL).await;
        assert!(raise(&UNREPORTED, ""));
        watching.abort();
    }
}
