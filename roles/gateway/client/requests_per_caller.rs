//! The limits on each caller's requests in flight.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use crate::catalogue::Endpoint;

use super::network::ClientNetwork;

/// Hashes with a key of this process, so that a caller cannot construct a collision with another caller.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Identifies a caller within this process: by its principal or, without one, by the network of its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallerKey(u64);

/// Identifies a count of a caller's requests, either to all endpoints or to one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct CountKey(u64);

/// Counts and limits the requests in flight of each caller. Cheap to clone; all clones share the counts.
///
/// The map has at most two entries for each permit. A request holds a permit while it is in flight. If its client
/// disconnects during an at-most-once call, the request holds the permit until the call ends. The size of the map is
/// therefore limited by `gateway.http.requests_in_flight_max` and by the number of calls without a client, each of
/// which occupies a slot of a worker.
#[derive(Clone, Debug)]
pub struct RequestsPerCaller(Arc<Mutex<RequestCounts>>);

#[derive(Debug)]
struct RequestCounts {
    limit: usize,
    held: HashMap<CountKey, usize>,
}

/// The limit that a caller has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFlightLimit {
    /// `gateway.http.requests_in_flight_per_caller_max`.
    Gateway(usize),
    /// The endpoint's `max_in_flight`.
    Endpoint(usize),
}

/// The permit for one request of a caller. It is released on drop. A request holds its permit until its session has
/// ended. If the client disconnects, the session ends when the call has ended or, if the call does not continue, when
/// the gateway has sent the cancel message.
#[derive(Debug)]
#[must_use = "dropping the permit releases it"]
pub struct CallerPermit {
    caller: CallerKey,
    /// `None` if the request is not counted.
    counted: Option<CountedRequest>,
}

#[derive(Debug)]
struct CountedRequest {
    counts: RequestsPerCaller,
    endpoint: Option<CountKey>,
}

impl CallerKey {
    /// Returns the key of a principal or, without one, of a network.
    #[must_use]
    pub fn new(principal: Option<&str>, network: ClientNetwork) -> Self {
        Self(HASHER.hash_one(principal.ok_or(network)))
    }

    fn all_endpoints(self) -> CountKey {
        CountKey(self.0)
    }

    fn at_endpoint(self, endpoint: &Endpoint) -> CountKey {
        CountKey(HASHER.hash_one((self, endpoint.id.as_str())))
    }
}

impl InFlightLimit {
    /// Returns the key of the limit in the configuration or the catalogue.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Gateway(_) => "gateway.http.requests_in_flight_per_caller_max",
            Self::Endpoint(_) => "max_in_flight",
        }
    }

    /// Returns the maximum number of requests.
    #[must_use]
    pub fn requests(self) -> usize {
        match self {
            Self::Gateway(requests) | Self::Endpoint(requests) => requests,
        }
    }
}

impl RequestsPerCaller {
    /// Creates a limit on the requests of each caller to all endpoints together.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(RequestCounts { limit, held: HashMap::new() })))
    }

    /// Counts a caller's request, unless the caller has reached the limit of the gateway or of the endpoint.
    ///
    /// # Errors
    /// The limit that the caller has reached.
    pub fn try_acquire(
        &self,
        caller: CallerKey,
        endpoint: &Endpoint,
    ) -> Result<CallerPermit, InFlightLimit> {
        let at_endpoint =
            endpoint.in_flight_per_caller_max.map(|limit| (caller.at_endpoint(endpoint), limit));
        let mut counts = self.counts();
        let limit = counts.limit;
        if counts.count(caller.all_endpoints()) >= limit {
            return Err(InFlightLimit::Gateway(limit));
        }
        if let Some((key, limit)) = at_endpoint
            && counts.count(key) >= limit
        {
            return Err(InFlightLimit::Endpoint(limit));
        }
        *counts.held.entry(caller.all_endpoints()).or_insert(0) += 1;
        let endpoint = at_endpoint.map(|(key, _)| key);
        if let Some(key) = endpoint {
            *counts.held.entry(key).or_insert(0) += 1;
        }
        drop(counts);
        let counted = CountedRequest { counts: self.clone(), endpoint };
        Ok(CallerPermit { caller, counted: Some(counted) })
    }

    /// Changes the limit. Requests in flight are not affected.
    pub fn set_limit(&self, limit: usize) {
        self.counts().limit = limit;
    }

    fn counts(&self) -> MutexGuard<'_, RequestCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RequestCounts {
    fn count(&self, key: CountKey) -> usize {
        self.held.get(&key).copied().unwrap_or(0)
    }

    fn release(&mut self, key: CountKey) {
        if let Some(held) = self.held.get_mut(&key) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&key);
            }
        }
    }
}

