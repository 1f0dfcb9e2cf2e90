//! Conditions that many requests run into, such as a database that is away: logged when they begin and when they are
//! over, counted in between.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{counter, names};

/// A condition that no request has met for so long is over.
const QUIET: Duration = Duration::from_secs(10);
/// How often it is looked which are over.
const LOOK: Duration = Duration::from_secs(1);
/// Conditions at once: queues and databases of a configuration, several kinds for each. Beyond them all of a kind are one.
const CONDITIONS_MAX: usize = 4096;

/// A kind of condition.
#[derive(Debug)]
pub struct Condition {
    /// What it is, in the words of the log.
    pub what: &'static str,
    /// Whether somebody knows when it is over and says so; else it is when no request meets it any more.
    pub is_told: bool,
}

impl Condition {
    /// One that is over when no request meets it any more.
    #[must_use]
    pub const fn new(what: &'static str) -> Self {
        Self { what, is_told: false }
    }
}

/// Messages of others that cannot be read.
pub const MALFORMED: Condition = Condition::new("messages do not keep to the protocol");
/// Messages of ours that do not leave.
pub const UNSENT: Condition = Condition::new("messages cannot be sent");

#[derive(Clone, Copy, Debug)]
struct Met {
    since: Instant,
    last: Instant,
    requests: u64,
    is_told: bool,
}

/// What is met now: which condition, and whose (a queue, a database; empty for the process).
type State = BTreeMap<(&'static str, String), Met>;

static STATE: Mutex<State> = Mutex::new(BTreeMap::new());

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request met a condition of somebody's. Says whether it has just begun, so that a line is due; after it requests are
/// counted, until it is over.
#[must_use]
pub fn begins(condition: &Condition, whose: &str) -> bool {
    let now = Instant::now();
    let mut state = state();
    let mut key = (condition.what, whose.to_owned());
    if state.len() >= CONDITIONS_MAX && !state.contains_key(&key) {
        key.1.clear();
    }
    let fresh = Met { since: now, last: now, requests: 0, is_told: condition.is_told };
    let met = state.entry(key).or_insert(fresh);
    met.last = now;
    met.requests = met.requests.saturating_add(1);
    let is_first = met.requests == 1;
    drop(state);
    if !is_first {
        let label = [(names::CONDITION, condition.what.to_owned())];
        counter(&names::LOG_REPEATS, &label).increment(1);
    }
    is_first
}

/// The condition is over. Says how many requests met it.
#[must_use]
pub fn ends(condition: &Condition, whose: &str) -> u64 {
    state().remove(&(condition.what, whose.to_owned())).map_or(0, |met| met.requests)
}

/// The condition is over if no request met it of late: for who can tell only that it may be.
pub fn ends_if_quiet(condition: &Condition, whose: &str) {
    let key = (condition.what, whose.to_owned());
    let over = state().extract_if(.., |one, met| *one == key && is_quiet(met)).next();
    if let Some(over) = over {
        log(over);
    }
}

/// Says which conditions are over, as long as it is polled.
pub async fn watch() {
    loop {
        sleep(LOOK).await;
        let over: Vec<_> = state().extract_if(.., |_, met| !met.is_told && is_quiet(met)).collect();
        over.into_iter().for_each(log);
    }
}

fn is_quiet(met: &Met) -> bool {
    met.last.elapsed() >= QUIET
}

fn log(((condition, whose), met): ((&'static str, String), Met)) {
    let seconds = met.last.duration_since(met.since).as_secs_f64();
    tracing::info!(condition, whose, requests = met.requests, seconds, "a condition is over");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_condition_is_a_line_when_it_begins_and_one_when_it_is_over() {
        const AWAY: Condition = Condition { what: "the test's own", is_told: true };
        assert!(begins(&AWAY, "a") && begins(&AWAY, "b"), "each has its own");
        assert!(!begins(&AWAY, "a"));
        ends_if_quiet(&AWAY, "a");
        assert!(!begins(&AWAY, "a"), "it was met a moment ago");
        tokio::time::advance(QUIET).await;
        ends_if_quiet(&AWAY, "a");
        assert!(begins(&AWAY, "a"), "it was over");
        assert_eq!(ends(&AWAY, "b"), 1);
        assert_eq!(ends(&AWAY, "b"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_tells_is_over_when_nobody_meets_it() {
        const LOST: Condition = Condition { what: "the other test's", is_told: false };
        let watching = crate::lifecycle::Tasks::new().spawn(watch());
        assert!(begins(&LOST, ""));
        sleep(QUIET / 2).await;
        assert!(!begins(&LOST, ""));
        sleep(QUIET + 2 * LOOK).await;
        assert!(begins(&LOST, ""));
        watching.abort();
    }
}
