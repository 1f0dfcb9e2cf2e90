//! Serves the waiters of several owners in turn (round-robin). Each owner is served once per round, and its waiters are
//! served first come, first served.
//!
//! Turns belong to owners, not to waiters. An owner gets the last turn when it starts waiting and each time it has been
//! served. While an owner waits, every other owner is therefore served at most once. This does not depend on how many
//! waiters the other owner has or which of them leave.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::Hash;

/// The maximum number of recent turns of an owner from which the length of a round is estimated.
const TURNS_MEASURED: usize = 4;

/// The position of a waiter. Positions are ordered by the waiters' arrival and are equal only if they belong to the
/// same waiter.
#[derive(Clone, Copy, Debug)]
pub struct FairPosition<K> {
    owner: K,
    arrival: u64,
    /// The owner's turn. `restore` gives it back to the owner.
    turn: u64,
}

/// Waiters (`V`) of several owners (`K`), in the order in which they will be served.
///
/// Only owners that have waiters take up space, so a limit on the number of waiters also limits the size. Every
/// operation on a waiter takes logarithmic time.
#[derive(Debug)]
pub struct FairOrder<K, V> {
    len: usize,
    served: u64,
    /// The last number that was assigned to an arrival or a turn.
    last_number: u64,
    owners: HashMap<K, OwnerWaiters<V>>,
    /// The owners, ordered by turn.
    turns: BTreeMap<u64, K>,
    /// The owners' turns, grouped by number of waiters.
    turns_by_len: BTreeMap<usize, BTreeSet<u64>>,
}

/// The waiters of one owner, ordered by arrival.
#[derive(Debug)]
struct OwnerWaiters<V> {
    turn: u64,
    waiters: BTreeMap<u64, V>,
    /// The value of `served` at each of the owner's most recent turns. Contains at most `TURNS_MEASURED` values.
    served_at: VecDeque<u64>,
}

impl<K, V> Default for FairOrder<K, V> {
    fn default() -> Self {
        let (owners, turns, turns_by_len) = (HashMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { len: 0, served: 0, last_number: 0, owners, turns, turns_by_len }
    }
}

impl<K: Copy + Eq + Hash, V> FairOrder<K, V> {
    /// Returns the number of waiters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are no waiters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a waiter behind the other waiters of its owner.
    pub fn push(&mut self, owner: K, waiter: V) -> FairPosition<K> {
        let arrival = self.next_number();
        let turn = self.owners.get(&owner).map_or(arrival, |known| known.turn);
        let position = FairPosition { owner, arrival, turn };
        self.restore(position, waiter);
        position
    }

    /// Puts back a waiter that was taken but not served. The waiter returns to its position, and its owner gets the
    /// used turn back. If the waiter is still at its position, replaces its value and returns `false`.
    pub fn restore(&mut self, position: FairPosition<K>, waiter: V) -> bool {
        let FairPosition { owner, arrival, turn } = position;
        let mut waiters = self.unlink(owner).unwrap_or_else(|| OwnerWaiters::new(turn));
        let is_new = waiters.waiters.insert(arrival, waiter).is_none();
        if is_new {
            waiters.turn = waiters.turn.min(turn);
            self.len += 1;
        }
        self.link(owner, waiters);
        is_new
    }

    /// Removes a waiter. Its owner keeps the turn if the owner has other waiters.
    pub fn remove(&mut self, position: FairPosition<K>) -> Option<V> {
        let mut waiters = self.unlink(position.owner)?;
        let waiter = waiters.waiters.remove(&position.arrival);
        self.len -= usize::from(waiter.is_some());
        self.link(position.owner, waiters);
        waiter
    }

    /// Removes a waiter that may be served, and gives its owner the last turn. The returned position contains the turn
    /// that was used. The position can be passed to `restore` if the waiter is not served.
    pub fn take(&mut self, position: FairPosition<K>) -> Option<(FairPosition<K>, V)> {
        let mut waiters = self.unlink(position.owner)?;
        let used = FairPosition { turn: waiters.turn, ..position };
        let waiter = waiters.waiters.remove(&position.arrival);
        if waiter.is_some() {
            self.len -= 1;
            waiters.turn = self.next_number();
        }
        self.link(position.owner, waiters);
        waiter.map(|waiter| (used, waiter))
    }

    /// Removes a waiter that is being served, and records the turn for `ahead_of_new`.
    pub fn serve(&mut self, position: FairPosition<K>) -> Option<V> {
        self.count_served(position);
        self.take(position).map(|(_, waiter)| waiter)
    }

    /// Counts a waiter that was taken, and has been served since then, for `ahead_of_new`.
    pub fn count_served(&mut self, position: FairPosition<K>) {
        self.served += 1;
        if let Some(waiters) = self.owners.get_mut(&position.owner) {
            if waiters.served_at.len() >= TURNS_MEASURED {
                waiters.served_at.pop_front();
            }
            waiters.served_at.push_back(self.served);
        }
    }

