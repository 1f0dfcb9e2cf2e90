//! Tracks which queues are served, for `/readyz` and systemd.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::admin::Readiness;

/// The name of the queues' readiness component.
const COMPONENT: &str = "queues";

/// The state of every queue. The worker is ready if it serves at least one queue.
#[derive(Debug)]
pub struct QueueReadiness {
    readiness: Readiness,
    queues: Mutex<BTreeMap<String, Result<(), String>>>,
    is_any_served: watch::Sender<bool>,
}

impl QueueReadiness {
    /// Creates the readiness of a worker that serves no queue yet.
    #[must_use]
    pub fn new(readiness: Readiness) -> Self {
        readiness.set(COMPONENT, Err("no queue is served yet".to_owned()));
        Self { readiness, queues: Mutex::default(), is_any_served: watch::Sender::new(false) }
    }

    /// Sets the state of a queue. A queue that is not served is reported, but does not affect other queues.
    pub fn set(&self, name: &str, state: Result<(), String>) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        self.readiness.note(format!("queue {name}"), state.clone().err());
        queues.insert(name.to_owned(), state);
        self.publish(queues);
    }

    fn publish(&self, queues: MutexGuard<'_, BTreeMap<String, Result<(), String>>>) {
        let is_any_served = queues.values().any(Result::is_ok);
        drop(queues);
        self.is_any_served.send_replace(is_any_served);
        let state = if is_any_served { Ok(()) } else { Err("no queue is served".to_owned()) };
        self.readiness.set(COMPONENT, state);
    }

    /// Sets the reason why the reloaded version of a queue is not served although the previous version still is. `None`
    /// means that the queue has no such version.
    pub fn note_reloaded(&self, name: &str, reason: Option<String>) {
        self.readiness.note(format!("reloaded queue {name}"), reason);
    }

    /// Sets the user who has paused a queue, or `None` if it is not paused. A paused queue does not affect the
    /// readiness.
    pub fn note_paused(&self, name: &str, by: Option<&str>) {
        let note = by.map(|by| format!("paused by {by}: fjord queue resume {name}"));
        self.readiness.note(format!("paused queue {name}"), note);
    }

    /// Removes a queue that this worker no longer serves.
    pub fn remove(&self, name: &str) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.remove(name);
        self.readiness.note(format!("queue {name}"), None);
        self.readiness.note(format!("reloaded queue {name}"), None);
        self.note_paused(name, None);
        self.publish(queues);
    }

    /// Returns the queues that are not served.
    #[must_use]
    pub fn unserved(&self) -> BTreeSet<String> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.iter().filter(|(_, state)| state.is_err()).map(|(name, _)| name.clone()).collect()
    }

    /// Waits until at least one queue is served. This method is cancel safe.
    pub async fn any_served(&self) {
        // The wait fails only if the sender is dropped, and `self` holds the sender.
        if self.is_any_served.subscribe().wait_for(|served| *served).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
