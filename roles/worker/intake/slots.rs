//! The slots of a queue, as a state machine without I/O. It never runs more calls than the limit, and offers a freed
//! slot to a caller that was refused. Gateways take turns. The callers of one gateway get offers in order of refusal.
//!
//! A backlog of accepted requests keeps the slots busy for one round trip (`latency.rs`).
//!
//! The time is passed in, so that the simulation in `tests/` can run this code.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::envelope::RefusalReason;
use crate::message::Subject;

use super::latency::QueueLatency;

mod offers;

pub use offers::{Offer, OfferId};

use offers::Offers;

/// Limit on the total size, in bytes, of the requests that are waiting for consent or for a slot.
pub const BACKLOG_BYTES_MAX: usize = 8 << 20;

/// The decision about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotDecision<W> {
    /// Run the request, which has a slot. Call `finish` when its call has ended.
    Run(W),
    /// Ask the gateway for consent, then call `consent_granted` or `consent_denied`.
    Claim(W),
    /// Do nothing. The request is in the backlog, and `finish` returns it when it has a slot.
    Wait,
    /// Refuse the request. It was not executed.
    Refuse(RefusalReason, W),
}

/// The actions to take after a call has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreedSlot<W> {
    /// The request that was the oldest in the backlog and now has the slot. Run it, then call `finish`.
    pub start: Option<SlotRequest<W>>,
    /// An offer to send.
    pub offer: Option<Offer>,
}

/// The actions to take after a call to `expire`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiredWaits<W> {
    /// The number of offers that were not answered in time.
    pub offers_expired: usize,
    /// New offers to send, because the expired offers have freed their slots.
    pub offers: Vec<Offer>,
    /// Requests to refuse because they have waited in the backlog for too long.
    pub evicted: Vec<SlotRequest<W>>,
}

/// A request for a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRequest<W> {
    /// The time at which the request arrived or was granted.
    pub since: Instant,
    /// The reply subject of the request.
    pub reply: Option<Subject>,
    /// The size of the request. It counts against `BACKLOG_BYTES_MAX`.
    pub bytes: usize,
    /// Whether the request may run only with its gateway's consent.
    pub needs_consent: bool,
    /// The request itself.
    pub work: W,
}

/// The slots of one queue, and the requests (`W`) that are waiting for one.
#[derive(Debug)]
pub struct Slots<W> {
    /// The measured durations of calls and round trips.
    pub latency: QueueLatency,
    limit: usize,
    running: usize,
    /// The number of requests that are waiting for their gateway's consent.
    claiming: usize,
    /// The requests that are waiting for a slot, with the oldest one first. Each request waits for at most
    /// `backlog_wait_max`.
    backlog: VecDeque<SlotRequest<W>>,
    /// The total size of all requests that are waiting for consent or for a slot.
    backlog_bytes: usize,
    is_draining: bool,
    is_available: bool,
    is_paused: bool,
    /// The time at which the last call ended.
    last_finish: Option<Instant>,
    offers: Offers,
}

impl<W> Slots<W> {
    /// Creates `limit` free slots.
    #[must_use]
    pub fn new(limit: usize, remembered_refusals_max: usize, offer_timeout: Duration) -> Self {
        Self {
            latency: QueueLatency::new(offer_timeout),
            limit,
            running: 0,
            claiming: 0,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            is_draining: false,
            is_available: true,
            is_paused: false,
            last_finish: None,
            offers: Offers::new(remembered_refusals_max),
        }
    }

    /// Decides whether to accept a request from the queue group.
    pub fn request_slot(&mut self, request: SlotRequest<W>) -> SlotDecision<W> {
        if let Some(reason) = self.refusal_reason() {
            return SlotDecision::Refuse(reason, request.work);
        }
        if !self.has_room(request.bytes, request.needs_consent) {
            if let Some(reply) = &request.reply {
                self.offers.remember(reply);
            }
            return SlotDecision::Refuse(RefusalReason::Busy, request.work);
        }
        self.latency.record_accepted(request.needs_consent);
        if request.needs_consent {
            self.claiming += 1;
            self.backlog_bytes += request.bytes;
            return SlotDecision::Claim(request.work);
        }
        self.run_or_wait(request)
    }

    /// Decides whether to accept a request for an offered slot. If the offer has expired, the
    /// request takes any free slot.
    pub fn accept(&mut self, id: OfferId, request: SlotRequest<W>) -> SlotDecision<W> {
        self.offer_answered(id, request.since);
        self.request_slot(request)
    }

