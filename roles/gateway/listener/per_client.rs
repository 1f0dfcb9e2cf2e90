//! Counts the connections of each client address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The prefix that one IPv6 client has to itself: counting single addresses would count nothing.
const IPV6_CLIENT_MASK: u128 = !(u64::MAX as u128);

/// Lets each address hold at most so many connections. Cheap to clone.
///
/// The map has an entry only while a connection is open, so the bound on connections bounds it.
#[derive(Clone, Debug)]
pub(super) struct PerClient(Arc<Mutex<Counts>>);

#[derive(Debug)]
struct Counts {
    limit: usize,
    held: HashMap<IpAddr, usize>,
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    client: IpAddr,
    counts: PerClient,
}

impl PerClient {
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Counts { limit, held: HashMap::new() })))
    }

    pub(super) fn try_enter(&self, address: IpAddr) -> Option<Place> {
        let client = match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & IPV6_CLIENT_MASK).into(),
        };
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
        let first = door.try_enter("192.0.2.1".parse().unwrap());
        assert!(first.is_some());
        assert!(door.try_enter("192.0.2.1".parse().unwrap()).is_none());
        assert!(door.try_enter("192.0.2.2".parse().unwrap()).is_some());
        drop(first);
        assert!(door.counts().held.is_empty());
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let door = PerClient::new(1);
        let _first = door.try_enter("2001:db8::1".parse().unwrap()).unwrap();
        assert!(door.try_enter("2001:db8::2".parse().unwrap()).is_none());
        assert!(door.try_enter("2001:db8:0:1::1".parse().unwrap()).is_some());
    }
}
