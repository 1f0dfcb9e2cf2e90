//! Waits for a condition to become true within a time limit. Tests wait in no other way.

use std::fmt::Display;
use std::panic::Location;
use std::time::{Duration, Instant};

/// A time limit for quick operations, with a margin for a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// The interval between two checks.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Waits until `check` returns true; fails the test at the caller's line when it does not within `limit`.
#[track_caller]
pub(crate) fn eventually(
    limit: Duration,
    step: Duration,
    mut check: impl FnMut() -> bool,
) -> impl Future<Output = ()> {
    let location = Location::caller();
    async move {
        let value = poll(limit, step, async || check().then_some(())).await;
        assert!(value.is_some(), "not true within {limit:?}, waited for at {location}");
    }
}

/// Waits until `check` returns a value, and returns it; fails the test at the caller's line when it does not within
/// `limit`.
#[track_caller]
pub(crate) fn eventually_some<T>(
    what: impl Display,
    limit: Duration,
    mut check: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let location = Location::caller();
    async move {
        match poll(limit, TICK, &mut check).await {
            Some(value) => value,
            None => panic!("{what}: not within {limit:?}, waited for at {location}"),
        }
    }
}

/// Sleeps, for tests that measure time or prove that nothing happens.
pub(crate) async fn for_a_while(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Calls `check` until it returns a value or the limit has passed, for callers with a failure message of their own.
pub(crate) async fn poll<T>(
    limit: Duration,
    step: Duration,
    mut check: impl AsyncFnMut() -> Option<T>,
) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = check().await {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        tokio::time::sleep(step).await;
    }
}
