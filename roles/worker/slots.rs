//! A queue's slots as a plain state machine: never more calls than the limit, and a freed slot goes to
//! the caller that was refused first.
//!
//! No I/O and no clock in here, so that the simulation runs the same code as the worker (DESIGN §6).

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::envelope::Reason;
use crate::messaging::Subject;

/// An offer's number, never used twice by one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OfferId(pub u64);

/// A slot that is kept for somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its number.
    pub id: OfferId,
    /// The reply subject of the refused request.
    pub to: Subject,
}

/// What happens to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has a slot: run it, and call `finish` when it is done.
    Take,
    /// It was not executed.
    Refuse(Reason),
}

/// What happens to a message to an offered slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted<W> {
    /// It has the slot: run it, and call `finish` when it is done.
    Take(W),
    /// The slot is about to free: it waits here, and `finish` hands it out.
    Waits,
    /// It was not executed.
    Refuse(Reason, W),
}

/// What follows the end of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next<W> {
    /// What waited here longest has the slot now: run it, and call `finish` when it is done.
    pub starts: Option<Waiter<W>>,
    /// A slot to offer.
    pub offer: Option<Offer>,
}

/// What follows from time that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lapsed<W> {
    /// How many offers were not answered.
    pub count: usize,
    /// Whom to offer their slots to.
    pub offers: Vec<Offer>,
    /// What has waited here for too long, and is to be refused.
    pub turned_away: Vec<Waiter<W>>,
}

/// A request that took an offer made ahead and waits for a call to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter<W> {
    /// Since when.
    pub since: Instant,
    /// Who sent it.
    pub reply: Option<Subject>,
    /// The request.
    pub work: W,
}

/// The slots of one queue, and the requests (`W`) that wait for one of them.
#[derive(Debug)]
pub struct Slots<W> {
    limit: usize,
    running: usize,
    /// Oldest first, each at most for the time that an offer is open.
    waiting: VecDeque<Waiter<W>>,
    /// Slots that may be offered before they are free.
    ahead: usize,
    draining: bool,
    available: bool,
    offer_timeout: Duration,
    /// Slots kept for those they were offered to, and until when.
    offered: BTreeMap<OfferId, Instant>,
    next_offer: u64,
    /// Whom to offer a slot to, oldest first, each at most once.
    refused: VecDeque<Subject>,
    remembered: HashSet<Subject>,
    refused_max: usize,
}

impl<W> Slots<W> {
    /// Free slots.
    #[must_use]
    pub fn new(limit: usize, refused_max: usize, offer_timeout: Duration) -> Self {
        Self {
            limit,
            running: 0,
            waiting: VecDeque::new(),
            ahead: 0,
            draining: false,
            available: true,
            offer_timeout,
            offered: BTreeMap::new(),
            next_offer: 0,
            refused: VecDeque::new(),
            remembered: HashSet::new(),
            refused_max,
        }
    }

    /// A message of the group.
    pub fn arrive(&mut self, reply: Option<&Subject>) -> Verdict {
        if let Some(reason) = self.closed() {
            return Verdict::Refuse(reason);
        }
        if self.promised() < self.limit {
            self.running += 1;
            return Verdict::Take;
        }
        if let Some(reply) = reply {
            self.remember(reply);
        }
        Verdict::Refuse(Reason::Busy)
    }

    /// A message to an offered slot. One that lapsed is no offer any more: it is judged like any other.
    pub fn accept(&mut self, id: OfferId, waiter: Waiter<W>) -> Accepted<W> {
        if self.offered.remove(&id).is_none() {
            return match self.arrive(waiter.reply.as_ref()) {
                Verdict::Take => Accepted::Take(waiter.work),
                Verdict::Refuse(reason) => Accepted::Refuse(reason, waiter.work),
            };
        }
        if let Some(reason) = self.closed() {
            return Accepted::Refuse(reason, waiter.work);
        }
        if self.running < self.limit {
            self.running += 1;
            return Accepted::Take(waiter.work);
        }
        self.waiting.push_back(waiter);
        Accepted::Waits
    }

    /// A call has ended. `more` is its reply subject when others waited where it came from: they may have asked
    /// workers that stay busy and know of nobody's free slot, so they are offered this one when nobody was refused here.
    pub fn finish(&mut self, now: Instant, more: Option<Subject>) -> Next<W> {
        debug_assert!(self.running > 0, "every finish has its take");
        self.running = self.running.saturating_sub(1);
        let starts = if self.running < self.limit { self.waiting.pop_front() } else { None };
        self.running += usize::from(starts.is_some());
        if let Some(more) = more.filter(|_| self.refused.is_empty() && self.closed().is_none()) {
            self.remember(&more);
        }
        Next { starts, offer: self.offer(now) }
    }

