//! What request bodies and answers hold in memory, bounded for the process and for each client.
//!
//! Counts alone bound nothing: a hundred streams with a megabyte each are one connection. What is small is bounded by
//! the number of requests, and costs nothing here.

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

/// What is not counted: `gateway.http.requests_in_flight_max` bounds it.
pub const SMALL_BYTES: usize = 16 * 1024;
/// When a request that found no room may come again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Bytes that requests and answers may hold. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct ByteBudget(Arc<Inner>);

struct Inner {
    bytes_max: AtomicUsize,
    per_client_max: AtomicUsize,
    /// Written under the lock of `clients`; read without it.
    held: AtomicUsize,
    /// Clients that hold something: what they hold bounds how many there are.
    clients: Mutex<HashMap<ClientNetwork, usize>>,
    gauge: Gauge,
}

/// How much of the room may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    All,
    /// At most half, for optional uses such as compression.
    Half,
    /// Always succeeds: the bytes are already in memory.
    NoBound,
}

/// No room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for more bytes of requests and answers")]
pub struct NoRoom;

/// What one request holds; given back when dropped.
#[derive(Debug)]
#[must_use = "it is given back at once"]
pub struct Reservation {
    budget: ByteBudget,
    client: ClientNetwork,
    bytes: usize,
}

impl ByteBudget {
    /// A budget of which nothing is used.
    #[must_use]
    pub fn new(limits: &HttpLimits) -> Self {
        Self::bounded(limits.buffered_bytes_max, limits.buffered_bytes_per_client_max)
    }

    /// A budget without bounds: for calls that no client makes.
    #[must_use]
    pub fn unbounded() -> Self {
        Self::bounded(usize::MAX, usize::MAX)
    }

    fn bounded(bytes_max: usize, per_client_max: usize) -> Self {
        Self(Arc::new(Inner {
            bytes_max: AtomicUsize::new(bytes_max),
            per_client_max: AtomicUsize::new(per_client_max),
            held: AtomicUsize::new(0),
            clients: Mutex::new(HashMap::new()),
            gauge: gauge(&names::GATEWAY_BUFFERED_BYTES, &[]),
        }))
    }

    /// Takes other bounds. What is held stays.
    pub fn set(&self, limits: &HttpLimits) {
        self.0.bytes_max.store(limits.buffered_bytes_max, Ordering::Relaxed);
        self.0.per_client_max.store(limits.buffered_bytes_per_client_max, Ordering::Relaxed);
    }

    /// Lets a request of this client in, unless what is held already reaches a bound.
    ///
    /// # Errors
    /// `Overloaded`: nothing of it was read.
    pub fn enter(&self, client: ClientNetwork) -> Result<Reservation, Problem> {
        let room = self.nothing(client);
        if room.others_leave_room() { Ok(room) } else { Err(overloaded()) }
    }

    /// Nothing yet, for this client.
    pub fn nothing(&self, client: ClientNetwork) -> Reservation {
        Reservation { budget: self.clone(), client, bytes: 0 }
    }

    fn fits(&self, held: usize, own: usize, more: usize, within: Within) -> bool {
        let parts = match within {
            Within::All => 1,
            Within::Half => 2,
            Within::NoBound => return true,
        };
        let fits = |held: usize, max: &AtomicUsize| {
            held.checked_add(more).is_some_and(|sum| sum <= max.load(Ordering::Relaxed) / parts)
        };
        fits(held, &self.0.bytes_max) && fits(own, &self.0.per_client_max)
    }

    /// Adds to what a client holds.
    fn add(&self, client: ClientNetwork, more: usize, within: Within) -> Result<(), NoRoom> {
        if more == 0 {
            // An entry of nothing would never be given back.
            return Ok(());
        }
        let mut clients = self.clients();
        let held = self.0.held.load(Ordering::Relaxed);
        let own = clients.get(&client).copied().unwrap_or(0);
        if !self.fits(held, own, more, within) {
            return Err(NoRoom);
        }
        clients.insert(client, own.saturating_add(more));
        self.show(held.saturating_add(more));
        Ok(())
    }