    /// Decides whether a request whose gateway has consented runs, waits or is refused.
    pub fn consent_granted(&mut self, request: SlotRequest<W>) -> SlotDecision<W> {
        self.end_claim(request.bytes);
        match self.refusal_reason() {
            Some(reason) => SlotDecision::Refuse(reason, request.work),
            None => self.run_or_wait(request),
        }
    }

    /// Removes a request of `bytes` bytes whose claim was not granted. Returns an offer to send, if a
    /// refused caller can now get a slot.
    pub fn consent_denied(&mut self, bytes: usize, now: Instant) -> Option<Offer> {
        self.end_claim(bytes);
        self.offer(now)
    }

    /// Frees the slot of a call that has ended.
    ///
    /// `waiting_gateway` is the call's reply subject if further requests are waiting at its
    /// gateway. They may have been refused only by other workers, which are still busy and do not
    /// know that this slot is free. If this worker has refused no caller, the slot is therefore offered to that
    /// gateway.
    pub fn finish(&mut self, now: Instant, waiting_gateway: Option<Subject>) -> FreedSlot<W> {
        debug_assert!(self.running > 0, "finish without a running call");
        self.running = self.running.saturating_sub(1);
        self.last_finish = Some(now);
        let start = self.start_next();
        if let Some(waiting_gateway) =
            waiting_gateway.filter(|_| !self.offers.has_refused() && self.is_open())
        {
            self.offers.remember(&waiting_gateway);
        }
        FreedSlot { start, offer: self.offer(now) }
    }

    /// Returns the oldest request in the backlog if a slot is free. Run it, then call `finish`.
    pub fn start_next(&mut self) -> Option<SlotRequest<W>> {
        let request = if self.running < self.limit { self.backlog.pop_front() } else { None }?;
        self.running += 1;
        self.backlog_bytes = self.backlog_bytes.saturating_sub(request.bytes);
        Some(request)
    }

    /// Removes a request from the backlog because its client is no longer waiting.
    pub fn cancel(&mut self, reply: &Subject) -> Option<SlotRequest<W>> {
        let index = self.backlog.iter().position(|one| one.reply.as_ref() == Some(reply))?;
        let request = self.backlog.remove(index)?;
        self.backlog_bytes = self.backlog_bytes.saturating_sub(request.bytes);
        Some(request)
    }

    /// Offers free capacity, if there is any, to the next caller that was refused.
    pub fn offer(&mut self, now: Instant) -> Option<Offer> {
        if !self.offers.has_refused() || !self.has_room(0, false) || !self.is_open() {
            return None;
        }
        self.offers.make(now, self.latency.offer_timeout())
    }

    /// Frees an offered slot that the gateway does not need. Returns an offer for the next caller.
    pub fn decline(&mut self, id: OfferId, now: Instant) -> Option<Offer> {
        if self.offer_answered(id, now) { self.offer(now) } else { None }
    }

    /// Ends offers that were not answered in time, and evicts requests that have waited too long.
    ///
    /// Without the eviction, these requests would wait here until a long call ends, while other workers may have free
    /// slots. The callers of evicted requests are the first to be offered a slot.
    pub fn expire(&mut self, now: Instant) -> ExpiredWaits<W> {
        let offers_expired = self.offers.expire(now);
        let wait_max = self.latency.backlog_wait_max();
        let late = self.backlog.partition_point(|request| request.since + wait_max <= now);
        let evicted: Vec<_> = self.backlog.drain(..late).collect();
        if let Some(oldest) = evicted.first() {
            // Call times are recorded only when calls end, which is too late to shrink the backlog.
            if self.last_finish.is_some_and(|finished| finished > oldest.since) {
                self.latency.double_call_time();
            } else {
                self.latency.raise_call_time(now.saturating_duration_since(oldest.since));
            }
        }
        let offers = std::iter::from_fn(|| self.offer(now)).take(offers_expired).collect();
        for request in &evicted {
            self.backlog_bytes = self.backlog_bytes.saturating_sub(request.bytes);
        }
        self.offers.remember_first(evicted.iter().filter_map(|request| request.reply.as_ref()));
        ExpiredWaits { offers_expired, offers, evicted }
    }

