//! Starts queued requests when slots become free, and refuses requests that have waited too long.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::envelope::RefusalReason;
use crate::message::Subject;
use crate::outcome::Outcome;
use crate::roles::worker::execution::call_time::CallTime;
use crate::roles::worker::execution::slot::{GrantedJob, Slot, SlotAssignment, SlotQueue};
use crate::roles::worker::intake::slots::{FreedSlot, Offer, SlotDecision, SlotRequest, Slots};
use crate::telemetry::context;

use super::admission::AdmittedRequest;
use super::{Queue, QueueLimit};

/// Work that is waiting for a slot.
#[derive(Debug)]
pub enum QueuedWork {
    /// A request whose job has not been started.
    Request(AdmittedRequest),
    /// A job whose gateway has consented.
    Granted {
        /// The channel on which the job receives its slot, or the reason why it does not get one.
        assign: oneshot::Sender<Result<Slot, RefusalReason>>,
        /// The deadline of the job.
        deadline: Instant,
        /// The measured duration of calls to the job's endpoint.
        call_time: Arc<CallTime>,
    },
}

/// The reason why queued work was not started.
enum NotStarted {
    /// The request must be refused, with a reply to its sender.
    Refused(RefusalReason, Option<Subject>),
    /// The job was notified or has ended, and nothing remains to be done.
    Settled,
}

impl Queue {
    /// Sets the configured number of slots. It applies unless an operator has set a different number.
    pub fn set_configured_limit(self: &Arc<Self>, configured: usize) {
        self.change_limit(|limit| limit.configured = configured);
    }

    /// Sets the number of slots until the worker stops. `None` restores the configured number. Excess calls continue.
    pub fn set_operator_limit(self: &Arc<Self>, by_operator: Option<usize>) {
        self.change_limit(|limit| limit.by_operator = by_operator);
    }

    fn change_limit(self: &Arc<Self>, change: impl FnOnce(&mut QueueLimit)) {
        // The lock is held during the update, so that concurrent changes take effect in order.
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut limit);
        self.slots.update(|slots, _| slots.set_limit(limit.effective()));
        drop(limit);
        while let Some(start) = self.slots.update(|slots, _| slots.start_next()) {
            self.use_slot(FreedSlot { start: Some(start), offer: None }, None);
        }
    }

    /// Waits until the backlog grows. This method is cancel safe.
    pub async fn backlog_grew(&self) {
        self.backlog_grew.notified().await;
    }

    /// Returns the time at which to call `expire` next.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.slots.read(Slots::next_expiry)
    }

    /// Expires offers and queued requests. Returns the time at which to call `expire` next.
    pub fn expire(&self) -> Option<Instant> {
        let (expired, next) =
            self.slots.update(|slots, now| (slots.expire(now), slots.next_expiry()));
        for _ in 0..expired.offers_expired {
            self.metrics.count_offer("lapsed");
        }
        self.send_offers(expired.offers);
        self.evict(RefusalReason::Busy, expired.evicted);
        next
    }

    /// Cancels a request or job in the backlog. Returns whether the backlog contained it.
    pub fn cancel(&self, reply: &Subject) -> bool {
        let cancelled = self.slots.update(|slots, _| slots.cancel(reply));
        if let Some(SlotRequest { work: QueuedWork::Request(request), .. }) = &cancelled {
            let (queue, request_id) = (&self.subjects.name, &*request.ids.request_id);
            tracing::debug!(%queue, request_id, "a request was cancelled before it was started");
        }
        cancelled.is_some()
    }

    /// Refuses the backlog and all later requests, because the worker is stopping.
    pub fn drain(&self) {
        let backlog = self.slots.update(|slots, _| slots.drain());
        self.evict(RefusalReason::Draining, backlog);
    }

    /// Accepts requests from now on, because the database is available.
    pub fn set_available(&self) {
        self.slots.update(|slots, _| slots.set_available());
    }

    /// Refuses the backlog and all later requests, because the database is not available.
    pub fn set_unavailable(&self) {
        let backlog = self.slots.update(|slots, _| slots.set_unavailable());
        self.evict(RefusalReason::Unavailable, backlog);
    }

    /// Refuses the backlog and all later requests until `resume`. Running calls continue. A reload does not end the pause.
    pub fn pause(&self) {
        let backlog = self.slots.update(|slots, _| slots.pause());
        self.metrics.set_paused(true);
        self.evict(RefusalReason::Paused, backlog);
    }

    /// Accepts requests again after `pause`.
    pub fn resume(&self) {
        self.slots.update(|slots, _| slots.resume());
        self.metrics.set_paused(false);
    }

    fn evict(
        &self,
        reason: RefusalReason,
        requests: impl IntoIterator<Item = SlotRequest<QueuedWork>>,
    ) {
        for request in requests {
            match request.work {
                QueuedWork::Request(admitted) => self.refuse(reason, admitted.accepted.reply),
                // Sending fails if the job has ended, which is not an error.
                QueuedWork::Granted { assign, .. } => drop(assign.send(Err(reason))),
            }
        }
    }

    /// Starts the work that a freed slot was assigned to, and sends offers.
    fn use_slot(self: &Arc<Self>, mut freed: FreedSlot<QueuedWork>, ahead: Option<Offer>) {
        let mut offers: Vec<_> = freed.offer.take().into_iter().chain(ahead).collect();
        while let Some(request) = freed.start.take() {
            match self.start_queued(request) {
                Ok(()) => break,
                Err(NotStarted::Refused(reason, reply)) => self.refuse(reason, reply),
                Err(NotStarted::Settled) => {}
            }
            freed = self.slots.update(|slots, now| slots.finish(now, None));
            offers.extend(freed.offer.take());
        }
        self.send_offers(offers);
    }

    /// Starts queued work, or refuses it if too little time is left for a call to its endpoint.
    fn start_queued(self: &Arc<Self>, request: SlotRequest<QueuedWork>) -> Result<(), NotStarted> {
        match request.work {
            QueuedWork::Granted { assign, deadline, call_time } => {
                let left = deadline.saturating_duration_since(Instant::now());
                if !call_time.fits_within(left) {
                    drop(assign.send(Err(RefusalReason::Busy)));
                    return Err(NotStarted::Settled);
                }
                let slot = Slot::new(Arc::clone(self) as Arc<dyn SlotQueue>, call_time);
                assign.send(Ok(slot)).map_err(|unreceived| {
                    if let Ok(slot) = unreceived {
                        slot.discard();
                    }
                    NotStarted::Settled
                })
            }
            QueuedWork::Request(mut admitted) => {
                let reply = &admitted.accepted.reply;
                let timeout = &mut admitted.accepted.job.request.timeout;
                *timeout = timeout.saturating_sub(request.since.elapsed());
                if timeout.is_zero() {
                    return Err(NotStarted::Refused(RefusalReason::Expired, reply.clone()));
                }
                if !admitted.call_time.fits_within(*timeout) {
                    return Err(NotStarted::Refused(RefusalReason::Busy, reply.clone()));
                }
                let ids = Arc::clone(&admitted.ids);
                context::sync_scope(&ids, || self.start(admitted));
                Ok(())
            }
        }
    }
}

