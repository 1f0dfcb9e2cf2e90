//! The NATS subjects that this worker uses for one queue.

use crate::catalogue::QueueName;
use crate::envelope::{RESEND_TOKEN, WORKERS_TOKEN};
use crate::message::{Subject, SubjectError};

/// The name of a queue, its index within this worker, and its subjects.
#[derive(Clone, Debug)]
pub struct QueueSubjects {
    /// The name of the queue, which is also the name of the queue group.
    pub name: QueueName,
    /// The index of the queue within this worker.
    pub index: usize,
    /// The subject on which requests arrive.
    pub requests: Subject,
    /// The subject of membership queries, and of cancel messages for calls whose worker is unknown.
    pub broadcast: Subject,
    /// The subject on which gateways request missing answers.
    pub resend: Subject,
    /// This worker's own subject, the prefix of the subjects of its jobs and offers.
    pub own: Subject,
    jobs: Subject,
    offers: Subject,
}

impl QueueSubjects {
    /// Builds the subjects below `prefix`. `worker`, the id of this worker, becomes a token.
    ///
    /// # Errors
    /// `SubjectError` if a subject is too long or contains a token that NATS does not allow.
    pub fn new(
        prefix: &Subject,
        name: QueueName,
        index: usize,
        worker: &str,
    ) -> Result<Self, SubjectError> {
        let own = prefix.join(format_args!("{WORKERS_TOKEN}.{name}.{worker}"))?;
        Ok(Self {
            requests: prefix.join(format_args!("q.{name}"))?,
            broadcast: prefix.join(format_args!("cancel.{name}"))?,
            resend: prefix.join(format_args!("{RESEND_TOKEN}.{name}"))?,
            jobs: own.join("j")?,
            offers: own.join("o")?,
            own,
            name,
            index,
        })
    }

    /// Returns the subject on which grants and cancel messages for a job arrive.
    #[must_use]
    pub fn job_subject(&self, number: u64) -> Subject {
        self.jobs.join_numbers([number])
    }

    /// Returns the subject on which the answer to an offer arrives.
    #[must_use]
    pub fn offer_subject(&self, number: u64) -> Subject {
        self.offers.join_numbers([number])
    }
}
