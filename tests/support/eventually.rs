//! Waits for conditions, with a time limit. Tests use these functions instead of sleeping.

use std::fmt::Display;
use std::panic::Location;
use std::time::{Duration, Instant};

/// A time limit for quick operations, with a margin for a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// The interval between two checks.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Waits until `check` returns true. After `limit`, panics and names the caller's line.
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

/// Waits until `check` returns a value, and returns it. Panics like `eventually` after `limit`.
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

/// Sleeps, for tests that measure time or check that nothing happens.
pub(crate) async fn for_a_while(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Calls `check` until it returns a value. Returns `None` after `limit`, for callers that panic
/// with their own message.
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