    /// Serves the first waiter.
    pub fn serve_first(&mut self) -> Option<V> {
        let (position, _) = self.first()?;
        self.serve(position)
    }

    /// Returns the waiter at a position.
    #[must_use]
    pub fn get(&self, position: FairPosition<K>) -> Option<&V> {
        self.owners.get(&position.owner)?.waiters.get(&position.arrival)
    }

    /// Returns the waiter that will be served next.
    #[must_use]
    pub fn first(&self) -> Option<(FairPosition<K>, &V)> {
        self.iter().next()
    }

    /// Returns the waiters, ordered by the turn of their owner and then by arrival.
    pub fn iter(&self) -> impl Iterator<Item = (FairPosition<K>, &V)> {
        self.turns.values().flat_map(|owner| self.of_owner(*owner))
    }

    /// Returns the waiters in the order in which they are evicted. The owner with the most waiters comes first. If
    /// several owners have equally many, the one with the last turn comes first. The waiters of an owner are returned
    /// from newest to oldest.
    pub fn in_eviction_order(&self) -> impl Iterator<Item = (FairPosition<K>, &V)> {
        let turns = self.turns_by_len.values().rev().flat_map(|turns| turns.iter().rev());
        let owners = turns.filter_map(|turn| self.turns.get(turn));
        owners.flat_map(|owner| self.of_owner(*owner).rev())
    }

    /// Returns whether a new waiter of this owner would be the first to be evicted.
    #[must_use]
    pub fn would_be_evicted(&self, owner: K) -> bool {
        let known = self.owners.get(&owner);
        let (own, turn) = known.map_or((0, u64::MAX), |known| (known.waiters.len(), known.turn));
        let most = self.turns_by_len.last_key_value();
        let most = most.and_then(|(len, turns)| Some((*len, *turns.last()?)));
        most.is_none_or(|most| (own + 1, turn) >= most)
    }

    /// Estimates how many waiters will be served before a new waiter of this owner. The estimate assumes that future
    /// rounds are as long as the owner's last rounds. It is never lower than the number of current waiters whose turn
    /// comes first. Takes time proportional to the square root of the number of waiters.
    #[must_use]
    pub fn ahead_of_new(&self, owner: K) -> usize {
        let rounds = self.waiters_of(owner) + 1;
        let counts = self.turns_by_len.iter();
        let waiting = counts.map(|(len, turns)| turns.len() * (*len).min(rounds)).sum();
        let known = self.owners.get(&owner);
        known
            .and_then(|known| known.ahead_of_new(rounds))
            .map_or(waiting, |ahead| ahead.max(waiting))
    }

    /// Returns the number of waiters of an owner.
    #[must_use]
    pub fn waiters_of(&self, owner: K) -> usize {
        self.owners.get(&owner).map_or(0, |known| known.waiters.len())
    }

    fn of_owner(&self, owner: K) -> impl DoubleEndedIterator<Item = (FairPosition<K>, &V)> {
        self.owners.get(&owner).into_iter().flat_map(move |known| {
            let position = move |arrival| FairPosition { owner, arrival, turn: known.turn };
            known.waiters.iter().map(move |(arrival, waiter)| (position(*arrival), waiter))
        })
    }

    /// Removes an owner, so that it can be changed.
    fn unlink(&mut self, owner: K) -> Option<OwnerWaiters<V>> {
        let waiters = self.owners.remove(&owner)?;
        self.turns.remove(&waiters.turn);
        let len = waiters.waiters.len();
        if let Some(turns) = self.turns_by_len.get_mut(&len) {
            turns.remove(&waiters.turn);
            if turns.is_empty() {
                self.turns_by_len.remove(&len);
            }
        }
        Some(waiters)
    }

    /// Inserts an owner if it has waiters.
    fn link(&mut self, owner: K, waiters: OwnerWaiters<V>) {
        let len = waiters.waiters.len();
        if len > 0 {
            self.turns.insert(waiters.turn, owner);
            self.turns_by_len.entry(len).or_default().insert(waiters.turn);
            self.owners.insert(owner, waiters);
        }
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

impl<V> OwnerWaiters<V> {
    fn new(turn: u64) -> Self {
        Self { turn, waiters: BTreeMap::new(), served_at: VecDeque::new() }
    }

    /// Estimates how many waiters will be served before the owner's turn that is `rounds` rounds away. Returns `None`
    /// if the owner has had fewer than two turns.
    fn ahead_of_new(&self, rounds: usize) -> Option<usize> {
        let served = usize::try_from(self.served_at.back()? - self.served_at.front()?).ok()?;
        let measured = self.served_at.len() - 1;
        Some(rounds.saturating_mul(served).checked_div(measured)?.saturating_sub(1))
    }
}

impl<K> PartialEq for FairPosition<K> {
    fn eq(&self, other: &Self) -> bool {
        self.arrival == other.arrival
    }
}

impl<K> Eq for FairPosition<K> {}

impl<K> PartialOrd for FairPosition<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for FairPosition<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.arrival.cmp(&other.arrival)
    }
}

#[cfg(test)]
mod tests;
