//! The memory budget for request bodies and responses, in total and for each client.
//!
//! A limit on the number of requests does not limit memory: one connection can carry a hundred
//! streams with a megabyte each. Small bodies are not counted, because the limit on requests bounds
//! their total size.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::config::gateway::HttpLimits;
use crate::problem::{Problem, ProblemKind};
use crate::telemetry::{Gauge, counter, gauge, names};

use super::network::ClientNetwork;

/// The size up to which bodies do not count. `gateway.http.requests_in_flight_max` bounds the total size of such
/// bodies.
pub const SMALL_BYTES: usize = 16 * 1024;
/// `Retry-After` for the response when the budget is exhausted.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The memory budget. Cheap to clone; all clones share the counts.
#[derive(Clone)]
pub struct ByteBudget(Arc<BudgetState>);

struct BudgetState {
    bytes_max: AtomicUsize,
    per_client_max: AtomicUsize,
    /// The reserved bytes of all clients, written under the lock of `clients` and read without it.
    held: AtomicUsize,
    /// The bytes reserved per client. Clients without reservations have no entry, which bounds the size of the map.
    clients: Mutex<HashMap<ClientNetwork, usize>>,
    gauge: Gauge,
}

/// The part of the budget that a reservation may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BudgetShare {
    All,
    /// At most half, for optional uses such as compression.
    Half,
    /// No limit, for bytes that are already in memory: the reservation always succeeds.
    Unlimited,
}

/// The error for an exhausted budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory budget for requests and responses is exhausted")]
pub struct BudgetExhausted;

/// The bytes that one request has reserved. They are released when the reservation is dropped.
#[derive(Debug)]
#[must_use = "dropping it releases its bytes immediately"]
pub struct Reservation {
    budget: ByteBudget,
    client: ClientNetwork,
    bytes: usize,
}

impl ByteBudget {
    /// Creates an unused budget.
    #[must_use]
    pub fn new(limits: &HttpLimits) -> Self {
        Self::bounded(limits.buffered_bytes_max, limits.buffered_bytes_per_client_max)
    }

    /// Creates a budget without limits, for calls that do not come from clients.
    #[must_use]
    pub fn unbounded() -> Self {
        Self::bounded(usize::MAX, usize::MAX)
    }

    fn bounded(bytes_max: usize, per_client_max: usize) -> Self {
        Self(Arc::new(BudgetState {
            bytes_max: AtomicUsize::new(bytes_max),
            per_client_max: AtomicUsize::new(per_client_max),
            held: AtomicUsize::new(0),
            clients: Mutex::new(HashMap::new()),
            gauge: gauge(&names::GATEWAY_BUFFERED_BYTES, &[]),
        }))
    }

    /// Changes the limits. Existing reservations are kept.
    pub fn set(&self, limits: &HttpLimits) {
        self.0.bytes_max.store(limits.buffered_bytes_max, Ordering::Relaxed);
        self.0.per_client_max.store(limits.buffered_bytes_per_client_max, Ordering::Relaxed);
    }

    /// Admits a client's request unless the reservations have already reached a limit.
    ///
    /// # Errors
    /// `Overloaded` if the reservations have reached a limit.
    pub fn enter(&self, client: ClientNetwork) -> Result<Reservation, Problem> {
        let room = self.empty_reservation(client);
        if room.budget_has_room() { Ok(room) } else { Err(overloaded()) }
    }

    /// Returns an empty reservation for a client.
    pub fn empty_reservation(&self, client: ClientNetwork) -> Reservation {
        Reservation { budget: self.clone(), client, bytes: 0 }
    }

    fn fits(&self, held: usize, own: usize, more: usize, within: BudgetShare) -> bool {
        let parts = match within {
            BudgetShare::All => 1,
            BudgetShare::Half => 2,
            BudgetShare::Unlimited => return true,
        };
        let fits = |held: usize, max: &AtomicUsize| {
            held.checked_add(more).is_some_and(|sum| sum <= max.load(Ordering::Relaxed) / parts)
        };
        fits(held, &self.0.bytes_max) && fits(own, &self.0.per_client_max)
    }

    /// Adds `more` bytes to a client's reservations if the share `within` allows it.
    fn add(
        &self,
        client: ClientNetwork,
        more: usize,
        within: BudgetShare,
    ) -> Result<(), BudgetExhausted> {
        if more == 0 {
            // An entry of zero bytes would never be removed.
            return Ok(());
        }
        let mut clients = self.clients();
        let held = self.0.held.load(Ordering::Relaxed);
        let own = clients.get(&client).copied().unwrap_or(0);
        if !self.fits(held, own, more, within) {
            return Err(BudgetExhausted);
        }
        clients.insert(client, own.saturating_add(more));
        self.store_held(held.saturating_add(more));
        Ok(())
    }

