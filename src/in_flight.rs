//! Limits requests or connections in progress, and lets a drain wait for them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::problem::{Problem, ProblemKind};
use crate::telemetry::Gauge;

/// A counter that admits a limited number of holders. Clones share the counter.
#[derive(Clone)]
pub struct ConcurrencyLimit(Arc<SharedCount>);

struct SharedCount {
    state: Mutex<State>,
    emptied: Notify,
    gauge: Gauge,
}

/// The state of a limit. A single lock protects all three fields, so that nothing is admitted after
/// a drain has observed a count of zero.
#[derive(Clone, Copy, Debug)]
struct State {
    in_use: usize,
    limit: usize,
    is_closed: bool,
}

/// A permit for one holder. Dropping it frees the holder's place.
#[derive(Debug)]
#[must_use = "dropping the permit releases it"]
pub struct ConcurrencyPermit(ConcurrencyLimit);

impl ConcurrencyLimit {
    /// Creates a limit without holders. The gauge shows the number of holders.
    #[must_use]
    pub fn new(limit: usize, gauge: Gauge) -> Self {
        let state = Mutex::new(State { in_use: 0, limit, is_closed: false });
        Self(Arc::new(SharedCount { state, emptied: Notify::new(), gauge }))
    }

    /// Admits a holder. Returns `None` if the limit is reached or closed.
    #[must_use]
    pub fn try_acquire(&self) -> Option<ConcurrencyPermit> {
        self.acquire().ok()
    }

    /// Admits a holder.
    ///
    /// # Errors
    /// Returns `Overloaded` if the limit is reached, or `Draining` if it is closed.
    pub fn acquire(&self) -> Result<ConcurrencyPermit, Problem> {
        let mut state = self.state();
        if state.is_closed {
            return Err(Problem::new(ProblemKind::Draining));
        }
        if state.in_use >= state.limit {
            return Err(Problem::new(ProblemKind::Overloaded));
        }
        state.in_use += 1;
        self.report(*state);
        drop(state);
        Ok(ConcurrencyPermit(self.clone()))
    }

    /// Returns the number of holders.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.state().in_use
    }

    /// Returns the limit.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.state().limit
    }

    /// Changes the limit. Existing holders are not affected.
    pub fn set_limit(&self, limit: usize) {
        self.state().limit = limit;
    }

    /// Closes the limit. Nothing is admitted from then on.
    pub fn close(&self) {
        self.state().is_closed = true;
    }

    /// Returns whether the limit is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Waits until there are no holders, but for at most `limit`. Returns whether there are none.
    /// Cancel safe.
    pub async fn wait_empty(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.emptied()).await.is_ok()
    }

    async fn emptied(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.0.emptied.notified());
            // The waiter is registered before the count is read, so that no release in between is
            // missed.
            emptied.as_mut().enable();
            if self.in_use() == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::cast_precision_loss, reason = "request counts up to 2^53 are exact")]
    fn report(&self, state: State) {
        self.0.gauge.set(state.in_use as f64);
    }
}

impl fmt::Debug for ConcurrencyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConcurrencyLimit").field(&*self.state()).finish()
    }
}

impl Drop for ConcurrencyPermit {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.in_use = state.in_use.saturating_sub(1);
        self.0.report(*state);
        if state.in_use == 0 {
            self.0.0.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_limit(limit: usize) -> ConcurrencyLimit {
        ConcurrencyLimit::new(limit, Gauge::noop())
    }

    #[test]
    fn the_limit_is_never_exceeded() {
        let limit = new_limit(2);
        let first = limit.try_acquire().unwrap();
        let _second = limit.try_acquire().unwrap();
        assert_eq!(limit.acquire().unwrap_err().kind, ProblemKind::Overloaded);
        drop(first);
        assert!(limit.try_acquire().is_some());
    }

    #[test]
    fn nothing_is_admitted_after_the_limit_is_closed() {
        let limit = new_limit(2);
        limit.close();
        assert_eq!(limit.acquire().unwrap_err().kind, ProblemKind::Draining);
    }

    #[test]
    fn a_lower_limit_keeps_existing_holders() {
        let limit = new_limit(2);
        let holders = [limit.try_acquire(), limit.try_acquire()];
        limit.set_limit(1);
        assert_eq!(limit.in_use(), 2);
        drop(holders);
        let _one = limit.try_acquire().unwrap();
        assert!(limit.try_acquire().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_with_the_last_permit() {
        let limit = new_limit(3);
        let permits = [limit.try_acquire(), limit.try_acquire()];
        assert!(!limit.wait_empty(Duration::from_secs(1)).await);
        let (is_empty, ()) = tokio::join!(limit.wait_empty(Duration::from_secs(1)), async {
            tokio::task::yield_now().await;
            drop(permits);
        });
        assert!(is_empty);
        assert!(limit.wait_empty(Duration::ZERO).await, "without holders it returns immediately");
    }
}
