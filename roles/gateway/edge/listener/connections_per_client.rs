//! The limit on connections per client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::roles::gateway::client::ClientNetwork;

/// Counts and limits the connections of each client. Cheap to clone; all clones share the counts.
///
/// The map has entries only for clients with open connections, so the limit on all connections also limits its size.
#[derive(Clone, Debug)]
pub(super) struct ConnectionsPerClient(Arc<Mutex<ConnectionCounts>>);

#[derive(Debug)]
struct ConnectionCounts {
    limit: usize,
    held: HashMap<ClientNetwork, usize>,
}

/// The permit for one connection. It is released on drop.
#[derive(Debug)]
pub(super) struct ClientConnectionPermit {
    client: ClientNetwork,
    counts: ConnectionsPerClient,
}

impl ConnectionsPerClient {
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(ConnectionCounts { limit, held: HashMap::new() })))
    }

    /// Counts a client's connection, unless the client has reached the limit.
    pub(super) fn try_acquire(&self, client: ClientNetwork) -> Option<ClientConnectionPermit> {
        let mut counts = self.counts();
        let limit = counts.limit;
        let held = counts.held.entry(client).or_insert(0);
        if *held >= limit {
            return None;
        }
        *held += 1;
        Some(ClientConnectionPermit { client, counts: self.clone() })
    }

    pub(super) fn set_limit(&self, limit: usize) {
        self.counts().limit = limit;
    }

    fn counts(&self) -> MutexGuard<'_, ConnectionCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ClientConnectionPermit {
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
    fn each_client_has_its_own_count_and_leaves_no_entry_behind() {
        let limiter = ConnectionsPerClient::new(1);
        let client = |text: &str| ClientNetwork::new(text.parse().unwrap(), 56);
        let first = limiter.try_acquire(client("192.0.2.1"));
        assert!(first.is_some());
        assert!(limiter.try_acquire(client("192.0.2.1")).is_none());
        assert!(limiter.try_acquire(client("192.0.2.2")).is_some());
        drop(first);
        assert!(limiter.counts().held.is_empty());
    }
}
