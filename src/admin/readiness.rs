//! Whether a process should get work now, and if not, why.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::lifecycle::Tasks;
use crate::messaging::{Link, LinkState};

/// The parts of a process that must be ready. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Parts>>);

#[derive(Debug, Default)]
struct Parts {
    needed: BTreeMap<&'static str, Option<String>>,
    notes: BTreeMap<String, String>,
}

impl Readiness {
    /// No part known yet: ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that a part is ready, or why it is not. A reason is shown to whoever can reach the admin listener.
    pub fn set(&self, part: &'static str, state: Result<(), String>) {
        let before = self.parts().needed.insert(part, state.clone().err());
        match (before.flatten(), state) {
            (None, Err(reason)) => tracing::warn!(part, reason, "not ready"),
            (Some(_), Ok(())) => tracing::info!(part, "ready again"),
            _ => {}
        }
    }

    /// A process without the bus is alive, and not ready: says so from here on.
    pub fn follow(&self, mut link: watch::Receiver<Link>, tasks: &Tasks) {
        let readiness = self.clone();
        let _detached = tasks.spawn_background(async move {
            loop {
                let state = match link.borrow_and_update().state {
                    LinkState::Down => Err("not connected to NATS".to_owned()),
                    LinkState::Deaf => Err("NATS refuses a subscription: see the log".to_owned()),
                    LinkState::Up | LinkState::Leaving => Ok(()),
                };
                readiness.set("nats", state);
                if link.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Whether every part is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.parts().needed.values().all(Option::is_none)
    }

    /// What is not ready, and why.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<&'static str, String> {
        let parts = self.parts();
        parts.needed.iter().filter_map(|(part, reason)| Some((*part, reason.clone()?))).collect()
    }

    /// Tells of something that is not as it should be and does not keep the process from getting work;
    /// `None` when it is as it should be again.
    pub fn note(&self, about: String, reason: Option<String>) {
        let mut parts = self.parts();
        match reason {
            Some(reason) => drop(parts.notes.insert(about, reason)),
            None => drop(parts.notes.remove(&about)),
        }
    }

    /// Everything that is not as it should be and does not keep the process from getting work.
    #[must_use]
    pub fn notes(&self) -> BTreeMap<String, String> {
        self.parts().notes.clone()
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
