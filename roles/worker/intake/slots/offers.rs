//! The callers that a queue has refused, oldest first, and the slots that it has offered to them.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::message::Subject;

/// The maximum number of remembered expired offers, whose late answers are used to measure
/// the round trip.
const EXPIRED_MAX: usize = 64;

/// The number of an offer. Each queue uses each number once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OfferId(pub u64);

/// The offer of a slot that is reserved for a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The number of the offer.
    pub id: OfferId,
    /// The reply subject of the refused request.
    pub to: Subject,
}

/// An offer that has been answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnsweredOffer {
    /// When the offer was made.
    pub(super) made_at: Instant,
    /// Whether the slot was still reserved.
    pub(super) is_open: bool,
}

#[derive(Clone, Copy, Debug)]
struct OfferTimer {
    made_at: Instant,
    expires_at: Instant,
}

/// The offers of one queue.
#[derive(Debug)]
pub(super) struct Offers {
    last_id: u64,
    open: BTreeMap<OfferId, OfferTimer>,
    /// The open offers by expiry. The timeout follows the measured round trip, so a later offer may
    /// expire earlier.
    expiries: BTreeSet<(Instant, OfferId)>,
    expired: VecDeque<(OfferId, Instant)>,
    /// Callers without an offer, oldest first, each at most once.
    refused: VecDeque<Subject>,
    /// The same callers as a set, to detect duplicates.
    known: HashSet<Subject>,
    remembered_max: usize,
}

impl Offers {
    pub(super) fn new(remembered_max: usize) -> Self {
        Self {
            last_id: 0,
            open: BTreeMap::new(),
            expiries: BTreeSet::new(),
            expired: VecDeque::new(),
            refused: VecDeque::new(),
            known: HashSet::new(),
            remembered_max,
        }
    }

    /// Changes how many refused callers are remembered.
    pub(super) fn set_remembered_max(&mut self, remembered_max: usize) {
        self.remembered_max = remembered_max;
    }

    /// Returns the number of reserved slots.
    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Returns whether an offer is open: it was neither answered nor has it expired.
    pub(super) fn is_open(&self, id: OfferId) -> bool {
        self.open.contains_key(&id)
    }

    /// Returns whether any caller is waiting for an offer.
    pub(super) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Adds a refused caller, unless the list is full.
    pub(super) fn remember(&mut self, caller: &Subject) {
        if self.refused.len() < self.remembered_max && self.known.insert(caller.clone()) {
            self.refused.push_back(caller.clone());
        }
    }

    /// Inserts callers at the front, in order. Drops the newest callers if the list is too long.
    pub(super) fn remember_first<'a>(
        &mut self,
        callers: impl DoubleEndedIterator<Item = &'a Subject>,
    ) {
        for caller in callers.rev() {
            if self.known.insert(caller.clone()) {
                self.refused.push_front(caller.clone());
            }
        }
        while self.refused.len() > self.remembered_max
            && let Some(newest) = self.refused.pop_back()
        {
            self.known.remove(&newest);
        }
    }

    /// Forgets the refused callers. Open offers stay open.
    pub(super) fn forget_refused(&mut self) {
        self.refused.clear();
        self.known.clear();
    }

    /// Makes an offer to the caller that was refused first.
    pub(super) fn make(&mut self, now: Instant, timeout: Duration) -> Option<Offer> {
        let to = self.refused.pop_front()?;
        self.known.remove(&to);
        self.last_id += 1;
        let id = OfferId(self.last_id);
        let expires_at = now + timeout;
        self.open.insert(id, OfferTimer { made_at: now, expires_at });
        self.expiries.insert((expires_at, id));
        Some(Offer { id, to })
    }

    /// Ends and returns an answered offer; `None` if it was answered before or is too old.
    pub(super) fn answer(&mut self, id: OfferId) -> Option<AnsweredOffer> {
        if let Some(timer) = self.open.remove(&id) {
            self.expiries.remove(&(timer.expires_at, id));
            return Some(AnsweredOffer { made_at: timer.made_at, is_open: true });
        }
        let index = self.expired.iter().position(|(expired, _)| *expired == id)?;
        let (_, made_at) = self.expired.remove(index)?;
        Some(AnsweredOffer { made_at, is_open: false })
    }

    /// Ends the offers that were not answered in time. Returns their number.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        let mut count = 0;
        while let Some((expires_at, id)) = self.expiries.first().copied()
            && expires_at <= now
        {
            self.expiries.pop_first();
            let Some(timer) = self.open.remove(&id) else { continue };
            if self.expired.len() >= EXPIRED_MAX {
                self.expired.pop_front();
            }
            self.expired.push_back((id, timer.made_at));
            count += 1;
        }
        count
    }

    /// Returns when the next offer expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(expires_at, _)| *expires_at)
    }
}
