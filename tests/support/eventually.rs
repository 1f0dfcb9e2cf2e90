//! The only way to wait in a test: for something to become true, within a limit.

use std::fmt::Display;
use std::panic::Location;
use std::time::{Duration, Instant};

/// How long things take that should be quick, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// How often it is looked again.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Waits until `check` holds; fails the test at the caller's line when it does not within `limit`.
#[track_caller]
pub(crate) fn eventually(
    limit: Duration,
    step: Duration,
    mut check: impl FnMut() -> bool,
) -> impl Future<Output = ()> {
    let place = Location::caller();
    async move {
        let found = poll(limit, step, async || check().then_some(())).await;
        assert!(found.is_some(), "not true within {limit:?}, waited for at {place}");
    }
}

/// Waits until `look` finds something, and returns it; fails the test when it does not within `limit`.
#[track_caller]
pub(crate) fn eventually_some<T>(
    what: impl Display,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let place = Location::caller();
    async move {
        match poll(limit, TICK, &mut look).await {
            Some(found) => found,
            None => panic!("{what}: not within {limit:?}, waited for at {place}"),
        }
    }
}

/// Lets time pass, where time is what is measured: benches only.
pub(crate) async fn for_a_while(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Looks until something is found or the limit has passed: for callers with a better message.
pub(crate) async fn poll<T>(
    limit: Duration,
    step: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        tokio::time::sleep(step).await;
    }
}
