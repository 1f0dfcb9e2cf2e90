//! What waits for a slot of a queue: who gets the next one, and what is let go.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::envelope::{Reason, Reply};
use crate::message::Subject;
use crate::outcome::Word;
use crate::roles::worker::execution::call_time::CallTime;
use crate::roles::worker::execution::executor::Dispatch;
use crate::roles::worker::intake::slots::{Next, Offer, Verdict, Waiter};
use crate::telemetry::context;

use super::{Queue, Work};
use crate::roles::worker::observation::queue_metrics::calls;

/// What waits for a slot.
#[derive(Debug)]
pub enum Pending {
    /// A request of which nothing was said yet.
    Request(Work),
    /// A job that has its consent.
    Granted {
        /// Where it is told whether it has a slot.
        turn: oneshot::Sender<Turn>,
        /// When its time ends.
        deadline: Instant,
        /// How long calls of its endpoint take.
        call_time: Arc<CallTime>,
    },
}

/// What a job with consent is told: it has a slot, or why it gets none. Nothing: nobody waits for it any more.
pub type Turn = Result<(), Reason>;

/// Why a request is refused, and where that is said.
type Refusal = (Reason, Option<Subject>);

/// What becomes of a job with consent.
#[derive(Debug)]
pub enum Granted {
    /// It has a slot.
    Runs,
    /// It waits for one.
    Waits(oneshot::Receiver<Turn>),
    /// It gets none.
    Refused(Reason),
}

impl Queue {
    /// A new limit, from a reload.
    pub fn set_limit(self: &Arc<Self>, limit: usize) {
        self.slots().set_limit(limit);
        loop {
            let starts = self.slots().start_next();
            if starts.is_none() {
                break;
            }
            self.pass_on(Next { starts, offer: None }, None);
        }
        self.note_load();
    }

    /// A job has its consent: it runs, or waits for a slot.
    pub fn granted(
        &self,
        reply: Option<Subject>,
        bytes: usize,
        deadline: Instant,
        call_time: Arc<CallTime>,
    ) -> Granted {
        let (turn, receiver) = oneshot::channel();
        let work = Pending::Granted { turn, deadline, call_time };
        let waiter = Waiter { since: Instant::now(), reply, bytes, claims: true, work };
        let verdict = self.slots().granted(waiter);
        self.note_load();
        match verdict {
            Verdict::Refuse(reason, _) => Granted::Refused(reason),
            Verdict::Waits => {
                self.waits.notify_one();
                Granted::Waits(receiver)
            }
            Verdict::Take(_) | Verdict::Claim(_) => Granted::Runs,
        }
    }

    /// A job of so many bytes got no consent: others may have its place.
    pub fn not_granted(&self, bytes: usize, outcome: Word) {
        calls(&self.figures.queue, outcome).increment(1);
        let offer = self.slots().not_granted(bytes, Instant::now());
        self.note_load();
        if let Some(offer) = offer {
            self.offer(offer);
        }
    }

    /// A gateway asks who serves the queue. One that takes nothing says nothing.
    pub fn present(&self, reply: Subject) {
        if self.slots().is_open() {
            let control = Some(self.own.clone());
            self.dispatch.say(Reply::Progress { control }, reply);
        }
    }

    /// A gateway took so long to answer a claim.
    pub fn record_answer(&self, took: Duration) {
        self.slots().pace.record_answer(took);
    }

    /// How long a claim waits for its grant.
    pub fn claim_timeout(&self) -> Duration {
        self.slots().pace.at_least(self.dispatch.config.claim_timeout)
    }

    /// Waits until something waits for a slot. Safe to drop and to call again.
    pub async fn waits(&self) {
        self.waits.notified().await;
    }

    /// Gives lapsed offers to the next, lets go what has waited too long, and says when to look again.
    pub fn lapse(self: &Arc<Self>) -> Option<Instant> {
        let lapsed = self.slots().lapse(Instant::now());
        for _ in 0..lapsed.count {
            self.count_offer("lapsed");
        }
        for offer in lapsed.offers {
            self.offer(offer);
        }
        self.turn_away(Reason::Busy, lapsed.turned_away);
        self.slots().next_lapse()
    }