    fn give_back(&self, client: ClientNetwork, bytes: usize) {
        let mut clients = self.clients();
        if let Entry::Occupied(mut entry) = clients.entry(client) {
            *entry.get_mut() = entry.get().saturating_sub(bytes);
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        self.show(self.0.held.load(Ordering::Relaxed).saturating_sub(bytes));
    }

    #[expect(clippy::cast_precision_loss, reason = "bytes of memory are exact up to 2^53")]
    fn show(&self, held: usize) {
        self.0.held.store(held, Ordering::Relaxed);
        self.0.gauge.set(held as f64);
    }

    /// What is held.
    #[cfg(test)]
    pub(in crate::roles::gateway) fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<ClientNetwork, usize>> {
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The refusal of a request for which there is no room, counted.
#[must_use]
pub fn overloaded() -> Problem {
    let reason = [(names::REASON, "buffered_bytes".to_owned())];
    counter(&names::GATEWAY_SHED, &reason).increment(1);
    let detail = "too much is being sent and answered already";
    Problem::with_detail(ProblemKind::Overloaded, detail).retry_after(RETRY_AFTER)
}

impl Reservation {
    /// Whether such bytes are counted.
    #[must_use]
    pub fn counts(bytes: &Bytes) -> bool {
        bytes.len() > SMALL_BYTES
    }

    /// Makes room for so many bytes in all.
    ///
    /// # Errors
    /// `NoRoom`, and nothing has changed.
    pub fn reach(&mut self, bytes: usize) -> Result<(), NoRoom> {
        if bytes > SMALL_BYTES && bytes > self.bytes {
            self.budget.add(self.client, bytes - self.bytes, Within::All)?;
            self.bytes = bytes;
        }
        Ok(())
    }

    /// Whether the budget has room, not counting what this request holds itself.
    #[must_use]
    pub fn others_leave_room(&self) -> bool {
        let held = self.budget.0.held.load(Ordering::Relaxed).saturating_sub(self.bytes);
        // No client holds more than all do.
        if self.budget.fits(held, held, 1, Within::All) {
            return true;
        }
        let own = self.budget.clients().get(&self.client).copied().unwrap_or(0);
        self.budget.fits(held, own.saturating_sub(self.bytes), 1, Within::All)
    }

    /// Makes room for so many bytes more, while half of all room stays free: for what can be done without.
    ///
    /// # Errors
    /// `NoRoom`, and nothing has changed.
    pub fn grow_within_half(&mut self, bytes: usize) -> Result<(), NoRoom> {
        self.budget.add(self.client, bytes, Within::Half)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Whether there is room for so many bytes in all now. None is kept: who only says that it will send holds nothing.
    ///
    /// # Errors
    /// `NoRoom`.
    pub fn could_reach(&self, bytes: usize) -> Result<(), NoRoom> {
        if bytes <= SMALL_BYTES || bytes <= self.bytes {
            return Ok(());
        }
        let own = self.budget.clients().get(&self.client).copied().unwrap_or(0);
        let held = self.budget.0.held.load(Ordering::Relaxed);
        let fits = self.budget.fits(held, own, bytes - self.bytes, Within::All);
        if fits { Ok(()) } else { Err(NoRoom) }
    }

    /// Counts so many bytes more, which are there: whoever asks next finds less room.
    pub fn add(&mut self, bytes: usize) {
        let _never_fails = self.budget.add(self.client, bytes, Within::NoBound);
        self.bytes += bytes;
    }

    /// Nothing yet, for the same client.
    pub fn another(&self) -> Self {
        self.budget.nothing(self.client)
    }

    /// Bytes that came, however few, counted for as long as anybody has them, when there is room for them.
    ///
    /// # Errors
    /// `NoRoom`: they are gone.
    pub fn keep(mut self, bytes: Bytes) -> Result<Bytes, NoRoom> {
        let more = bytes.len().saturating_sub(self.bytes);
        self.budget.add(self.client, more, Within::All)?;
        self.bytes += more;
        Ok(self.hold(bytes))
    }

    /// Bytes that are there, counted for as long as anybody has them: whoever asks next finds less room.
    #[must_use]
    pub fn holding(self, bytes: Bytes) -> Bytes {
        if Self::counts(&bytes) { self.hold(bytes) } else { bytes }
    }

    fn hold(mut self, bytes: Bytes) -> Bytes {
        match bytes.len().checked_sub(self.bytes) {
            Some(more) => self.add(more),
            None => self.budget.give_back(self.client, self.bytes - bytes.len()),
        }
        self.bytes = bytes.len();
        Bytes::from_owner(Held { bytes, _reservation: self })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.client, self.bytes);
        }
    }
}

/// Bytes with what was reserved for them.
struct Held {
    bytes: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Held {
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
    fn a_client_and_all_of_them_have_a_bound_each() {
        let budget = ByteBudget::bounded(3 * MIB, 2 * MIB);
        let mut first = budget.enter(client(1)).unwrap();
        first.reach(2 * MIB).unwrap();
        assert_eq!(first.reach(2 * MIB + 1), Err(NoRoom));
        let refused = budget.enter(client(1)).unwrap_err();
        assert_eq!(
            (refused.kind, refused.retry_after),
            (ProblemKind::Overloaded, Some(RETRY_AFTER))
        );
        let mut second = budget.enter(client(2)).unwrap();
        assert_eq!(second.reach(MIB + 1), Err(NoRoom));
        second.reach(MIB).unwrap();
        assert!(budget.enter(client(3)).is_err(), "nothing is left for anybody");
        drop(first);
        assert!(budget.enter(client(1)).is_ok());
        drop(second);
        assert_eq!(held(&budget), (0, 0), "nothing stays behind");
    }

    #[test]
    fn what_is_small_is_not_counted_and_what_is_only_announced_neither() {
        let budget = ByteBudget::bounded(MIB, MIB);
        let mut room = budget.enter(client(1)).unwrap();
        room.reach(SMALL_BYTES).unwrap();
        room.add(0);
        room.could_reach(MIB).unwrap();
        assert_eq!(room.could_reach(MIB + 1), Err(NoRoom));
        assert_eq!(held(&budget), (0, 0));
        room.reach(SMALL_BYTES + 1).unwrap();
        room.could_reach(MIB).unwrap();
        assert_eq!(held(&budget), (SMALL_BYTES + 1, 1));
        let other = budget.enter(client(1)).unwrap();
        other.could_reach(MIB - SMALL_BYTES - 1).unwrap();
        assert_eq!(other.could_reach(MIB - SMALL_BYTES), Err(NoRoom));
    }

    #[test]
    fn what_can_be_done_without_leaves_half_of_the_room() {
        let budget = ByteBudget::bounded(2 * MIB, MIB);
        let mut room = budget.enter(client(1)).unwrap();
        room.grow_within_half(MIB / 2).unwrap();
        assert_eq!(room.grow_within_half(1), Err(NoRoom));
        let mut other = budget.enter(client(2)).unwrap();
        other.grow_within_half(MIB / 2).unwrap();
        let mut third = budget.enter(client(3)).unwrap();
        assert_eq!(third.grow_within_half(1), Err(NoRoom), "half of all is taken");
        third.reach(MIB).unwrap();
        assert_eq!(held(&budget), (2 * MIB, 3));
    }

    #[test]
    fn what_is_there_is_counted_while_anybody_has_it() {
        let budget = ByteBudget::bounded(MIB, MIB);
        let mut room = budget.enter(client(1)).unwrap();
        room.add(3 * MIB / 4);
        let small = room.another().holding(Bytes::from_static(b"small"));
        let answer = room.holding(vec![0; MIB / 2].into());
        assert_eq!(held(&budget), (MIB / 2, 1), "no more than what is there");
        let more = budget.nothing(client(1)).holding(vec![0; MIB].into());
        assert_eq!(held(&budget), (3 * MIB / 2, 1), "past the bound: it is there");
        assert_eq!(budget.nothing(client(2)).keep(vec![0; MIB / 2].into()), Err(NoRoom));
        assert!(budget.enter(client(2)).is_err());
        let piece = answer.slice(..10);
        drop((answer, more));
        assert_eq!(held(&budget), (MIB / 2, 1));
        drop((piece, small));
        assert_eq!(held(&budget), (0, 0));
    }
}
