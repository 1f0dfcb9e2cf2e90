//! The running jobs, which receive grants, denials, acknowledgements and cancel messages.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use crate::lifecycle::Cancel;
use crate::message::Subject;

/// The id of a job. It contains `queue`, so that clients of one queue cannot affect jobs in another
/// queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId {
    /// The index of the queue.
    pub queue: usize,
    /// The number of the job within this worker.
    pub number: u64,
}

/// The gateway's answer to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// The job may execute.
    Granted,
    /// The job must not execute.
    Denied,
}

/// All jobs that are running, waiting for consent, or waiting for a slot after consent.
#[derive(Debug, Default)]
pub struct RunningJobs {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_number: u64,
    jobs: BTreeMap<JobId, JobSignals>,
}

/// The channels through which a job is signalled.
#[derive(Debug)]
struct JobSignals {
    cancel: Cancel,
    consent: Option<oneshot::Sender<Consent>>,
    acknowledged: Option<watch::Sender<u32>>,
    reply: Option<Subject>,
}

/// The entry of a job in `RunningJobs`. The job is removed when its entry is dropped.
#[derive(Debug)]
pub struct JobEntry {
    jobs: Arc<RunningJobs>,
    /// The id of the job.
    pub id: JobId,
    /// Triggered when the job is cancelled.
    pub cancel: Cancel,
}

impl RunningJobs {
    /// Adds a job of a queue.
    pub fn add(self: &Arc<Self>, queue: usize, reply: Option<Subject>) -> JobEntry {
        let mut state = self.lock();
        state.last_number += 1;
        let id = JobId { queue, number: state.last_number };
        let cancel = Cancel::new();
        let signals =
            JobSignals { cancel: cancel.clone(), consent: None, acknowledged: None, reply };
        state.jobs.insert(id, signals);
        JobEntry { jobs: Arc::clone(self), id, cancel }
    }

    /// Returns the number of jobs.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Returns the number of jobs of a queue.
    #[must_use]
    pub fn count_of(&self, queue: usize) -> usize {
        let bound = |number| JobId { queue, number };
        self.lock().jobs.range(bound(0)..=bound(u64::MAX)).count()
    }

    /// Passes the answer to a claim on to its job. Does nothing if the job is not waiting for it.
    pub fn consent(&self, id: JobId, consent: Consent) {
        let claim = self.lock().jobs.get_mut(&id).and_then(|job| job.consent.take());
        // The send fails if the claim has just timed out. In that case, the job has already refused
        // the request.
        if claim.is_some_and(|claim| claim.send(consent).is_err()) {
            tracing::debug!(?id, "the answer to a claim arrived too late");
        }
    }

    /// Passes on the gateway's acknowledgement of all parts up to `part`. The acknowledgement
    /// can be a repetition.
    pub fn acknowledge(&self, id: JobId, part: u32) {
        let state = self.lock();
        if let Some(last) = state.jobs.get(&id).and_then(|job| job.acknowledged.as_ref()) {
            // Acknowledgements may arrive out of order.
            last.send_modify(|last| *last = part.max(*last));
        }
    }

    /// Cancels a job.
    pub fn cancel(&self, id: JobId) {
        if let Some(job) = self.lock().jobs.get(&id) {
            job.cancel.cancel();
        }
    }

    /// Cancels the jobs of a queue whose reply subject is `reply`.
    pub fn cancel_by_reply(&self, queue: usize, reply: &Subject) {
        // A linear scan is sufficient: these cancel messages are rare, and an index would slow down
        // every job.
        let state = self.lock();
        let of_queue = state.jobs.iter().filter(|(id, _)| id.queue == queue);
        for (_, job) in of_queue.filter(|(_, job)| job.reply.as_ref() == Some(reply)) {
            job.cancel.cancel();
        }
    }

    /// Cancels every job.
    pub fn cancel_all(&self) {
        for job in self.lock().jobs.values() {
            job.cancel.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JobEntry {
    /// Returns the receiver of the answer to a claim. Must be called before the claim is sent.
    #[must_use]
    pub fn watch_consent(&self) -> oneshot::Receiver<Consent> {
        let (sender, receiver) = oneshot::channel();
        if let Some(job) = self.jobs.lock().jobs.get_mut(&self.id) {
            job.consent = Some(sender);
        }
        receiver
    }

    /// Returns the receiver of the number of the last acknowledged part.
    #[must_use]
    pub fn watch_acknowledged(&self) -> watch::Receiver<u32> {
        let (sender, receiver) = watch::channel(0);
        if let Some(job) = self.jobs.lock().jobs.get_mut(&self.id) {
            job.acknowledged = Some(sender);
        }
        receiver
    }
}

impl Drop for JobEntry {
    fn drop(&mut self) {
        self.jobs.lock().jobs.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_finds_its_job_by_number_and_by_reply_subject() {
        let jobs = Arc::new(RunningJobs::default());
        let reply = Subject::new("inbox.1").unwrap();
        let first = jobs.add(0, Some(reply.clone()));
        let second = jobs.add(0, None);
        assert_eq!((jobs.count(), jobs.count_of(0), jobs.count_of(1)), (2, 2, 0));
        jobs.cancel_by_reply(1, &reply);
        jobs.cancel(JobId { queue: 1, ..first.id });
        assert!(!first.cancel.is_cancelled(), "the cancel message was for another queue");
        jobs.cancel_by_reply(0, &reply);
        assert!(first.cancel.is_cancelled());
        assert!(!second.cancel.is_cancelled());
        jobs.cancel(second.id);
        assert!(second.cancel.is_cancelled());
        drop((first, second));
        assert_eq!((jobs.count(), jobs.count_of(0)), (0, 0));
        jobs.cancel_by_reply(0, &reply);
    }

    #[test]
    fn consent_is_passed_only_to_a_job_that_claims() {
        let jobs = Arc::new(RunningJobs::default());
        let job = jobs.add(0, None);
        jobs.consent(job.id, Consent::Granted);
        let mut claim = job.watch_consent();
        assert!(claim.try_recv().is_err(), "the first answer arrived before the claim");
        jobs.consent(job.id, Consent::Denied);
        assert_eq!(claim.try_recv(), Ok(Consent::Denied));
    }
}