impl SlotQueue for Queue {
    fn request_slot(self: Arc<Self>, job: GrantedJob) -> SlotAssignment {
        let GrantedJob { reply, bytes, deadline, call_time } = job;
        let (assign, assigned) = oneshot::channel();
        let work = QueuedWork::Granted { assign, deadline, call_time: Arc::clone(&call_time) };
        let request =
            SlotRequest { since: Instant::now(), reply, bytes, needs_consent: true, work };
        match self.slots.update(|slots, _| slots.consent_granted(request)) {
            SlotDecision::Refuse(reason, _) => SlotAssignment::Refused(reason),
            SlotDecision::Wait => {
                self.backlog_grew.notify_one();
                SlotAssignment::Waiting(assigned)
            }
            SlotDecision::Run(_) | SlotDecision::Claim(_) => {
                SlotAssignment::Ready(Slot::new(self, call_time))
            }
        }
    }

    fn release_claim(&self, bytes: usize, outcome: Outcome) {
        self.metrics.count_unstarted(outcome);
        let offer = self.slots.update(|slots, now| slots.consent_denied(bytes, now));
        self.send_offers(offer);
    }

    fn release_slot(
        self: Arc<Self>,
        outcome: Outcome,
        took: Duration,
        waiting_gateway: Option<Subject>,
    ) {
        self.metrics.record_call(outcome, took);
        let (freed, ahead) = self.slots.update(|slots, now| {
            slots.latency.record_call(took);
            (slots.finish(now, waiting_gateway), slots.offer(now))
        });
        if freed.start.is_some() || freed.offer.is_some() || ahead.is_some() {
            self.use_slot(freed, ahead);
        }
    }

    fn leave_backlog(&self, reply: &Subject) -> bool {
        self.cancel(reply)
    }

    fn claim_timeout(&self) -> Duration {
        let configured = self.executor.config().claim_timeout;
        self.slots.read(|slots| slots.latency.timeout(configured))
    }

    fn record_claim_answer(&self, took: Duration) {
        self.slots.update(|slots, _| slots.latency.record_round_trip(took));
    }

    fn count_refusal(&self, reason: RefusalReason) {
        self.metrics.count_refusal(reason);
    }
}
