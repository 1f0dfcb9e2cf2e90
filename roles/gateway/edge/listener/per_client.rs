//! Counts the connections of each client address.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::roles::gateway::client::ClientNetwork;

/// Lets each client hold at most so many connections. Cheap to clone.
///
/// The map has an entry only while a connection is open, so the bound on connections bounds it.
#[derive(Clone, Debug)]
pub(super) struct PerClient(Arc<Mutex<Counts>>);

#[derive(Debug)]
struct Counts {
    limit: usize,
    held: HashMap<ClientNetwork, usize>,
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    client: ClientNetwork,
    counts: PerClient,
}

impl PerClient {
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Counts { limit, held: HashMap::new() })))
    }

    pub(super) fn try_enter(&self, client: ClientNetwork) -> Option<Place> {
        let mut counts = self.counts();
        let limit = counts.limit;
        let held = counts.held.entry(client).or_insert(0);
        if *held >= limit {
            return None;
        }
        *held += 1;
        Some(Place { client, counts: self.clone() })
    }

    pub(super) fn set_limit(&self, limit: usize) {
        self.counts().limit = limit;
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.counts();
        if let Some(held) = counts.held.get_mut(&self.client) {
            *held -= 1;
            if *held == 0 {
                counts.held.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_count_and_leaves_nothing_behind() {
        let door = PerClient::new(1);
        let client = |text: &str| ClientNetwork::new(text.parse().unwrap(), 56);
        let first = door.try_enter(client("192.0.2.1"));
        assert!(first.is_some());
        assert!(door.try_enter(client("192.0.2.1")).is_none());
        assert!(door.try_enter(client("192.0.2.2")).is_some());
        drop(first);
        assert!(door.counts().held.is_empty());
    }
}
