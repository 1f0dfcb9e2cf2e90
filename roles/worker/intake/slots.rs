//! A queue's slots as a plain state machine: never more calls than the limit, and a freed slot goes to
//! the caller that was refused first.
//!
//! Beyond the slots it takes a backlog: as many messages as keep the slots busy for one round trip (`pace.rs`).
//!
//! No I/O and no clock in here, so that the simulation runs the same code as the worker (DESIGN §6).

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::envelope::Reason;
use crate::message::Subject;

use crate::roles::worker::intake::latency::Pace;

/// Bytes of the messages beyond the slots.
pub const BACKLOG_BYTES_MAX: usize = 8 << 20;
/// Offers that lapsed and whose answer, when it comes late, still tells the round trip.
const LAPSED_MAX: usize = 64;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<W> {
    /// It has a slot: run it, and call `finish` when it is done.
    Take(W),
    /// It asks for consent first: call `granted` or `not_granted` when that is known.
    Claim(W),
    /// It waits for a slot, and `finish` hands it out.
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

/// A request that waits for a call to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter<W> {
    /// Since when.
    pub since: Instant,
    /// Who sent it.
    pub reply: Option<Subject>,
    /// Bytes that it takes.
    pub bytes: usize,
    /// Whether it may run only with consent.
    pub claims: bool,
    /// The request.
    pub work: W,
}

/// The slots of one queue, and the requests (`W`) that wait for one of them.
#[derive(Debug)]
pub struct Slots<W> {
    /// How long calls and round trips take.
    pub pace: Pace,
    limit: usize,
    running: usize,
    /// Requests whose consent is on its way.
    claiming: usize,
    /// Oldest first, each at most for the pace's patience.
    waiting: VecDeque<Waiter<W>>,
    /// Bytes of those that claim or wait.
    held_bytes: usize,
    draining: bool,
    available: bool,
    /// When a call ended last.
    finished: Option<Instant>,
    /// Slots kept for those they were offered to.
    offered: BTreeMap<OfferId, Kept>,
    /// When offers were made that nobody answered in time.
    lapsed: VecDeque<(OfferId, Instant)>,
    next_offer: u64,
    /// Whom to offer a slot to, oldest first, each at most once.
    refused: VecDeque<Subject>,
    remembered: HashSet<Subject>,
    refused_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    since: Instant,
    until: Instant,
}

impl<W> Slots<W> {
    /// Free slots.
    #[must_use]
    pub fn new(limit: usize, refused_max: usize, offer_timeout: Duration) -> Self {
        Self {
            pace: Pace::new(offer_timeout),
            limit,
            running: 0,
            claiming: 0,
            waiting: VecDeque::new(),
            held_bytes: 0,
            draining: false,
            available: true,
            finished: None,
            offered: BTreeMap::new(),
            lapsed: VecDeque::new(),
            next_offer: 0,
            refused: VecDeque::new(),
            remembered: HashSet::new(),
            refused_max,
        }
    }

    /// A message of the group.
    pub fn arrive(&mut self, waiter: Waiter<W>) -> Verdict<W> {
        if let Some(reason) = self.closed() {
            return Verdict::Refuse(reason, waiter.work);
        }
        if !self.has_room(waiter.bytes) {
            if let Some(reply) = &waiter.reply {
                self.remember(reply);
            }
            return Verdict::Refuse(Reason::Busy, waiter.work);
        }
        self.pace.record_taken(waiter.claims);
        if waiter.claims {
            self.claiming += 1;
            self.held_bytes += waiter.bytes;
            return Verdict::Claim(waiter.work);
        }
        self.run_or_wait(waiter)
    }

    /// A message to an offered slot. One that lapsed is no offer any more: it takes any free slot.
    pub fn accept(&mut self, id: OfferId, waiter: Waiter<W>) -> Verdict<W> {
        self.answered(id, waiter.since);
        self.arrive(waiter)
    }

    /// A request has its consent.
    pub fn granted(&mut self, waiter: Waiter<W>) -> Verdict<W> {
        self.unclaim(waiter.bytes);
        match self.closed() {
            Some(reason) => Verdict::Refuse(reason, waiter.work),
            None => self.run_or_wait(waiter),
        }
    }

    /// A request of so many bytes gets no consent: others may have its place.
    pub fn not_granted(&mut self, bytes: usize, now: Instant) -> Option<Offer> {
        self.unclaim(bytes);
        self.offer(now)
    }

    /// A call has ended. `more` is its reply subject when others waited where it came from: they may have asked
    /// workers that stay busy and know of nobody's free slot, so they are offered this one when nobody was refused here.
    pub fn finish(&mut self, now: Instant, more: Option<Subject>) -> Next<W> {
        debug_assert!(self.running > 0, "every finish has its take");
        self.running = self.running.saturating_sub(1);
        self.finished = Some(now);
        let starts = self.start_next();
        if let Some(more) = more.filter(|_| self.refused.is_empty() && self.closed().is_none()) {
            self.remember(&more);
        }
        Next { starts, offer: self.offer(now) }
    }

    /// What waited here longest has a slot now, when one is free: run it, and call `finish` when it is done.
    pub fn start_next(&mut self) -> Option<Waiter<W>> {
        let waiter = if self.running < self.limit { self.waiting.pop_front() } else { None }?;
        self.running += 1;
        self.held_bytes = self.held_bytes.saturating_sub(waiter.bytes);
        Some(waiter)
    }

