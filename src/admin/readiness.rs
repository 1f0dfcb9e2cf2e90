//! Readiness: whether a process should receive requests, and the reason if it should not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::lifecycle::Tasks;
use crate::messaging::{LinkState, Transport};

/// The parts of a process that must be ready. Cloning it is cheap.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    required: BTreeMap<&'static str, Option<String>>,
    notes: BTreeMap<String, String>,
    transport: Option<Arc<dyn Transport>>,
}

impl Readiness {
    /// Creates a `Readiness` that has no parts and is therefore ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether a part is ready. If the part is not ready, the admin listener shows the reason.
    pub fn set(&self, part: &'static str, state: Result<(), String>) {
        let before = self.state().required.insert(part, state.clone().err());
        match (before.flatten(), state) {
            (None, Err(reason)) => tracing::warn!(part, reason, "not ready"),
            (Some(_), Ok(())) => tracing::info!(part, "ready again"),
            _ => {}
        }
    }

    /// Updates the part `nats` whenever the state of the link changes. The transport's problems become notes.
    pub fn follow(&self, transport: &Arc<dyn Transport>, tasks: &Tasks) {
        let readiness = self.clone();
        let mut link = transport.link();
        self.state().transport = Some(Arc::clone(transport));
        let _detached = tasks.spawn_background(async move {
            loop {
                let state = match link.borrow_and_update().state {
                    LinkState::Down => Err("not connected to NATS".to_owned()),
                    LinkState::SubscriptionRefused => {
                        Err("NATS does not serve a subscription that this process needs".to_owned())
                    }
                    LinkState::Up | LinkState::LameDuck => Ok(()),
                };
                readiness.set("nats", state);
                if link.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Returns whether every part is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state().required.values().all(Option::is_none)
    }

    /// Returns the parts that are not ready, each with the reason.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<&'static str, String> {
        let state = self.state();
        state.required.iter().filter_map(|(part, reason)| Some((*part, reason.clone()?))).collect()
    }

    /// Sets a note: a problem that does not make the process unready. `None` removes the note.
    pub fn note(&self, about: String, reason: Option<String>) {
        let mut state = self.state();
        match reason {
            Some(reason) => drop(state.notes.insert(about, reason)),
            None => drop(state.notes.remove(&about)),
        }
    }

    /// Returns all notes and the current problems of the transport.
    #[must_use]
    pub fn notes(&self) -> BTreeMap<String, String> {
        let state = self.state();
        let (mut notes, transport) = (state.notes.clone(), state.transport.clone());
        drop(state);
        notes.extend(transport.map(|transport| transport.problems()).unwrap_or_default());
        notes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
