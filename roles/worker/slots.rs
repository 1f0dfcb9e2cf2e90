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
    /// It was offered a slot that is about to free: keep it, `finish` says when to run it.
    Wait,
    /// It was not executed.
    Refuse(Reason),
}

/// What follows the end of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Next {
    /// The oldest request that waits here has the slot now: run it, and call `finish` when it is done.
    pub starts_waiting: bool,
    /// A slot to offer.
    pub offer: Option<Offer>,
}

/// The slots of one queue.
#[derive(Debug)]
pub struct Slots {
    limit: usize,
    running: usize,
    /// Requests that took an offer made ahead and wait for a call to end.
    waiting: usize,
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

impl Slots {
    /// Free slots.
    #[must_use]
    pub fn new(limit: usize, refused_max: usize, offer_timeout: Duration) -> Self {
        Self {
            limit,
            running: 0,
            waiting: 0,
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
    pub fn accept(&mut self, id: OfferId, reply: Option<&Subject>) -> Verdict {
        if self.offered.remove(&id).is_none() {
            return self.arrive(reply);
        }
        if let Some(reason) = self.closed() {
            return Verdict::Refuse(reason);
        }
        if self.running < self.limit {
            self.running += 1;
            Verdict::Take
        } else {
            self.waiting += 1;
            Verdict::Wait
        }
    }

    /// A call has ended.
    pub fn finish(&mut self, now: Instant) -> Next {
        debug_assert!(self.running > 0, "every finish has its take");
        self.running = self.running.saturating_sub(1);
        let starts_waiting = self.waiting > 0 && self.running < self.limit;
        if starts_waiting {
            self.waiting -= 1;
            self.running += 1;
        }
        Next { starts_waiting, offer: self.offer(now) }
    }

    /// One more offer, where one may be made ahead.
    pub fn offer_ahead(&mut self, now: Instant) -> Option<Offer> {
        self.offer(now)
    }

    /// How many slots may be offered before they are free. Worth it where calls are short beside the way of
    /// an offer: a slot would be idle meanwhile. What waits here is bound to this worker, so not where calls
    /// are long.
    pub fn set_ahead(&mut self, ahead: usize) {
        self.ahead = ahead;
    }

    /// An offered slot is not needed.
    pub fn decline(&mut self, id: OfferId, now: Instant) -> Option<Offer> {
        self.offered.remove(&id)?;
        self.offer(now)
    }

    /// Offers that were not answered in time go to the next.
    pub fn lapse(&mut self, now: Instant) -> (usize, Vec<Offer>) {
        let before = self.offered.len();
        self.offered.retain(|_, until| *until > now);
        let lapsed = before - self.offered.len();
        (lapsed, std::iter::from_fn(|| self.offer(now)).take(lapsed).collect())
    }

    /// When the next offer lapses.
    #[must_use]
    pub fn next_lapse(&self) -> Option<Instant> {
        // Numbers and times grow together: the first is the oldest.
        self.offered.first_key_value().map(|(_, until)| *until)
    }

    /// No message is taken any more, and none that waits here is started; whoever waits for an offer learns it
    /// from the silence.
    pub fn drain(&mut self) {
        self.draining = true;
        self.forget();
    }

    /// Whether the backend is there. None that waits here is started when it is not.
    pub fn set_available(&mut self, available: bool) {
        self.available = available;
        if !available {
            self.forget();
        }
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
        self.waiting
    }

    /// Whether every slot is taken or kept.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.promised() >= self.limit
    }

    /// Slots that are taken or promised.
    fn promised(&self) -> usize {
        self.running + self.waiting + self.offered.len()
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

    fn forget(&mut self) {
        self.refused.clear();
        self.remembered.clear();
        self.waiting = 0;
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
mod tests {
    use super::*;

    const OFFER_TIMEOUT: Duration = Duration::from_millis(250);

    fn subject(n: u32) -> Subject {
        Subject::new(&format!("inbox.{n}")).unwrap()
    }

    fn slots(limit: usize) -> Slots {
        Slots::new(limit, 2, OFFER_TIMEOUT)
    }

    #[test]
    fn the_limit_is_exact_and_the_refused_are_offered_slots_in_order() {
        let now = Instant::now();
        let mut slots = slots(1);
        assert_eq!(slots.arrive(Some(&subject(1))), Verdict::Take);
        for n in 2..=4 {
            assert_eq!(slots.arrive(Some(&subject(n))), Verdict::Refuse(Reason::Busy));
        }
        let offer = slots.finish(now).offer.expect("somebody was refused");
        assert_eq!(offer.to, subject(2));
        assert_eq!(
            slots.arrive(Some(&subject(5))),
            Verdict::Refuse(Reason::Busy),
            "a kept slot is taken"
        );
        assert_eq!(slots.accept(offer.id, None), Verdict::Take);
        assert_eq!(slots.running(), 1);
        assert_eq!(slots.finish(now).offer.map(|offer| offer.to), Some(subject(3)));
    }

    #[test]
    fn the_memory_of_the_refused_is_bounded_and_has_nobody_twice() {
        let now = Instant::now();
        let mut slots = slots(1);
        assert_eq!(slots.arrive(None), Verdict::Take);
        for n in [1, 1, 2, 3] {
            assert_eq!(slots.arrive(Some(&subject(n))), Verdict::Refuse(Reason::Busy));
        }
        let first = slots.finish(now).offer.unwrap();
        assert_eq!(first.to, subject(1));
        let second = slots.decline(first.id, now).unwrap();
        assert_eq!(second.to, subject(2));
        assert_eq!(slots.decline(second.id, now), None, "the third found no room");
    }

    #[test]
    fn an_offer_that_lapsed_frees_its_slot_and_cannot_be_accepted_beyond_the_limit() {
        let now = Instant::now();
        let mut slots = slots(1);
        assert_eq!(slots.arrive(None), Verdict::Take);
        assert_eq!(slots.arrive(Some(&subject(1))), Verdict::Refuse(Reason::Busy));
        let offer = slots.finish(now).offer.unwrap();
        assert_eq!(slots.next_lapse(), Some(now + OFFER_TIMEOUT));
        assert_eq!(slots.lapse(now), (0, vec![]));
        assert_eq!(slots.lapse(now + OFFER_TIMEOUT), (1, vec![]));
        assert_eq!(slots.arrive(None), Verdict::Take);
        assert_eq!(slots.accept(offer.id, Some(&subject(1))), Verdict::Refuse(Reason::Busy));
        assert_eq!(slots.running(), 1);
    }

    #[test]
    fn a_slot_offered_ahead_waits_for_a_call_to_end_and_the_limit_stays_exact() {
        let now = Instant::now();
        let mut slots = slots(1);
        slots.set_ahead(1);
        assert_eq!(slots.arrive(None), Verdict::Take);
        for n in 1..=2 {
            assert_eq!(slots.arrive(Some(&subject(n))), Verdict::Refuse(Reason::Busy));
        }
        let first = slots.finish(now).offer.unwrap();
        assert_eq!(slots.accept(first.id, None), Verdict::Take);
        let ahead = slots.offer_ahead(now).expect("one more than there are slots");
        assert_eq!(ahead.to, subject(2));
        assert_eq!(slots.offer_ahead(now), None);
        assert_eq!(slots.accept(ahead.id, None), Verdict::Wait);
        assert_eq!(slots.running(), 1);
        assert_eq!(slots.arrive(None), Verdict::Refuse(Reason::Busy));
        assert!(slots.finish(now).starts_waiting);
        assert_eq!(slots.running(), 1);
        assert_eq!(slots.finish(now), Next::default());
        assert_eq!(slots.running(), 0);
    }

    #[test]
    fn what_waits_for_a_slot_is_not_started_while_draining() {
        let now = Instant::now();
        let mut slots = slots(1);
        slots.set_ahead(1);
        assert_eq!(slots.arrive(None), Verdict::Take);
        assert_eq!(slots.arrive(Some(&subject(1))), Verdict::Refuse(Reason::Busy));
        let ahead = slots.offer_ahead(now).expect("one more than there are slots");
        assert_eq!(slots.accept(ahead.id, None), Verdict::Wait);
        slots.drain();
        assert_eq!(slots.finish(now), Next::default());
        assert_eq!(slots.running(), 0);
    }

    #[test]
    fn draining_and_a_lost_backend_refuse_everything() {
        let now = Instant::now();
        let mut slots = slots(1);
        assert_eq!(slots.arrive(None), Verdict::Take);
        assert_eq!(slots.arrive(Some(&subject(1))), Verdict::Refuse(Reason::Busy));
        slots.set_available(false);
        assert_eq!(slots.arrive(None), Verdict::Refuse(Reason::Unavailable));
        assert_eq!(slots.finish(now), Next::default());
        slots.set_available(true);
        slots.drain();
        assert_eq!(slots.arrive(None), Verdict::Refuse(Reason::Draining));
    }
}