    /// Nobody waits for the answer to this request any more: it need not wait here.
    pub fn cancel(&mut self, reply: &Subject) -> Option<Waiter<W>> {
        let place = self.waiting.iter().position(|waiter| waiter.reply.as_ref() == Some(reply))?;
        self.waiting.remove(place)
    }

    /// One more offer, where one may be made ahead.
    pub fn offer_ahead(&mut self, now: Instant) -> Option<Offer> {
        self.offer(now)
    }

    /// How many slots may be offered before they are free. Worth it where calls are short beside the way of
    /// an offer: a slot would be idle meanwhile. What waits here is bound to this worker for a while, so not where
    /// calls are long.
    pub fn set_ahead(&mut self, ahead: usize) {
        self.ahead = ahead;
    }

    /// An offered slot is not needed.
    pub fn decline(&mut self, id: OfferId, now: Instant) -> Option<Offer> {
        self.offered.remove(&id)?;
        self.offer(now)
    }

    /// Offers that were not answered in time go to the next. What waits as long for a call to end is let go, and is
    /// the first to be offered another slot: here it is bound to a call that takes long, and other workers may have
    /// free slots meanwhile.
    pub fn lapse(&mut self, now: Instant) -> Lapsed<W> {
        let before = self.offered.len();
        self.offered.retain(|_, until| *until > now);
        let count = before - self.offered.len();
        let late = self.waiting.partition_point(|waiter| waiter.since + self.offer_timeout <= now);
        let turned_away: Vec<_> = self.waiting.drain(..late).collect();
        if late > 0 {
            self.ahead = 0;
        }
        let offers = std::iter::from_fn(|| self.offer(now)).take(count).collect();
        for reply in turned_away.iter().rev().filter_map(|waiter| waiter.reply.as_ref()) {
            if self.remembered.insert(reply.clone()) {
                self.refused.push_front(reply.clone());
            }
        }
        Lapsed { count, offers, turned_away }
    }

    /// When to look again for what has lapsed.
    #[must_use]
    pub fn next_lapse(&self) -> Option<Instant> {
        // Numbers and times grow together: the first is the oldest.
        let offer = self.offered.first_key_value().map(|(_, until)| *until);
        let waiter = self.waiting.front().map(|waiter| waiter.since + self.offer_timeout);
        offer.into_iter().chain(waiter).min()
    }

    /// No message is taken any more. What waits here is to be refused; whoever waits for an offer learns it from the
    /// silence.
    pub fn drain(&mut self) -> VecDeque<Waiter<W>> {
        self.draining = true;
        self.forget()
    }

    /// The backend is there.
    pub fn available(&mut self) {
        self.available = true;
    }

    /// The backend is away. What waits here is to be refused.
    pub fn unavailable(&mut self) -> VecDeque<Waiter<W>> {
        self.available = false;
        self.forget()
    }

    /// A new limit, from a reload. Calls that run above it end as they would.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Calls that run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// Requests that took an offer made ahead and wait for a call to end.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether every slot is taken or kept.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.promised() >= self.limit
    }

    /// Slots that are taken or promised.
    fn promised(&self) -> usize {
        self.running + self.waiting.len() + self.offered.len()
    }

    fn closed(&self) -> Option<Reason> {
        if self.draining {
            Some(Reason::Draining)
        } else if self.available {
            None
        } else {
            Some(Reason::Unavailable)
        }
    }

    fn remember(&mut self, reply: &Subject) {
        if self.refused.len() >= self.refused_max || self.remembered.contains(reply) {
            return;
        }
        self.remembered.insert(reply.clone());
        self.refused.push_back(reply.clone());
    }

    fn forget(&mut self) -> VecDeque<Waiter<W>> {
        self.refused.clear();
        self.remembered.clear();
        std::mem::take(&mut self.waiting)
    }

    fn offer(&mut self, now: Instant) -> Option<Offer> {
        if self.promised() >= self.limit + self.ahead || self.closed().is_some() {
            return None;
        }
        let to = self.refused.pop_front()?;
        self.remembered.remove(&to);
        self.next_offer += 1;
        let id = OfferId(self.next_offer);
        self.offered.insert(id, now + self.offer_timeout);
        Some(Offer { id, to })
    }
}

#[cfg(test)]
mod tests;
