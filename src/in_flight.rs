//! Admission: a counted limit that is also what a drain waits for.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::problem::{Problem, ProblemKind};
use crate::telemetry::Gauge;

/// Lets at most so many in at once. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct Admission(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    emptied: Notify,
    gauge: Gauge,
}

/// One lock for all three: a drain that saw nobody inside may rely on nobody entering after.
#[derive(Clone, Copy, Debug)]
struct State {
    held: usize,
    limit: usize,
    is_closed: bool,
}

/// A place inside; given back when dropped.
#[derive(Debug)]
#[must_use = "the place is given back at once"]
pub struct Guard(Admission);

impl Admission {
    /// Nobody inside yet. The gauge shows how many are.
    #[must_use]
    pub fn new(limit: usize, gauge: Gauge) -> Self {
        let state = Mutex::new(State { held: 0, limit, is_closed: false });
        Self(Arc::new(Inner { state, emptied: Notify::new(), gauge }))
    }

    /// Takes a place, or `None` when all are taken or it is closed.
    #[must_use]
    pub fn try_enter(&self) -> Option<Guard> {
        self.enter().ok()
    }

    /// Takes a place.
    ///
    /// # Errors
    /// `Overloaded` when all are taken, `Draining` when it is closed: the caller was not let in.
    pub fn enter(&self) -> Result<Guard, Problem> {
        let mut state = self.state();
        if state.is_closed {
            return Err(Problem::new(ProblemKind::Draining));
        }
        if state.held >= state.limit {
            return Err(Problem::new(ProblemKind::Overloaded));
        }
        state.held += 1;
        self.show(*state);
        drop(state);
        Ok(Guard(self.clone()))
    }

    /// How many are inside.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state().held
    }

    /// How many may be inside.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.state().limit
    }

    /// Changes the limit. Who is inside stays.
    pub fn set_limit(&self, limit: usize) {
        self.state().limit = limit;
    }

    /// Lets nobody in any more.
    pub fn close(&self) {
        self.state().is_closed = true;
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Waits until nobody is inside, at most so long. Says whether that came. Safe to drop and to call again.
    pub async fn wait_empty(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.emptied()).await.is_ok()
    }

    async fn emptied(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.0.emptied.notified());
            // Registered before the look, or a leave between the two would be missed.
            emptied.as_mut().enable();
            if self.held() == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::cast_precision_loss, reason = "a count of requests is exact up to 2^53")]
    fn show(&self, state: State) {
        self.0.gauge.set(state.held as f64);
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Admission").field(&*self.state()).finish()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.held = state.held.saturating_sub(1);
        self.0.show(*state);
        if state.held == 0 {
            self.0.0.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(limit: usize) -> Admission {
        Admission::new(limit, Gauge::noop())
    }

    #[test]
    fn the_limit_is_never_passed() {
        let door = admission(2);
        let first = door.try_enter().unwrap();
        let _second = door.try_enter().unwrap();
        assert_eq!(door.enter().unwrap_err().kind, ProblemKind::Overloaded);
        drop(first);
        assert!(door.try_enter().is_some());
    }

    #[test]
    fn nobody_enters_after_the_close() {
        let door = admission(2);
        door.close();
        assert_eq!(door.enter().unwrap_err().kind, ProblemKind::Draining);
    }

    #[test]
    fn a_lower_limit_puts_nobody_out() {
        let door = admission(2);
        let inside = [door.try_enter(), door.try_enter()];
        door.set_limit(1);
        assert_eq!(door.held(), 2);
        drop(inside);
        let _one = door.try_enter().unwrap();
        assert!(door.try_enter().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_with_the_last_guard() {
        let door = admission(3);
        let guards = [door.try_enter(), door.try_enter()];
        assert!(!door.wait_empty(Duration::from_secs(1)).await);
        let (is_empty, ()) = tokio::join!(door.wait_empty(Duration::from_secs(1)), async {
            tokio::task::yield_now().await;
            drop(guards);
        });
        assert!(is_empty);
        assert!(door.wait_empty(Duration::ZERO).await, "an empty place is empty at once");
    }
}
