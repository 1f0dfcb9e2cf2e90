//! The slot of a running job. `SlotQueue` keeps execution independent of intake.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::envelope::RefusalReason;
use crate::message::Subject;
use crate::outcome::Outcome;

use super::call_time::CallTime;

/// The queue to which slots belong.
pub trait SlotQueue: Debug + Send + Sync {
    /// Requests a slot for a job whose gateway has consented.
    fn request_slot(self: Arc<Self>, job: GrantedJob) -> SlotAssignment;

    /// Releases the capacity that was held for a job of `bytes` bytes whose gateway did not consent.
    fn release_claim(&self, bytes: usize, outcome: Outcome);

    /// Takes back a call's slot. `waiting_gateway` is the call's reply subject if further requests are waiting at its
    /// gateway.
    fn release_slot(
        self: Arc<Self>,
        outcome: Outcome,
        took: Duration,
        waiting_gateway: Option<Subject>,
    );

    /// Removes a job from the backlog. Returns whether the backlog contained it.
    fn leave_backlog(&self, reply: &Subject) -> bool;

    /// Returns the time for which a claim waits for its grant.
    fn claim_timeout(&self) -> Duration;

    /// Records the time that a gateway took to answer a claim.
    fn record_claim_answer(&self, took: Duration);

    /// Counts a refusal.
    fn count_refusal(&self, reason: RefusalReason);
}

/// A job that may run as soon as it has a slot.
#[derive(Debug)]
pub struct GrantedJob {
    /// The reply subject of the job.
    pub reply: Option<Subject>,
    /// The size of the request. It counts against the limit of the backlog.
    pub bytes: usize,
    /// The deadline of the job.
    pub deadline: Instant,
    /// The measured duration of calls to the job's endpoint.
    pub call_time: Arc<CallTime>,
}

/// The queue's answer to a request for a slot.
#[derive(Debug)]
pub enum SlotAssignment {
    /// The job gets a free slot.
    Ready(Slot),
    /// The job is in the backlog. The receiver gets the slot, or the reason why the job does not get one.
    Waiting(oneshot::Receiver<Result<Slot, RefusalReason>>),
    /// The job does not get a slot.
    Refused(RefusalReason),
}

/// The right to execute one call. It is returned to its queue when it is released or dropped.
#[derive(Debug)]
pub struct Slot {
    /// The slot's queue, or `None` once the slot has been returned.
    queue: Option<Arc<dyn SlotQueue>>,
    call_time: Arc<CallTime>,
    since: Instant,
}

impl Slot {
    /// Creates a slot that the queue has marked as used.
    #[must_use]
    pub fn new(queue: Arc<dyn SlotQueue>, call_time: Arc<CallTime>) -> Self {
        Self { queue: Some(queue), call_time, since: Instant::now() }
    }

    /// Returns the slot to its queue, and records the time for which it was held. See `SlotQueue::release_slot`.
    pub fn release(mut self, outcome: Outcome, waiting_gateway: Option<Subject>) {
        self.give_back(outcome, waiting_gateway);
    }

    /// Drops the slot without returning it, because the queue frees it itself.
    pub fn discard(mut self) {
        self.queue = None;
    }

    fn give_back(&mut self, outcome: Outcome, waiting_gateway: Option<Subject>) {
        let Some(queue) = self.queue.take() else { return };
        let took = self.since.elapsed();
        if outcome.is_complete() {
            self.call_time.record(took);
        } else if outcome == Outcome::SqlTimeout {
            self.call_time.record_at_least(took);
        }
        queue.release_slot(outcome, took, waiting_gateway);
    }
}

impl Drop for Slot {
    /// Returns the slot to its queue if the job's task ended early.
    fn drop(&mut self) {
        self.give_back(Outcome::Panic, None);
    }
}