    fn release(&self, client: ClientNetwork, bytes: usize) {
        let mut clients = self.clients();
        if let Entry::Occupied(mut entry) = clients.entry(client) {
            *entry.get_mut() = entry.get().saturating_sub(bytes);
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        self.store_held(self.0.held.load(Ordering::Relaxed).saturating_sub(bytes));
    }

    #[expect(clippy::cast_precision_loss, reason = "byte counts up to 2^53 are exact")]
    fn store_held(&self, held: usize) {
        self.0.held.store(held, Ordering::Relaxed);
        self.0.gauge.set(held as f64);
    }

    #[cfg(test)]
    pub(in crate::roles::gateway) fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<ClientNetwork, usize>> {
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a request for which the budget has no room, and returns the problem for its response.
#[must_use]
pub fn overloaded() -> Problem {
    let reason = [(names::REASON, "buffered_bytes".to_owned())];
    counter(&names::GATEWAY_SHED, &reason).increment(1);
    let detail = "the memory budget for requests and responses is exhausted";
    Problem::with_detail(ProblemKind::Overloaded, detail).retry_after(RETRY_AFTER)
}

impl Reservation {
    /// Returns whether a body of this size is counted.
    #[must_use]
    pub fn counts(bytes: &Bytes) -> bool {
        bytes.len() > SMALL_BYTES
    }

    /// Grows the reservation to `bytes`.
    ///
    /// # Errors
    /// `BudgetExhausted`. In that case, the reservation is unchanged.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), BudgetExhausted> {
        if bytes > SMALL_BYTES && bytes > self.bytes {
            self.budget.add(self.client, bytes - self.bytes, BudgetShare::All)?;
            self.bytes = bytes;
        }
        Ok(())
    }

    /// Shrinks the reservation to `bytes` if it is larger.
    pub fn shrink_to(&mut self, bytes: usize) {
        if let Some(excess) = self.bytes.checked_sub(bytes).filter(|excess| *excess > 0) {
            self.budget.release(self.client, excess);
            self.bytes = bytes;
        }
    }

    /// Returns whether the budget would have room without this reservation.
    #[must_use]
    pub fn budget_has_room(&self) -> bool {
        let held = self.budget.0.held.load(Ordering::Relaxed).saturating_sub(self.bytes);
        // This is the fast path, without the lock: no client has reserved more than all clients together.
        if self.budget.fits(held, held, 1, BudgetShare::All) {
            return true;
        }
        let own = self.budget.clients().get(&self.client).copied().unwrap_or(0);
        self.budget.fits(held, own.saturating_sub(self.bytes), 1, BudgetShare::All)
    }

    /// Grows the reservation by `bytes`, for an optional use, if half of the budget stays free.
    ///
    /// # Errors
    /// `BudgetExhausted`. In that case, the reservation is unchanged.
    pub fn grow_optional(&mut self, bytes: usize) -> Result<(), BudgetExhausted> {
        self.budget.add(self.client, bytes, BudgetShare::Half)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Checks whether the reservation could grow to `bytes` now. Reserves nothing, because a body
    /// that is only announced occupies no memory.
    ///
    /// # Errors
    /// `BudgetExhausted`.
    pub fn can_grow_to(&self, bytes: usize) -> Result<(), BudgetExhausted> {
        if bytes <= SMALL_BYTES || bytes <= self.bytes {
            return Ok(());
        }
        let own = self.budget.clients().get(&self.client).copied().unwrap_or(0);
        let held = self.budget.0.held.load(Ordering::Relaxed);
        let fits = self.budget.fits(held, own, bytes - self.bytes, BudgetShare::All);
        if fits { Ok(()) } else { Err(BudgetExhausted) }
    }

    /// Adds bytes that are already in memory, which leaves less room for later requests.
    pub fn add(&mut self, bytes: usize) {
        let _never_fails = self.budget.add(self.client, bytes, BudgetShare::Unlimited);
        self.bytes += bytes;
    }

    /// Returns an empty reservation for the same client.
    pub fn empty_for_same_client(&self) -> Self {
        self.budget.empty_reservation(self.client)
    }

    /// Counts received bytes, even if they are few, for as long as they are referenced.
    ///
    /// # Errors
    /// `BudgetExhausted`. In that case, the bytes are dropped.
    pub fn try_attach(mut self, bytes: Bytes) -> Result<Bytes, BudgetExhausted> {
        let more = bytes.len().saturating_sub(self.bytes);
        self.budget.add(self.client, more, BudgetShare::All)?;
        self.bytes += more;
        Ok(self.hold(bytes))
    }

    /// Counts bytes already in memory, unless they are few, for as long as they are referenced.
    #[must_use]
    pub fn attach(self, bytes: Bytes) -> Bytes {
        if Self::counts(&bytes) { self.hold(bytes) } else { bytes }
    }

    fn hold(mut self, bytes: Bytes) -> Bytes {
        match bytes.len().checked_sub(self.bytes) {
            Some(more) => self.add(more),
            None => self.budget.release(self.client, self.bytes - bytes.len()),
        }
        self.bytes = bytes.len();
        Bytes::from_owner(ReservedBytes { bytes, _reservation: self })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.release(self.client, self.bytes);
        }
    }
}

struct ReservedBytes {
    bytes: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for ReservedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for ByteBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.0.held.load(Ordering::Relaxed);
        f.debug_struct("ByteBudget").field("held", &held).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn client(last: u8) -> ClientNetwork {
        ClientNetwork::new([192, 0, 2, last].into(), 56)
    }

    fn held(budget: &ByteBudget) -> (usize, usize) {
        (budget.held(), budget.clients().len())
    }

    #[test]
    fn a_client_and_the_process_each_have_a_limit() {
        let budget = ByteBudget::bounded(3 * MIB, 2 * MIB);
        let mut first = budget.enter(client(1)).unwrap();
        first.grow_to(2 * MIB).unwrap();
        assert_eq!(first.grow_to(2 * MIB + 1), Err(BudgetExhausted));
        let refused = budget.enter(client(1)).unwrap_err();
        assert_eq!(
            (refused.kind, refused.retry_after),
            (ProblemKind::Overloaded, Some(RETRY_AFTER))
        );
        let mut second = budget.enter(client(2)).unwrap();
        assert_eq!(second.grow_to(MIB + 1), Err(BudgetExhausted));
        second.grow_to(MIB).unwrap();
        assert!(budget.enter(client(3)).is_err(), "no client can reserve more");
        drop(first);
        assert!(budget.enter(client(1)).is_ok());
        drop(second);
        assert_eq!(held(&budget), (0, 0), "all bytes are released");
    }

    #[test]
    fn small_bodies_and_announced_bodies_are_not_counted() {
        let budget = ByteBudget::bounded(MIB, MIB);
        let mut room = budget.enter(client(1)).unwrap();
        room.grow_to(SMALL_BYTES).unwrap();
        room.add(0);
        room.can_grow_to(MIB).unwrap();
        assert_eq!(room.can_grow_to(MIB + 1), Err(BudgetExhausted));
        assert_eq!(held(&budget), (0, 0));
        room.grow_to(SMALL_BYTES + 1).unwrap();
        room.can_grow_to(MIB).unwrap();
        assert_eq!(held(&budget), (SMALL_BYTES + 1, 1));
        let other = budget.enter(client(1)).unwrap();
        other.can_grow_to(MIB - SMALL_BYTES - 1).unwrap();
        assert_eq!(other.can_grow_to(MIB - SMALL_BYTES), Err(BudgetExhausted));
    }

    #[test]
    fn optional_uses_leave_half_of_the_budget() {
        let budget = ByteBudget::bounded(2 * MIB, MIB);
        let mut room = budget.enter(client(1)).unwrap();
        room.grow_optional(MIB / 2).unwrap();
        assert_eq!(room.grow_optional(1), Err(BudgetExhausted));
        let mut other = budget.enter(client(2)).unwrap();
        other.grow_optional(MIB / 2).unwrap();
        let mut third = budget.enter(client(3)).unwrap();
        assert_eq!(third.grow_optional(1), Err(BudgetExhausted), "half of the budget is reserved");
        third.grow_to(MIB).unwrap();
        assert_eq!(held(&budget), (2 * MIB, 3));
        third.shrink_to(2 * MIB);
        assert_eq!(held(&budget), (2 * MIB, 3), "shrinking to a larger size changes nothing");
        third.shrink_to(MIB / 4);
        assert_eq!(held(&budget), (5 * MIB / 4, 3));
        drop((room, other, third));
        assert_eq!(held(&budget), (0, 0));
    }

    #[test]
    fn bytes_in_memory_are_counted_while_they_are_referenced() {
        let budget = ByteBudget::bounded(MIB, MIB);
        let mut room = budget.enter(client(1)).unwrap();
        room.add(3 * MIB / 4);
        let small = room.empty_for_same_client().attach(Bytes::from_static(b"small"));
        let answer = room.attach(vec![0; MIB / 2].into());
        assert_eq!(held(&budget), (MIB / 2, 1), "the reservation shrinks to the bytes in memory");
        let more = budget.empty_reservation(client(1)).attach(vec![0; MIB].into());
        assert_eq!(held(&budget), (3 * MIB / 2, 1), "bytes in memory count even beyond the limit");
        assert_eq!(
            budget.empty_reservation(client(2)).try_attach(vec![0; MIB / 2].into()),
            Err(BudgetExhausted)
        );
        assert!(budget.enter(client(2)).is_err());
        let piece = answer.slice(..10);
        drop((answer, more));
        assert_eq!(held(&budget), (MIB / 2, 1));
        drop((piece, small));
        assert_eq!(held(&budget), (0, 0));
    }
}