    /// Returns the time at which to call `expire` next.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        let oldest = self.backlog.front();
        let eviction = oldest.map(|request| request.since + self.latency.backlog_wait_max());
        self.offers.next_expiry().into_iter().chain(eviction).min()
    }

    /// Stops accepting requests for good. Returns the backlog, which must be refused.
    pub fn drain(&mut self) -> VecDeque<SlotRequest<W>> {
        self.is_draining = true;
        self.clear()
    }

    /// Accepts requests again, because the database is available.
    pub fn set_available(&mut self) {
        self.is_available = true;
    }

    /// Stops accepting requests until `set_available`. Returns the backlog, which must be refused.
    pub fn set_unavailable(&mut self) -> VecDeque<SlotRequest<W>> {
        self.is_available = false;
        self.clear()
    }

    /// Stops accepting requests until `resume`, because an operator has paused the queue. Returns the backlog, which must be
    /// refused.
    pub fn pause(&mut self) -> VecDeque<SlotRequest<W>> {
        self.is_paused = true;
        self.clear()
    }

    /// Accepts requests again after `pause`.
    pub fn resume(&mut self) {
        self.is_paused = false;
    }

    /// Returns whether the queue is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Changes the limit. Call `start_next` afterwards until it returns `None`. Excess calls
    /// continue.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Changes the number of refused callers that are remembered, and the minimum duration of an offer. The new values
    /// apply to later refusals and offers.
    pub fn set_offer_limits(&mut self, remembered_refusals_max: usize, offer_timeout: Duration) {
        self.offers.set_remembered_max(remembered_refusals_max);
        self.latency.set_offer_timeout_min(offer_timeout);
    }

    /// Returns the number of slots.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Returns the number of running calls.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// Returns the length of the backlog.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.backlog.len()
    }

    /// Returns the number of requests that are running or waiting for consent or for a slot, plus the
    /// number of open offers.
    #[must_use]
    pub fn occupied(&self) -> usize {
        self.running + self.claiming + self.backlog.len() + self.offers.open_count()
    }

    /// Returns the number of slots that are reserved for open offers.
    #[must_use]
    pub fn offered(&self) -> usize {
        self.offers.open_count()
    }

    /// Returns whether a slot is reserved for this offer.
    #[must_use]
    pub fn is_offer_open(&self, id: OfferId) -> bool {
        self.offers.is_open(id)
    }

    /// Returns whether requests are accepted.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.refusal_reason().is_none()
    }

    /// Returns whether every slot is in use, reserved, or needed for an accepted request.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.occupied() >= self.limit
    }

    fn run_or_wait(&mut self, request: SlotRequest<W>) -> SlotDecision<W> {
        if self.running < self.limit {
            self.running += 1;
            return SlotDecision::Run(request.work);
        }
        self.backlog_bytes += request.bytes;
        self.backlog.push_back(request);
        SlotDecision::Wait
    }

    fn end_claim(&mut self, bytes: usize) {
        debug_assert!(self.claiming > 0, "consent without a claim");
        self.claiming = self.claiming.saturating_sub(1);
        self.backlog_bytes = self.backlog_bytes.saturating_sub(bytes);
    }

    /// Records the answer to an offer. Returns whether the slot was still reserved.
    fn offer_answered(&mut self, id: OfferId, now: Instant) -> bool {
        let answered = self.offers.answer(id);
        if let Some(offer) = answered {
            self.latency.record_round_trip(now.saturating_duration_since(offer.made_at));
        }
        answered.is_some_and(|offer| offer.is_open)
    }

    /// Returns whether another request of `bytes` bytes fits into the slots or the backlog. A request
    /// that runs immediately does not count against `BACKLOG_BYTES_MAX`. If nothing else is waiting, a
    /// request of any size fits.
    fn has_room(&self, bytes: usize, needs_consent: bool) -> bool {
        let occupied = self.occupied();
        let is_small = self.backlog_bytes == 0 || self.backlog_bytes + bytes <= BACKLOG_BYTES_MAX;
        if occupied < self.limit {
            return is_small || !needs_consent;
        }
        is_small && occupied < self.limit + self.latency.backlog_max(self.limit)
    }

    /// Returns the reason why no request is accepted, or `None` if requests are accepted.
    fn refusal_reason(&self) -> Option<RefusalReason> {
        if self.is_draining {
            Some(RefusalReason::Draining)
        } else if !self.is_available {
            Some(RefusalReason::Unavailable)
        } else if self.is_paused {
            Some(RefusalReason::Paused)
        } else {
            None
        }
    }

    fn clear(&mut self) -> VecDeque<SlotRequest<W>> {
        self.offers.forget_refused();
        let backlog = std::mem::take(&mut self.backlog);
        for request in &backlog {
            self.backlog_bytes = self.backlog_bytes.saturating_sub(request.bytes);
        }
        backlog
    }
}

#[cfg(test)]
mod tests;
