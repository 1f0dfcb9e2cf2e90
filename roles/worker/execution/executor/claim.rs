//! Obtains the slot for an at-most-once job: sends a claim, waits for the grant, and then waits for
//! a slot.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::envelope::{RefusalReason, Reply};
use crate::outcome::Outcome;
use crate::roles::worker::execution::call_time::CallTime;
use crate::roles::worker::execution::running_jobs::Consent;
use crate::roles::worker::execution::slot::{GrantedJob, Slot, SlotAssignment, SlotQueue};

use super::JobTask;

impl JobTask {
    /// Claims the request and, once it is granted, waits for a slot.
    ///
    /// # Errors
    /// Returns the outcome of the job if it does not get a slot.
    pub(super) async fn claim_slot(
        &self,
        queue: Arc<dyn SlotQueue>,
        call_time: Arc<CallTime>,
        bytes: usize,
    ) -> Result<Slot, Outcome> {
        if let Err(outcome) = self.claim(&*queue).await {
            queue.release_claim(bytes, outcome);
            return Err(outcome);
        }
        let (reply, deadline) = (self.reply.clone(), self.deadline);
        let granted = GrantedJob { reply, bytes, deadline, call_time };
        match Arc::clone(&queue).request_slot(granted) {
            SlotAssignment::Ready(slot) => Ok(slot),
            SlotAssignment::Waiting(assigned) => self.wait_for_slot(&*queue, assigned).await,
            SlotAssignment::Refused(reason) => Err(self.refuse_granted(&*queue, reason)),
        }
    }

    /// Asks the gateway for its consent, and waits for the answer.
    async fn claim(&self, queue: &dyn SlotQueue) -> Result<(), Outcome> {
        // A request without a reply subject has no gateway that could consent.
        let Some(reply) = self.reply.clone() else { return Err(Outcome::NotGranted) };
        let consent = self.entry.watch_consent();
        let began = Instant::now();
        let until = self.deadline.min(began + queue.claim_timeout());
        let claim = Reply::Claim { control: self.control() };
        let is_sent = self.executor.replies.send(claim, reply).await.is_ok();
        if !is_sent {
            return Err(Outcome::NotGranted);
        }
        let answer = timeout_at(until, consent).await;
        if matches!(answer, Ok(Ok(_))) {
            queue.record_claim_answer(began.elapsed());
        }
        match answer {
            Ok(Ok(Consent::Granted)) => Ok(()),
            // The gateway expects no further reply after it has denied a claim.
            Ok(Ok(Consent::Denied) | Err(_)) => Err(Outcome::NotGranted),
            Err(_) => {
                // A grant may still arrive, but the job is no longer waiting for it. The refusal
                // lets the gateway send the request to another worker.
                self.refuse(RefusalReason::Unavailable);
                Err(Outcome::ClaimTimeout)
            }
        }
    }

    /// Waits for a slot, and reports progress so that the gateway does not treat the job as lost.
    async fn wait_for_slot(
        &self,
        queue: &dyn SlotQueue,
        mut assigned: oneshot::Receiver<Result<Slot, RefusalReason>>,
    ) -> Result<Slot, Outcome> {
        let mut progress = self.executor.progress_interval();
        let cancel = &self.entry.cancel;
        let slot = loop {
            tokio::select! {
                biased;
                slot = &mut assigned => break slot,
                () = cancel.cancelled() => {
                    let reply = self.reply.as_ref();
                    if reply.is_some_and(|reply| queue.leave_backlog(reply)) {
                        return Err(Outcome::Cancelled);
                    }
                    // The job has just left the backlog: it got a slot or was evicted.
                    break (&mut assigned).await;
                }
                _ = progress.tick() => self.report_progress(),
            }
        };
        match slot {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(reason)) => Err(self.refuse_granted(queue, reason)),
            Err(_) => Err(Outcome::Cancelled),
        }
    }

    /// Refuses a request after its grant. The job never starts, so the refusal voids the grant.
    fn refuse_granted(&self, queue: &dyn SlotQueue, reason: RefusalReason) -> Outcome {
        queue.count_refusal(reason);
        self.refuse(reason);
        Outcome::NotExecuted
    }
}
