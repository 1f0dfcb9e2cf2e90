//! The way of a job that may run only with its gateway's consent: claim, grant, slot.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Instant, interval_at, timeout_at};

use crate::envelope::{Reason, Reply};
use crate::outcome::Word;
use crate::roles::worker::execution::running_jobs::Consent;
use crate::roles::worker::intake::queue::{Granted, Turn};

use super::Run;

impl Run {
    /// Asks for consent, ahead of the slot, and waits for both. Since when it has the slot, or how it ended without one.
    pub(super) async fn await_slot(&self, bytes: usize) -> Result<Instant, Word> {
        if let Err(outcome) = self.claim().await {
            self.queue.not_granted(bytes, outcome);
            return Err(outcome);
        }
        let (reply, call_time) = (self.reply.clone(), Arc::clone(&self.call_time));
        match self.queue.granted(reply, bytes, self.deadline, call_time) {
            Granted::Runs => Ok(Instant::now()),
            Granted::Waits(turn) => self.await_turn(turn).await,
            Granted::Refused(reason) => Err(self.give_up(reason)),
        }
    }

    /// Asks whether it may execute.
    async fn claim(&self) -> Result<(), Word> {
        // Without a reply subject nobody can grant it.
        let Some(reply) = self.reply.clone() else { return Err(Word::NotGranted) };
        let consent = self.entry.await_consent();
        let began = Instant::now();
        let until = self.deadline.min(began + self.queue.claim_timeout());
        let claim = Reply::Claim { control: self.control() };
        let sent = self.dispatch.send(claim, reply).await.is_ok();
        let answer = if sent { timeout_at(until, consent).await } else { Ok(Ok(Consent::Denied)) };
        if sent && matches!(answer, Ok(Ok(_))) {
            self.queue.record_answer(began.elapsed());
        }
        match answer {
            Ok(Ok(Consent::Granted)) => Ok(()),
            // A job that was cancelled or denied has nobody to answer.
            Ok(Ok(Consent::Denied) | Err(_)) => Err(Word::NotGranted),
            Err(_) => {
                // The grant may be on its way. It finds no claim any more, and this refusal tells the
                // gateway so: the request may go elsewhere.
                self.refuse(Reason::Unavailable);
                Err(Word::ClaimTimeout)
            }
        }
    }

    /// Waits for a slot. The gateway hears that the job is not lost meanwhile.
    async fn await_turn(&self, mut turn: oneshot::Receiver<Turn>) -> Result<Instant, Word> {
        let config = &self.dispatch.config;
        let first = Instant::now() + config.progress_first;
        let mut progress = interval_at(first, config.progress_interval);
        let cancel = &self.entry.cancel;
        let turn = loop {
            tokio::select! {
                biased;
                turn = &mut turn => break turn,
                () = cancel.cancelled() => {
                    let reply = self.reply.as_ref();
                    if reply.is_some_and(|reply| self.queue.cancelled(reply)) {
                        return Err(Word::Cancelled);
                    }
                    // It has just got its slot, or been let go.
                    break (&mut turn).await;
                }
                _ = progress.tick() => self.progress(),
            }
        };
        match turn {
            Ok(Ok(())) => Ok(Instant::now()),
            Ok(Err(reason)) => Err(self.give_up(reason)),
            Err(_) => Err(Word::Cancelled),
        }
    }

    /// A job that was granted never starts: the refusal says so, and voids the grant.
    fn give_up(&self, reason: Reason) -> Word {
        self.queue.count_refusal(reason);
        self.refuse(reason);
        Word::NotExecuted
    }
}
