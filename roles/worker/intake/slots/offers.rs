//! The callers that a queue has refused, and the slots that it has offered to them. The gateways of these callers take turns, because
//! each gateway passes an offer to the first of its own waiters.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use crate::fair_order::FairOrder;
use crate::message::Subject;

/// The maximum number of remembered expired offers, whose late answers are used to measure
/// the round trip.
const EXPIRED_MAX: usize = 64;
/// The number of tokens at the end of a gateway's reply subject that depend on the request: the queue, the request, the
/// attempt, and the token that authenticates them.
const REQUEST_TOKENS: usize = 4;

/// The number of an offer. A queue never uses a number twice.
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
    /// The time at which the offer was made.
    pub(super) made_at: Instant,
    /// Whether the slot was still reserved.
    pub(super) is_open: bool,
}

#[derive(Clone, Copy, Debug)]
struct OfferTimer {
    made_at: Instant,
    expires_at: Instant,
}

/// A hash of the part of a reply subject that is the same for all requests of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct GatewayKey(u64);

/// The offers of one queue.
#[derive(Debug)]
pub(super) struct Offers {
    last_id: u64,
    open: BTreeMap<OfferId, OfferTimer>,
    /// The open offers by expiry. The timeout follows the measured round trip, so a later offer may
    /// expire earlier.
    expiries: BTreeSet<(Instant, OfferId)>,
    expired: VecDeque<(OfferId, Instant)>,
    /// The callers without an offer whose requests were accepted before they were refused, with the oldest one first.
    /// These callers precede all others.
    evicted: VecDeque<Subject>,
    /// The other callers without an offer, by gateway.
    refused: FairOrder<GatewayKey, Subject>,
    /// All callers without an offer, to detect duplicates.
    known: HashSet<Subject>,
    hasher: RandomState,
    remembered_max: usize,
}

impl Offers {
    pub(super) fn new(remembered_max: usize) -> Self {
        Self {
            last_id: 0,
            open: BTreeMap::new(),
            expiries: BTreeSet::new(),
            expired: VecDeque::new(),
            evicted: VecDeque::new(),
            refused: FairOrder::default(),
            known: HashSet::new(),
            hasher: RandomState::new(),
            remembered_max,
        }
    }

    /// Changes the number of refused callers that are remembered.
    pub(super) fn set_remembered_max(&mut self, remembered_max: usize) {
        self.remembered_max = remembered_max;
    }

    /// Returns the number of reserved slots.
    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Returns whether an offer is open. An open offer has neither been answered nor expired.
    pub(super) fn is_open(&self, id: OfferId) -> bool {
        self.open.contains_key(&id)
    }

    /// Returns whether any caller is waiting for an offer.
    pub(super) fn has_refused(&self) -> bool {
        !self.known.is_empty()
    }

    /// Adds a refused caller. If there are too many callers, forgets the newest caller of the gateway with the most
    /// callers.
    pub(super) fn remember(&mut self, caller: &Subject) {
        let gateway = self.gateway(caller);
        let is_full = self.known.len() >= self.remembered_max;
        if (is_full && self.refused.would_be_evicted(gateway)) || self.known.contains(caller) {
            return;
        }
        if is_full {
            self.forget_last();
        }
        self.refused.push(gateway, caller.clone());
        self.known.insert(caller.clone());
    }

    /// Inserts callers at the front, in order. If there are too many callers, forgets the last ones.
    pub(super) fn remember_first<'a>(
        &mut self,
        callers: impl DoubleEndedIterator<Item = &'a Subject>,
    ) {
        for caller in callers.rev() {
            if self.known.insert(caller.clone()) {
                self.evicted.push_front(caller.clone());
            }
        }
        while self.known.len() > self.remembered_max && self.forget_last() {}
    }

    /// Forgets the refused callers. Open offers stay open.
    pub(super) fn forget_refused(&mut self) {
        self.evicted.clear();
        self.refused = FairOrder::default();
        self.known.clear();
    }

    /// Makes an offer to the next caller.
    pub(super) fn make(&mut self, now: Instant, timeout: Duration) -> Option<Offer> {
        let to = self.evicted.pop_front().or_else(|| self.refused.serve_first())?;
        self.known.remove(&to);
        self.last_id += 1;
        let id = OfferId(self.last_id);
        let expires_at = now + timeout;
        self.open.insert(id, OfferTimer { made_at: now, expires_at });
        self.expiries.insert((expires_at, id));
        Some(Offer { id, to })
    }

    /// Forgets the newest caller of the gateway with the most callers. Returns `false` if there are no callers.
    fn forget_last(&mut self) -> bool {
        let last = self.refused.in_eviction_order().next().map(|(position, _)| position);
        let last = last.and_then(|position| self.refused.remove(position));
        let last = last.or_else(|| self.evicted.pop_back());
        last.is_some_and(|caller| self.known.remove(&caller))
    }

    fn gateway(&self, caller: &Subject) -> GatewayKey {
        let gateway = caller.as_str().rsplitn(REQUEST_TOKENS + 1, '.').last();
        GatewayKey(self.hasher.hash_one(gateway))
    }

    /// Ends and returns an answered offer, or returns `None` if it was answered before or is too old.
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