    /// Nobody waits any more for the answer to a request that may wait here for a slot. Whether it did.
    pub fn cancelled(&self, reply: &Subject) -> bool {
        let waiter = self.slots().cancel(reply);
        if let Some(Waiter { work: Pending::Request(work), .. }) = &waiter {
            tracing::debug!(queue = %self.name, request_id = &*work.served.request_id, "cancelled before it began");
        }
        if waiter.is_some() {
            self.note_load();
        }
        waiter.is_some()
    }

    /// Refuses everything from now on, what waits for a slot as well: this worker is about to stop.
    pub fn drain(&self) {
        let waiting = self.slots().drain();
        self.turn_away(Reason::Draining, waiting);
    }

    /// The backend of its procedures is there.
    pub fn available(&self) {
        self.slots().available();
    }

    /// The backend of its procedures is away: refuses everything, what waits for a slot as well.
    pub fn unavailable(&self) {
        let waiting = self.slots().unavailable();
        self.turn_away(Reason::Unavailable, waiting);
    }

    fn turn_away(&self, reason: Reason, waiting: impl IntoIterator<Item = Waiter<Pending>>) {
        for waiter in waiting {
            match waiter.work {
                Pending::Request(work) => self.refuse(reason, work.reply),
                // A job that is gone needs no word.
                Pending::Granted { turn, .. } => drop(turn.send(Err(reason))),
            }
        }
    }

    /// A slot is free: for a request that waits here, else for whoever was refused first.
    pub(super) fn give_back(self: &Arc<Self>, took: Duration, more: Option<Subject>) {
        let (next, ahead) = self.free(took, more);
        if next.starts.is_some() || next.offer.is_some() || ahead.is_some() {
            self.pass_on(next, ahead);
        }
    }

    fn free(&self, took: Duration, more: Option<Subject>) -> (Next<Pending>, Option<Offer>) {
        let (mut slots, now) = (self.slots(), Instant::now());
        slots.pace.record_call(took);
        (slots.finish(now, more), slots.offer_more(now))
    }

    fn pass_on(self: &Arc<Self>, mut next: Next<Pending>, ahead: Option<Offer>) {
        let mut offers: Vec<_> = next.offer.take().into_iter().chain(ahead).collect();
        loop {
            if let Some(waiter) = next.starts.take() {
                match self.begin(waiter) {
                    Ok(()) => {}
                    Err(refused) => {
                        if let Some((reason, reply)) = refused {
                            self.refuse(reason, reply);
                        }
                        let after = self.slots().finish(Instant::now(), None);
                        next.starts = after.starts;
                        offers.extend(after.offer);
                        continue;
                    }
                }
            }
            for offer in offers {
                self.offer(offer);
            }
            return;
        }
    }

    /// Begins what has a slot now. The slot is free again when its time is over or too short for such a call, which is
    /// refused, or when it is gone.
    fn begin(self: &Arc<Self>, waiter: Waiter<Pending>) -> Result<(), Option<Refusal>> {
        match waiter.work {
            Pending::Granted { turn, deadline, call_time } => {
                let left = deadline.saturating_duration_since(Instant::now());
                let told = if call_time.admit(left) { Ok(()) } else { Err(Reason::Busy) };
                let begins = told.is_ok();
                match turn.send(told) {
                    Ok(()) if begins => Ok(()),
                    _ => Err(None),
                }
            }
            Pending::Request(mut work) => {
                let budget = &mut work.job.request.timeout;
                *budget = budget.saturating_sub(waiter.since.elapsed());
                if budget.is_zero() {
                    return Err(Some((Reason::Expired, work.reply)));
                }
                if !work.call_time.admit(*budget) {
                    return Err(Some((Reason::Busy, work.reply)));
                }
                let served = Arc::clone(&work.served);
                context::within(&served, || Dispatch::start(&self.dispatch, self, work, false));
                Ok(())
            }
        }
    }
}
