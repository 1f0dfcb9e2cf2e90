//! The order in which waiters with different owners are served: the owners take turns, and the waiters of one owner are served
//! first come, first served.
//!
//! Each waiter belongs to a round, in which each owner has at most one waiter. Rounds are served one after another, and a new waiter
//! joins the first round that has not begun and in which its owner has no waiter. So an owner that waits is overtaken by each other
//! owner at most twice before it is served, however many waiters the others have. No waiter is overtaken for ever: once a round has
//! begun, new waiters join later ones.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::ops::Bound;

/// The position of a waiter in the order. Positions are never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FairPosition {
    round: u64,
    arrival: u64,
}

/// Waiters (`V`) of several owners (`K`), in the order in which they are served.
///
/// It has entries only for owners with waiters, so the limit on waiters bounds its size. All operations take logarithmic time.
#[derive(Debug)]
pub struct FairOrder<K, V> {
    arrivals: u64,
    /// The round of the last waiter that was served. Later rounds have not begun.
    round: u64,
    waiters: BTreeMap<FairPosition, (K, V)>,
    owners: HashMap<K, OwnerShare>,
}

#[derive(Debug)]
struct OwnerShare {
    waiters: usize,
    last_round: u64,
}

impl<K, V> Default for FairOrder<K, V> {
    fn default() -> Self {
        Self { arrivals: 0, round: 0, waiters: BTreeMap::new(), owners: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash, V> FairOrder<K, V> {
    /// Returns the number of waiters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Returns whether there are no waiters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Returns a new position at the end of an owner's turns, for a call to `insert`.
    #[must_use]
    pub fn next_position(&mut self, owner: K) -> FairPosition {
        self.arrivals += 1;
        FairPosition { round: self.next_round(owner), arrival: self.arrivals }
    }

    /// Inserts or replaces the waiter at a position, which may have been removed before.
    pub fn insert(&mut self, position: FairPosition, owner: K, waiter: V) {
        if self.waiters.insert(position, (owner, waiter)).is_none() {
            let share =
                self.owners.entry(owner).or_insert(OwnerShare { waiters: 0, last_round: 0 });
            share.waiters += 1;
            share.last_round = share.last_round.max(position.round);
        }
    }

    /// Removes a waiter.
    pub fn remove(&mut self, position: FairPosition) -> Option<V> {
        let (owner, waiter) = self.waiters.remove(&position)?;
        if let Some(share) = self.owners.get_mut(&owner) {
            share.waiters -= 1;
            if share.waiters == 0 {
                self.owners.remove(&owner);
            } else if share.last_round == position.round {
                // The owner's last turn is free again.
                share.last_round -= 1;
            }
        }
        Some(waiter)
    }

    /// Records that the waiter that has or had this position was served, which begins its round.
    pub fn record_served(&mut self, position: FairPosition) {
        self.round = self.round.max(position.round);
    }

    /// Returns the waiter at a position.
    #[must_use]
    pub fn get(&self, position: FairPosition) -> Option<&V> {
        self.waiters.get(&position).map(|(_, waiter)| waiter)
    }

    /// Returns the waiter that is served next.
    #[must_use]
    pub fn first(&self) -> Option<(FairPosition, &V)> {
        self.iter().next()
    }

    /// Returns the waiters in the order in which they are served.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (FairPosition, &V)> {
        self.waiters.iter().map(|(position, (_, waiter))| (*position, waiter))
    }

    /// Returns the waiters after a position, in the order in which they are served.
    pub fn after(
        &self,
        position: FairPosition,
    ) -> impl DoubleEndedIterator<Item = (FairPosition, &V)> {
        let later = self.waiters.range((Bound::Excluded(position), Bound::Unbounded));
        later.map(|(position, (_, waiter))| (*position, waiter))
    }

    /// Returns whether a new waiter of this owner would be served before the last waiter.
    #[must_use]
    pub fn would_precede_last(&self, owner: K) -> bool {
        let last = self.waiters.last_key_value();
        last.is_some_and(|(last, _)| self.next_round(owner) < last.round)
    }

    /// Returns about how many of the waiters are served before a new waiter of this owner: at most one of each owner in each round.
    #[must_use]
    pub fn ahead_of_new(&self, owner: K) -> usize {
        let rounds = self.next_round(owner).saturating_sub(self.round);
        let rounds = usize::try_from(rounds).unwrap_or(usize::MAX);
        rounds.saturating_mul(self.owners.len()).min(self.len())
    }

    fn next_round(&self, owner: K) -> u64 {
        let last_round = self.owners.get(&owner).map_or(0, |share| share.last_round);
        self.round.max(last_round) + 1
    }
}

#[cfg(test)]
mod tests;
