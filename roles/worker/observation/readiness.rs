//! Which queues are served, for `/readyz`, systemd and whoever waits for the first one.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::admin::Readiness;

/// The part of readiness that says whether any queue is served.
const PART: &str = "queues";

/// The state of every queue.
#[derive(Debug)]
pub struct Health {
    readiness: Readiness,
    queues: Mutex<BTreeMap<String, Result<(), String>>>,
    served: watch::Sender<bool>,
}

impl Health {
    /// No queue is served yet.
    #[must_use]
    pub fn new(readiness: Readiness) -> Self {
        readiness.set(PART, Err("no queue is served yet".to_owned()));
        Self { readiness, queues: Mutex::default(), served: watch::Sender::new(false) }
    }

    /// Says what became of a queue. One that cannot be served is named and does not stop the others.
    pub fn queue(&self, name: &str, state: Result<(), String>) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        self.readiness.note(format!("queue {name}"), state.clone().err());
        queues.insert(name.to_owned(), state);
        let served = queues.values().any(Result::is_ok);
        drop(queues);
        self.served.send_replace(served);
        let state = if served { Ok(()) } else { Err("no queue is served".to_owned()) };
        self.readiness.set(PART, state);
    }

    /// Waits until any queue is served. Safe to drop and to call again.
    pub async fn first_served(&self) {
        // The sender is ours: it cannot be gone.
        if self.served.subscribe().wait_for(|served| *served).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
