//! The jobs that run now: where a grant, a denial or a cancel finds them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use crate::lifecycle::Cancel;
use crate::message::Subject;

/// A job of this worker. Whoever may speak to one queue of it can name no job of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId {
    /// The number of its queue.
    pub queue: usize,
    /// Its number within this worker.
    pub number: u64,
}

/// What the gateway says to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Execute.
    Granted,
    /// Do not.
    Denied,
}

/// Every job that holds a slot.
#[derive(Debug, Default)]
pub struct Jobs {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    running: BTreeMap<JobId, Running>,
}

#[derive(Debug)]
struct Running {
    cancel: Cancel,
    consent: Option<oneshot::Sender<Consent>>,
    taken: Option<watch::Sender<u32>>,
    reply: Option<Subject>,
}

/// A job's entry; removed with it.
#[derive(Debug)]
pub struct Entry {
    jobs: Arc<Jobs>,
    /// Its number.
    pub id: JobId,
    /// Given when nobody waits for it any more.
    pub cancel: Cancel,
}

impl Jobs {
    /// Enters a job of a queue.
    pub fn enter(self: &Arc<Self>, queue: usize, reply: Option<Subject>) -> Entry {
        let mut state = self.lock();
        state.next += 1;
        let id = JobId { queue, number: state.next };
        let cancel = Cancel::new();
        let running = Running { cancel: cancel.clone(), consent: None, taken: None, reply };
        state.running.insert(id, running);
        Entry { jobs: Arc::clone(self), id, cancel }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().running.len()
    }

    /// The gateway's answer to a claim. One that comes when nobody waits for it changes nothing.
    pub fn consent(&self, id: JobId, consent: Consent) {
        let waiting = self.lock().running.get_mut(&id).and_then(|job| job.consent.take());
        // The claim may have timed out in this very moment: then it was refused already.
        if waiting.is_some_and(|waiting| waiting.send(consent).is_err()) {
            tracing::debug!(?id, "a consent came too late");
        }
    }

    /// The gateway has taken the parts of this job's answer up to this one, or says so again.
    pub fn taken(&self, id: JobId, part: u32) {
        if let Some(taken) = self.lock().running.get(&id).and_then(|job| job.taken.as_ref()) {
            // What comes late says less than what came before it.
            taken.send_modify(|last| *last = part.max(*last));
        }
    }

    /// Nobody waits for this job any more.
    pub fn cancel(&self, id: JobId) {
        if let Some(job) = self.lock().running.get(&id) {
            job.cancel.cancel();
        }
    }

    /// Nobody waits for the job of this queue's request any more.
    pub fn cancel_by_reply(&self, queue: usize, reply: &Subject) {
        // A walk, because cancels are rare: an index would cost every job more than they ever cost.
        let state = self.lock();
        let of_queue = state.running.iter().filter(|(id, _)| id.queue == queue);
        for (_, job) in of_queue.filter(|(_, job)| job.reply.as_ref() == Some(reply)) {
            job.cancel.cancel();
        }
    }

    /// Cancels whatever runs: the drain is out of time.
    pub fn cancel_all(&self) {
        for job in self.lock().running.values() {
            job.cancel.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Where the gateway's answer to a claim will arrive. Listen before the claim is sent.
    #[must_use]
    pub fn await_consent(&self) -> oneshot::Receiver<Consent> {
        let (sender, receiver) = oneshot::channel();
        if let Some(job) = self.jobs.lock().running.get_mut(&self.id) {
            job.consent = Some(sender);
        }
        receiver
    }

    /// Where it will be said which parts of the answer were taken.
    #[must_use]
    pub fn watch_taken(&self) -> watch::Receiver<u32> {
        let (sender, receiver) = watch::channel(0);
        if let Some(job) = self.jobs.lock().running.get_mut(&self.id) {
            job.taken = Some(sender);
        }
        receiver
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.jobs.lock().running.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_finds_its_job_by_number_and_by_reply_subject() {
        let jobs = Arc::new(Jobs::default());
        let reply = Subject::new("inbox.1").unwrap();
        let first = jobs.enter(0, Some(reply.clone()));
        let second = jobs.enter(0, None);
        jobs.cancel_by_reply(1, &reply);
        jobs.cancel(JobId { queue: 1, ..first.id });
        assert!(!first.cancel.is_cancelled(), "another queue's");
        jobs.cancel_by_reply(0, &reply);
        assert!(first.cancel.is_cancelled());
        assert!(!second.cancel.is_cancelled());
        jobs.cancel(second.id);
        assert!(second.cancel.is_cancelled());
        drop((first, second));
        assert_eq!(jobs.count(), 0);
        jobs.cancel_by_reply(0, &reply);
    }

    #[test]
    fn a_consent_reaches_only_a_claim_that_waits() {
        let jobs = Arc::new(Jobs::default());
        let job = jobs.enter(0, None);
        jobs.consent(job.id, Consent::Granted);
        let mut claim = job.await_consent();
        assert!(claim.try_recv().is_err(), "the early one was for nobody");
        jobs.consent(job.id, Consent::Denied);
        assert_eq!(claim.try_recv(), Ok(Consent::Denied));
    }
}
