//! The sign that nobody waits for a call any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Says that a call should stop. Cheap to clone; once given it stays given.
///
/// A client's leaving is a `Cancel`, not a dropped future: the call it was for still has to stop the
/// procedure, close its connection and free its slot.
///
/// Every call has one, so it is no `CancellationToken`: that takes a lock for each clone and each look.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<Sign>);

#[derive(Debug, Default)]
struct Sign {
    is_given: AtomicBool,
    given: Notify,
}

impl Cancel {
    /// A sign that has not been given.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the sign to every clone.
    pub fn cancel(&self) {
        self.0.is_given.store(true, Ordering::Release);
        self.0.given.notify_waiters();
    }

    /// Gives the sign when what is returned is dropped.
    #[must_use]
    pub fn given_at_the_end(&self) -> impl Drop + Send + use<> {
        AtTheEnd(self.clone())
    }

    /// Whether the sign was given.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_given.load(Ordering::Acquire)
    }

    /// Waits for the sign. Safe to drop and to call again.
    pub async fn cancelled(&self) {
        // Before the look: a sign that is given after it wakes whoever waits by then.
        let given = self.0.given.notified();
        if !self.is_cancelled() {
            given.await;
        }
    }
}

struct AtTheEnd(Cancel);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_and_whoever_comes_later_hears_the_sign() {
        let cancel = Cancel::new();
        let (early, end) = (cancel.clone(), cancel.given_at_the_end());
        let (mut waiting, unpolled) = (pin!(early.cancelled()), early.cancelled());
        assert!(!cancel.is_cancelled() && poll!(&mut waiting).is_pending());
        drop(end);
        waiting.await;
        unpolled.await;
        cancel.cancelled().await;
        assert!(cancel.is_cancelled());
    }
}