    /// Nobody waits for the answer to this request any more: it need not wait here.
    pub fn cancel(&mut self, reply: &Subject) -> Option<Waiter<W>> {
        let place = self.waiting.iter().position(|waiter| waiter.reply.as_ref() == Some(reply))?;
        let waiter = self.waiting.remove(place)?;
        self.held_bytes = self.held_bytes.saturating_sub(waiter.bytes);
        Some(waiter)
    }

    /// One more offer, where there is room.
    pub fn offer_more(&mut self, now: Instant) -> Option<Offer> {
        self.offer(now)
    }

    /// An offered slot is not needed.
    pub fn decline(&mut self, id: OfferId, now: Instant) -> Option<Offer> {
        if self.answered(id, now) { self.offer(now) } else { None }
    }

    /// Offers that were not answered in time go to the next. What waits too long for a call to end is let go, and is
    /// the first to be offered another slot: here it is bound to a call that takes long, and other workers may have
    /// free slots meanwhile.
    pub fn lapse(&mut self, now: Instant) -> Lapsed<W> {
        let mut count = 0;
        while let Some(entry) = self.offered.first_entry()
            && entry.get().until <= now
        {
            let (id, kept) = entry.remove_entry();
            if self.lapsed.len() >= LAPSED_MAX {
                self.lapsed.pop_front();
            }
            self.lapsed.push_back((id, kept.since));
            count += 1;
        }
        let patience = self.pace.patience();
        let late = self.waiting.partition_point(|waiter| waiter.since + patience <= now);
        let turned_away: Vec<_> = self.waiting.drain(..late).collect();
        if let Some(oldest) = turned_away.first() {
            // The calls that it waited for count when they end: too late to learn it.
            if self.finished.is_some_and(|finished| finished > oldest.since) {
                self.pace.slow_down();
            } else {
                self.pace.set_call_at_least(now.saturating_duration_since(oldest.since));
            }
        }
        let offers = std::iter::from_fn(|| self.offer(now)).take(count).collect();
        for waiter in turned_away.iter().rev() {
            self.held_bytes = self.held_bytes.saturating_sub(waiter.bytes);
            if let Some(reply) = &waiter.reply
                && self.remembered.insert(reply.clone())
            {
                self.refused.push_front(reply.clone());
            }
        }
        while self.refused.len() > self.refused_max
            && let Some(youngest) = self.refused.pop_back()
        {
            self.remembered.remove(&youngest);
        }
        Lapsed { count, offers, turned_away }
    }

    /// When to look again for what has lapsed.
    #[must_use]
    pub fn next_lapse(&self) -> Option<Instant> {
        // Numbers and times grow together: the first is the oldest.
        let offer = self.offered.first_key_value().map(|(_, kept)| kept.until);
        let waiter = self.waiting.front().map(|waiter| waiter.since + self.pace.patience());
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

    /// A new limit, from a reload: `start_next` until nothing starts. Calls that run above it end as they would.
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

    /// Requests that may run and wait for a call to end.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests that were taken, or promised a place.
    #[must_use]
    pub fn promised(&self) -> usize {
        self.running + self.claiming + self.waiting.len() + self.offered.len()
    }

    /// Whether messages are taken at all.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.closed().is_none()
    }

    /// Whether every slot is taken or kept.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.promised() >= self.limit
    }

    fn run_or_wait(&mut self, waiter: Waiter<W>) -> Verdict<W> {
        if self.running < self.limit {
            self.running += 1;
            return Verdict::Take(waiter.work);
        }
        self.held_bytes += waiter.bytes;
        self.waiting.push_back(waiter);
        Verdict::Waits
    }

    fn unclaim(&mut self, bytes: usize) {
        debug_assert!(self.claiming > 0, "every consent has its claim");
        self.claiming = self.claiming.saturating_sub(1);
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
    }

    /// An offer has its answer, in time or not; whether a slot was still kept for it.
    fn answered(&mut self, id: OfferId, now: Instant) -> bool {
        let kept = self.offered.remove(&id);
        let since = kept.map(|kept| kept.since).or_else(|| {
            let place = self.lapsed.iter().position(|(lapsed, _)| *lapsed == id)?;
            self.lapsed.remove(place).map(|(_, since)| since)
        });
        if let Some(since) = since {
            self.pace.record_answer(now.saturating_duration_since(since));
        }
        kept.is_some()
    }

    fn has_room(&self, bytes: usize) -> bool {
        let promised = self.promised();
        promised < self.limit
            || (promised < self.limit + self.pace.backlog(self.limit)
                && self.held_bytes + bytes <= BACKLOG_BYTES_MAX)
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
        let waiting = std::mem::take(&mut self.waiting);
        for waiter in &waiting {
            self.held_bytes = self.held_bytes.saturating_sub(waiter.bytes);
        }
        waiting
    }

    fn offer(&mut self, now: Instant) -> Option<Offer> {
        if self.refused.is_empty() || !self.has_room(0) || self.closed().is_some() {
            return None;
        }
        let to = self.refused.pop_front()?;
        self.remembered.remove(&to);
        self.next_offer += 1;
        let id = OfferId(self.next_offer);
        self.offered.insert(id, Kept { since: now, until: now + self.pace.offer_timeout() });
        Some(Offer { id, to })
    }
}

#[cfg(test)]
mod tests;