impl CallerPermit {
    /// Returns a permit for a request that is not counted.
    pub fn uncounted(caller: CallerKey) -> Self {
        Self { caller, counted: None }
    }

    /// Returns the caller.
    #[must_use]
    pub fn caller(&self) -> CallerKey {
        self.caller
    }
}

impl Drop for CallerPermit {
    fn drop(&mut self) {
        if let Some(CountedRequest { counts, endpoint }) = &self.counted {
            let mut counts = counts.counts();
            counts.release(self.caller.all_endpoints());
            if let Some(key) = endpoint {
                counts.release(*key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::load::fixture::catalogue;

    fn key(text: &str) -> CallerKey {
        CallerKey::new(None, ClientNetwork::new(text.parse().unwrap(), 56))
    }

    fn endpoint(id: &str, in_flight_per_caller_max: Option<usize>) -> Endpoint {
        let catalogue = catalogue(&format!(r#""{id}": {{"route":"GET /{id}", KEYS}}"#));
        Endpoint { in_flight_per_caller_max, ..Endpoint::clone(&catalogue.endpoints()[0]) }
    }

    #[test]
    fn each_caller_has_its_own_count_and_leaves_no_entry_behind() {
        let limiter = RequestsPerCaller::new(2);
        let (one, other) = (key("192.0.2.1"), key("192.0.2.2"));
        let free = endpoint("free", None);
        let held = [limiter.try_acquire(one, &free), limiter.try_acquire(one, &free)];
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(limiter.try_acquire(one, &free).unwrap_err(), InFlightLimit::Gateway(2));
        let others = limiter.try_acquire(other, &free).unwrap();
        drop(held);
        assert!(limiter.try_acquire(one, &free).is_ok());
        drop(others);
        assert!(limiter.counts().held.is_empty());
    }

    #[test]
    fn the_limit_of_an_endpoint_counts_only_the_requests_to_it() {
        let requests = RequestsPerCaller::new(3);
        let caller = key("192.0.2.1");
        let (limited, free) = (endpoint("limited", Some(1)), endpoint("free", None));
        let first = requests.try_acquire(caller, &limited).unwrap();
        let refused = requests.try_acquire(caller, &limited).unwrap_err();
        assert_eq!(refused, InFlightLimit::Endpoint(1));
        let held = [requests.try_acquire(caller, &free), requests.try_acquire(caller, &free)];
        assert!(held.iter().all(Result::is_ok));
        drop(first);
        let second = requests.try_acquire(caller, &limited).unwrap();
        assert_eq!(requests.try_acquire(caller, &free).unwrap_err(), InFlightLimit::Gateway(3));
        drop((second, held));
        assert!(requests.counts().held.is_empty());
    }

    #[test]
    fn a_lower_limit_applies_to_the_next_request() {
        let limiter = RequestsPerCaller::new(2);
        let (caller, free) = (key("192.0.2.1"), endpoint("free", None));
        let first = limiter.try_acquire(caller, &free).unwrap();
        limiter.set_limit(1);
        assert!(limiter.try_acquire(caller, &free).is_err());
        drop(first);
        assert!(limiter.try_acquire(caller, &free).is_ok());
    }

    #[test]
    fn a_principal_is_one_caller_at_every_address_and_is_no_address() {
        let network = |text: &str| ClientNetwork::new(text.parse().unwrap(), 56);
        let named = |name, address| CallerKey::new(Some(name), network(address));
        assert_eq!(named("ada", "192.0.2.1"), named("ada", "192.0.2.2"));
        assert_ne!(named("ada", "192.0.2.1"), named("bob", "192.0.2.1"));
        assert_ne!(named("192.0.2.1", "192.0.2.1"), key("192.0.2.1"));
    }
}
